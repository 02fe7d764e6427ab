"""Attention over parallel contexts, against the plain decoder with the two merged softmaxes written out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from pickaxe.errors import DoesNotFit, InvalidParams
from pickaxe.lm import KV, LM, Contexts
from pickaxe.lm.attention import UNSEEN
from pickaxe.lm.graph import build
from pickaxe.lm.network import OwnNetwork
from pickaxe.session import Session

PREFIX, FIRST, SECOND = [1, 9, 77], [10, 200, 33, 7, 7], [91, 64, 128]
QUERY = [5, 250, 41, 8]


def assembled(lm: LM, *contexts: list[int]) -> tuple[KV, np.ndarray, int]:
    """Prefix and contexts in one cache, the mask of the contexts, and the position after the longest."""
    _, prefix = lm.forward([PREFIX], logits_at="none")
    parts = []
    for ids in contexts:
        _, cache = lm.forward([ids], past=prefix, logits_at="none")
        parts.append(cache.take(np.arange(len(PREFIX), cache.width)))
    whole = KV.concatenate([prefix, *parts], axis="tokens")
    return whole, np.arange(whole.width) >= len(PREFIX), len(PREFIX) + max(map(len, contexts), default=0)


def expected(model: Any, lm: LM, contexts: list[list[int]], query: list[int], t: float, scale: float) -> np.ndarray:
    """Logits (n, vocab) after each query token: out = w softmax_ctx(s / T) V + (1 - w) softmax_other(s) V."""
    arch = lm.network.architecture
    ids = [*PREFIX, *chain(*contexts), *query]
    segment = np.repeat([0, *range(1, len(contexts) + 1), -1], [len(PREFIX), *map(len, contexts), len(query)])
    begin = len(PREFIX)
    end = begin + max(map(len, contexts), default=0)
    inner = [begin + np.arange(len(each)) for each in contexts]
    positions = np.concatenate([np.arange(begin), *inner, end + np.arange(len(query))])
    asks, apart = segment[:, None] < 0, segment > 0
    seen = np.tri(len(ids), dtype=bool) & ((segment[:, None] == segment) | (segment == 0) | asks)
    x = model.top["embedding"][ids].astype(np.float64)
    for layer in model.layers:
        h = norm(x, layer["attn_norm"])
        q, k, v = (
            (h @ layer[f"attn_{part}"].T + layer.get(f"attn_{part}_bias", 0)).reshape(len(ids), -1, arch.head_size)
            for part in "qkv"
        )
        if arch.qk_norm:
            q, k = norm(q, layer["attn_q_norm"]), norm(k, layer["attn_k_norm"])
        q, k = rotated(q, positions), rotated(k, positions)
        k, v = (np.repeat(part, arch.heads // arch.kv_heads, axis=1) for part in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(arch.head_size)
        mixed, total = attended(scores / t, v, seen & asks & apart)
        plain, other = attended(scores, v, seen & ~(asks & apart))
        share = 1 / (1 + np.exp(other - scale * t * total))
        out = share[..., None] * mixed + (1 - share[..., None]) * plain
        x = x + out.swapaxes(0, 1).reshape(len(ids), -1) @ layer["attn_output"].T
        h = norm(x, layer["ffn_norm"])
        gate = h @ layer["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ layer["ffn_up"].T)) @ layer["ffn_down"].T
    logits: np.ndarray = norm(x, model.top["norm"]) @ model.top.get("output", model.top["embedding"]).T
    return logits[-len(query) :]


def norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * scale


def rotated(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rotary by halves, base 10,000."""
    first, second = np.split(x, 2, axis=-1)
    angles = positions[:, None, None] * 10_000.0 ** (-np.arange(0, x.shape[-1], 2) / x.shape[-1])
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def attended(scores: np.ndarray, values: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Softmax over the seen keys times values (h, q, d), and its log-sum-exp (h, q); nothing is seen: 0 and -99."""
    weights = np.where(seen, np.exp(scores), 0)
    mass = weights.sum(-1)
    mass[mass == 0] = np.exp(-99)
    return np.einsum("hqk,khd->hqd", weights / mass[..., None], values), np.log(mass)


def read(lm: LM, contexts: list[list[int]], query: list[int], temperature: float, scale: float) -> np.ndarray:
    cache, mask, start = assembled(lm, *contexts)
    positions = start + np.arange(len(query))
    logits, _ = lm.forward(
        [query],
        past=cache,
        positions=positions[None],
        contexts=Contexts(mask, temperature, scale),
        logits_at="all",
    )
    return logits[0]


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_equals_the_two_merged_softmaxes(kind: str, family: str, reference_of, open_tiny) -> None:
    model = reference_of(family)
    lm = open_tiny(model, kind)
    for temperature, scale in ((0.9, 0.9), (0.5, 1.6), (1.0, 0.7), (1.7, 1.0)):
        found = read(lm, [FIRST, SECOND], QUERY, temperature, scale)
        np.testing.assert_allclose(found, expected(model, lm, [FIRST, SECOND], QUERY, temperature, scale), atol=1e-4)


def test_neutral_settings_are_ordinary_attention(tiny: LM, reference) -> None:
    found = read(tiny, [FIRST], QUERY, 1.0, 1.0)
    np.testing.assert_allclose(found, reference.logits([*PREFIX, *FIRST, *QUERY])[-4:], atol=1e-4)


def test_without_context_tokens_nothing_changes(tiny: LM, reference) -> None:
    found = read(tiny, [], QUERY, 0.5, 0.3)
    np.testing.assert_allclose(found, reference.logits([*PREFIX, *QUERY])[-4:], atol=1e-4)


def test_scale_of_one_over_temperature_is_scaling_the_keys(tiny: LM) -> None:
    cache, mask, start = assembled(tiny, FIRST, SECOND)
    contexts = Contexts(mask, 0.8, 1 / 0.8)
    ours, _ = tiny.forward([QUERY], past=cache, positions=start + np.arange(4)[None], contexts=contexts)
    scaled = KV([np.copy(tensor[:, :, : cache.width]) for tensor in cache.tensors], cache.lengths)
    for keys in scaled.tensors[::2]:
        keys[:, :, mask] /= 0.8
    plain, _ = tiny.forward([QUERY], past=scaled, positions=start + np.arange(4)[None])
    np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)


def test_token_by_token_equals_at_once(tiny: LM) -> None:
    cache, mask, start = assembled(tiny, FIRST, SECOND)
    contexts = Contexts(mask, 0.7, 0.9)
    whole = read(tiny, [FIRST, SECOND], QUERY, 0.7, 0.9)
    for place, token in enumerate(QUERY):
        logits, cache = tiny.forward([[token]], past=cache, positions=np.array([[start + place]]), contexts=contexts)
        np.testing.assert_allclose(logits[0], whole[place], atol=1e-5)
    assert cache.lengths.tolist() == [len(PREFIX) + 8 + len(QUERY)]


def test_memory_that_the_device_does_not_share(tiny: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(tiny, [FIRST, SECOND], QUERY, 0.9, 0.9)
    share = Session.ort_value
    monkeypatch.setattr(Session, "ort_value", lambda self, array, *rest: share(self, array.copy(), *rest))
    monkeypatch.setattr(type(tiny.network.runtime), "shares_memory", False)
    np.testing.assert_allclose(read(tiny, [FIRST, SECOND], QUERY, 0.9, 0.9), expected, atol=1e-5)


def test_rows_differ_in_contexts_lengths_and_settings(tiny: LM) -> None:
    settings = [([FIRST, SECOND], QUERY, 0.9, 0.8), ([SECOND], QUERY[:2], 1.3, 1.0), ([], QUERY[:3], 0.5, 0.5)]
    caches, masks, starts = zip(*(assembled(tiny, *contexts) for contexts, *_ in settings), strict=True)
    cache = KV.concatenate(caches)
    mask = np.zeros((3, cache.width), bool)
    for row, own in enumerate(masks):
        mask[row, : len(own)] = own
    found, longer = tiny.forward(
        [query + [0] * (4 - len(query)) for _, query, *_ in settings],
        lengths=[len(query) for _, query, *_ in settings],
        positions=np.array(starts)[:, None] + np.arange(4),
        past=cache,
        contexts=Contexts(mask, np.array([0.9, 1.3, 0.5]), np.array([0.8, 1.0, 0.5])),
    )
    for row, (contexts, query, temperature, scale) in enumerate(settings):
        np.testing.assert_allclose(found[row], read(tiny, contexts, query, temperature, scale)[-1], atol=1e-5)
    assert longer.lengths.tolist() == [15, 8, 6]


def test_long_queries_are_read_in_chunks(tiny: LM) -> None:
    query = [int(token) for token in np.random.default_rng(0).integers(0, 256, 520)]
    whole = read(tiny, [FIRST], query, 0.9, 0.9)
    np.testing.assert_allclose(read(tiny, [FIRST], query[:500], 0.9, 0.9), whole[:500], atol=1e-5)
    assert np.isfinite(whole).all()


def test_contexts_may_be_longer_together_than_the_model_s_context(tiny: LM) -> None:
    long = [int(token) for token in np.random.default_rng(0).integers(0, 256, 300)]
    cache, mask, start = assembled(tiny, long, long[::-1], long)
    assert cache.width > tiny.context_length
    logits, _ = tiny.forward([QUERY], past=cache, positions=start + np.arange(4)[None], contexts=Contexts(mask))
    assert np.isfinite(logits).all()
    with pytest.raises(DoesNotFit):
        tiny.forward([QUERY], past=cache, contexts=Contexts(mask))


def test_extreme_scores_stay_finite(open_tiny, reference) -> None:
    loud = replace(
        reference,
        layers=[layer | {name: 40 * layer[name] for name in ("attn_q", "attn_k")} for layer in reference.layers],
    )
    for temperature, scale in ((0.1, 0.1), (0.1, 2.0), (2.0, 2.0)):
        assert np.isfinite(read(open_tiny(loud), [FIRST, SECOND], QUERY, temperature, scale)).all()


@pytest.mark.parametrize(("precision", "least"), [("int8", 0.999), ("int4", 0.95)])
def test_every_precision(precision: str, least: float, reference, open_tiny) -> None:
    lm = open_tiny(reference, "safetensors", precision)
    found = read(lm, [FIRST, SECOND], QUERY, 0.9, 0.9)
    wanted = expected(reference, lm, [FIRST, SECOND], QUERY, 0.9, 0.9)
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > least


def test_half_precision_keeps_the_softmax_in_float32(tiny: LM, reference, tmp_path: Path) -> None:
    architecture = tiny.network.architecture
    build(architecture, Weights(reference), "fp16", tmp_path)
    graph = onnx.load(tmp_path / "contexts.onnx", load_external_data=False).graph
    casts = {node.output[0]: node.attribute[0].i for node in graph.node if node.op_type == "Cast"}
    assert [casts[node.input[0]] for node in graph.node if node.op_type == "Mul" and "tempered" in node.name] == [1, 1]
    session = onnxruntime.InferenceSession(str(tmp_path / "contexts.onnx"))  # a CPU computes halves as floats
    cache, mask, start = assembled(tiny, FIRST, SECOND)
    cache = cache.resized(cache.width + len(QUERY))
    feeds = Contexts(mask, 0.9, 0.9).feeds(cache.lengths, len(QUERY), cache.capacity, architecture)
    past = {
        f"past_{kind}.{layer}": tensors[layer].astype(np.float16)
        for kind, tensors in (("key", cache.tensors[::2]), ("value", cache.tensors[1::2]))
        for layer in range(cache.layers)
    }
    ids = {"input_ids": np.array([QUERY]), "position_ids": start + np.arange(4)[None], "rows": np.arange(4)}
    hidden = session.run(["hidden"], {**ids, **feeds, **past})[0]
    assert hidden.dtype == np.float16
    logits = hidden.astype(np.float64) @ reference.top["embedding"].T
    assert np.corrcoef(logits.ravel(), read(tiny, [FIRST, SECOND], QUERY, 0.9, 0.9).ravel())[0, 1] > 0.9999


def test_a_bias_in_half_precision_does_what_it_does_in_float32(tiny: LM, reference, tmp_path: Path) -> None:
    """Rows of unlike lengths under masks of their own, in memory with slots to spare."""
    network = tiny.network
    assert isinstance(network, OwnNetwork)
    build(network.architecture, Weights(reference), "fp16", tmp_path)
    half = replace(network, precision="fp16", folder=tmp_path)
    random = np.random.default_rng(0)
    ids, more = random.integers(0, 256, (3, 7)), random.integers(0, 256, (3, 2))
    counts, rows, later = np.array([7, 4, 1]), np.array([0, 3, 6, 7, 10, 14]), np.array([0, 1, 4])
    masks = [
        np.where(random.random((3, 1, size, seen)) < 0.3, np.float32(UNSEEN), 0) for size, seen in ((7, 7), (2, 9))
    ]
    for row, past in enumerate(counts):  # a token sees itself
        masks[0][row, 0, np.arange(7), np.arange(7)] = masks[1][row, 0, np.arange(2), past + np.arange(2)] = 0
    found = []
    for each in (network, half):
        empty = KV.empty(network.architecture, 3, 0, each.dtype)
        first, cache = each.read(ids, counts, empty, rows, bias=masks[0])
        second, _ = each.read(more, np.array([2, 1, 2]), cache, later, bias=masks[1])
        found.append(np.concatenate([first, second]).astype(np.float64))
    np.testing.assert_allclose(found[1], found[0], atol=0.03)
    assert np.corrcoef(found[1].ravel(), found[0].ravel())[0, 1] > 0.9999


class Weights:
    """The plain decoder's tensors under the names that graphs are written from."""

    NAMES = {"attention_norm": "attn_norm", "mlp_norm": "ffn_norm", "o": "attn_output"}

    def __init__(self, model: Any) -> None:
        self._model = model

    def tensor(self, name: str) -> np.ndarray:
        _, _, layered = name.partition(".")
        if not layered:
            return self._model.top[name]
        layer, part = layered.split(".")
        prefix = "attn_" if part in "qkv" else "ffn_"
        return self._model.layers[int(layer)][self.NAMES.get(part, prefix + part)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda mask: Contexts(mask.astype(int)), "must be bool"),
        (lambda mask: Contexts(mask, 0.0), "temperature"),
        (lambda mask: Contexts(mask, 1.0, float("nan")), "scale"),
        (lambda mask: Contexts(np.ones(99, bool)), "beyond"),
        (lambda mask: Contexts(np.stack([mask, mask])), "2 rows"),
        (lambda mask: Contexts(mask, np.ones(3)), "3 rows"),
    ],
)
def test_wrong_contexts(make: Callable[[np.ndarray], Contexts], message: str, tiny: LM) -> None:
    cache, mask, _ = assembled(tiny, FIRST)
    with pytest.raises(InvalidParams, match=message):
        tiny.forward([QUERY], past=cache, contexts=make(mask))


def test_not_together_with_a_bias(tiny: LM) -> None:
    cache, mask, _ = assembled(tiny, FIRST)
    with pytest.raises(InvalidParams, match="bias"):
        tiny.forward([QUERY], past=cache, contexts=Contexts(mask), bias=np.zeros((4, cache.width + 4)))
