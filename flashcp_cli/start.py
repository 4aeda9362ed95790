"""Where the process begins: an interrupt ends in one line even before anything is imported.

Importing click takes long enough for a Ctrl-C to meet it, and Python would print a traceback of the
import. So until `flashcp_cli.boundary` takes over, a handler that needs nothing answers.
"""

import os
import signal
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Run the command line, from the first instruction on as `flashcp_cli.boundary` promises."""
    # Elsewhere than in the foreground, as under nohup, interrupts are ignored and stay so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    from flashcp_cli.main import main as command

    command()


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"\nflashcp: interrupted; nothing was left half-written\n")
    os._exit(INTERRUPTED)
