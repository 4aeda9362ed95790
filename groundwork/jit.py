"""Compiles the hot loops with numba, keeping the machine code on disk where a folder allows it.

Two things numba does not do by itself. It refuses `cache=True` where neither the package's folder
nor the user's cache folder can be written (a read-only container without a home); there the code is
compiled anew in each process, which costs seconds, not correctness. And it takes cached code for
fresh as long as the function's own file is unchanged, though functions of other files are compiled
into it; so the cache is also stamped with all the sources that compiled code is made of.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from numba import njit

_F = TypeVar("_F", bound=Callable[..., Any])
# The packages whose compiled functions may call one another's; executor/ has one by itself.
_PACKAGES = ("costmodel", "flashcp", "traces")
_LEAN = {"_nrt": False}  # no runtime that counts references; making an array then fails to compile


def jit(function: _F) -> _F:
    """Compile `function` when it is first called, from the cache on disk where there is one.

    Neither fastmath nor threads: the same inputs give the same bits on every machine, which plans
    rely on, since ranks plan for themselves.
    """
    return _compiled(function, None)


def jit_lean(function: _F) -> _F:
    """Compile a function that makes no arrays, without counting references to those it is given.

    Whoever calls it holds them. numba counts with locked instructions, at every call and every row
    of an array that is looked at, unless it sees through all branches; without them the search
    behind `auto` takes two thirds of the time.
    """
    return _compiled(function, None, _LEAN)


def jit_as(signature: str, *, lean: bool = False) -> Callable[[_F], _F]:
    """Compile a function for one signature only, when its module is imported.

    Without it numba compiles a function anew for a literal 0, an int32 and an int64 argument, each
    of which takes as long: seconds for a function with loops. `lean` is as of `jit_lean`.
    """
    return lambda function: _compiled(function, signature, _LEAN if lean else {})


def _compiled(
    function: _F, signature: str | None, options: Mapping[str, Any] = MappingProxyType({})
) -> _F:
    dispatcher: Any
    try:
        dispatcher = njit(cache=True, **options)(function)
        stamped = dispatcher._cache._cache_file
        stamped._source_stamp = (stamped._source_stamp, _sources())
    except (RuntimeError, AttributeError):  # no folder for a cache; or no cache of this kind
        dispatcher = njit(**options)(function)
    if signature is not None and hasattr(dispatcher, "compile"):  # not with NUMBA_DISABLE_JIT=1
        dispatcher.compile(signature)
        dispatcher.disable_compile()
    compiled: _F = dispatcher
    return compiled


@cache
def _sources() -> str:
    """Return a hash of all modules with compiled functions; a few milliseconds."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for source in sorted(Path(folder).rglob("*.py")):
                text = source.read_bytes()
                if b"groundwork.jit" in text:
                    digest.update(text)
    return digest.hexdigest()
