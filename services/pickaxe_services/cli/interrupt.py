"""Ctrl-C and SIGTERM in a command: the model run in flight stops, then the command."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pickaxe.call import Call
from pickaxe_services.cli.failure import Terminated
from pickaxe_services.cli.options import Common

if TYPE_CHECKING:
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INSIST_SECONDS = 0.2


@contextmanager
def running(common: Common) -> Iterator[Call]:
    """The call of this command, which a signal cancels; the block is left with `Terminated` or `KeyboardInterrupt`."""
    call = Call(timeout=common.timeout, seed=common.seed, budget=common.budget)
    heard = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        heard.set()
        # In a thread: the interrupted code may hold the call's lock.
        threading.Thread(target=call.cancel, daemon=True).start()
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield call
        return
    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        with _insisting(heard):
            yield call
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _insisting(heard: threading.Event) -> Iterator[None]:
    """Send a signal again until its handler ran.

    Python only notes a signal that comes after it last looked for one and before a read that blocks, and runs the
    handler when the read ends; the signal sent again ends the read.
    """
    here, there = socket.socketpair()
    main = threading.get_ident()

    def insist() -> None:
        while noted := there.recv(1):
            while noted[0] in SIGNALS and not heard.wait(INSIST_SECONDS):
                signal.pthread_kill(main, noted[0])

    here.setblocking(False)
    before = signal.set_wakeup_fd(here.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=insist, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        heard.set()
        here.close()
        thread.join()
        there.close()
