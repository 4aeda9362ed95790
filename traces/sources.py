"""Tells what a TRACE is before anything of it is read, and which options that takes.

A bundled trace's or generator's bare name means that, even if a file is called the same (write
./code for the file). Then comes a file of that name; then what is written like a generator with
parameters (`lognormal:median=600,sigma=1.5`) or a mixture (`code=0.7,papers=0.3`). An option that
the TRACE has no use for is refused: ignored, it would leave a user believing that it took effect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from traces.bundled import BUNDLED
from traces.errors import TraceError, quoted, shortened, suggestion
from traces.formats import check_format
from traces.generators import GENERATORS
from traces.mixing import parse_mixture

_USERS = {
    "format": ("a file",),
    "column": ("a file",),
    "tokenizer": ("a file",),
    "bytes_per_token": ("a file",),
    "documents": ("a generator",),
    "seed": ("a generator", "a mixture"),
}
"""Option to the kinds of TRACE that have a use for it."""


@dataclass(frozen=True)
class Source:
    """What a TRACE is.

    Attributes:
        kind: "a bundled trace", "a generator", "a mixture" or "a file".
        name: as it was given.
        parts: a mixture's sources, each with its weight.
    """

    kind: str
    name: str | Path
    parts: tuple[tuple["Source", float], ...] = ()

    @property
    def shown(self) -> str:
        """Its name in messages: whole if it is a file's."""
        return str(self.name) if self.kind == "a file" else shortened(self.name)

    @property
    def options(self) -> frozenset[str]:
        """The options that it takes."""
        own = {option for option, kinds in _USERS.items() if self.kind in kinds}
        # A mixture's files need not be of one format.
        of_parts = {option for part, _ in self.parts for option in part.options} - {"format"}
        return frozenset(own | of_parts)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is read from."""
        if self.kind == "a file":
            return (Path(self.name),)
        return tuple(path for part, _ in self.parts for path in part.files)


def resolve(source: str | Path) -> Source:
    """Tell what `source` names.

    Raises:
        TraceError: nothing is there of that name.
    """
    if isinstance(source, Path):
        return Source("a file", source)
    if source in BUNDLED:
        return Source("a bundled trace", source)
    if source in GENERATORS:
        return Source("a generator", source)
    if source and _exists(source):  # an empty path would be the current folder
        return Source("a file", source)
    parts = parse_mixture(source)
    if parts:
        return Source("a mixture", source, tuple((resolve(name), weight) for name, weight in parts))
    if source.partition(":")[0] in GENERATORS:
        return Source("a generator", source)
    raise _unknown(source)


def options_for(
    source: str | Path, given: Mapping[str, object], *, beside: Sequence[str | Path] = ()
) -> dict[str, object]:
    """Return those of the options `given` that are for `source`.

    Args:
        source: the TRACE.
        given: option to value, None where it was not given.
        beside: other TRACEs for which the same options were given.

    Raises:
        TraceError: an option is neither for `source` nor for one of `beside`, there is no such
            format, or no such trace.
    """
    format_name = given.get("format")
    check_format(None if format_name is None else str(format_name))
    found = resolve(source)
    taken = {name: value for name, value in given.items() if value is not None}
    for name, value in taken.items():
        if name in found.options or any(name in resolve(other).options for other in beside):
            continue
        raise _useless(name, value, found)
    return {name: value for name, value in taken.items() if name in found.options}


def _useless(option: str, value: object, source: Source) -> TraceError:
    flag = f"--{option.replace('_', '-')}"
    shown = "" if callable(value) else f" {shortened(value)}"
    users = " or ".join(_USERS[option])
    kind = source.kind
    if source.parts:
        kind += " without one" if option != "format" else ", not one file"
    return TraceError(
        f"{flag}{shown} is for {users}, and {source.shown} is {kind}; leave {flag} out"
    )


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except PermissionError:
        return True  # it is there as far as anybody can tell; opening it says what is wrong
    except OSError:  # a name longer than the file system takes
        return False


def _unknown(source: str) -> TraceError:
    names = (*BUNDLED, *GENERATORS)
    shown = repr(shortened(source, 60))
    if "=" in source and ":" not in source:
        return TraceError(
            f"no file {shown}, and no mixture either; write one as code=0.7,papers=0.3"
        )
    near = suggestion(source.partition(":")[0], names)
    return TraceError(
        f"no file {shown}, and no bundled trace or generator of that name{near} (there are "
        f"{quoted(names)})"
    )
