"""`flashcp trace`: look at traces of document lengths, or make them."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flashcp_cli.options import DescribedGroup, PathNamed, echo_json, json_option
from flashcp_cli.trace_options import TraceSource, trace_options

if TYPE_CHECKING:
    from traces import Statistics, Trace


@click.group(cls=DescribedGroup)
def trace() -> None:
    """Look at traces of document lengths, or make them.

    \b
    TRACE is one of
      a file        CSV, TSV, JSON Lines (or gzipped), Parquet, Arrow, .npy, Megatron-LM .idx
      a real trace  code, papers, books, wiki, long-sft
      a generator   wlb-llm, magi-attention, lognormal:median=600,sigma=1.5, fixed:4k,
                    one-long-many-short:long=64k,short=1k,many=64
      a mixture     code=0.7,papers=0.3 (shares of the tokens)
    """  # noqa: D301 - \b tells click to keep the lines


_seed_option = click.option(
    "--seed",
    type=int,
    help="Draws a generator's lengths and a mixture's documents; 0 otherwise.",
)


@trace.command()
@trace_options
@_seed_option
@json_option
def show(source: TraceSource, seed: int | None, as_json: bool) -> None:
    """Show how long TRACE's documents are, and which hold its tokens and attention work.

    Work is query-key pairs under a causal mask, of documents left whole.
    """
    from traces import describe

    loaded = _load(source, seed)
    statistics = describe(loaded)
    if as_json:
        echo_json(_document(loaded) | asdict(statistics))
    else:
        _print(loaded, statistics)


@trace.command()
@trace_options
@click.option(
    "--out",
    type=PathNamed(),
    required=True,
    help="The Parquet file to write, whole or not at all.",
)
@_seed_option
@json_option
def make(source: TraceSource, out: Path, seed: int | None, as_json: bool) -> None:
    """Write TRACE (a generator, a mixture or a file of another format) as a Parquet trace.

    \b
    flashcp trace make wlb-llm --documents 100k --seed 1 --out lengths.parquet
    flashcp trace make corpus.jsonl.gz --tokenizer tokenizer.json --out lengths.parquet
    """  # noqa: D301 - \b tells click to keep the lines
    from traces import save

    _check_out(source, out)
    made = _load(source, seed)
    save(made, out)
    if as_json:
        echo_json(_document(made) | {"out": str(out)})
    else:
        note = f" ({made.note})" if made.note else ""
        click.echo(f"{out}: {made.documents:,} documents, {made.tokens:,} tokens{note}")


def _load(source: TraceSource, seed: int | None) -> "Trace":
    from traces.sources import options_for

    options_for(source.name, {"seed": seed})
    return source.load(seed=seed or 0)


def _check_out(source: TraceSource, out: Path) -> None:
    from flashcp_cli.outputs import check_outputs
    from traces.writing import check_destination

    for path in source.inputs():
        if path.exists() and out.exists() and path.samefile(out):
            raise click.BadParameter(
                f"{out} is what TRACE is read from; name another file", param_hint="--out"
            )
    check_destination(out)
    check_outputs({"--out": out}, [])


def _document(loaded: "Trace") -> dict[str, Any]:
    return {
        "trace": loaded.name,
        "note": loaded.note,
        "fingerprint": loaded.fingerprint,
        "documents": loaded.documents,
        "tokens": loaded.tokens,
    }


def _print(loaded: "Trace", statistics: "Statistics") -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from flashcp_cli.terminal import terminal

    console = terminal()
    mean = f"{statistics.mean:,.0f} on average"
    title = f"{loaded.name}: {loaded.documents:,} documents, {loaded.tokens:,} tokens, {mean}"
    console.print(Text(title, style="bold"), soft_wrap=True)
    if loaded.note:
        console.print(Text(loaded.note, style="yellow"), soft_wrap=True)

    quantiles = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    shares = {f"{share:.1%}".replace(".0%", "%"): v for share, v in statistics.quantiles.items()}
    columns = {"shortest": statistics.shortest, **shares, "longest": statistics.longest}
    for heading in columns:
        quantiles.add_column(heading, justify="right")
    quantiles.add_row(*(f"{value:,}" for value in columns.values()))
    console.print_whole(quantiles)

    buckets = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    buckets.add_column("length up to", justify="right", no_wrap=True)
    for heading, colour in _SHARES:
        buckets.add_column(heading, justify="right", no_wrap=True)
        buckets.add_column("", style=colour, width=_BAR_CELLS)
    for bucket in statistics.buckets:
        cells = [f"{bucket.up_to:,}"]
        for share in (bucket.document_share, bucket.token_share, bucket.work_share):
            cells += [f"{share:.2%}", _bar(share)]
        buckets.add_row(*cells)
    console.print_whole(buckets)


_SHARES = (("documents", "cyan"), ("tokens", "green"), ("work", "magenta"))
_BAR_CELLS = 10
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def _bar(share: float) -> str:
    """Return a bar of at most `_BAR_CELLS` cells; a share above zero shows at least an eighth."""
    eighths = max(round(share * _BAR_CELLS * 8), int(share > 0))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
