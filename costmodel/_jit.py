"""Compiles the hot loops with numba, keeping the machine code on disk where a folder allows it.

numba refuses `cache=True` where neither the package's folder nor the user's cache folder can be
written (a read-only container without a home); there the code is compiled anew in each process,
which costs seconds, not correctness.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

_F = TypeVar("_F", bound=Callable[..., Any])


def jit(function: _F) -> _F:
    """Compile `function` when it is first called, from the cache on disk where there is one.

    Neither fastmath nor threads: the same inputs give the same bits on every machine, which plans
    rely on, since ranks plan for themselves.
    """
    try:
        return njit(cache=True)(function)
    except RuntimeError:  # "cannot cache function ...: no locator available"
        return njit(function)


def jit_as(signature: str) -> Callable[[_F], _F]:
    """Compile a function for one signature only, when its module is imported.

    Without it numba compiles a function anew for a literal 0, an int32 and an int64 argument, each
    of which takes as long: seconds for a function with loops.
    """

    def compile_now(function: _F) -> _F:
        try:
            return njit(signature, cache=True)(function)
        except RuntimeError:  # as above
            return njit(signature)(function)

    return compile_now
