"""Signals of a command."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = """
import _thread, os, signal, sys, threading
from types import SimpleNamespace
from pickaxe_services.cli.failure import Terminated
from pickaxe_services.cli.interrupt import running

there, here = os.pipe()
# Noted for Python's handlers as a signal is, without ending the read: one that came a moment before it.
threading.Timer(0.5, _thread.interrupt_main, [signal.Signals[sys.argv[1]]]).start()
with running(SimpleNamespace(timeout=None, seed=0, budget=None)) as call:
    try:
        os.read(there, 1)
    except KeyboardInterrupt as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize(("number", "raised"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "Terminated")])
def test_a_signal_noted_before_a_read_that_blocks_ends_the_read(number: str, raised: str) -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED, number], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [raised], done.stderr
