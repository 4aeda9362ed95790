"""The part of numba's interface that this project uses, typed: numba ships no types."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

_F = TypeVar("_F", bound=Callable[..., Any])

@overload
def njit(function: _F, /) -> _F: ...
@overload
def njit(signature: str, /, *, cache: bool = ...) -> Callable[[_F], _F]: ...
@overload
def njit(*, cache: bool = ..., inline: str = ..., nogil: bool = ...) -> Callable[[_F], _F]: ...
