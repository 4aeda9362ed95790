"""Counts the tokens of texts: with a tokenizer file, or as an estimate from their bytes."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from traces.columns import TextLength
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
        ids: Sequence[Any] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    return encode


class EstimatedLength:
    """Estimates a text's tokens from its UTF-8 bytes, and remembers whether it was asked to."""

    def __init__(self, bytes_per_token: float) -> None:
        self._bytes_per_token = bytes_per_token
        self._used = False

    def __call__(self, text: str) -> int:
        """Return the estimate: 0 for an empty text, at least 1 for any other."""
        self._used = True
        byte_count = len(text.encode("utf-8", "surrogatepass"))
        return max(round(byte_count / self._bytes_per_token), min(byte_count, 1))

    @property
    def note(self) -> str:
        """What to tell of a trace whose lengths were counted so; nothing if none was."""
        ratio = f"{self._bytes_per_token:g}"
        return f"lengths estimated at {ratio} bytes a token" if self._used else ""


def text_length(tokenizer: Tokenizer | None, bytes_per_token: float | None) -> TextLength | None:
    """Return how to count a text's tokens, or None where nothing was given.

    Raises:
        TraceError: both were given, or the ratio is not positive.
    """
    if tokenizer is not None and bytes_per_token is not None:
        raise TraceError("give a tokenizer or bytes per token, not both")
    if tokenizer is not None:
        return lambda text: len(tokenizer(text))
    if bytes_per_token is None:
        return None
    if not 0.1 <= bytes_per_token <= 100:
        raise TraceError(f"bytes_per_token {bytes_per_token} is not between 0.1 and 100")
    return EstimatedLength(bytes_per_token)
