"""Lets the suite be interrupted, and its children with it, however it was started.

A shell starts what it puts into the background (`make test &` in a script) with interrupts ignored,
and children inherit that; tests that interrupt a command would wait for nothing.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
