"""Packing prompts into rows, and reading them so: the same numbers as reading each alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe.call import Call
from pickaxe.data import Sampling
from pickaxe.errors import Cancelled, DoesNotFit, InvalidItems, InvalidParams
from pickaxe.lm import KV, LM, Generation
from pickaxe.lm.packing import Packer, Plan, pack, prefill_packed

PACKERS: tuple[Packer, ...] = ("least_loaded", "first_fit_decreasing", "exact")


def prompts(lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, length) for length in lengths]


# ---------------------------------------------------------------- plans


@given(
    slots=st.lists(st.integers(0, 40), min_size=1, max_size=14),
    capacity=st.none() | st.integers(1, 60),
    packer=st.sampled_from(PACKERS),
)
def test_every_prompt_lies_whole_in_one_row(slots: list[int], capacity: int | None, packer: Packer) -> None:
    plan = pack(slots, capacity, packer)
    room = capacity or max(slots)
    packed = sorted(itertools.chain(*plan.rows))
    assert packed == [prompt for prompt, count in enumerate(slots) if count]
    assert sum(plan.loads) == sum(slots)
    assert all(load <= room or len(row) == 1 for load, row in zip(plan.loads, plan.rows, strict=True))
    within = [count for count in slots if 0 < count <= room]
    assert len(plan.rows) - sum(count > room for count in slots) >= -(-sum(within) // max(1, room))
    layout = plan.lay_out(prompts(slots))
    for prompt, ((row, start), count) in enumerate(zip(plan.places, slots, strict=True)):
        assert (row == -1) == (count == 0)
        own = row, slice(start, start + count)
        if count:
            assert (layout.segments[own] == prompt).all()
            assert layout.positions[own].tolist() == list(range(count))
            assert layout.ids[own].tolist() == prompts(slots)[prompt].tolist()
    assert (layout.segments == -1).sum() == plan.computed - sum(slots)


def fewest(slots: Sequence[int], loads: tuple[int, ...] = (), room: int = 20) -> int:
    """Rows needed when every way to spread the prompts is tried."""
    if not slots:
        return len(loads)
    first, *rest = slots
    ways = [
        fewest(rest, (*loads[:row], load + first, *loads[row + 1 :]))
        for row, load in enumerate(loads)
        if load + first <= room
    ]
    return min([*ways, fewest(rest, (*loads, first))])


@given(slots=st.lists(st.integers(1, 20), min_size=1, max_size=7))
def test_exact_is_the_fewest_rows(slots: list[int]) -> None:
    assert len(pack(slots, 20, "exact").rows) == fewest(slots)
    for packer in PACKERS[:2]:
        assert len(pack(slots, 20, packer).rows) >= fewest(slots)


def test_exact_beats_greedy_where_it_can() -> None:
    rows = [pack([5, 4, 4, 3, 2, 2], 10, packer).rows for packer in PACKERS]
    assert [len(each) for each in rows] == [3, 3, 2]
    assert rows[2] == ((0, 3, 4), (1, 2, 5))


@pytest.mark.parametrize("packer", PACKERS)
def test_equal_lengths_gain_and_lose_nothing(packer: Packer) -> None:
    plan = pack([7] * 5, packer=packer)
    assert sorted(plan.rows) == [(0,), (1,), (2,), (3,), (4,)]
    assert plan.computed == 35


def test_ties_go_to_the_earlier() -> None:
    assert pack([4, 3, 3, 1, 1], 8).rows == ((0, 1), (2, 3, 4))
    assert pack([4, 3, 3, 1, 1], 8, "first_fit_decreasing").rows == ((0, 1, 3), (2, 4))


def test_a_mask_lets_prompts_see_themselves_only() -> None:
    plan = Plan((2, 1, 0), ((0, 1),))
    segments = plan.lay_out([[1, 2], [3], []])
    assert (segments.bias()[0, 0] == 0).tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert np.isfinite(segments.bias()).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack([1, -1]), "slots"),
        (lambda: pack([1, 2], sizes=[1]), "slots"),
        (lambda: pack([1], 0), "capacity"),
        (lambda: pack([1] * 33, packer="exact"), "32 prompts"),
    ],
)
def test_wrong_plans(call, message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        call()


# ---------------------------------------------------------------- reading

LENGTHS = (1, 5, 17, 300, 40, 41, 8, 2, 33, 1, 120)


@pytest.fixture(scope="module")
def alone(tiny: LM) -> list[tuple[np.ndarray, KV]]:
    return [tiny.prefill(ids) for ids in prompts(LENGTHS)]


@pytest.mark.parametrize("emit", ["packed", "last_token"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"capacity": 64},
        {"capacity": 1},
        {"max_rows": 1},
        {"max_slots": 50},
        {"packer": "first_fit_decreasing"},
        {"packer": "exact"},
        {"count_last": True},
    ],
    ids=str,
)
def test_packed_equals_one_by_one(emit, options, tiny: LM, alone) -> None:
    found = prefill_packed(tiny, prompts(LENGTHS), emit=emit, **options)
    for length, cache, logits, (expected, read) in zip(LENGTHS, found.caches, found.logits, alone, strict=True):
        assert cache.lengths.tolist() == [length]
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        for layer in range(cache.layers):
            np.testing.assert_allclose(cache.keys(layer), read.keys(layer), atol=1e-4)
            np.testing.assert_allclose(cache.values(layer), read.values(layer), atol=1e-4)
    assert found.computed >= sum(LENGTHS)


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_packed_equals_an_independent_decoder(kind, family, reference_of, open_tiny) -> None:
    model = reference_of(family)
    lengths = (20, 7, 12, 1)
    found = prefill_packed(open_tiny(model, kind), prompts(lengths))
    assert found.runs == 2
    for ids, logits in zip(prompts(lengths), found.logits, strict=True):
        np.testing.assert_allclose(logits, model.logits(ids.tolist())[-1], atol=1e-4)


def test_one_prompt_is_plain_prefill_bit_for_bit(tiny: LM, alone) -> None:
    for ids, (expected, _) in zip(prompts(LENGTHS), alone, strict=True):
        np.testing.assert_array_equal(prefill_packed(tiny, [ids]).logits[0], expected)


def test_changing_one_prompt_leaves_the_others_alone(tiny: LM) -> None:
    given = prompts(LENGTHS)
    before = prefill_packed(tiny, given)
    for changed in (2, 6):
        other = [*given]
        other[changed] = (given[changed] + 1) % 256
        after = prefill_packed(tiny, other)
        same = np.arange(len(given)) != changed
        np.testing.assert_allclose(after.logits[same], before.logits[same], atol=1e-5)
        assert np.abs(after.logits[changed] - before.logits[changed]).max() > 0.1


def test_the_order_of_prompts_does_not_matter(tiny: LM) -> None:
    order = np.random.default_rng(0).permutation(len(LENGTHS))
    one = prefill_packed(tiny, prompts(LENGTHS))
    other = prefill_packed(tiny, [prompts(LENGTHS)[place] for place in order])
    np.testing.assert_allclose(other.logits, one.logits[order], atol=1e-4)


def test_long_prompts_are_read_alone_in_chunks(tiny: LM) -> None:
    given = prompts((600, 30, 20))
    found = prefill_packed(tiny, given)
    assert found.plan.rows == ((0,), (1, 2))
    for ids, logits in zip(given, found.logits, strict=True):
        np.testing.assert_allclose(logits, tiny.prefill(ids)[0], atol=1e-4)


def test_runs_keep_their_bounds(tiny: LM) -> None:
    given = prompts((30, 30, 30, 10, 10, 10))
    assert prefill_packed(tiny, given, capacity=40).runs == 1
    assert prefill_packed(tiny, given, capacity=40, max_rows=2).runs == 2
    assert prefill_packed(tiny, given, capacity=40, max_slots=79).runs == 3
    assert prefill_packed(tiny, given, capacity=40, max_slots=1).runs == 3


def test_rows_of_unlike_lengths_are_read_apart(tiny: LM) -> None:
    found = prefill_packed(tiny, prompts((100, 90, 40, 30)), capacity=1)
    assert (found.runs, found.computed) == (2, 2 * 100 + 2 * 40)


def test_nothing_to_read(tiny: LM) -> None:
    found = prefill_packed(tiny, [])
    assert (found.caches, found.runs, len(found.logits)) == ([], 0, 0)
    with pytest.raises(InvalidItems, match=r"token_lists\[1\]"):
        prefill_packed(tiny, [[1], []])
    with pytest.raises(DoesNotFit):
        prefill_packed(tiny, [[1] * 641])


def test_a_cancelled_call_ends_it(tiny: LM) -> None:
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        prefill_packed(tiny, prompts((3, 4)), call)


# ---------------------------------------------------------------- going on


def said(lm: LM, request: Generation) -> list[int]:
    return [step.token_id for step in lm.generate(request, Call())]


@pytest.mark.parametrize("emit", ["packed", "last_token"])
def test_decoding_goes_on_from_what_was_read(emit, tiny: LM) -> None:
    given = prompts((1, 5, 17, 40))
    sampling = Sampling(max_tokens=8, temperature=0)
    found = prefill_packed(tiny, given, emit=emit)
    for ids, cache, logits in zip(given, found.caches, found.logits, strict=True):
        plain = said(tiny, Generation(ids, sampling))
        assert said(tiny, Generation((), sampling, past=cache, first=logits)) == plain
    requests = [
        Generation((), sampling, past=cache, first=logits)
        for cache, logits in zip(found.caches, found.logits, strict=True)
    ]
    together: dict[int, list[int]] = {}
    for number, step in tiny.generate_all(requests, Call()):
        together.setdefault(number, []).append(step.token_id)
    assert [together[number] for number in range(4)] == [said(tiny, Generation(ids, sampling)) for ids in given]


def test_a_read_prompt_comes_with_its_logits(tiny: LM) -> None:
    logits, cache = tiny.prefill([1, 2, 3])
    for request in (
        Generation(()),
        Generation((), past=cache),
        Generation((), first=logits),
        Generation([4], past=cache, first=logits),
    ):
        with pytest.raises(InvalidParams, match="prompt_ids"):
            tiny.generate(request, Call())
    with pytest.raises(DoesNotFit):
        tiny.generate(Generation((), Sampling(max_tokens=640), past=cache, first=logits), Call())
    many = list(tiny.generate(Generation((), Sampling(n=5, max_tokens=3), past=cache, first=logits), Call()))
    assert {step.sample for step in many} == set(range(5))
