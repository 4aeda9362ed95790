"""The console that commands print to: no number is ever cut, and a reader may go away."""

from typing import NoReturn

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_WIDE = 10_000


class Terminal(Console):
    """A console whose broken pipe is the boundary's business, not rich's."""

    def on_broken_pipe(self) -> NoReturn:
        """Tell `flashcp_cli.boundary` that the reader of our output has gone."""
        raise BrokenPipeError

    def print_whole(self, table: Table) -> None:
        """Print `table` at its own width; a narrower terminal wraps its lines, cutting nothing.

        For tables of numbers; those with columns of words fold the words and need only `print`.
        """
        unbounded = self.options.update_width(_WIDE)
        needed = Measurement.get(self, unbounded, table).maximum
        before = self.width
        self.width = max(before, needed)
        self.print(table, crop=False)
        self.width = before


def terminal(*, stderr: bool = False) -> Terminal:
    """Return the console on standard output, or on standard error for what is no result."""
    return Terminal(highlight=False, stderr=stderr)
