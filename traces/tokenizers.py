"""Counts the tokens of texts: with a tokenizer file, or as an estimate from their bytes."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from traces.errors import TraceError

Tokenizer = Callable[[str], Sequence[Any]]
"""From a text to its tokens, such as `tiktoken`'s `encode_ordinary`."""


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load a Hugging Face tokenizer.json; special tokens are not added.

    Raises:
        TraceError: the `tokenizers` package is missing, or the file is not a tokenizer.
    """
    try:
        # By name, so that neither the type checker nor an installation without it minds.
        library = importlib.import_module("tokenizers")
    except ImportError as error:
        raise TraceError(
            f"--tokenizer {path} needs the tokenizers package: pip install tokenizers"
        ) from error
    if not Path(path).is_file():
        raise TraceError(f"--tokenizer {path}: no such file; give a tokenizer.json")
    try:
        tokenizer = library.Tokenizer.from_file(str(path))
    except Exception as error:  # its Rust side raises bare Exception
        raise TraceError(f"--tokenizer {path} is not a tokenizer.json ({error})") from error

    def encode(text: str) -> Sequence[Any]:
        # JSON can hold half a surrogate pair, which the tokenizer refuses to take.
        whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        ids: Sequence[Any] = tokenizer.encode(whole, add_special_tokens=False).ids
        return ids

    return encode


class TextCounter:
    """Counts the tokens of texts, or estimates them from UTF-8 bytes, and how many texts it saw.

    Attributes:
        given: whether it was told how to count.
        texts: the texts counted so far.

    Raises:
        TraceError: both ways were given, or the ratio is out of range.
    """

    def __init__(self, tokenizer: Tokenizer | None, bytes_per_token: float | None) -> None:
        if tokenizer is not None and bytes_per_token is not None:
            raise TraceError("give a tokenizer or bytes per token, not both")
        if bytes_per_token is not None and not 0.1 <= bytes_per_token <= 100:  # NaN is not, either
            raise TraceError(
                f"bytes_per_token {bytes_per_token} is not between 0.1 and 100; English has about "
                "4.3"
            )
        self._tokenizer = tokenizer
        self._bytes_per_token = bytes_per_token
        self.given = tokenizer is not None or bytes_per_token is not None
        self.texts = 0

    def __call__(self, text: str) -> int:
        """Return a text's tokens; as an estimate 0 for an empty text, at least 1 for any other."""
        self.texts += 1
        if self._tokenizer is not None:
            return len(self._tokenizer(text))
        byte_count = len(text.encode("utf-8", "surrogatepass"))
        return max(round(byte_count / (self._bytes_per_token or 1)), min(byte_count, 1))

    @property
    def flag(self) -> str:
        """The option that says how to count."""
        return "--bytes-per-token" if self._tokenizer is None else "--tokenizer"

    @property
    def note(self) -> str:
        """What to tell of a trace whose texts were counted so; nothing if they were tokenized."""
        if self._bytes_per_token is None:
            return ""
        return f"lengths estimated at {self._bytes_per_token:g} bytes a token"
