"""The console that commands print to: no number is ever cut, and a reader may go away."""

from typing import NoReturn

from rich.console import Console, ConsoleDimensions
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

        For tables of numbers; those with columns of words are for `print_folded`.
        """
        unbounded = self.options.update_width(_WIDE)
        self._print_at_least(Measurement.get(self, unbounded, table).maximum, table)

    def print_folded(self, table: Table) -> None:
        """Print `table` with its words folded to the terminal's width, but no word or number cut.

        rich puts an ellipsis where a column is narrower than its longest word, and makes columns
        narrower than that unless they say how narrow they may be.
        """
        unbounded = self.options.update_width(_WIDE)
        for column in table.columns:
            cells = [Measurement.get(self, unbounded, c) for c in (column.header, *column.cells)]
            column.min_width = max(c.maximum if column.no_wrap else c.minimum for c in cells)
        self._print_at_least(Measurement.get(self, unbounded, table).minimum, table)

    def _print_at_least(self, width: int, table: Table) -> None:
        before = self.size
        # Both, because rich takes a dumb terminal (TERM=dumb) for 80 columns unless told both.
        self.size = ConsoleDimensions(max(before.width, width), before.height)
        self.print(table, crop=False)
        self.size = before


def terminal(*, stderr: bool = False) -> Terminal:
    """Return the console on standard output, or on standard error for what is no result."""
    # Names of files and profiles are printed as they are, not read as markup or names of emoji.
    return Terminal(highlight=False, markup=False, emoji=False, stderr=stderr)
