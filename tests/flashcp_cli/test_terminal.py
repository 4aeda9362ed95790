"""What commands print to: nothing is cut, and names are printed as they are."""

import io

import pytest
from rich.table import Table

from flashcp_cli.terminal import Terminal, terminal


@pytest.mark.parametrize("name", ["dumb", "xterm"])
def test_a_wide_table_is_printed_whole_on_any_terminal(name, monkeypatch):
    written = io.StringIO()
    # As on a terminal of 40 columns; rich takes a dumb one for 80.
    console = Terminal(file=written, force_terminal=True, no_color=True,
                       _environ={"TERM": name, "COLUMNS": "40"})  # fmt: skip
    table = Table()
    for column in range(30):
        table.add_column(f"column {column}", no_wrap=True)
    table.add_row(*(f"{1000 + number}.25" for number in range(30)))
    before = console.width
    console.print_whole(table)
    assert console.width == before
    assert "…" not in written.getvalue()
    assert all(f"{1000 + number}.25" in written.getvalue() for number in range(30))


def test_names_are_neither_markup_nor_emoji(capsys):
    for name in ("plans[red].parquet", "a[/].csv", "a:rocket:.csv"):
        terminal().print(f"{name}: 1 plan", soft_wrap=True)
        assert capsys.readouterr().out == f"{name}: 1 plan\n"
