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
    """Compile `function`, from the cache on disk where there is one.

    Neither fastmath nor threads: the same inputs give the same bits on every machine, which plans
    rely on, since ranks plan for themselves.
    """
    try:
        return njit(cache=True)(function)
    except RuntimeError:  # "cannot cache function ...: no locator available"
        return njit(function)
