"""Gets a trace from whatever names one: a file, a bundled trace, a generator or a mixture.

What a name means is told in `traces.sources`; here it is read, drawn or mixed.
"""

import errno
from pathlib import Path

from groundwork.atomic import obstacle
from traces.bundled import load_bundled
from traces.errors import TraceError, check_name, shortened
from traces.formats import detect_format
from traces.generators import DOCUMENTS, generate_from_spec
from traces.mixing import mix
from traces.readers import ReadOptions, read
from traces.sources import Source, options_for, resolve
from traces.tokenizers import TextCounter, Tokenizer
from traces.trace import Trace


def load(
    source: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the word the command line uses
    column: str | None = None,
    tokenizer: Tokenizer | None = None,
    bytes_per_token: float | None = None,
    documents: int | None = None,
    seed: int = 0,
) -> Trace:
    """Load a trace.

    Args:
        source: a file; or the name of a bundled trace; or a generator with its parameters; or a
            mixture, `source=weight,source=weight`, whose weights are shares of tokens.
        format: the file's format; None tells it from the file.
        column: the column of lengths, token ids or text; None finds it.
        tokenizer: from a text to its tokens, for a column of text.
        bytes_per_token: estimates a text's tokens from its UTF-8 bytes instead; the trace's note
            says so.
        documents: how many documents a generator makes; None makes 100,000.
        seed: draws generated lengths, and the documents of a mixture.

    Raises:
        TraceError: nothing of that name is there, it is not a trace, or it has no use for one of
            the options given.
    """
    given = {
        "format": format,
        "column": column,
        "tokenizer": tokenizer,
        "bytes_per_token": bytes_per_token,
        "documents": documents,
    }
    options_for(source, given)
    counter = TextCounter(tokenizer, bytes_per_token)
    loader = _Loader(format, column, counter, DOCUMENTS if documents is None else documents, seed)
    found = resolve(source)
    trace = loader.load(found)
    if counter.given and not counter.texts:
        raise TraceError(
            f"{found.shown} holds lengths or token ids, and no text was counted: name "
            f"the text's column with --column, or leave {counter.flag} out"
        )
    return trace


class _Loader:
    """Loads sources with the same options."""

    def __init__(
        self,
        format: str | None,  # noqa: A002
        column: str | None,
        counter: TextCounter,
        documents: int,
        seed: int,
    ) -> None:
        self._format = format
        self._column = column
        self._counter = counter
        self._documents = documents
        self._seed = seed

    def load(self, source: Source) -> Trace:
        """Load one source."""
        name = source.name
        if source.kind == "a file":
            return self._load_file(Path(name))
        if source.kind == "a bundled trace":
            return load_bundled(str(name))
        if source.kind == "a generator":
            return generate_from_spec(str(name), documents=self._documents, seed=self._seed)
        loaded = [self.load(part) for part, _ in source.parts]
        return mix(loaded, [weight for _, weight in source.parts], seed=self._seed)

    def _load_file(self, path: Path) -> Trace:
        check_name(path)
        texts_before = self._counter.texts
        try:
            if not path.is_file():
                raise TraceError(f"{path} is {_what_instead(path)}")
            path.open("rb").close()  # whether it may be read at all is told here
            chosen = detect_format(path, self._format)
            options = ReadOptions(
                format=chosen,
                column=self._column,
                text_length=self._counter if self._counter.given else None,
            )
            lengths = read(path, options)
            saved = _saved_note(path) if chosen == "parquet" else ""
        except OSError as error:
            shown = shortened(path, 60) if error.errno == errno.ENAMETOOLONG else path
            raise TraceError(f"{shown} cannot be read: {error.strerror or error}") from error
        if lengths.size == 0:
            raise TraceError(f"{path} has no documents; give a file with at least one row")
        lengths.flags.writeable = False
        note = self._counter.note if self._counter.texts > texts_before else saved
        return Trace(path.name, lengths, note)


def _saved_note(path: Path) -> str:
    from traces.readers.parquet import saved_note  # noqa: PLC0415 - pyarrow, not always needed

    return saved_note(path)


def _what_instead(path: Path) -> str:
    """Say what is at a path instead of a regular file, and the way out."""
    kind = obstacle(path)
    if kind is None:
        return "not there; check it"
    return (
        "a folder; name a file in it" if path.is_dir() else f"{kind}; save what it holds as a file"
    )
