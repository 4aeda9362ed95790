"""The `flashcp` command group.

Each command's module is imported when that command runs: the group itself needs click alone, so
that `flashcp -h` answers at once and no command pays for another's imports.
"""

import importlib
from typing import Any

import click

from flashcp_cli.boundary import run

# command name -> (module:attribute, its line in `flashcp -h`)
COMMANDS = {
    "plan": ("flashcp_cli.plan:plan", "Shard a trace's packs with every strategy and compare."),
    "simulate": (
        "flashcp_cli.simulate:simulate",
        "Say what a cluster would do: every combination of settings, best first.",
    ),
    "calibrate": (
        "flashcp_cli.calibrate:calibrate",
        "Measure this machine and write its hardware profile.",
    ),
    "run": ("flashcp_cli.run:run", "Execute plans for real and check the prediction."),
    "trace": ("flashcp_cli.trace:trace", "Look at traces of document lengths, or make them."),
    "hardware": ("flashcp_cli.hardware:hardware", "Look at hardware profiles and their errors."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are first needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and return its command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from their one-line descriptions, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one there is."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from flashcp_cli.options import nearest

            message = f"no command {args[0]!r}; {nearest(args[0], COMMANDS)}"
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="flashcp", prog_name="flashcp")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Plan, predict and execute context parallelism for packed documents.

    \b
    flashcp trace show papers                 what the document lengths look like
    flashcp plan papers --cp 8 --context 128k how each strategy shards them, and what it costs
    """  # noqa: D301 - \b tells click to keep the lines


def main(arguments: list[str] | None = None, **_: Any) -> None:
    """Run the command line; exits with 0 (done), 1 (the work failed) or 2 (wrong input)."""
    run(cli, arguments)
