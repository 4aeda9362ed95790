"""A progress bar on the error stream, for work that is long enough to want one."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHORT_PACKS = 64


@contextmanager
def over_packs(packs: int, *, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """Show how many packs are done and how long the rest will take.

    Args:
        packs: how many there are; few are done before a bar could be read.
        hidden: show nothing.

    Yields:
        A function to call with the number of packs done since the last call.
    """
    if hidden or packs <= SHORT_PACKS or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("planning"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("packs"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=packs)
        yield lambda done: bar.advance(task, done)
