"""KV prediction: predicted caches are where and what the base reads, and decoding goes on from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import identity, items, saved, text, tokenizer_in, trained_base

import pickaxe
from pickaxe import Call, Host, Item, Prompt, Sampling
from pickaxe.data import Completion
from pickaxe.errors import (
    ArtifactCorrupt,
    ArtifactMismatch,
    DoesNotFit,
    InvalidItems,
    InvalidParams,
    PickaxeError,
    Unmet,
)
from pickaxe.lm import KV, LM, Generation, rotate
from pickaxe.lm.weights import Architecture
from pickaxe_plugins.decoding.kv_predict import (
    Reader,
    kept_layers,
    nearest_map,
    predict,
    prefill_share,
    spread_map,
    write_graph,
)
from pickaxe_plugins.train import llama


@pytest.fixture(scope="module")
def base() -> Path:
    return trained_base()


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "neighbours rotate": {"rope_interleaved": True},
    "qwen2": {"qkv_bias": True},
}
IDS = [5, 80, 17, 3, 200, 9, 41, 41, 66, 120, 7, 260]


def reader_of(folder: Path, base: LM, aux: LM, layer_map: tuple[int, ...], arrays: Mapping[str, np.ndarray]) -> Reader:
    graph = folder / "predictor.onnx"
    write_graph(arrays, layer_map, base.network.architecture, aux.network.architecture, graph)
    return Reader.open(base, aux, layer_map, graph)


# ---------------------------------------------------------------- a model that predicts itself


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_copy_predicts_the_base_exactly(changes: Mapping[str, Any], tmp_path: Path) -> None:
    """In training, at the first token and at the next ones."""
    architecture, weights = saved(tmp_path, **changes)
    copy, layer_map = identity(architecture), tuple(range(architecture.layers))
    ids = np.array([IDS])
    hidden, own = llama.read(weights, architecture, ids)
    logits = np.asarray(llama.logits(weights, hidden))
    predicted = predict(copy, layer_map, own, architecture)
    guided, _ = llama.read(weights, architecture, ids, given=predicted)
    np.testing.assert_allclose(llama.logits(weights, guided), logits, atol=1e-5, rtol=0)
    lm = Host().lm_at(tmp_path, "fp32")
    reader = reader_of(tmp_path, lm, lm, layer_map, copy)
    first, cache = lm.prefill(IDS[-1:], past=reader.read([IDS[:-1]])[0])
    plain, exact = lm.prefill(IDS)
    np.testing.assert_allclose(first, plain, atol=1e-5, rtol=0)
    for token in (8, 90, 31):
        first, cache = lm.prefill([token], past=cache)
        plain, exact = lm.prefill([token], past=exact)
        np.testing.assert_allclose(first, plain, atol=1e-5, rtol=0)


def test_a_copy_with_a_key_norm_undoes_its_scale(tmp_path: Path) -> None:
    """The cache has keys after their norm, and the base norms them again."""
    architecture, weights = saved(tmp_path, qk_norm=True)
    copy = identity(architecture)
    norms = np.stack([weights[f"layers.{layer}.k_norm"] for layer in range(architecture.layers)])
    copy["key_weight"] = copy["key_weight"] / np.tile(norms, architecture.kv_heads)[:, None]
    copy["key_norm"] = norms
    lm = Host().lm_at(tmp_path, "fp32")
    reader = reader_of(tmp_path, lm, lm, tuple(range(architecture.layers)), copy)
    first, _ = lm.prefill(IDS[-1:], past=reader.read([IDS[:-1]])[0])
    np.testing.assert_allclose(first, lm.prefill(IDS)[0], atol=1e-3, rtol=0)


BASES: Mapping[str, Mapping[str, Any]] = {**VARIANTS, "qwen3": {"qk_norm": True}, "own rotary base": {"rope_base": 500}}


@pytest.mark.parametrize("changes", BASES.values(), ids=BASES)
def test_the_graph_places_what_training_predicts(changes: Mapping[str, Any], tmp_path: Path) -> None:
    """A base and an auxiliary model of other sizes and rotary: keys are normed and turned as the base's own."""
    base, weights = saved(tmp_path / "base", **changes)
    aux, other = saved(tmp_path / "aux", 1, layers=2, kv_heads=1, rope_interleaved=True, qk_norm=base.qk_norm)
    draw = np.random.default_rng(2)
    arrays = {
        f"{kind}_{part}": draw.standard_normal(shape).astype(np.float32) / 8
        for kind in ("key", "value")
        for part, shape in {"weight": (4, 32, 16), "bias": (4, 32)}.items()
    }
    layer_map = (0, 1, 1, 0)
    _, seen = llama.read(other, aux, np.array([IDS]))
    seen = [(llama.normed_keys(other, aux, layer, keys), values) for layer, (keys, values) in enumerate(seen)]
    pairs = predict(arrays, layer_map, seen, base)
    host = Host()
    if base.qk_norm:
        arrays["key_norm"] = np.stack([weights[f"layers.{layer}.k_norm"] for layer in range(4)])
    reader = reader_of(
        tmp_path, host.lm_at(tmp_path / "base", "fp32"), host.lm_at(tmp_path / "aux", "fp32"), layer_map, arrays
    )
    (cache,) = reader.read([IDS])
    for layer, (keys, values) in enumerate(pairs):
        normed = np.asarray(llama.normed_keys(weights, base, layer, keys)).swapaxes(1, 2)
        np.testing.assert_allclose(cache.keys(layer), rotate(normed, np.arange(len(IDS)), base), atol=2e-5, rtol=0)
        np.testing.assert_allclose(cache.values(layer), np.asarray(values).swapaxes(1, 2), atol=2e-5, rtol=0)


@given(seed=st.integers(0, 1000), interleaved=st.booleans())
def test_taking_rotary_off_gives_the_keys_back(seed: int, interleaved: bool) -> None:
    architecture = Architecture(1, 64, 4, 2, 16, 96, 300, 512, rope_interleaved=interleaved)
    keys = np.random.default_rng(seed).uniform(-1, 1, (2, 9, 16)).astype(np.float32)
    positions = np.random.default_rng(seed).integers(0, 512, 9)
    turned = rotate(keys, positions, architecture)
    np.testing.assert_allclose(rotate(turned, positions, architecture, inverse=True), keys, atol=1e-6, rtol=0)


def test_padding_changes_nothing(fitted: str) -> None:
    handle = pickaxe.decoder("kv-predict", artifact=fitted)
    base = handle.opened.host.lm(handle.params.model, "fp32")
    reader = handle.opened.method._reader(base)
    alone, longer = IDS[:5], IDS
    (one,), (padded, _) = reader.read([alone]), reader.read([alone, longer])
    assert (one.width, padded.width) == (5, 5)
    for layer in range(one.layers):
        np.testing.assert_allclose(one.keys(layer), padded.keys(layer), atol=1e-5, rtol=0)
        np.testing.assert_allclose(one.values(layer), padded.values(layer), atol=1e-5, rtol=0)


# ---------------------------------------------------------------- layers


@given(layers=st.integers(1, 60), count=st.integers(1, 60))
def test_maps_serve_every_layer_in_order_and_repeat_the_earliest(layers: int, count: int) -> None:
    count = min(count, layers)
    kept = kept_layers(layers, count)
    assert kept[0] == 0
    assert sorted(set(kept)) == list(kept)
    assert len(kept) == count
    nearest, spread = nearest_map(layers, kept), spread_map(layers, count)
    for found in (nearest, spread):
        assert sorted(found) == list(found)
        assert set(found) == set(range(count))
        assert len(found) == layers
    assert all(nearest[layer] == place for place, layer in enumerate(kept))
    served = [spread.count(source) for source in range(count)]
    assert sorted(served, reverse=True) == served
    assert served[0] - served[-1] <= 1


def test_published_maps() -> None:
    assert nearest_map(28, kept_layers(28, 21))[:8] == (0, 1, 2, 2, 3, 4, 5, 5)
    assert nearest_map(28, kept_layers(28, 7)) == tuple(np.repeat(range(7), 4))
    assert spread_map(36, 16) == (*np.repeat(range(4), 3), *np.repeat(range(4, 16), 2))
    assert spread_map(36, 20) == (*np.repeat(range(16), 2), *range(16, 20))
    assert spread_map(36, 28) == (*np.repeat(range(8), 2), *range(8, 28))
    assert nearest_map(4, (2, 3)) == (0, 0, 0, 1)


def test_the_share_of_operations_grows_with_the_auxiliary_model() -> None:
    base = Architecture(30, 576, 9, 3, 64, 1536, 49152, 8192)
    shares = [prefill_share(base, Architecture(n, 576, 9, 3, 64, 1536, 49152, 8192), 256) for n in (4, 15, 30)]
    assert shares == sorted(shares)
    assert shares[1] == pytest.approx(0.5, abs=0.05)
    assert shares[2] > 1


# ---------------------------------------------------------------- decoding


@pytest.fixture(scope="module")
def fitted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An artifact with the auxiliary model untrained; decodes greedily."""
    path = tmp_path_factory.mktemp("kv-predict") / "fitted"
    decoder = pickaxe.decoder("kv-predict", model=str(base), precision="fp32", temperature=0, max_tokens=12, steps=0)
    decoder.fit(items(5000, 32), validation=items(6000, 8), out=path)
    return str(path)


def plain(base: Path, prompt: str, **sampling: Any) -> Completion:
    """What the base itself says."""
    decoder = pickaxe.decoder("repeated-sampling", model=str(base), precision="fp32", temperature=0, max_tokens=12)
    return decoder.complete(Prompt(prompt, sampling=Sampling(**sampling)))[-1]


def test_the_base_reads_one_token_on_all_others(fitted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Generation] = []
    generate: Callable[..., Any] = LM.generate_all

    def spy(self: LM, requests: Sequence[Generation], call: Call) -> Any:
        asked.extend(requests)
        return generate(self, requests, call)

    monkeypatch.setattr(LM, "generate_all", spy)
    decoder = pickaxe.decoder("kv-predict", artifact=fitted)
    (found,) = decoder.complete(text(1))
    ids = decoder.opened.host.lm(decoder.params.model, "fp32").tokenizer.encode(text(1))
    assert len(ids) > 16
    (request,) = asked
    assert isinstance(request.past, KV)
    assert (list(request.prompt_ids), request.past.lengths.tolist()) == (ids[-1:], [len(ids) - 1])
    assert found.usage["predicted_tokens"] == len(ids) - 1
    assert found.usage["prompt_tokens"] == len(ids)
    assert found.usage["completion_tokens"] == len(found.token_ids) == 12
    assert found.usage["ttft_ms"] > 0


def test_later_tokens_are_the_bases_own(fitted: str) -> None:
    """Greedy decoding by hand: one predicted cache, then the base alone."""
    decoder = pickaxe.decoder("kv-predict", artifact=fitted)
    (found,) = decoder.complete(text(2))
    base = decoder.opened.host.lm(decoder.params.model, "fp32")
    ids = base.tokenizer.encode(text(2))
    (cache,) = decoder.opened.method._reader(base).read([ids[:-1]])
    token, by_hand = ids[-1], []
    for step in range(12):
        logits, cache = base.prefill([token], past=cache)
        assert cache.width == len(ids) + step
        token = int(logits.argmax())
        by_hand.append(token)
    assert list(found.token_ids) == by_hand


def test_reading_the_whole_prompt_again_is_plain_decoding(base: Path, fitted: str) -> None:
    expected = plain(base, text(3))
    for refresh in (1000, 60, 2):
        (found,) = pickaxe.decoder("kv-predict", artifact=fitted, refresh=refresh).complete(text(3))
        tokens = found.usage["prompt_tokens"]
        assert found.usage["predicted_tokens"] == max(0, tokens - refresh)
        if refresh >= tokens:
            assert (found.token_ids, found.logprobs) == (expected.token_ids, expected.logprobs)


def test_short_prompts_are_read_by_the_base(base: Path, fitted: str) -> None:
    (found,) = pickaxe.decoder("kv-predict", artifact=fitted, prompt_min_tokens=1).complete("A")
    assert found.usage["predicted_tokens"] == 0
    assert found.token_ids == plain(base, "A").token_ids
    tokens = 0
    for least in (2, 1000):
        (found,) = pickaxe.decoder("kv-predict", artifact=fitted, prompt_min_tokens=least).complete(text(4))
        tokens = int(found.usage["prompt_tokens"])
        assert found.usage["predicted_tokens"] == (tokens - 1 if least == 2 else 0)
    (found,) = pickaxe.decoder("kv-predict", artifact=fitted, prompt_min_tokens=tokens).complete(text(4))
    assert found.usage["predicted_tokens"] == tokens - 1


def test_a_gate_on_the_measured_error_falls_back(base: Path, fitted: str) -> None:
    measured = pickaxe.decoder("kv-predict", artifact=fitted).artifact.notes["validation"]  # type: ignore[union-attr]
    error = max(measured["k_loss/average"], measured["v_loss/average"])
    for limit, predicted in ((error * 1.01, True), (error * 0.99, False)):
        (found,) = pickaxe.decoder("kv-predict", artifact=fitted, max_error=limit).complete(text(5))
        assert (found.usage["predicted_tokens"] > 0) == predicted
    assert found.token_ids == plain(base, text(5)).token_ids


def test_prompts_read_together_are_answered_alike(fitted: str) -> None:
    prompts = [text(row)[: 20 * row + 20] for row in range(4)]
    alone = pickaxe.decoder("kv-predict", artifact=fitted).complete(prompts)
    together = pickaxe.decoder("kv-predict", artifact=fitted, batch=3).complete(prompts)
    assert [each.token_ids for each in alone] == [each.token_ids for each in together]


def test_choices_stop_strings_seeds_and_allowed_texts(fitted: str) -> None:
    decoder = pickaxe.decoder("kv-predict", artifact=fitted)
    drawn = Sampling(n=3, temperature=1.0, seed=5)
    found = decoder.complete(Prompt(text(6), sampling=drawn))
    assert [each.choice for each in found] == [0, 1, 2]
    assert len({each.token_ids for each in found}) > 1
    assert [each.token_ids for each in decoder.complete(Prompt(text(6), sampling=drawn), seed=9)] == [
        each.token_ids for each in found
    ]
    (cut,) = decoder.complete(Prompt(text(6) + " Anna has the", sampling=Sampling(stop=(".",))))
    assert "." not in cut.text
    (chosen,) = decoder.complete(Prompt(text(6), allowed=(" red", " green")))
    assert chosen.text in (" red", " green")


# ---------------------------------------------------------------- what does not go together


def test_another_base_is_refused(fitted: str, tmp_path: Path) -> None:
    saved(tmp_path / "other")
    with pytest.raises(ArtifactMismatch, match="another model"):
        pickaxe.decoder("kv-predict", artifact=fitted, model=str(tmp_path / "other")).complete(text(0))


def test_a_gate_without_a_measure_is_refused(base: Path) -> None:
    handle = pickaxe.decoder("kv-predict", model=str(base), precision="fp32", steps=0, max_error=1.0).fit(items(0, 2))
    with pytest.raises(Unmet, match="validation"):
        handle.complete(text(0))


def test_prompts_beyond_the_context_are_refused(fitted: str) -> None:
    with pytest.raises(DoesNotFit):
        pickaxe.decoder("kv-predict", artifact=fitted).complete(" ".join(map(text, range(9))))


def test_a_graph_of_other_models_is_refused(tmp_path: Path) -> None:
    architecture, _ = saved(tmp_path)
    lm, arrays = Host().lm_at(tmp_path, "fp32"), identity(architecture)
    reader_of(tmp_path, lm, lm, (0, 1, 2, 3), arrays)
    for layer_map in ((0, 1, 2, 4), (0, 1, 2, -1)):
        with pytest.raises(ArtifactCorrupt, match="does not fit"):
            Reader.open(lm, lm, layer_map, tmp_path / "predictor.onnx")
    shorter = {name: array[:2] for name, array in arrays.items()}
    with pytest.raises(ArtifactCorrupt, match="does not fit"):
        reader_of(tmp_path, lm, lm, (0, 1), shorter)


REFUSED: Mapping[str, tuple[Mapping[str, Any], type[PickaxeError], str]] = {
    "map too long": ({"layer_map": (0, 0, 1, 1, 1)}, InvalidParams, "each of the 4 layers"),
    "map out of range": ({"layer_map": (0, 0, 1, 2)}, InvalidParams, "layers 0 to 1"),
    "layers out of range": ({"layers": (0, 4)}, InvalidParams, "layers 0 to 3"),
    "layers fall": ({"layers": (2, 0)}, InvalidParams, "must rise"),
    "two auxiliary models": ({"layers": (0,), "aux": "draft"}, InvalidParams, "give one of them"),
    "other tokenizer": ({"aux": "draft"}, Unmet, "different tokenizers"),
    "share too small": ({"prefill_share": 0.01}, InvalidParams, "even one layer"),
}


@pytest.mark.parametrize(("changes", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_fits_that_cannot_be(
    changes: Mapping[str, Any], error: type[PickaxeError], message: str, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        pickaxe.decoder("kv-predict", model=str(base), precision="fp32", steps=0, **changes).fit(
            items(0, 2), out=tmp_path / "art"
        )
    assert not (tmp_path / "art").exists()


def test_an_auxiliary_model_with_more_layers_is_refused(base: Path, tmp_path: Path) -> None:
    saved(tmp_path / "deep", layers=5)
    with pytest.raises(InvalidParams, match="5 layers, more than the 4"):
        pickaxe.decoder("kv-predict", model=str(base), precision="fp32", aux=str(tmp_path / "deep")).fit(items(0, 2))


def test_examples_without_text_are_named(base: Path, tmp_path: Path) -> None:
    decoder = pickaxe.decoder("kv-predict", model=str(base), precision="fp32", steps=0)
    vocab = tokenizer_in(tmp_path).vocab_size
    for example, message in (
        (Item("bad"), "neither text nor ids"),
        (Item("bad", fields={"ids": np.array([1, vocab])}), f"0 to {vocab - 1}"),
        (Item("bad", fields={"ids": np.array([1.5, 2])}), "whole numbers"),
    ):
        with pytest.raises(InvalidItems, match=f"'bad'.*{message}"):
            decoder.fit([*items(0, 1), example])
    with pytest.raises(InvalidItems, match="nothing to learn"):
        decoder.fit([])
