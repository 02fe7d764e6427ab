"""Sentence vectors against the same network written out in float64 NumPy."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pickaxe.call import Call
from pickaxe.encoder import Encoder
from pickaxe.encoder.graph import build, read_config
from pickaxe.encoder.memory import VectorMemory
from pickaxe.errors import ArtifactCorrupt, Cancelled, InvalidParams, Unmet
from pickaxe.models import ModelStore
from pickaxe.session import Runtime

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "",
    "Ein Satz auf Deutsch, mit Umlauten: schön!",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen. " * 6,
    "日本語 and 🎉",
)
erf = np.vectorize(math.erf)


def reference(model: Path, rows: list[list[int]]) -> np.ndarray:
    """Mean-pooled, normalised vectors of token rows, one at a time and without padding."""
    config = json.loads((model / "config.json").read_text())
    weights = {name: array.astype(np.float64) for name, array in load_file(str(model / "model.safetensors")).items()}
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config["layer_norm_eps"])
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def split(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), heads, -1).swapaxes(0, 1)

    def vector(row: list[int]) -> np.ndarray:
        x = weights["embeddings.word_embeddings.weight"][row]
        x = x + weights["embeddings.position_embeddings.weight"][: len(row)]
        x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(layers):
            prefix = f"encoder.layer.{layer}"
            q, k, v = (split(dense(x, f"{prefix}.attention.self.{part}")) for part in ("query", "key", "value"))
            weight = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]))
            mixed = (weight / weight.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(row), -1)
            x = norm(x + dense(mixed, f"{prefix}.attention.output.dense"), f"{prefix}.attention.output.LayerNorm")
            inner = dense(x, f"{prefix}.intermediate.dense")
            inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
            x = norm(x + dense(inner, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm")
        mean = x.mean(axis=0)
        return mean / np.linalg.norm(mean)

    return np.stack([vector(row) for row in rows])


@functools.cache
def runtime() -> Runtime:
    return Runtime("cpu", threads=1)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.open(ModelStore(), runtime())


def tiny_model(directory: Path, pooling: str = "mean", width: int = 8, **config: object) -> Path:
    """A random encoder of two layers with the real one's tokenizer and names that start with `bert.`."""
    directory.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_bytes((ModelStore().path("encoder") / name).read_bytes())
    settings = {"model_type": "bert", "hidden_size": width, "num_attention_heads": 2, "num_hidden_layers": 2,
                "layer_norm_eps": 1e-12, "max_position_embeddings": 16, "hidden_act": "gelu", **config}  # fmt: skip
    (directory / "config.json").write_text(json.dumps(settings))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": pooling == "first"}))
    save_file({f"bert.{name}": array for name, array in tiny_weights(width)}, str(directory / "model.safetensors"))
    return directory


def tiny_weights(width: int) -> Iterator[tuple[str, np.ndarray]]:
    random = np.random.default_rng(7)

    def some(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    for name, rows in (("word", 30522), ("position", 16), ("token_type", 2)):
        yield f"embeddings.{name}_embeddings.weight", some(rows, width)
    shapes = {"attention.self.query": (width, width), "attention.self.key": (width, width),
              "attention.self.value": (width, width), "attention.output.dense": (width, width),
              "intermediate.dense": (4 * width, width), "output.dense": (width, 4 * width)}  # fmt: skip
    norms = ["embeddings.LayerNorm"]
    for layer in range(2):
        for name, shape in shapes.items():
            yield f"encoder.layer.{layer}.{name}.weight", some(*shape)
            yield f"encoder.layer.{layer}.{name}.bias", some(shape[0])
        norms += [f"encoder.layer.{layer}.{name}.LayerNorm" for name in ("attention.output", "output")]
    for name in norms:
        yield f"{name}.weight", some(width)
        yield f"{name}.bias", some(width)


def test_equals_the_network_in_double_precision(encoder: Encoder) -> None:
    rows = encoder.tokenizer.encode_batch(TEXTS, add_special=True)
    expected = reference(ModelStore().path("encoder"), rows)
    found = encoder.encode(TEXTS)
    assert (found.shape, found.dtype) == ((len(TEXTS), 384), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_neighbours_in_the_batch_do_not_matter(encoder: Encoder) -> None:
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1])[::-1], together, atol=1e-6)


def test_eight_bits_come_near_and_neighbours_still_do_not_matter(encoder: Encoder) -> None:
    rounded = Encoder.open(ModelStore(), runtime(), precision="int8")
    exact, found = encoder.encode(TEXTS), rounded.encode(TEXTS)
    cosines = (exact * found).sum(axis=1)
    assert cosines.min() > 0.98
    assert cosines.max() < 1 - 1e-5
    np.testing.assert_allclose(np.concatenate([rounded.encode([text]) for text in TEXTS]), found, atol=1e-6)
    assert rounded.digest != encoder.digest


def test_eight_bits_are_for_cpus() -> None:
    with pytest.raises(InvalidParams, match="int8, which is for CPUs"):
        Encoder.open(ModelStore(), SimpleNamespace(is_cuda=True), precision="int8")  # type: ignore[arg-type]


def test_means_what_it_says(encoder: Encoder) -> None:
    cosines = encoder.similarity(
        ["A cat sat on the mat."], ["A kitten was sitting.", "Stock prices fell.", "A cat sat on the mat."]
    )
    assert cosines.shape == (1, 3)
    assert list(np.argsort(-cosines[0])) == [2, 0, 1]
    assert cosines[0, 2] == pytest.approx(1, abs=1e-6)


def test_none(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_long_texts_are_cut_but_closed(encoder: Encoder) -> None:
    words = ["word"] * 1000
    assert encoder.max_tokens == 256
    np.testing.assert_allclose(encoder.encode([" ".join(words)]), encoder.encode([" ".join(words[:254])]), atol=1e-6)
    cut = encoder.encode([" ".join(words)], max_tokens=10)
    np.testing.assert_allclose(cut, encoder.encode([" ".join(words[:8])]), atol=1e-6)


def test_a_call_that_is_over_encodes_nothing(encoder: Encoder) -> None:
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        encoder.encode(TEXTS, call)


class TestOtherModels:
    def test_prefixed_names_and_own_length(self, tmp_path: Path) -> None:
        model = tiny_model(tmp_path / "tiny")
        encoder = Encoder.open(ModelStore(tmp_path / "cache"), runtime(), str(model))
        assert (encoder.max_tokens, encoder.width) == (16, 8)
        vectors = encoder.encode(["some words here", "word " * 40])
        plain = {
            name.removeprefix("bert."): array for name, array in load_file(str(model / "model.safetensors")).items()
        }
        save_file(plain, str(model / "model.safetensors"))
        rows = encoder.tokenizer.encode_batch(["some words here", "word " * 14], add_special=True)
        np.testing.assert_allclose(vectors, reference(model, rows), atol=1e-5)

    def test_first_token_pooling_without_normalising(self, tmp_path: Path) -> None:
        first = Encoder.open(ModelStore(tmp_path), runtime(), str(tiny_model(tmp_path / "first", "first")))
        mean = Encoder.open(ModelStore(tmp_path), runtime(), str(tiny_model(tmp_path / "mean")))
        lone, pair = (encoder.encode(["", "a b"], normalize=False) for encoder in (first, mean))
        assert not np.allclose(lone, pair)
        assert not np.allclose(np.linalg.norm(lone, axis=1), 1)

    @pytest.mark.parametrize("setting", [{"model_type": "roberta"}, {"hidden_act": "relu"}])
    def test_other_shapes_are_refused(self, tmp_path: Path, setting: dict[str, str]) -> None:
        model = tiny_model(tmp_path / "tiny", **setting)
        with pytest.raises(Unmet, match=next(iter(setting.values()))):
            read_config(model)

    def test_what_is_no_encoder(self, tmp_path: Path) -> None:
        with pytest.raises(Unmet, match=r"no config\.json"):
            read_config(tmp_path)

    def test_a_missing_tensor_is_named(self, tmp_path: Path) -> None:
        model = tiny_model(tmp_path / "tiny")
        tensors = load_file(str(model / "model.safetensors"))
        del tensors["bert.encoder.layer.1.output.dense.bias"]
        save_file(tensors, str(model / "model.safetensors"))
        with pytest.raises(ArtifactCorrupt, match=r"encoder\.layer\.1\.output\.dense\.bias"):
            build(model, tmp_path)


class Counting:
    """Stands in for an encoder: vectors from lengths, and a list of what was encoded."""

    width = 2

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: list[str], call: object = None) -> np.ndarray:
        self.encoded += texts
        return np.array([[1, len(text)] for text in texts], np.float32)


def test_memory_encodes_a_text_once_and_forgets_the_least_recently_used() -> None:
    encoder = Counting()
    memory = VectorMemory(encoder, capacity=3 * 4 * 2)  # type: ignore[arg-type]
    assert memory.encode(["a", "bb", "a"]).tolist() == [[1, 1], [1, 2], [1, 1]]
    memory.encode(["ccc", "a"])
    memory.encode(["dddd"])  # forgets "bb"
    assert memory.encode(["a", "ccc", "bb"])[:, 1].tolist() == [1, 3, 2]
    assert encoder.encoded == ["a", "bb", "ccc", "dddd", "bb"]
    assert memory.encode([]).shape == (0, 2)
