from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pickaxe.errors import DoesNotFit, InvalidItems, InvalidParams, ModelMissing, Unmet
from pickaxe.lm import LM
from pickaxe.lm.graph import build
from pickaxe.lm.nbits import dequantise, quantise4, quantise8
from pickaxe.lm.weights import Architecture, open_checkpoint
from pickaxe.models import ModelStore

IDS = [10, 200, 33, 7, 7, 91, 64, 128, 5, 250, 41]


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("llama", False), ("qwen2", True), ("qwen3", False)])
def test_logits_equal_an_independent_decoder(kind, family, tied, reference_of, open_tiny):
    model = reference_of(family, tied)
    lm = open_tiny(model, kind)
    logits, _ = lm.forward([IDS], logits_at="all")
    np.testing.assert_allclose(logits[0], model.logits(IDS), atol=1e-4)


@pytest.mark.parametrize(("precision", "least"), [("int8", 0.999), ("int4", 0.97)])
@pytest.mark.parametrize("tied", [True, False])
def test_quantised_models_stay_close(precision, least, tied, reference_of, open_tiny):
    model = reference_of("qwen2", tied)
    lm = open_tiny(model, "safetensors", precision)
    logits, _ = lm.forward([IDS], logits_at="all")
    assert np.corrcoef(logits[0].ravel(), model.logits(IDS).ravel())[0, 1] > least


@pytest.mark.parametrize(("quantise", "part"), [(quantise4, 15), (quantise8, 127 * 2)])
def test_quantisation_keeps_weights_within_half_a_step(quantise, part):
    matrix = np.random.default_rng(0).standard_normal((6, 96)).astype(np.float32)
    error = np.abs(dequantise(quantise(matrix), 96) - matrix).reshape(6, 3, 32).max(axis=2)
    blocks = matrix.reshape(6, 3, 32)
    span = np.ptp(blocks, axis=2) if quantise is quantise4 else 2 * np.abs(blocks).max(axis=2)
    assert (error <= span / part * 0.6).all()


def test_4_bits_with_offsets_come_through_almost_unchanged():
    random = np.random.default_rng(0)
    levels = random.integers(0, 16, (6, 3, 32))
    levels[..., 0], levels[..., 1] = 0, 15
    matrix = (levels * 0.1 + random.uniform(-1, -0.5, (6, 3, 1))).reshape(6, 96).astype(np.float32)
    assert np.abs(dequantise(quantise4(matrix), 96) - matrix).max() < 0.1 / 20


def test_sizes_that_cannot_be_quantised(tmp_path: Path):
    odd = Architecture(layers=1, width=48, heads=3, kv_heads=1, head_size=16, mlp=64, vocab=9, context=8)
    with pytest.raises(Unmet, match="open it in fp32"):
        build(odd, None, "int8", tmp_path)


def test_free_positions(tiny, reference):
    positions = np.array([3, 4, 9, 9, 20, 21, 22, 40, 41, 2, 0])
    logits, _ = tiny.forward([IDS], positions=positions[None], logits_at="all")
    np.testing.assert_allclose(logits[0], reference.logits(IDS, positions), atol=1e-4)


def test_packed_prompts_through_a_bias(tiny, reference):
    parts = [IDS[:4], IDS[4:6], IDS[6:]]
    owner = np.repeat([0, 1, 2], [len(part) for part in parts])
    bias = np.where(owner[:, None] == owner, 0.0, -1e9)
    positions = np.concatenate([np.arange(len(part)) for part in parts])
    logits, _ = tiny.forward([IDS], positions=positions[None], bias=bias, logits_at="all")
    for part, expected in enumerate(parts):
        np.testing.assert_allclose(logits[0][owner == part], reference.logits(expected), atol=1e-4)


def test_token_tree_on_top_of_a_cache(tiny, reference):
    _, past = tiny.forward([IDS[:5]], logits_at="none")
    # two branches of two tokens each: nodes 0-1 and 2-3
    tree, depth = [70, 71, 80, 81], np.array([[5, 6, 5, 6]])
    seen = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]], bool)
    bias = np.concatenate([np.zeros((4, 5)), np.where(seen, 0.0, -1e9)], axis=1)
    logits, cache = tiny.forward([tree], positions=depth, bias=bias, past=past, logits_at="all")
    for branch in ([0, 1], [2, 3]):
        expected = reference.logits(IDS[:5] + [tree[node] for node in branch])[5:]
        np.testing.assert_allclose(logits[0][branch], expected, atol=1e-4)
    accepted = cache.take(np.array([0, 1, 2, 3, 4, 7, 8]))
    logits, _ = tiny.forward([[99]], past=accepted)
    np.testing.assert_allclose(logits[0], reference.logits([*IDS[:5], 80, 81, 99])[-1], atol=1e-4)


def test_bias_per_row_over_caches_of_different_lengths(tiny, reference):
    _, past = tiny.forward([IDS[:5], IDS[:5]], lengths=[5, 3], logits_at="none")
    bias = np.zeros((2, 1, 2, 7))
    bias[1, 0, :, 0] = -1e9  # the second row forgets its first token
    logits, _ = tiny.forward([[70, 71], [80, 81]], past=past, bias=bias, logits_at="all")
    np.testing.assert_allclose(logits[0], reference.logits([*IDS[:5], 70, 71])[5:], atol=1e-4)
    hidden = np.zeros((5, 5))
    hidden[3:, 0] = -1e9
    expected = reference.logits([*IDS[:3], 80, 81], bias=hidden)[3:]
    np.testing.assert_allclose(logits[1], expected, atol=1e-4)


def test_logits_where_they_are_asked_for(tiny):
    every, _ = tiny.forward([IDS, IDS[::-1]], logits_at="all")
    last, _ = tiny.forward([IDS, IDS[::-1]], lengths=[4, 11])
    np.testing.assert_array_equal(last, every[[0, 1], [3, 10]])
    some, _ = tiny.forward([IDS, IDS[::-1]], logits_at=np.array([[1, 5, 2], [0, 0, 10]]))
    np.testing.assert_array_equal(some, every[[[0], [1]], [[1, 5, 2], [0, 0, 10]]])
    none, cache = tiny.forward([IDS], logits_at="none")
    assert none is None
    assert cache.lengths.tolist() == [11]


def test_long_input_is_read_in_chunks(tiny, reference):
    ids = np.random.default_rng(1).integers(0, 256, 600).tolist()
    logits, cache = tiny.forward([ids, ids], lengths=[600, 30], logits_at="last")
    assert cache.lengths.tolist() == [600, 30]
    np.testing.assert_allclose(logits[0], reference.logits(ids)[-1], atol=1e-4)
    np.testing.assert_allclose(logits[1], reference.logits(ids[:30])[-1], atol=1e-4)


def test_rows_one_by_one_for_older_runtimes(reference, open_tiny, monkeypatch):
    monkeypatch.setattr("pickaxe.lm.network.takes_query_lengths", lambda: False)
    lm = open_tiny(reference)
    assert not lm.network.ragged
    _, past = lm.forward([IDS[:6], IDS[:6]], lengths=[6, 2], logits_at="none")
    logits, cache = lm.forward([[70, 71], [80, 81]], past=past, logits_at="all")
    assert cache.lengths.tolist() == [8, 4]
    np.testing.assert_allclose(logits[0], reference.logits([*IDS[:6], 70, 71])[6:], atol=1e-4)
    np.testing.assert_allclose(logits[1], reference.logits([*IDS[:2], 80, 81])[2:], atol=1e-4)
    ids = np.random.default_rng(1).integers(0, 256, 600).tolist()
    logits, _ = lm.forward([ids, ids], lengths=[513, 30])
    np.testing.assert_allclose(logits[0], reference.logits(ids[:513])[-1], atol=1e-4)
    np.testing.assert_allclose(logits[1], reference.logits(ids[:30])[-1], atol=1e-4)


def test_refusals_name_the_reason(tiny):
    with pytest.raises(DoesNotFit) as caught:
        tiny.forward(np.zeros((1, 641), np.int64))
    assert caught.value.metadata == {"tokens": "641", "context": "640"}
    with pytest.raises(InvalidItems, match=r"\[0, 258\)"):
        tiny.forward([[258]])
    with pytest.raises(InvalidItems, match="shape"):
        tiny.forward(np.zeros((1, 0), np.int64))
    with pytest.raises(InvalidParams, match=r"shape \(2, 2\)"):
        tiny.forward([IDS], bias=np.zeros((2, 2)))
    with pytest.raises(InvalidParams, match="lengths"):
        tiny.forward([IDS], lengths=[0])
    with pytest.raises(InvalidParams, match="positions"):
        tiny.forward([[1]], positions=np.array([[640]]))
    _, past = tiny.forward([IDS])
    with pytest.raises(InvalidParams, match="1 rows, the ids have 2"):
        tiny.forward([IDS, IDS], past=past)


def test_unknown_architectures_and_precisions(tmp_path: Path, runtime):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(ModelMissing, match=r"no \.safetensors"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(Unmet, match="model_type 'mamba'"):
        open_checkpoint(tmp_path)
    with pytest.raises(InvalidParams, match="int3"):
        LM.open(ModelStore(tmp_path), runtime, str(tmp_path), "int3")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelMissing, match=r"0 \.gguf"):
        open_checkpoint(empty)


def test_draft_model_reads_like_its_teacher(runtime, smollm):
    draft = LM.open(ModelStore(), runtime, "draft")
    assert draft.tokenizer.digest == smollm.tokenizer.digest
    ids = smollm.tokenizer.encode("The sun rises in the east and sets in the")
    assert draft.token_logprobs([ids])[0].mean() > -6
    assert draft.digest != smollm.digest


def test_greedy_answer_of_the_real_model(smollm):
    logits, _ = smollm.forward([smollm.tokenizer.encode("The capital of France is")])
    assert smollm.tokenizer.decode([int(logits[0].argmax())]) == " Paris"
    assert (smollm.vocab_size, smollm.context_length) == (49152, 8192)
