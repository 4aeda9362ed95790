"""An interrupt before anything is imported ends as one later does."""

import os
import subprocess
import sys

import pytest

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


def test_interrupts_are_pythons_own_once_the_boundary_has_them():
    done = start(HANDLED.format("SIGINT", "default_int_handler"))
    assert done.stdout.endswith("True\n")
