"""An interrupt before anything is imported ends as one later does."""

import os
import signal
import subprocess
import sys
import time

import pytest

from flashcp_cli import signals

LINE = "\nflashcp: interrupted; nothing was left half-written\n"
ENDED = "flashcp: stopped by SIGTERM; nothing was left half-written\n"


# Runs a command to its end and tells whether a signal has this handler then.
HANDLED = """
import signal, sys
sys.argv[1:] = ['--version']
from flashcp_cli.start import main
try:
    main()
finally:
    print(signal.getsignal(signal.{}) is signal.{})
"""


def start(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **options
    )


@pytest.mark.parametrize(
    ("number", "status", "line"), [("SIGINT", 130, LINE), ("SIGTERM", 143, ENDED)]
)
def test_an_interrupt_during_the_imports_is_one_line_and_its_status(number, status, line):
    done = start(
        "import os, signal, sys\n"
        "class Import:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click':\n"
        f"            os.kill(os.getpid(), signal.{number})\n"
        "sys.meta_path.insert(0, Import())\n"
        "from flashcp_cli.start import main\n"
        "main()\n"
    )
    assert (done.returncode, done.stderr, done.stdout) == (status, line, "")


def test_under_torchrun_sigterm_ends_a_rank_whatever_it_waits_for():
    done = start(
        HANDLED.format("SIGTERM", "SIG_DFL"), env={**os.environ, "TORCHELASTIC_RUN_ID": "1"}
    )
    assert done.stdout.endswith("True\n")


def test_where_interrupts_are_ignored_they_stay_ignored():
    done = start(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "sys.argv[1:] = ['--version']\n"
        "from flashcp_cli.start import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("True\n")


def test_starting_needs_nothing_but_signals():
    done = start(
        "import sys; before = set(sys.modules)\n"
        "import flashcp_cli.start\n"
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    assert "click" not in done.stdout


def test_a_burst_of_interrupts_is_one(monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now_s[0])
    answer = signals._Answer()
    with pytest.raises(KeyboardInterrupt):
        answer(signal.SIGINT, None)
    for later_s in (0.001, 0.9):
        now_s[0] = 100.0 + later_s
        answer(signal.SIGINT, None)
        answer(signal.SIGTERM, None)
    now_s[0] = 101.1
    with pytest.raises(signals.Terminated):
        answer(signal.SIGTERM, None)


class Going:
    def __init__(self, answer):
        self.answer = answer

    def _raw_object_cache_notify(self):
        self.answer(signal.SIGINT, sys._getframe())

    def __del__(self):
        self.answer(signal.SIGINT, sys._getframe())


@pytest.mark.parametrize("caller", [Going.__del__, Going._raw_object_cache_notify])
def test_an_interrupt_that_would_be_lost_comes_a_moment_later(caller):
    before = signal.getsignal(signal.SIGALRM)
    going = Going(signals._Answer())
    try:
        caller(going)  # raises nothing here
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)
    finally:
        going.answer = lambda *_: None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_the_boundary_takes_over_what_is_not_ignored():
    done = start(
        "import signal, sys\n"
        "sys.argv[1:] = ['--version']\n"
        "from flashcp_cli.start import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print([type(signal.getsignal(n)).__name__ for n in (signal.SIGINT, signal.SIGTERM)])\n"
    )
    assert done.stdout.endswith("['_Answer', '_Answer']\n")
