"""What the commands' options have in common: sizes with suffixes, lists, suggestions, JSON."""

import json
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])
MOST_SECONDS = 7 * 24 * 3600  # of a --timeout
_WHOLE = 1000
_HUGE = 1e30  # beyond all bounds, and finite
_SUFFIXES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which of `known` the user may have meant, or list them all.

    Args:
        word: what the user wrote.
        known: every name there is.

    Returns:
        "did you mean 'per-doc'?" or "there are: ring, zigzag, ...".
    """
    names = list(known)
    close = get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"


class Size(click.ParamType[int]):
    """A whole number within bounds, with the suffixes k, m and g as powers of 1,024."""

    name = "size"

    def __init__(self, *, least: int = 1, most: int = 2**31 - 1) -> None:
        self.least = least
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number that `value` writes, or fail naming it and the bounds."""
        written = str(value).strip().lower()
        shown = written if len(written) <= 40 else written[:40] + "..."
        if isinstance(value, int):
            number = value
        else:
            match = re.fullmatch(r"([0-9]+(?:\.[0-9]{1,9})?)([kmg]?)", written)
            exact = min(float(match[1]) * _SUFFIXES[match[2]], _HUGE) if match else 0.5
            if exact != int(exact):
                self.fail(f"{shown!r} is not a whole number such as 8, 4096 or 128k", param, ctx)
            number = int(exact)
        if not self.least <= number <= self.most:
            self.fail(f"{shown} is not in {self.least}..{self.most}", param, ctx)
        return number


class Number(click.ParamType[float]):
    """A number within bounds; NaN is in none."""

    name = "number"

    def __init__(self, *, least: float, most: float) -> None:
        self.least = least
        self.most = most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number that `value` writes, or fail naming it and the bounds."""
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{str(value)[:40]!r} is not a number", param, ctx)
        if not self.least <= number <= self.most:
            self.fail(f"{value} is not in {self.least:g}..{self.most:g}", param, ctx)
        return number


class PathNamed(click.Path):
    """A path, as pathlib's; an empty one, which pathlib takes for the current folder, is none."""

    def __init__(self, *, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(path_type=Path, file_okay=file_okay, dir_okay=dir_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail where a script's variable was not set."""
        if value == "":
            kind = "file" if self.file_okay else "folder"
            self.fail(f"'' is no path; name a {kind}", param, ctx)
        return super().convert(value, param, ctx)


class DescribedGroup(click.Group):
    """A group that describes each of its commands by a whole sentence; click cuts it to a line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands with the first sentence of each one's help."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(limit=_WHOLE))
                    for name in self.list_commands(ctx)
                    if (command := self.get_command(ctx, name)) is not None
                ]
            )


class Name(click.ParamType[str]):
    """One of some names; a wrong one is answered with the nearest right one."""

    name = "name"

    def __init__(self, names: Iterable[str], *, metavar: str = "NAME") -> None:
        self.names = list(names)
        self.name = metavar.lower()

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Show every name in the help."""
        return f"[{'|'.join(self.names)}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return `value` if it is one of the names."""
        if value not in self.names:
            self.fail(f"{value!r} is unknown; {nearest(str(value), self.names)}", param, ctx)
        return str(value)


class CommaList(click.ParamType[tuple[Any, ...]]):
    """Values of another type between commas, without repeats: `2,4,8`."""

    def __init__(self, of: click.ParamType[Any]) -> None:
        self.of = of
        self.name = f"{of.name},..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Return the values in the order given."""
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in str(value).split(",")]
        if not all(words):
            self.fail(f"{value!r} has an empty place between commas", param, ctx)
        items = tuple(self.of.convert(word, param, ctx) for word in words)
        if len(set(items)) < len(items):
            self.fail(f"{value!r} names the same thing twice", param, ctx)
        return items


def json_option(function: _F) -> _F:
    """Add `--json`: one JSON document on standard output and nothing else there."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document instead of tables."
    )(function)


def echo_json(document: dict[str, Any]) -> None:
    """Print `document` as the command's one JSON document; NaN and infinity are refused."""
    click.echo(json.dumps(document, allow_nan=False, indent=2))
