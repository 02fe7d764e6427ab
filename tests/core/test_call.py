"""Calls: deadlines, cancelling, and interrupting what blocks."""

import threading
import time

import pytest

from pickaxe.call import Call
from pickaxe.errors import Cancelled, DeadlineExceeded


def test_a_plain_call_never_ends() -> None:
    call = Call()
    call.check()
    assert (call.remaining(), call.over, call.seed, call.budget) == (None, False, 0, None)


def test_the_earlier_of_deadline_and_timeout_counts() -> None:
    soon = time.monotonic() + 1
    assert Call(deadline=soon, timeout=100).deadline == soon
    assert Call(deadline=soon + 1000, timeout=1).remaining() == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("timeout", [0, -1, -1e9])
def test_a_call_without_time_is_over(timeout: float) -> None:
    call = Call(timeout=timeout)
    assert call.remaining() == 0
    with pytest.raises(DeadlineExceeded):
        call.check()
    with pytest.raises(DeadlineExceeded), call.interruptible(lambda: None):
        pass


def test_cancelled_wins_over_expired() -> None:
    call = Call(timeout=0)
    call.cancel()
    with pytest.raises(Cancelled):
        call.check()


def test_cancel_interrupts_every_block_once() -> None:
    call, seen = Call(), []
    with call.interruptible(lambda: seen.append("a")), call.interruptible(lambda: seen.append("b")):
        call.cancel()
        call.cancel()
    assert sorted(seen) == ["a", "b"]


def test_the_same_interrupt_may_guard_two_blocks() -> None:
    call, seen = Call(), []

    def interrupt() -> None:
        seen.append(1)

    with call.interruptible(interrupt):
        with call.interruptible(interrupt):
            pass
        call.cancel()
    assert seen == [1]


def test_nothing_is_interrupted_after_the_block() -> None:
    call, seen = Call(timeout=0.05), []
    with call.interruptible(lambda: seen.append(1)):
        pass
    time.sleep(0.15)
    call.cancel()
    assert not seen


def test_the_deadline_interrupts() -> None:
    stopped = threading.Event()
    with Call(timeout=0.02).interruptible(stopped.set):
        assert stopped.wait(10)


def test_the_deadline_interrupts_whatever_block_is_open_then() -> None:
    call, seen, stopped = Call(timeout=0.2), [], threading.Event()
    for _ in range(3):
        with call.interruptible(lambda: seen.append(1)):
            pass
    with call.with_budget(1).interruptible(stopped.set):
        assert stopped.wait(10)
    assert call.expired
    assert not seen


def test_one_thread_watches_a_call_and_ends_with_it() -> None:
    before = set(threading.enumerate())
    call = Call(timeout=600)
    for _ in range(5):
        with call.interruptible(lambda: None):
            pass
    (watching,) = set(threading.enumerate()) - before
    del call
    watching.join(10)
    assert not watching.is_alive()


def test_a_block_entered_after_cancel_is_refused() -> None:
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled), call.interruptible(lambda: None):
        raise AssertionError("the block ran")


def test_a_block_that_raises_is_forgotten() -> None:
    call, seen = Call(), []
    with pytest.raises(ValueError, match="x"), call.interruptible(lambda: seen.append(1)):
        raise ValueError("x")
    call.cancel()
    assert not seen


def test_cancel_waits_for_no_block_and_blocks_wait_for_the_interrupt() -> None:
    call, order = Call(), []
    entered, go = threading.Event(), threading.Event()

    def interrupt() -> None:
        go.set()
        time.sleep(0.05)
        order.append("interrupted")

    def work() -> None:
        with call.interruptible(interrupt):
            entered.set()
            go.wait(10)
        order.append("left")

    worker = threading.Thread(target=work)
    worker.start()
    entered.wait(10)
    call.cancel()
    worker.join(10)
    assert order == ["interrupted", "left"]
