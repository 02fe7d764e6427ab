"""Many callers at once: shared runs, full queues, hanging methods, callers who leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from service_methods import GATE

import pickaxe
from pickaxe import Scores
from pickaxe.errors import Cancelled, DeadlineExceeded, InvalidItems, MethodFailed, Overloaded, PickaxeError
from pickaxe_services import Client

T = TypeVar("T")


def eventually(holds: Callable[[], bool], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.01)


def held(client: Client, pool: ThreadPoolExecutor, name: str = "t-length") -> Any:
    """A call that holds the method's lane until the gate opens."""
    first = pool.submit(client.scorer(name).score, ["wait"])
    assert GATE.entered.wait(10)
    return first


def test_64_callers_share_runs_and_get_what_they_would_get_alone(server: Client) -> None:
    with ThreadPoolExecutor(65) as pool:
        first = held(server, pool)
        batches = [["x" * ((caller + row) % 9) for row in range(1 + caller % 3)] for caller in range(64)]
        callers = [pool.submit(server.scorer("t-length").score, batch) for batch in batches]
        time.sleep(0.5)  # let them gather behind the first
        GATE.open()
        results: list[Scores] = [caller.result(20) for caller in callers]
        first.result(20)
    alone = pickaxe.scorer("t-length")
    for batch, result in zip(batches, results, strict=True):
        assert result.primary.tolist() == alone.score(batch).primary.tolist()
    assert all(result.timings is not None for result in results)
    merged = [result.timings.batched_with for result in results if result.timings]
    assert sum(count > 0 for count in merged) > 32
    assert max(GATE.runs) <= 1024


def test_a_bad_item_hurts_only_its_caller(server: Client) -> None:
    with ThreadPoolExecutor(9) as pool:
        first = held(server, pool)
        texts = ["a", "bad", "ccc", "dddd"]
        callers = [pool.submit(server.scorer("t-length").score, [text]) for text in texts]
        lacking = pool.submit(server.scorer("t-length").score, [pickaxe.Item("no text")])
        with pytest.raises(InvalidItems, match=r"items\[0\]"):
            lacking.result(10)
        time.sleep(0.3)
        GATE.open()
        first.result(10)
        with pytest.raises(MethodFailed, match="a bad text"):
            callers.pop(1).result(10)
        assert [caller.result(10).primary.tolist() for caller in callers] == [[1], [3], [4]]


def test_results_that_report_on_a_whole_call_are_never_shared(server: Client) -> None:
    with ThreadPoolExecutor(9) as pool:
        first = held(server, pool, "t-reporting")
        callers = [pool.submit(server.scorer("t-reporting").score, ["x" * size] * 2) for size in range(8)]
        time.sleep(0.3)
        GATE.open()
        first.result(10)
        assert [caller.result(10).summary for caller in callers] == [{"total": 2 * size} for size in range(8)]


def test_calls_with_other_seeds_or_tenants_are_not_merged(serve: Any) -> None:
    with serve() as client, ThreadPoolExecutor(9) as pool:
        first = held(client, pool)
        callers = [pool.submit(client.scorer("t-length").score, ["a"], seed=seed) for seed in range(4)]
        time.sleep(0.3)
        GATE.open()
        results = [caller.result(10) for caller in callers]
        first.result(10)
    assert [result.timings.batched_with for result in results if result.timings] == [0] * 4
    assert sorted(call.seed for call in GATE.calls) == [0, 0, 1, 2, 3]


def test_a_full_queue_refuses_and_says_when_to_come_back(serve: Any) -> None:
    with serve(max_items_waiting=10, client={"retries": 0}) as client, ThreadPoolExecutor(9) as pool:
        first = held(client, pool)
        waiting = pool.submit(client.scorer("t-length").score, ["a"] * 8)
        refused: list[Overloaded] = []

        def is_full() -> bool:
            try:
                client.scorer("t-length").score(["a"] * 5, timeout=0.2)
            except Overloaded as error:
                refused.append(error)
            except DeadlineExceeded:
                return False
            return bool(refused)

        eventually(is_full)
        assert refused[0].retry_after is not None
        assert refused[0].retry_after > 0
        assert refused[0].metadata["limit"] == "10"
        GATE.open()
        assert len(waiting.result(10)) == 8
        first.result(10)


def test_a_client_comes_back_when_the_server_said(serve: Any) -> None:
    with serve(max_items_waiting=10, client={"retries": 50}) as client, ThreadPoolExecutor(12) as pool:
        first = held(client, pool)
        callers = [pool.submit(client.scorer("t-length").score, ["a"] * 8) for _ in range(6)]
        threading.Timer(0.5, GATE.open).start()
        assert [len(caller.result(30)) for caller in callers] == [8] * 6
        first.result(10)


def test_waiting_callers_who_leave_cost_nothing(server: Client) -> None:
    with ThreadPoolExecutor(9) as pool:
        first = held(server, pool)
        gone = [pool.submit(server.scorer("t-length").score, ["gone"], timeout=0.2) for _ in range(5)]
        for caller in gone:
            with pytest.raises(DeadlineExceeded):
                caller.result(10)
        GATE.open()
        first.result(10)
        server.scorer("t-length").score(["a"])
    assert GATE.runs == [1, 1]


def test_a_hanging_method_costs_its_callers_their_deadline_and_others_nothing(server: Client) -> None:
    begun = time.monotonic()
    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            server.scorer("t-stuck").score(["a"], timeout=0.3)
        assert server.scorer("t-length").score(["abc"]).primary.tolist() == [3]
    assert time.monotonic() - begun < 10


def test_a_lane_goes_on_with_a_new_thread_after_a_hang(server: Client) -> None:
    with pytest.raises(DeadlineExceeded):
        server.scorer("t-length").score(["wait"], timeout=0.3)
    assert server.scorer("t-length").score(["abc"], timeout=10).primary.tolist() == [3]


def test_stuck_threads_are_bounded(serve: Any) -> None:
    with serve(max_threads=4, client={"retries": 0}) as client:

        def is_full() -> bool:
            try:
                client.scorer("t-stuck").score(["a"], timeout=0.3)
            except Overloaded:
                return True
            except DeadlineExceeded:
                return False
            return False

        eventually(is_full, 20)
        GATE.open()
        eventually(lambda: _works(lambda: client.scorer("t-length").score(["a"])))


def _works(use: Callable[[], object]) -> bool:
    try:
        use()
    except PickaxeError:
        return False
    return True


def test_only_idle_methods_make_room_for_others(serve: Any) -> None:
    with serve(max_open_methods=1, client={"retries": 0}) as client, ThreadPoolExecutor(2) as pool:
        first = held(client, pool)
        with pytest.raises(Overloaded, match="in use"):
            client.scorer("t-typed").score(["a"])
        GATE.open()
        first.result(10)
        assert len(client.scorer("t-typed").score(["a"])) == 1
        assert len(client.scorer("t-length").score(["a"])) == 1


def test_closing_a_decode_stream_stops_the_method_within_a_step(server: Client) -> None:
    chunks = server.decoder("t-words", pause=0.01).decode("forever")
    for _ in range(5):
        next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert GATE.closed.wait(10)
    steps = GATE.steps
    time.sleep(0.2)
    assert GATE.steps == steps
    assert GATE.calls[-1].cancelled


def test_a_slow_reader_holds_the_decoder_back(server: Client) -> None:
    chunks = server.decoder("t-words", times=10_000).decode("forever")
    next(chunks)
    eventually(lambda: _settled(lambda: GATE.steps))
    chunks.close()  # type: ignore[attr-defined]
    assert GATE.closed.wait(10)


def _settled(value: Callable[[], int]) -> bool:
    before = value()
    time.sleep(0.2)
    return value() == before


def test_a_decoder_that_hangs_is_left_behind(server: Client) -> None:
    with pytest.raises(DeadlineExceeded):
        server.decoder("t-words").complete("hang", timeout=0.3)
    assert server.decoder("t-words").complete("fine")[-1].text == "fine "


def test_a_cancelled_caller_reaches_the_method(server: Client) -> None:
    given = pickaxe.Call()
    with ThreadPoolExecutor(1) as pool:
        caller = pool.submit(server.scorer("t-length").score, ["wait"], call=given)
        assert GATE.entered.wait(10)
        given.cancel()
        with pytest.raises(Cancelled):
            caller.result(10)
    eventually(lambda: GATE.calls[-1].cancelled)


def test_100_streams_of_one_connection_run_at_once(server: Client) -> None:
    with ThreadPoolExecutor(100) as pool:
        streams = [server.decoder("t-words", pause=0.005).decode("forever") for _ in range(100)]
        assert [chunk.text for chunk in pool.map(next, streams)] == ["forever "] * 100
        assert server.scorer("t-length").score(["abc"], timeout=20).primary.tolist() == [3]
        for stream in streams:
            stream.close()  # type: ignore[attr-defined]
