"""A progress bar on the error stream, for work that is long enough to want one."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from executor.calibration.store import Progress as Measured

Advance = Callable[[int], None]

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
    with counted("packs", hidden=hidden) as begin:
        yield begin(0, packs)


@contextmanager
def counted(
    what: str, *, hidden: bool = False, least: int = SHORT_PACKS + 1
) -> Iterator[Callable[[int, int], Advance]]:
    """Show how many are done, where the number to do is known only once work has begun.

    Args:
        what: what is counted.
        hidden: show nothing.
        least: show nothing either where fewer are to do.

    Yields:
        A function to call with how many are done already and how many there will be; it returns
        what to call with how many were done since the last call.
    """
    with ExitStack() as stack:

        def begin(done: int, total: int) -> Advance:
            if hidden or total - done < least or not sys.stderr.isatty():
                return lambda _: None
            bar = stack.enter_context(_bar(what))
            task = bar.add_task("", total=total, completed=done)
            return lambda more: bar.advance(task, more)

        yield begin


def _bar(what: str) -> "Progress":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from flashcp_cli.terminal import terminal

    return Progress(
        TextColumn("planning"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(what),
        TimeRemainingColumn(),
        console=terminal(stderr=True),
        transient=True,
    )


@contextmanager
def of_calibration() -> Iterator[Callable[["Measured"], None]]:
    """Show how far a calibration is and how long the rest will take, where there is a terminal.

    Yields:
        A function to call with each `Progress`.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TextColumn

    from flashcp_cli.terminal import terminal

    bar = Progress(
        TextColumn("measuring {task.description}"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total} points, {task.fields[left]} left"),
        console=terminal(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None, left="?")
        yield lambda progress: bar.update(
            task,
            description=progress.stage,
            completed=progress.done,
            total=progress.planned,
            left=_duration(progress.left_s),
        )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
