"""Where errors become one line and an exit status; nothing below the commands knows either.

0 done; 1 the work itself failed (a full disk, a broken pipe's far end aside); 2 the input or the
command line was wrong; 130 interrupted, 143 by SIGTERM. `--debug`, anywhere on the line, shows the
traceback.
"""

import os
import sys
from typing import NoReturn

import click

from flashcp_cli.signals import Terminated, ignore_more, take_signals
from flashcp_cli.streams import prepare_streams

DONE, FAILED, WRONG_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def run(command: click.Command, arguments: list[str] | None = None) -> NoReturn:
    """Run `command` on `arguments` (default: the process's own) and exit with its status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in words
    words = ["--debug"] * debug + [word for word in words if word != "--debug"]
    prepare_streams()
    try:
        take_signals()
        status = command.main(words, prog_name="flashcp", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt) as error:
        ignore_more()
        ended = any(isinstance(cause, Terminated) for cause in (error, error.__cause__))
        how, status = ("stopped by SIGTERM", TERMINATED) if ended else ("interrupted", INTERRUPTED)
        _fail(f"{how}; nothing was left half-written", status, debug=debug)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        sys.exit(WRONG_INPUT)
    except click.UsageError as error:
        hint = error.ctx.command_path if error.ctx else "flashcp"
        _fail(f"{_line(error.format_message())} (see {hint} -h)", WRONG_INPUT, debug=debug)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code, debug=debug)
    except BrokenPipeError:
        # The reader of our output has gone (`flashcp ... | head`): not an error, but Python would
        # print one while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DONE)
    except MemoryError:
        _fail("out of memory; plan fewer packs at a time (--packs)", FAILED, debug=debug)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or error}{where}", FAILED, debug=debug)
    except ValueError as error:
        if not _expected(error):
            raise
        _fail(str(error), WRONG_INPUT, debug=debug)
    sys.exit(status if isinstance(status, int) else DONE)


def _expected(error: ValueError) -> bool:
    """Tell whether `error` is one of the rooms' own, whose message is meant for users."""
    import costmodel.errors
    import flashcp.errors
    import traces.errors

    return isinstance(
        error, (costmodel.errors.ProfileError, flashcp.errors.PlanError, traces.errors.TraceError)
    )


def _line(message: str) -> str:
    return " ".join(message.split()).rstrip(".")


def _fail(message: str, status: int, *, debug: bool) -> NoReturn:
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(f"flashcp: {_line(message)}", err=True)
    sys.exit(status)
