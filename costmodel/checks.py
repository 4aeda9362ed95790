"""Reads fields out of JSON documents and checks them, naming the field and its value in errors.

Files of profiles and models are edited by hand and come from other versions, so nothing is taken
on trust: a field is there, has its type, is finite and within its bounds, or the error says which
field of which file holds what.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from costmodel.errors import ProfileError
from costmodel.estimate import Source

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read the JSON object in `path`; `what` names the kind of file in errors.

    Raises:
        ProfileError: the file is missing, unreadable, not JSON, or not an object.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ProfileError(f"{what} {path} does not exist") from None
    except OSError as error:
        raise ProfileError(f"{what} {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ProfileError(f"{what} {path} is not text: byte {error.start} is not UTF-8") from None
    if not text.strip():
        raise ProfileError(f"{what} {path} is empty")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        wrong = error.msg.removesuffix(" at")  # "Unterminated string starting at"
        raise ProfileError(
            f"{what} {path} is not JSON: {wrong} at line {error.lineno}, byte {error.pos}"
        ) from None
    except RecursionError:
        raise ProfileError(f"{what} {path} is not JSON of ours: it is nested too deeply") from None
    if not isinstance(document, dict):
        raise ProfileError(f"{what} {path} holds a {type(document).__name__}, not an object")
    return document


class Fields:
    """The fields of one JSON object, `where` it stands for errors ("profile x.json: copies")."""

    def __init__(self, document: object, where: str) -> None:
        if not isinstance(document, dict):
            raise ProfileError(f"{where} is {_show(document)}, not an object")
        self.document: dict[str, Any] = document
        self.where = where

    def name_of(self, key: str) -> str:
        """Return the words that name field `key` in errors."""
        return f"{self.where}.{key}" if ":" in self.where else f"{self.where}: {key}"

    def fail(self, key: str, problem: str) -> ProfileError:
        """Return the error that field `key` has this `problem`."""
        return ProfileError(f"{self.name_of(key)} {problem}")

    def raw(self, key: str) -> Any:
        """Return field `key`, whatever it is; raises ProfileError where there is none."""
        if key not in self.document:
            raise self.fail(key, "is missing")
        return self.document[key]

    def part(self, key: str) -> Fields:
        """Return the object in field `key`."""
        return Fields(self.raw(key), self.name_of(key))

    def parts(self, key: str) -> list[Fields]:
        """Return the objects of the list in field `key`."""
        items = self.raw(key)
        if not isinstance(items, list):
            raise self.fail(key, f"is {_show(items)}, not a list")
        return [Fields(item, f"{self.name_of(key)}[{i}]") for i, item in enumerate(items)]

    def number(self, key: str, *, least: float = 0.0, most: float = math.inf) -> float:
        """Return the finite number in field `key`, within [least, most]."""
        return self._number(key, self.raw(key), least, most)

    def numbers(self, key: str, *, least: float = 0.0) -> tuple[float, ...]:
        """Return the list of finite numbers in field `key`, each at least `least`."""
        items = self.raw(key)
        if not isinstance(items, list):
            raise self.fail(key, f"is {_show(items)}, not a list of numbers")
        return tuple(
            self._number(f"{key}[{i}]", item, least, math.inf) for i, item in enumerate(items)
        )

    def whole(self, key: str, *, least: int = 0, most: int = 2**53) -> int:
        """Return the whole number in field `key`, within [least, most]."""
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(key, f"is {_show(value)}, not a whole number")
        if not least <= value <= most:
            raise self.fail(key, f"is {value}, not in {least}..{most}")
        return value

    def text(self, key: str) -> str:
        """Return the non-empty string in field `key`."""
        value = self.raw(key)
        if not isinstance(value, str) or not value.strip():
            raise self.fail(key, f"is {_show(value)}, not a text")
        return value

    def text_or_none(self, key: str) -> str | None:
        """Return the string in field `key`, or None where it is null."""
        return None if self.raw(key) is None else self.text(key)

    def flag(self, key: str) -> bool:
        """Return the true or false in field `key`."""
        value = self.raw(key)
        if not isinstance(value, bool):
            raise self.fail(key, f"is {_show(value)}, not true or false")
        return value

    def word(self, key: str, known: Iterable[str]) -> str:
        """Return the string in field `key`, one of `known`."""
        value, names = self.text(key), list(known)
        if value not in names:
            raise self.fail(key, f"is {value!r}; it must be one of: {', '.join(names)}")
        return value

    def source(self, key: str = "source") -> Source:
        """Return the source that field `key` names."""
        return Source.from_label(self.word(key, [source.label for source in Source]))

    def only(self, known: Iterable[str]) -> None:
        """Refuse fields that are not `known`: a misspelt one would be silently without effect."""
        names = set(known)
        for key in self.document:
            if key not in names:
                raise self.fail(key, "is not a field of this version")

    def _number(self, key: str, value: Any, least: float, most: float) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(key, f"is {_show(value)}, not a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.fail(key, f"is {number}, not a finite number")
        if not least <= number <= most:
            bounds = f"at least {least:g}" if most == math.inf else f"in {least:g}..{most:g}"
            raise self.fail(key, f"is {number:g}, not {bounds}")
        return number


def _show(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else text[:37] + "..."
