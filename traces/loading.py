"""Gets a trace from whatever names one: a file, a bundled trace, a generator or a mixture.

A bundled trace's or generator's bare name means that, even if a file is called the same (write
./code for the file). Then comes a file of that name; then what is written like a generator with
parameters (`lognormal:median=600,sigma=1.5`) or a mixture (`code=0.7,papers=0.3`).
"""

from pathlib import Path

from traces.bundled import BUNDLED, load_bundled
from traces.errors import TraceError, quoted, suggestion
from traces.formats import detect_format
from traces.generators import DOCUMENTS, GENERATORS, generate_from_spec
from traces.mixing import mix, parse_mixture
from traces.readers import ReadOptions, read
from traces.tokenizers import EstimatedLength, Tokenizer, text_length
from traces.trace import Trace


def load(
    source: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the word the command line uses
    column: str | None = None,
    tokenizer: Tokenizer | None = None,
    bytes_per_token: float | None = None,
    documents: int = DOCUMENTS,
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
        documents: how many documents a generator makes.
        seed: draws generated lengths, and the documents of a mixture.

    Raises:
        TraceError: nothing of that name is there, or it is not a trace.
    """
    if isinstance(source, str):
        if source in BUNDLED:
            return load_bundled(source)
        if source in GENERATORS:
            return generate_from_spec(source, documents=documents, seed=seed)
    if Path(source).exists() or isinstance(source, Path):
        return _load_file(
            Path(source),
            format=format,
            column=column,
            tokenizer=tokenizer,
            bytes_per_token=bytes_per_token,
        )
    parts = parse_mixture(source)
    if parts:
        loaded = [
            load(
                name,
                column=column,
                tokenizer=tokenizer,
                bytes_per_token=bytes_per_token,
                documents=documents,
                seed=seed,
            )
            for name, _ in parts
        ]
        return mix(loaded, [weight for _, weight in parts], seed=seed)
    if source.partition(":")[0] in GENERATORS:
        return generate_from_spec(source, documents=documents, seed=seed)
    raise _unknown(source)


def _load_file(
    path: Path,
    *,
    format: str | None,  # noqa: A002
    column: str | None,
    tokenizer: Tokenizer | None,
    bytes_per_token: float | None,
) -> Trace:
    counted = text_length(tokenizer, bytes_per_token)
    try:
        if not path.is_file():
            kind = "a folder; name a file in it" if path.is_dir() else "not there; check the path"
            raise TraceError(f"{path} is {kind}")
        path.open("rb").close()  # whether it may be read at all is told here
        chosen = detect_format(path, format)
        lengths = read(path, ReadOptions(format=chosen, column=column, text_length=counted))
        saved = _saved_note(path) if chosen == "parquet" else ""
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror or error}") from error
    if lengths.size == 0:
        raise TraceError(f"{path} has no documents; give a file with at least one row")
    lengths.flags.writeable = False
    note = counted.note if isinstance(counted, EstimatedLength) else ""
    return Trace(path.name, lengths, note or saved)


def _saved_note(path: Path) -> str:
    from traces.readers.parquet import saved_note  # noqa: PLC0415 - pyarrow, not always needed

    return saved_note(path)


def _unknown(source: str) -> TraceError:
    names = (*BUNDLED, *GENERATORS)
    if "=" in source and ":" not in source:
        return TraceError(
            f"no file {source!r}, and no mixture either; write one as code=0.7,papers=0.3"
        )
    near = suggestion(source.partition(":")[0], names)
    return TraceError(
        f"no file {source!r}, and no bundled trace or generator of that name{near} (there are "
        f"{quoted(names)})"
    )
