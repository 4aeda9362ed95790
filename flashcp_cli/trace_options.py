"""The TRACE argument and the options that say how to read it, for every command that takes one."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flashcp_cli.options import Size

if TYPE_CHECKING:
    from traces import Trace


READING = ("format", "column", "tokenizer", "bytes_per_token", "documents")
_MOST_DOCUMENTS = 1 << 27  # generators.MAX_DOCUMENTS, whose module takes too long to import for -h


@dataclass(frozen=True, kw_only=True)
class TraceSource:
    """What the user said of a trace; `load` gets it.

    Attributes:
        name: the TRACE argument.
        format: `--format`.
        column: `--column`.
        tokenizer: `--tokenizer`, the path of a tokenizer.json.
        bytes_per_token: `--bytes-per-token`.
        documents: `--documents`, for generators.
        beside: the command's other TRACEs, which the same options were given for.
    """

    name: str
    format: str | None
    column: str | None
    tokenizer: str | None
    bytes_per_token: float | None
    documents: int | None
    beside: tuple[str, ...] = ()

    def inputs(self) -> list[Path]:
        """Return the files that it is read with: its own, those of a mixture, the tokenizer.

        Raises:
            traces.TraceError: there is no such trace.
        """
        from traces.sources import resolve

        tokenizer = [] if self.tokenizer is None else [Path(self.tokenizer)]
        return [*resolve(self.name).files, *tokenizer]

    def load(self, *, seed: int = 0) -> "Trace":
        """Load the trace.

        Raises:
            traces.TraceError: there is no such trace, it is wrong, or an option is for none of
                the TRACEs given.
        """
        from traces import load
        from traces.sources import options_for
        from traces.tokenizers import load_tokenizer

        given = {
            "format": self.format,
            "column": self.column,
            "tokenizer": self.tokenizer,
            "bytes_per_token": self.bytes_per_token,
            "documents": self.documents,
        }
        options: dict[str, Any] = options_for(self.name, given, beside=self.beside)
        if "tokenizer" in options:
            options["tokenizer"] = load_tokenizer(options["tokenizer"])
        return load(self.name, **options, seed=seed)


def trace_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add TRACE and its options to a command, which receives them as `source: TraceSource`."""

    @click.argument("trace")
    @_reading_options
    @functools.wraps(function)
    def command(*arguments: Any, trace: str, reading: dict[str, Any], **rest: Any) -> None:
        function(*arguments, source=TraceSource(name=trace, **reading), **rest)

    return command


def traces_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add TRACE... and its options to a command, which gets `sources: list[TraceSource]`."""

    @click.argument("traces", metavar="TRACE...", nargs=-1, required=True)
    @_reading_options
    @functools.wraps(function)
    def command(
        *arguments: Any, traces: tuple[str, ...], reading: dict[str, Any], **rest: Any
    ) -> None:
        sources = [TraceSource(name=name, **reading, beside=traces) for name in traces]
        function(*arguments, sources=sources, **rest)

    return command


def _reading_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how to read a trace, received as `reading: dict`."""

    @click.option(
        "--format",
        metavar="FORMAT",
        help="The file's format, where its name and first bytes mislead: csv, tsv, jsonl, parquet, "
        "arrow, npy or idx (Megatron-LM).",
    )
    @click.option(
        "--column",
        metavar="NAME",
        help="The column or field of lengths, token ids or text; found by its name otherwise.",
    )
    @click.option(
        "--tokenizer",
        metavar="FILE",
        help="A Hugging Face tokenizer.json to count the tokens of a text column with.",
    )
    @click.option(
        "--bytes-per-token",
        type=float,
        metavar="RATIO",
        help="Estimate a text column's tokens from its bytes instead; English has about 4.3.",
    )
    @click.option(
        "--documents",
        type=Size(most=_MOST_DOCUMENTS),
        help="How many documents a generator makes, 128m at most (100,000 otherwise).",
    )
    @functools.wraps(function)
    def command(
        *arguments: Any,
        format: str | None,  # noqa: A002 - click names parameters for their options
        column: str | None,
        tokenizer: str | None,
        bytes_per_token: float | None,
        documents: int | None,
        **rest: Any,
    ) -> None:
        reading = {
            "format": format,
            "column": column,
            "tokenizer": tokenizer,
            "bytes_per_token": bytes_per_token,
            "documents": documents,
        }
        function(*arguments, reading=reading, **rest)

    return command
