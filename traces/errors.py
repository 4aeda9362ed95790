"""The one exception of this room, and the words its messages share."""

import difflib
from collections.abc import Iterable
from pathlib import Path


class TraceError(ValueError):
    """A trace, or a request about one, that is wrong: one line, with the value and the way out."""

    def __init__(self, message: str) -> None:
        # Messages of other libraries, quoted in ours, may span lines; ours never do.
        super().__init__(" ".join(message.split()))


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'code'?" for the known name nearest to `name`, or nothing."""
    nearest = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def shortened(value: object, limit: int = 40) -> str:
    """Return `value` as a message shows it: at most `limit` characters, then an ellipsis."""
    text = str(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def check_name(path: Path) -> None:
    """Refuse a file whose name is not UTF-8: pyarrow could not open it.

    Raises:
        TraceError: it is not.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise TraceError(f"{str(path)!r} is not a name in UTF-8; rename the file") from error


def quoted(names: Iterable[str], limit: int = 20) -> str:
    """Return names joined by commas, each shortened, cut after `limit` of them."""
    names = [shortened(name) for name in names]
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names)} in all)"
