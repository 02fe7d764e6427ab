"""The training kit: the same network as the runtime's, a loss that falls, exact resume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pickaxe import Host
from pickaxe.artifact import writing
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.lm.weights import Architecture, open_checkpoint
from pickaxe.params import parse
from pickaxe_plugins.train import llama, loop, vocabulary
from pickaxe_plugins.train.settings import Net, Recipe

SENTENCES = [f"the {animal} {verb} at {hour} o'clock" for animal in ("cat", "dog", "owl") for verb in ("eats", "naps")
             for hour in range(1, 5)]  # fmt: skip
NET = Net(layers=2, width=64, heads=4, kv_heads=2, vocab=320, context=256)
RECIPE = Recipe(epochs=4, batch=8, rate=1e-2, warmup=2, noise=5, checkpoint=2)
VARIANTS: Mapping[str, Mapping[str, bool]] = {
    "llama": {},
    "neighbours rotate": {"rope_interleaved": True},
    "own output": {"tied": False},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
}


def made(folder: Path, **changes: bool) -> tuple[Architecture, dict[str, np.ndarray]]:
    """A network with its tokenizer in the folder; larger weights than at the start, so that attention matters."""
    tokenizer = vocabulary.learn(SENTENCES, NET.vocab, folder)
    architecture = replace(NET.architecture(tokenizer.vocab_size), **changes)
    draw = np.random.default_rng(0)
    weights = {
        name: array + 0.1 * draw.standard_normal(array.shape).astype(np.float32)
        for name, array in llama.initial(architecture, seed=0).items()
    }
    return architecture, weights


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_saved_weights_give_the_runtime_the_same_logits(changes: Mapping[str, bool], tmp_path: Path) -> None:
    architecture, weights = made(tmp_path, **changes)
    llama.save(weights, architecture, tmp_path)
    lm = Host().lm_at(tmp_path, "fp32")
    ids = lm.tokenizer.encode("the owl naps at 3 o'clock and eats at noon")
    found, _ = lm.forward([ids], logits_at="all")
    assert found is not None
    expected = llama.logits(weights, llama.hidden_states(weights, architecture, np.array([ids])))
    assert np.abs(np.asarray(expected)).max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_saved_weights_load_again(changes: Mapping[str, bool], tmp_path: Path) -> None:
    architecture, weights = made(tmp_path, **changes)
    llama.save(weights, architecture, tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.architecture == architecture
    loaded = llama.load(checkpoint.architecture, checkpoint.tensors)
    assert loaded.keys() == weights.keys()
    assert all((loaded[name] == array).all() for name, array in weights.items())


def test_a_quantised_model_of_the_store_loads_and_gives_its_logits() -> None:
    host = Host()
    checkpoint = open_checkpoint(host.model_path("draft"))
    weights = llama.load(checkpoint.architecture, checkpoint.tensors)
    lm = host.lm("draft", "fp32")
    ids = lm.tokenizer.encode("Water boils at")
    found, _ = lm.forward([ids], logits_at="all")
    expected = llama.logits(weights, llama.hidden_states(weights, checkpoint.architecture, np.array([ids])))
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)


def test_every_text_can_be_encoded_and_the_separator_is_learned(tmp_path: Path) -> None:
    tokenizer = vocabulary.learn(["[1] > [2] > [3]"] * 9, 300, tmp_path)
    assert len(tokenizer.encode(" >")) == 1
    for text in ("[3] > [1]", "größer → ☃", "\x00"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_ids == (0,)


# ---------------------------------------------------------------- the loop


def texts(folder: Path) -> tuple[Architecture, dict[str, np.ndarray], list[loop.Text]]:
    tokenizer = vocabulary.learn(SENTENCES, NET.vocab, folder)
    architecture = NET.architecture(tokenizer.vocab_size)
    learned = []
    for row in tokenizer.encode_batch(SENTENCES):
        weights = np.full(len(row), 1 / (len(row) - 1), np.float32)
        weights[0] = 0
        learned.append(loop.Text(np.array(row, np.int32), weights))
    return architecture, llama.initial(architecture, seed=1), learned


def fit(out: Path, steps: int | None = None) -> tuple[list[float], dict[str, np.ndarray]]:
    """The losses and new weights of a training, given up after so many steps."""
    folder = out.with_name("vocabulary")
    folder.mkdir(exist_ok=True)
    architecture, weights, learned = texts(folder)
    losses: list[float] = []
    with writing(out, kind="fit", method="any", method_version=1, params={}) as writer:
        running = loop.train(architecture, weights, learned, RECIPE, writer, seed=0)
        while True:
            try:
                progress = next(running)
            except StopIteration as end:
                assert not list(writer.path.glob("checkpoint-*"))
                return losses, end.value
            losses.append(progress.metrics["loss"])
            if progress.step == steps:
                raise KeyboardInterrupt


def test_the_loss_falls(tmp_path: Path) -> None:
    losses, weights = fit(tmp_path / "out")
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 1
    assert all(array.dtype == np.float32 for array in weights.values())


@pytest.mark.parametrize("stop", [1, 4, 11])
def test_a_resumed_training_ends_in_the_same_bits(stop: int, tmp_path: Path) -> None:
    losses, whole = fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "stopped", stop)
    rest, resumed = fit(tmp_path / "stopped")
    assert rest == losses[len(losses) - len(rest) :]
    assert len(rest) == 12 - (stop if stop % 2 == 0 else stop - 1)
    assert all((resumed[name] == array).all() for name, array in whole.items())


def test_only_weighted_tokens_are_learned(tmp_path: Path) -> None:
    """What follows the last token that counts, and padding, change nothing."""
    architecture, weights, learned = texts(tmp_path)
    short = loop.Text(learned[0].ids[:4], np.array([0, 0, 0.5, 0.5], np.float32))
    longer = loop.Text(learned[0].ids, np.pad(short.weights, (0, len(learned[0].ids) - 4)))
    assert loop.mean_loss(architecture, weights, [short], 1) == pytest.approx(
        loop.mean_loss(architecture, weights, [longer], 3), rel=1e-5
    )
    with pytest.raises(InvalidItems, match="0 for the first"):
        loop.Text(np.array([1, 2], np.int32), np.array([1, 1], np.float32))


def test_the_mean_loss_is_that_of_the_texts_alone(tmp_path: Path) -> None:
    architecture, weights, learned = texts(tmp_path)
    alone = [loop.mean_loss(architecture, weights, [text], 1) for text in learned[:5]]
    assert loop.mean_loss(architecture, weights, learned[:5], 2) == pytest.approx(np.mean(alone), rel=1e-5)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"heads": 3, "kv_heads": 3}, "multiple of 16"),
        ({"kv_heads": 3}, "must divide heads"),
        ({"width": 48}, "width"),
    ],
)
def test_nets_that_cannot_be_are_refused(net: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        parse(Net, net)
