"""BERT in JAX: what ONNX Runtime computes, on disk and back, pairs, heads, dropout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pickaxe import Host
from pickaxe.errors import ArtifactCorrupt
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.train import bert, bert_files, vocabulary
from pickaxe_plugins.train.pairs import Framing, batch

TEXTS = ["Water boils at a hundred degrees.", "The Moon orbits the Earth", "cats, dogs and owls; " * 9, "?"]
TINY = bert.Config(layers=2, width=32, heads=4, mlp=48, vocab=200, positions=64)


def made(folder: Path, **changes: Any) -> tuple[bert.Config, dict[str, np.ndarray], Tokenizer]:
    """A new network and its tokenizer; larger weights than at the start, so that attention matters."""
    tokenizer = vocabulary.learn_words(TEXTS, TINY.vocab, folder)
    config = replace(TINY, vocab=tokenizer.vocab_size, **changes)
    return config, bert.initial(config, seed=1, scale=0.2), tokenizer


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_saved_network_gives_the_encoder_the_same_vectors(pooling: bert.Pooling, tmp_path: Path) -> None:
    config, weights, tokenizer = made(tmp_path, pooling=pooling)
    bert_files.save(tmp_path, config, weights)
    found = Host().encoder(str(tmp_path)).encode(TEXTS, normalize=False)
    given = batch(Framing(tokenizer, config.positions).texts(TEXTS))
    expected = np.asarray(bert.embed(weights, config, given))
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("head", [bert.Head("pooler"), bert.Head("cls", 3), bert.Head("mean")], ids=lambda h: h.pool)
def test_a_saved_head_gives_the_cross_encoder_the_same_scores(head: bert.Head, tmp_path: Path) -> None:
    config, weights, tokenizer = made(tmp_path, head=head, positions=32)
    bert_files.save(tmp_path, config, weights)
    pairs = [(one, other) for one in TEXTS for other in TEXTS]  # some are cut
    found = Host().cross_encoder(str(tmp_path)).score(pairs)
    rows = Framing(tokenizer, config.positions).pairs(*zip(*pairs, strict=True))
    expected = np.asarray(bert.scores(weights, config, batch(rows)))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-4, rtol=0)


def test_the_stores_encoder_gives_the_same_vectors() -> None:
    host = Host()
    folder = host.models.path("encoder")
    config, weights = bert_files.load(folder)
    assert (config.layers, config.width, config.pooling, config.head) == (6, 384, "mean", None)
    encoder = host.encoder("encoder")
    given = batch(Framing(encoder.tokenizer, encoder.max_tokens).texts(TEXTS))
    expected = bert.unit(bert.embed(weights, config, given))
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("head", [None, bert.Head("pooler"), bert.Head("cls", 3), bert.Head("mean")])
@pytest.mark.parametrize("mlm", [False, True])
def test_what_is_saved_loads_again(head: bert.Head | None, mlm: bool, tmp_path: Path) -> None:
    config, weights, _ = made(tmp_path, head=head, mlm=mlm, pooling="cls")
    bert_files.save(tmp_path, config, weights)
    again, loaded = bert_files.load(tmp_path)
    assert again == config
    assert loaded.keys() == weights.keys()
    assert all((loaded[name] == array).all() for name, array in weights.items())


def test_files_bear_the_usual_names(tmp_path: Path) -> None:
    config, weights, _ = made(tmp_path, head=bert.Head("pooler", 2), mlm=True)
    target = tmp_path / "saved"
    target.mkdir()
    bert_files.save(target, config, weights, like=tmp_path)
    from safetensors.numpy import load_file

    names = load_file(str(target / "model.safetensors")).keys()
    assert {"classifier.weight", "bert.pooler.dense.bias", "cls.predictions.transform.LayerNorm.weight"} <= names
    assert "bert.encoder.layer.1.attention.self.query.weight" in names
    written = json.loads((target / "config.json").read_text())
    assert written["pickaxe_head"] == {"pool": "pooler", "outputs": 2}
    assert (target / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    config, weights, _ = made(tmp_path)
    name = "encoder.layer.1.output.dense.weight"
    bert_files.save(tmp_path, config, {**weights, name: weights[name][:, :5]})
    with pytest.raises(ArtifactCorrupt, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        bert_files.load(tmp_path)


def test_heads_that_are_added_keep_what_is_there(tmp_path: Path) -> None:
    config, weights, _ = made(tmp_path)
    pooler = {"pooler.dense.weight": np.ones((32, 32), np.float32), "pooler.dense.bias": np.ones(32, np.float32)}
    grown, more = bert.with_heads(config, {**weights, **pooler}, seed=0, head=bert.Head("pooler"), mlm=True)
    assert grown.head == bert.Head("pooler")
    assert grown.mlm
    assert more["pooler.dense.weight"] is pooler["pooler.dense.weight"]
    assert more["classifier.weight"].shape == (1, 32)
    assert set(more) == {name for name, _ in bert.shapes(grown)}


def test_padding_changes_nothing(tmp_path: Path) -> None:
    config, weights, tokenizer = made(tmp_path, head=bert.Head("mean"))
    rows = Framing(tokenizer, 64).pairs(TEXTS, TEXTS[::-1])
    together = bert.scores(weights, config, batch(rows, 7))
    assert np.isfinite(together).all()
    for place, row in enumerate(rows):
        np.testing.assert_allclose(bert.scores(weights, config, batch([row]))[0], together[place], atol=1e-5)


def test_segments_matter(tmp_path: Path) -> None:
    config, weights, tokenizer = made(tmp_path, head=bert.Head("pooler"))
    given = batch(Framing(tokenizer, 64).pairs(TEXTS[:1], TEXTS[1:2]))
    flat = {**given, "segments": np.zeros_like(given["segments"])}
    assert abs(float((bert.scores(weights, config, given) - bert.scores(weights, config, flat))[0, 0])) > 1e-4


def test_dropout_is_keyed(tmp_path: Path) -> None:
    import jax

    config, weights, tokenizer = made(tmp_path)
    given = batch(Framing(tokenizer, 64).texts(TEXTS))
    plain = bert.embed(weights, config, given, dropout=0.5)
    first, again = (bert.embed(weights, config, given, dropout=0.5, key=jax.random.key(0)) for _ in range(2))
    other = bert.embed(weights, config, given, dropout=0.5, key=jax.random.key(1))
    assert (first == again).all()
    assert not np.allclose(first, other)
    assert not np.allclose(first, plain)


def test_masked_words_have_logits(tmp_path: Path) -> None:
    config, weights, tokenizer = made(tmp_path, mlm=True)
    given = batch(Framing(tokenizer, 64).texts(TEXTS))
    hidden = bert.hidden_states(weights, config, given["ids"], given["lengths"])
    assert bert.mlm_logits(weights, config, hidden[:, 1]).shape == (len(TEXTS), config.vocab)


class TestFraming:
    def test_pairs_lose_the_end_of_the_second_text(self, tmp_path: Path) -> None:
        framing = Framing(made(tmp_path)[2], 9)
        ends = framing.single([]).ids.tolist()
        for first, second, kept in [(2, 2, (2, 2)), (5, 9, (5, 1)), (6, 2, (4, 2)), (9, 9, (3, 3)), (0, 9, (0, 6))]:
            row = framing.pair([7] * first, [8] * second)
            assert row.ids.tolist() == [ends[0], *[7] * kept[0], ends[1], *[8] * kept[1], ends[1]]
            assert row.segments.tolist() == [0] * (kept[0] + 2) + [1] * (kept[1] + 1)

    def test_a_long_text_is_cut_and_closed(self, tmp_path: Path) -> None:
        framing = Framing(made(tmp_path)[2], 5)
        ends = framing.single([]).ids.tolist()
        assert framing.single(list(range(10, 20))).ids.tolist() == [ends[0], 10, 11, 12, ends[1]]

    def test_another_form_of_tokenizer_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="BERT's form"):
            Framing(vocabulary.learn(TEXTS, 300, tmp_path), 8)
