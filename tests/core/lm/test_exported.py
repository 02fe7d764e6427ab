"""Decoders exported to ONNX elsewhere give what our own graphs of the same model give."""

from __future__ import annotations

import numpy as np
import pytest
from exporter import Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pickaxe.errors import DoesNotFit, InvalidItems, InvalidParams, Unmet
from pickaxe.lm import KV, Contexts, rotate
from pickaxe.lm.exported_trial import Habits
from pickaxe.lm.packing import prefill_packed

IDS = [10, 200, 33, 7, 7, 91, 64, 128, 5, 250, 41]
LONG = [(7 * place + place // 13) % 250 for place in range(600)]
KINDS = {
    "plain": Kind(),
    "without positions": Kind(positions=False),
    "counting its mask": Kind(masked=False),
    "merged": Kind(merged=True),
    "last logits": Kind(keep=True),
    "weights apart": Kind(external=True),
}
ANY = Habits("any", True, True)
HABITS = {
    "without positions": Habits("any", True, False),
    "counting its mask": Habits("like", True, True),
    "merged": Habits("any", False, True),
}


@pytest.fixture(scope="module", params=KINDS)
def exported(request, reference, open_export):
    return open_export(reference, KINDS[request.param])


@pytest.fixture(scope="module")
def plain(reference, open_export):
    return open_export(reference)


@pytest.mark.parametrize("name", KINDS)
def test_what_a_graph_can_do_is_found_out(name, reference, open_export):
    network = open_export(reference, KINDS[name]).network
    assert network.habits == HABITS.get(name, ANY)
    assert (network.precision, network.dtype) == ("fp32", np.float32)


@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("qwen2", True), ("qwen3", False)])
def test_logits_are_those_of_our_own_graphs(family, tied, reference_of, open_tiny, open_export):
    model = reference_of(family, tied)
    own, _ = open_tiny(model).forward([IDS], logits_at="all")
    logits, _ = open_export(model).forward([IDS], logits_at="all")
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, own, atol=1e-4)
    np.testing.assert_allclose(logits[0], model.logits(IDS), atol=1e-4)


def test_half_precision(reference, open_export):
    lm = open_export(reference, Kind(half=True), "fp16")
    assert (lm.network.precision, lm.network.dtype, lm.network.habits.rows) == ("fp16", np.float16, "any")
    first, past = lm.forward([IDS[:6]], logits_at="all")
    rest, cache = lm.forward([IDS[6:]], past=past, logits_at="all")
    assert cache.tensors[0].dtype == np.float16
    assert first.dtype == np.float32
    np.testing.assert_allclose(np.concatenate([first[0], rest[0]]), reference.logits(IDS), atol=0.1)


def test_rows_of_different_lengths_on_pasts_of_different_lengths(exported, tiny):
    before, ids, lengths = [IDS, IDS[3:9], IDS[:1]], np.array([[5, 6, 7], [8, 9, 0], [1, 0, 0]]), [3, 2, 1]
    found = []
    for lm in (exported, tiny):
        past = KV.concatenate([lm.forward([each], logits_at="none")[1] for each in before])
        logits, cache = lm.forward(ids, lengths=lengths, past=past)
        assert cache.lengths.tolist() == [14, 8, 2]
        more, _ = lm.forward([[4, 3], [2, 1], [9, 9]], past=cache, logits_at="all")
        found.append((logits, more))
    for ours, own in zip(*found, strict=True):
        np.testing.assert_allclose(ours, own, atol=1e-4)


def test_long_texts_are_read_in_pieces(exported, tiny):
    logits, _ = exported.forward([LONG], logits_at=np.array([0, 300, 511, 512, 599]))
    own, _ = tiny.forward([LONG], logits_at=np.array([0, 300, 511, 512, 599]))
    np.testing.assert_allclose(logits, own, atol=1e-4)


def test_logits_beyond_the_bound_are_made_in_several_runs(plain, tiny, monkeypatch):
    shapes = []
    run = type(plain.network).run

    def spy(network, ids, *args):
        shapes.append(ids.shape)
        return run(network, ids, *args)

    monkeypatch.setattr(type(plain.network), "run", spy)
    monkeypatch.setattr("pickaxe.lm.exported.LOGITS_BYTES", 8 * 4 * 258)
    lists = [IDS, IDS[:4], LONG[:30]]
    for ours, own in zip(plain.token_logprobs(lists), tiny.token_logprobs(lists), strict=True):
        np.testing.assert_allclose(ours, own, atol=1e-4)
    assert max(rows * tokens for rows, tokens in shapes) == 8


def test_caches_are_gathered_tiled_cut_and_kept(exported, tmp_path, reference):
    _, cache = exported.forward([IDS, IDS[::-1]], logits_at="none")
    cache.gather([1]).truncate(4).save(tmp_path / "kv")
    logits, _ = exported.forward([[77]] * 3, past=KV.load(tmp_path / "kv").tile(3))
    expected = reference.logits([*IDS[::-1][:4], 77])[-1]
    np.testing.assert_allclose(logits, np.stack([expected] * 3), atol=1e-4)
    again, _ = exported.forward([[77], [77]], past=cache)  # a cache that was read from stays as it was
    np.testing.assert_allclose(again[1], reference.logits([*IDS[::-1], 77])[-1], atol=1e-4)


def test_scores_are_those_of_our_own_graphs(exported, tiny):
    lists = [IDS, [4], [], LONG[:70], IDS[2:]]
    for ours, own in zip(exported.token_logprobs(lists), tiny.token_logprobs(lists), strict=True):
        np.testing.assert_allclose(ours, own, atol=1e-4)
    for ours, own in zip(exported.token_moments(lists), tiny.token_moments(lists), strict=True):
        np.testing.assert_allclose(ours, own, atol=1e-3)
    np.testing.assert_allclose(exported.full_logprobs(IDS), tiny.full_logprobs(IDS), atol=1e-4)
    endings = [[1, 2, 3], [9], [5, 250, 41, 8]]
    for normalise in ("none", "tokens", "bytes"):
        ours, own = (lm.choose(IDS, endings, normalise=normalise) for lm in (exported, tiny))
        np.testing.assert_allclose(ours, own, atol=1e-4)


def test_prompts_are_packed_as_long_as_they_do_not_share_a_row(plain, tiny):
    prompts = [IDS[:9], IDS[:9], IDS[:9]]
    ours, own = (prefill_packed(lm, prompts, capacity=9).logits for lm in (plain, tiny))
    np.testing.assert_allclose(ours, own, atol=1e-4)
    with pytest.raises(Unmet, match="attention bias"):
        prefill_packed(plain, prompts, capacity=27)


def test_free_positions_where_the_graph_heeds_them(plain, tiny):
    positions = np.array([[0, 1, 2, 9, 10, 11, 30, 31, 32, 33, 639]])
    ours, own = (lm.forward([IDS], positions=positions, logits_at="all")[0] for lm in (plain, tiny))
    np.testing.assert_allclose(ours, own, atol=1e-4)


def test_what_the_layout_does_not_allow_is_named_where_it_is_asked_for(plain, reference, open_export):
    with pytest.raises(Unmet, match=r"does not take an attention bias.*GGUF"):
        plain.forward([IDS], bias=np.zeros((11, 11), np.float32))
    _, past = plain.forward([IDS], logits_at="none")
    with pytest.raises(Unmet, match="parallel contexts"):
        plain.forward([[1]], past=past, contexts=Contexts(np.arange(11) < 4))
    with pytest.raises(Unmet, match="keys before rotary"):
        rotate(past.keys(0), np.arange(11), plain.network.architecture, inverse=True)
    with pytest.raises(Unmet, match="layers=1"):
        open_export(reference, layers=1)
    with pytest.raises(InvalidParams, match=r"is 'int4', but model.onnx holds fp32.*use auto or fp32"):
        open_export(reference, precision="int4")
    counting = open_export(reference, Kind(positions=False))
    with pytest.raises(Unmet, match="positions other than"):
        counting.forward([IDS], positions=np.arange(11)[None] + 1)
    np.testing.assert_array_equal(  # those it counts anyway may be said
        counting.forward([IDS], positions=np.arange(11)[None])[0], counting.forward([IDS])[0]
    )


def test_bad_input_is_refused_as_anywhere(plain):
    with pytest.raises(InvalidItems, match="vocabulary"):
        plain.forward([[258]])
    with pytest.raises(DoesNotFit, match="640"):
        plain.forward([[1] * 641])
    with pytest.raises(DoesNotFit):
        plain.token_logprobs([[1] * 641])
    assert plain.context_length == 640


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=5).filter(
        lambda rows: any(count for _, count in rows)
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_row_of_a_run_gets_what_it_gets_alone(exported, reference, rows, seed):
    random = np.random.default_rng(seed)
    texts = [random.integers(0, 250, before + count) for before, count in rows]
    network = exported.network
    empty = KV.empty(network.architecture, 1, 0)
    pasts = [
        exported.forward([text[:before]], logits_at="none")[1] if before else empty
        for text, (before, _) in zip(texts, rows, strict=True)
    ]
    counts = np.array([count for _, count in rows])
    ids = np.zeros((len(rows), int(counts.max())), np.int64)
    for row, (text, (before, count)) in enumerate(zip(texts, rows, strict=True)):
        ids[row, :count] = text[before:]
    past = KV.concatenate(pasts)
    wanted = np.concatenate([row * ids.shape[1] + np.arange(count) for row, count in enumerate(counts)])
    states, cache = network.read(ids, counts, past, wanted)
    assert cache.lengths.tolist() == [len(text) for text in texts]
    expected = [
        reference.logits(list(text))[before:] for text, (before, count) in zip(texts, rows, strict=True) if count
    ]
    np.testing.assert_allclose(network.logits(states), np.concatenate(expected), atol=1e-4)


def test_positions_of_padding_do_not_matter(reference, open_export):
    lm = open_export(reference, Kind(positions=False))
    positions = np.array([[0, 1, 2], [0, 0, 0]])
    logits, _ = lm.forward([IDS[:3], [5, 0, 0]], lengths=[3, 1], positions=positions)
    np.testing.assert_allclose(logits[1], reference.logits([5])[0], atol=1e-4)
