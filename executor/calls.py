"""Calls functions whose parameters differ between releases with those that they have."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=64)
def parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's parameters, also of torch's operators and custom ops."""
    # A custom op's own `_schema` is a string.
    schema = getattr(getattr(function, "_opoverload", function), "_schema", None)
    if schema is not None:
        return tuple(argument.name for argument in schema.arguments)
    return tuple(inspect.signature(function).parameters)


def call(function: Callable[..., Any], /, **given: Any) -> Any:
    """Call `function` with those of the given arguments that it takes."""
    known = parameters(function)
    return function(**{name: value for name, value in given.items() if name in known})
