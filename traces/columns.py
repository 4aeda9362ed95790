"""Finds the column that holds lengths, and says what to do where there is no such or several."""

from collections.abc import Callable, Sequence

from traces.errors import TraceError, quoted, shortened, suggestion

TextLength = Callable[[str], int]
"""From a document's text to its tokens."""

LENGTH_NAMES = (
    "length",
    "lengths",
    "len",
    "token_count",
    "token_counts",
    "tokens_count",
    "num_tokens",
    "n_tokens",
    "ntokens",
    "num_token",
    "token_length",
    "token_len",
    "doc_length",
    "doc_len",
    "document_length",
    "seq_len",
    "seq_length",
    "seqlen",
    "sequence_length",
)
IDS_NAMES = ("input_ids", "token_ids", "tokens", "ids")
TEXT_NAMES = ("text", "content", "document")


def choose_column(names: Sequence[str], column: str | None, source: str) -> str:
    """Return the column to read.

    Args:
        names: the file's columns, in order.
        column: the one the user named, if so.
        source: the file, for messages.

    Returns:
        The one named; else the only one; else the only one whose name says lengths, or failing
        that token ids, or failing that text.

    Raises:
        TraceError: there is none such, or several, or the one named comes twice.
    """
    if column is not None:
        if column not in names:
            near = suggestion(column, names)
            raise TraceError(
                f"{source}: no column {shortened(column)!r}{near} (there are {quoted(names)})"
            )
        return _once(names, column, source)
    if len(names) == 1:
        return names[0]
    for known in (LENGTH_NAMES, IDS_NAMES, TEXT_NAMES):
        found = [name for name in names if name.lower() in known]
        if len(set(found)) > 1:
            raise TraceError(
                f"{source}: several columns could be the lengths: {quoted(found)}; name one with "
                "--column"
            )
        if found:
            return _once(names, found[0], source)
    raise TraceError(
        f"{source}: no column is called length, num_tokens, input_ids or the like; name one with "
        f"--column (there are {quoted(names) or 'none at all'})"
    )


def _once(names: Sequence[str], column: str, source: str) -> str:
    if names.count(column) > 1:
        raise TraceError(
            f"{source}: column {column!r} comes {names.count(column)} times; rename all but one"
        )
    return column


def needs_tokenizer(source: str, column: str) -> TraceError:
    """Return the error for text without a way to count its tokens."""
    return TraceError(
        f"{source}: {column!r} is text; give --tokenizer tokenizer.json to count its tokens, or "
        "--bytes-per-token 4.3 for an estimate"
    )
