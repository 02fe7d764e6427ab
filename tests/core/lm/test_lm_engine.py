from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pickaxe.call import Call
from pickaxe.data import Sampling
from pickaxe.errors import Cancelled, DeadlineExceeded, DoesNotFit, InvalidParams, MethodFailed
from pickaxe.lm import LM, EngineSettings, Generation

PROMPTS = [[10, 200, 33], list(range(60, 160)), [7, 7], [5], list(range(40, 52)), list(range(30, 130))]


def with_settings(lm: LM, **settings) -> LM:
    return LM(lm.name, lm.network, lm.tokenizer, EngineSettings(**settings))


def greedy(prompt: Sequence[int], tokens: int = 12, **sampling) -> Generation:
    return Generation(prompt, Sampling(max_tokens=tokens, temperature=0, **sampling))


def drawn(prompt: Sequence[int], n: int = 1, tokens: int = 12, seed: int = 3) -> Generation:
    return Generation(prompt, Sampling(max_tokens=tokens, temperature=8.0, n=n, seed=seed))


def tokens_of(lm: LM, request: Generation, call: Call | None = None, pause: float = 0) -> dict[int, list]:
    found = defaultdict(list)
    for step in lm.generate(request, call or Call()):
        found[step.sample].append((step.token_id, step.logprob))
        time.sleep(pause)
    return dict(found)


@pytest.mark.parametrize("model", ["tiny", "smollm"])
def test_requests_of_many_threads_get_what_each_gets_alone(model, request):
    lm = request.getfixturevalue(model)
    requests = [drawn(prompt, n, seed=place) for place, prompt in enumerate(PROMPTS) for n in (1, 3)]
    alone = [tokens_of(with_settings(lm, prefix_bytes=0), each) for each in requests]
    shared = with_settings(lm, rows=8)
    with ThreadPoolExecutor(len(requests)) as pool:
        assert list(pool.map(lambda each: tokens_of(shared, each), requests)) == alone


def test_several_prompts_of_one_caller_are_decoded_together(tiny):
    requests = [drawn(prompt, 2) for prompt in PROMPTS]
    found = defaultdict(lambda: defaultdict(list))
    for number, step in tiny.generate_all(requests, Call()):
        found[number][step.sample].append((step.token_id, step.logprob))
    assert [found[number] for number in range(len(requests))] == [tokens_of(tiny, each) for each in requests]
    assert list(tiny.generate_all([], Call())) == []


@pytest.fixture
def reads(tiny, monkeypatch) -> list[tuple[int, int]]:
    """(rows, tokens per row) of every run of the model's body."""
    seen: list[tuple[int, int]] = []
    read = type(tiny.network).read

    def spy(network, ids, *args, **kwargs):
        seen.append(ids.shape)
        return read(network, ids, *args, **kwargs)

    monkeypatch.setattr(type(tiny.network), "read", spy)
    return seen


def test_a_long_prompt_is_read_in_pieces_between_the_tokens_of_others(tiny, reads):
    lm = with_settings(tiny, chunk_beside=16)
    writing = lm.generate(greedy([9, 8], 200), Call())
    expected = tokens_of(tiny, greedy([9, 8], 200))
    alone = tokens_of(tiny, greedy(PROMPTS[1], 3))
    first = next(writing)
    reads.clear()
    assert tokens_of(lm, greedy(PROMPTS[1], 3)) == alone
    pieces = [tokens for _, tokens in reads if tokens > 1]
    assert max(pieces) <= 16
    assert min(pieces) > 1  # a single token would take another kernel
    assert reads.count((1, 1)) >= len(pieces) - 1  # the other request went on in between
    rest = [(step.token_id, step.logprob) for step in writing]
    assert [(first.token_id, first.logprob), *rest] == expected[0]


def test_short_prompts_are_read_together(tiny, reads):
    requests = [greedy([token] * 12, 2) for token in range(20, 28)]
    alone = [tokens_of(tiny, each) for each in requests]
    reads.clear()
    found = defaultdict(list)
    for number, step in with_settings(tiny).generate_all(requests, Call()):
        found[number].append((step.token_id, step.logprob))
    assert reads[0] == (8, 12)
    assert [{0: found[number]} for number in range(8)] == alone


def test_prompts_that_begin_alike_share_what_was_read(tiny, reads):
    lm = with_settings(tiny)
    beginning = list(range(100, 150))
    first, second = greedy([*beginning, 1, 2, 3]), greedy([*beginning, 4, 5, 6, 7])
    expected = tokens_of(with_settings(tiny, prefix_bytes=0), second)
    tokens_of(lm, first)
    reads.clear()
    assert tokens_of(lm, second) == expected
    assert reads[0] == (1, 4)
    reads.clear()
    assert tokens_of(lm, second) == expected
    assert reads[0] == (1, 2)  # of a known prompt two tokens are read again


def test_the_cache_of_prompts_keeps_its_bound(tiny):
    room = 100 * tiny.network.token_bytes
    lm = with_settings(tiny, prefix_bytes=room)
    for start in range(0, 200, 40):
        tokens_of(lm, greedy(list(range(start, start + 40)), 1))
        assert lm.engine.prefixes.nbytes <= room
    assert lm.engine.prefixes.knows(np.arange(160, 200))
    assert not lm.engine.prefixes.knows(np.arange(0, 40))


def test_requests_wait_for_memory_and_one_that_can_never_fit_is_refused(tiny):
    lm = with_settings(tiny, cache_bytes=40 * tiny.network.token_bytes)
    requests = [drawn([token] * 10, 2, tokens=20) for token in range(1, 6)]
    alone = [tokens_of(tiny, each) for each in requests]
    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(lambda each: tokens_of(lm, each), requests)) == alone
    with pytest.raises(DoesNotFit, match=r"30 prompt tokens and 20 new ones need .* MiB") as refused:
        lm.generate(greedy([1] * 30, 20), Call())
    assert refused.value.metadata["cache_bytes"] == str(lm.engine.settings.cache_bytes)
    (steps,) = tokens_of(lm, Generation([1] * 30, Sampling(temperature=0))).values()
    assert len(steps) == 10  # without a limit of its own, a request takes what there is


def test_closing_a_request_frees_its_rows_at_once(tiny, reads):
    steps = tiny.generate(drawn([1, 2], 4, tokens=300), Call())
    next(steps)
    steps.close()
    reads.clear()
    tokens_of(tiny, greedy([3, 4], 3))
    assert reads == [(1, 2), (1, 1), (1, 1)]


def test_a_slow_caller_pauses_and_delays_nobody(tiny):
    lm = with_settings(tiny, ahead=4)
    request = greedy([9, 8], 60)
    expected = tokens_of(tiny, request)
    slow = lm.generate(request, Call())
    taken = [next(slow)]
    assert tokens_of(lm, greedy([3, 4], 100)) == tokens_of(tiny, greedy([3, 4], 100))
    (row,) = lm.engine._rows
    assert len(row.transcript.generated) <= 6
    taken += slow
    assert [(step.token_id, step.logprob) for step in taken] == expected[0]


def test_a_caller_whose_tokens_fill_the_memory_is_waited_for(tiny):
    lm = with_settings(tiny, cache_bytes=110 * tiny.network.token_bytes, ahead=4)
    slow = lm.generate(greedy([9, 8], 100), Call())
    next(slow)
    with pytest.raises(DeadlineExceeded):
        tokens_of(lm, greedy([1] * 10, 10), Call(timeout=0.3))
    slow.close()
    assert len(tokens_of(lm, greedy([1] * 10, 10))[0]) == 10


def test_a_cancelled_call_stops_and_the_others_go_on(tiny):
    lm = with_settings(tiny)
    requests = [greedy([token, 8], 80) for token in range(6)]
    alone = [tokens_of(tiny, each) for each in requests]
    calls = [Call() for _ in requests]

    def run(place: int) -> dict[int, list] | str:
        try:
            return tokens_of(lm, requests[place], calls[place], pause=0.005 if place == 1 else 0)
        except Cancelled:
            return "cancelled"

    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(run, place) for place in range(6)]
        time.sleep(0.05)
        calls[1].cancel()
        found = [each.result() for each in running]
    assert found[1] == "cancelled"
    assert [found[0], *found[2:]] == [alone[0], *alone[2:]]
    assert not lm.engine._rows


def test_a_failed_run_ends_the_requests_in_it_and_the_engine_lives(tiny, monkeypatch):
    lm = with_settings(tiny)
    step = lm.generate(greedy([1, 2], 50), Call())
    next(step)
    with monkeypatch.context() as patch:
        patch.setattr(type(lm.network), "logits", lambda *_: (_ for _ in ()).throw(MethodFailed("out of memory")))
        with pytest.raises(MethodFailed, match="out of memory"):
            list(step)
        with pytest.raises(MethodFailed, match="out of memory"):  # while its prompt is read
            tokens_of(lm, greedy([1, 2]))
    assert tokens_of(lm, greedy([1, 2])) == tokens_of(tiny, greedy([1, 2]))


def test_a_processor_that_fails_ends_its_own_request_only(tiny):
    lm = with_settings(tiny)
    other = lm.generate(greedy([9, 8], 30), Call())
    first = next(other)

    def broken(generated: Sequence[int], logits: np.ndarray) -> np.ndarray:
        if len(generated) == 3:
            raise ZeroDivisionError("in the processor")
        return logits

    with pytest.raises(ZeroDivisionError, match="in the processor"):
        list(lm.generate(Generation([1, 2], Sampling(max_tokens=9), (broken,)), Call()))
    assert [step.token_id for step in (first, *other)] == [token for token, _ in tokens_of(tiny, greedy([9, 8], 30))[0]]


def test_a_processor_may_read_with_the_same_model(tiny):
    def against(generated: Sequence[int], logits: np.ndarray) -> np.ndarray:
        return logits - 0.5 * tiny.prefill([4, *generated][-4:])[0]

    steps = list(tiny.generate(Generation([1, 2], Sampling(max_tokens=5, temperature=0), (against,)), Call()))
    assert len(steps) == 5


def test_turns_are_taken_in_order_of_arrival(tiny):
    turns, order = tiny.engine.turns, []

    def wait(place: int) -> None:
        with turns.taken():
            order.append(place)

    threads = []
    with turns.taken():
        for place in range(8):
            threads.append(threading.Thread(target=wait, args=[place]))
            threads[-1].start()
            while len(turns._queue) < place + 2:
                time.sleep(0.001)
        over = Call()
        over.cancel()
        with pytest.raises(Cancelled), turns.taken(over):
            pass
    for thread in threads:
        thread.join()
    assert order == list(range(8))


@pytest.mark.parametrize(
    ("name", "value"), [("rows", 0), ("cache_bytes", 0), ("chunk", 1), ("chunk_beside", 1), ("ahead", 0)]
)
def test_bounds_that_would_stop_the_engine_are_refused(name, value):
    with pytest.raises(InvalidParams, match=f"engine.{name}"):
        EngineSettings(**{name: value})
