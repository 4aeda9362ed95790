"""Where the process begins: an interrupt ends in one line even before anything is imported.

Importing click takes long enough for a Ctrl-C to meet it, and Python would print a traceback of the
import. So until `flashcp_cli.boundary` takes over, a handler that needs nothing answers.

SIGTERM, which `timeout`, containers and batch systems send, is answered likewise; by default it
would end the process between two instructions, and a temporary file or folder would be left. Not
under torchrun, though: there it means that another rank has failed, while this one may wait for
that rank in a call in which Python handles no signal.
"""

import os
import signal
from types import FrameType

_LINES = {
    signal.SIGINT: b"\nflashcp: interrupted; nothing was left half-written\n",
    signal.SIGTERM: b"flashcp: stopped by SIGTERM; nothing was left half-written\n",
}


def main() -> None:
    """Run the command line, from the first instruction on as `flashcp_cli.boundary` promises."""
    # Elsewhere than in the foreground, as under nohup, interrupts are ignored and stay so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and not by_torchrun:
        signal.signal(signal.SIGTERM, _end)
    from flashcp_cli.main import main as command

    command()


def _end(number: int, _frame: FrameType | None) -> None:
    os.write(2, _LINES[signal.Signals(number)])
    os._exit(128 + number)
