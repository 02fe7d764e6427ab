"""Batches in a device's memory, on a CPU: the same graphs and the same bindings, only nothing is captured."""

import numpy as np
import pytest

from pickaxe.lm.batch import Batch
from pickaxe.lm.cache import KV
from pickaxe.lm.device_batch import DeviceBatch

PROMPTS = ([5, 9, 2, 40, 7], [11, 3], [8, 8, 30, 1, 6, 12, 4], [21])


@pytest.fixture
def prompts(tiny):
    return [tiny.prefill(ids) for ids in PROMPTS]


def greedy(batch, firsts, steps):
    tokens, said = list(firsts), [[token] for token in firsts]
    for _ in range(steps):
        tokens = batch.step(tokens).best.tolist()
        for row, token in enumerate(tokens):
            said[row].append(token)
    return said


def both(tiny, prompts, rows=4, capacity=8):
    made = (Batch(tiny.network, rows, capacity), DeviceBatch(tiny.network, rows, capacity))
    for batch in made:
        assert [batch.join(cache) for _, cache in prompts] == list(range(len(prompts)))
    return made


def test_rows_say_what_they_say_in_host_memory(tiny, prompts):
    host, device = both(tiny, prompts)
    firsts = [int(logits.argmax()) for logits, _ in prompts]
    assert greedy(host, firsts, 6) == greedy(device, firsts, 6)


def test_an_outcome_has_the_logits_of_the_rows_that_moved(tiny, prompts):
    host, device = both(tiny, prompts)
    going = [True, False, True, True]
    wanted, found = host.step([1, 2, 3, 4], going), device.step([1, 2, 3, 4], going)
    np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-4)
    np.testing.assert_allclose(found.total, wanted.total, atol=1e-4)
    np.testing.assert_allclose(found.peak, wanted.logits.max(axis=1), atol=1e-4)
    np.testing.assert_array_equal(found.best, wanted.best)
    # the row that waited goes on as if nothing had been written to its place
    wanted, found = host.step([5, 2, 6, 7]), device.step([5, 2, 6, 7])
    np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-4)


def test_rows_leave_and_others_take_their_places(tiny, prompts):
    host, device = both(tiny, prompts)
    for batch in (host, device):
        batch.step([1, 2, 3, 4])
        assert batch.leave(1) == 3  # the last row is number 1 now
        assert batch.active == 3
        assert batch.join(prompts[0][1]) == 3
        assert batch.leave(3) == 3
        assert not batch.full
        assert batch.join(prompts[2][1]) == 3
        assert batch.full
    np.testing.assert_allclose(device.step([5, 6, 7, 8]).logits, host.step([5, 6, 7, 8]).logits, atol=1e-4)


def test_a_row_of_a_cache_of_several_joins(tiny, prompts):
    many = KV.concatenate([cache for _, cache in prompts])
    host, device = Batch(tiny.network, 2, 16), DeviceBatch(tiny.network, 2, 16)
    for batch in (host, device):
        batch.join(many, 2)
        batch.join(many, 0)
    np.testing.assert_allclose(device.step([5, 6]).logits, host.step([5, 6]).logits, atol=1e-4)


def test_memory_grows_when_a_row_gets_longer(tiny, prompts, monkeypatch):
    monkeypatch.setattr("pickaxe.lm.device_batch.LEAST", 8)
    host, device = both(tiny, prompts)
    firsts = [int(logits.argmax()) for logits, _ in prompts]
    assert greedy(host, firsts, 14) == greedy(device, firsts, 14)


def test_a_cleared_batch_serves_others(tiny, prompts):
    host, device = both(tiny, prompts)
    device.step([1, 2, 3, 4])
    device.clear()
    assert device.active == 0
    for _, cache in prompts:
        device.join(cache)
    np.testing.assert_allclose(device.step([1, 2, 3, 4]).logits, host.step([1, 2, 3, 4]).logits, atol=1e-4)
