"""`kv-predict.fit`: what is trained and what is not, progress, resume, and whether predictions become good."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import items, saved, text, tokenizer_in, trained_base

import pickaxe
from pickaxe import Artifact, Call, Host, Item, Progress
from pickaxe.artifact import writing
from pickaxe.errors import ArtifactMismatch
from pickaxe.lm.weights import open_checkpoint
from pickaxe_plugins.decoding.kv_predict import prefill_share
from pickaxe_plugins.decoding.kv_predict._loss import IGNORED, Loss
from pickaxe_plugins.decoding.kv_predict._predictor import Regression, random_start
from pickaxe_plugins.decoding.kv_predict._training import Pairing, Trainer, batch, pruned, windows
from pickaxe_plugins.train import llama
from pickaxe_plugins.train.settings import Recipe

RECIPE = {"batch": 4, "rate": 1e-3, "warmup": 2, "checkpoint": 2}


def decoder(model: Path, **changes: Any) -> Any:
    given = {"precision": "fp32", "temperature": 0, "max_tokens": 8, "steps": 6, "length": 64, "recipe": RECIPE}
    return pickaxe.decoder("kv-predict", model=str(model), **{**given, **changes})


def bits(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in Artifact.open(path).manifest["files"]}


def digests(path: Path) -> dict[str, str]:
    return {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in path.iterdir() if each.is_file()}


@pytest.fixture(scope="module")
def base() -> Path:
    return trained_base()


@pytest.fixture(scope="module")
def random_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kv-predict") / "random"
    saved(path)
    return path


# ---------------------------------------------------------------- what is trained


def test_the_base_stays_and_everything_else_learns(random_base: Path, tmp_path: Path) -> None:
    before = digests(random_base)
    decoder(random_base).fit(items(0, 24), out=tmp_path / "art")
    assert digests(random_base) == before
    checkpoint, made = open_checkpoint(random_base), open_checkpoint(tmp_path / "art")
    assert made.architecture.layers == 2
    for name, origin in (("embedding", "embedding"), ("layers.1.q", "layers.2.q"), ("layers.1.down", "layers.2.down")):
        assert not np.array_equal(made.tensors.tensor(name), checkpoint.tensors.tensor(origin)), name
    record = json.loads((tmp_path / "art" / "map.json").read_text())
    assert record == {"base": checkpoint.digest, "map": [0, 0, 1, 1], "validation": None}


def test_gradients_do_not_reach_the_base(random_base: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(random_base)
    weights = llama.load(checkpoint.architecture, checkpoint.tensors)
    aux, started = pruned(checkpoint.architecture, weights, (0, 2))
    pairing = Pairing(checkpoint.architecture, aux, (0, 0, 1, 1))
    with writing(tmp_path / "out", kind="fit", method="any", method_version=1, params={}) as out:
        trainer = Trainer.of(pairing, weights, Loss(), Recipe(**RECIPE), out, Call())
        tree = {"aux": started, "predictor": random_start(pairing.base, aux, 0)}
        for _ in trainer.train(tree, windows(iter([list(range(60))]), 20), 6):
            pass
        assert all((np.asarray(trainer.frozen[name]) == array).all() for name, array in weights.items())
        (out.path / "nothing.json").write_text("{}")


def test_without_steps_the_auxiliary_model_is_made_of_the_bases_layers(random_base: Path, tmp_path: Path) -> None:
    decoder(random_base, steps=0, layers=(1, 3)).fit(items(0, 4), out=tmp_path / "art")
    base, made = open_checkpoint(random_base), open_checkpoint(tmp_path / "art")
    for name, origin in (("embedding", "embedding"), ("layers.0.q", "layers.1.q"), ("layers.1.o", "layers.3.o")):
        assert np.array_equal(made.tensors.tensor(name), base.tensors.tensor(origin))
    assert json.loads((tmp_path / "art" / "map.json").read_text())["map"] == [0, 0, 0, 1]
    lm = Host().lm(str(tmp_path / "art"), "fp32")
    assert lm.tokenizer.digest == Host().lm(str(random_base), "fp32").tokenizer.digest


def test_another_model_may_be_the_auxiliary_one(random_base: Path, tmp_path: Path) -> None:
    saved(tmp_path / "aux", 1, layers=3, kv_heads=1, width=96, mlp=64)
    handle = decoder(random_base, aux=str(tmp_path / "aux"), layer_map=(0, 1, 2, 2)).fit(
        items(0, 8), out=tmp_path / "a"
    )
    assert json.loads((tmp_path / "a" / "map.json").read_text())["map"] == [0, 1, 2, 2]
    assert handle.complete(text(0))[0].usage["predicted_tokens"] > 0
    usual = decoder(random_base, aux=str(tmp_path / "aux"), start="random", steps=0).fit(items(0, 8))
    assert usual.artifact.read_json("map.json")["map"] == [0, 0, 1, 2]


def test_a_share_of_operations_chooses_the_layers(random_base: Path) -> None:
    architecture = open_checkpoint(random_base).architecture
    for share in (0.5, 0.9):
        made = decoder(random_base, steps=0, prefill_share=share).fit(items(0, 4))
        found = made.artifact.notes["prefill_share"]
        layers = open_checkpoint(made.artifact.path).architecture.layers
        assert found <= share
        assert prefill_share(architecture, pruned(architecture, {}, range(layers + 1))[0], 256) > share


# ---------------------------------------------------------------- the run


def test_progress_tells_every_term(random_base: Path, tmp_path: Path) -> None:
    told: list[Progress] = list(
        decoder(random_base, start_tokens=40).fitting(items(0, 24), tmp_path / "art", validation=items(90, 3))
    )
    assert list(dict.fromkeys(each.stage for each in told)) == ["start", "train", "measure"]
    steps = [each for each in told if each.stage == "train"]
    assert [(each.step, each.total) for each in steps] == [(step, 6) for step in range(1, 7)]
    terms = {"base_loss", "aux_loss", *(f"{kind}_loss/{layer}" for kind in "kv" for layer in range(4))}
    assert all(terms <= set(each.metrics) and np.isfinite(list(each.metrics.values())).all() for each in steps)
    assert {*terms, "exact_loss"} <= set(Artifact.open(tmp_path / "art").notes["validation"])


@pytest.mark.parametrize("stop", ["start", "train 1", "train 5", "train 6", "measure"])
def test_an_interrupted_fit_goes_on_to_the_same_files(stop: str, random_base: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"validation": items(90, 6)}
    list(decoder(random_base).fitting(items(0, 24), tmp_path / "whole", **given))
    running = decoder(random_base).fitting(items(0, 24), tmp_path / "stopped", **given)
    stage, _, step = stop.partition(" ")
    next(each for each in running if each.stage == stage and (not step or each.step == int(step)))
    running.close()
    rest = list(decoder(random_base).fitting(items(0, 24), tmp_path / "stopped", **given))
    assert bits(tmp_path / "stopped") == bits(tmp_path / "whole")
    trained = [each.step for each in rest if each.stage == "train"]
    assert len(trained) == {"start": 6, "train 1": 6, "train 5": 2, "train 6": 2, "measure": 0}[stop]


def test_a_fit_goes_on_from_an_artifact(random_base: Path, tmp_path: Path) -> None:
    first = list(decoder(random_base).fitting(items(0, 40), tmp_path / "one"))
    more = list(decoder(random_base).fitting(items(0, 40), tmp_path / "two", init_from=tmp_path / "one"))
    losses = [[each.metrics["loss"] for each in told if each.stage == "train"] for told in (first, more)]
    assert losses[1][0] < losses[0][0]
    assert not [each for each in more if each.stage == "start"]
    saved(tmp_path / "other", 7)
    with pytest.raises(ArtifactMismatch, match="another base"):
        list(decoder(tmp_path / "other").fitting(items(0, 8), tmp_path / "three", init_from=tmp_path / "one"))


def test_ids_do_for_texts(random_base: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_in(tmp_path / "tokenizer")
    as_ids = [Item(each.id, fields={"ids": np.array(tokenizer.encode(each.text or ""))}) for each in items(0, 8)]
    list(decoder(random_base).fitting(items(0, 8), tmp_path / "texts"))
    list(decoder(random_base).fitting(as_ids, tmp_path / "ids"))
    assert bits(tmp_path / "texts") == bits(tmp_path / "ids")


def test_windows_share_the_token_between_them() -> None:
    cut = windows(iter([list(range(8)), [5], [], [6, 7]]), 3)
    assert [each.tolist() for each in cut] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7], [6, 7]]
    made = batch(cut[1:3], 3)
    assert made["ids"][:, :4].tolist() == [[3, 4, 5, 0], [6, 0, 0, 0], [0, 0, 0, 0]]
    assert made["targets"][:, :4].tolist() == [[4, 5, 6, IGNORED], [7] + 3 * [IGNORED], 4 * [IGNORED]]
    assert made["ids"].shape == (3, 32)


def test_the_regression_finds_a_linear_map() -> None:
    draw = np.random.default_rng(0)
    seen = [(draw.standard_normal((40, 3, 2, 4)), draw.standard_normal((40, 3, 2, 4))) for _ in range(2)]
    weights, bias = draw.standard_normal((2, 6, 8)), draw.standard_normal((2, 6))

    def mapped(array: np.ndarray, layer: int) -> np.ndarray:
        return (array.reshape(40, 3, 8) @ weights[layer].T + bias[layer]).reshape(40, 3, 2, 3)

    true = [(mapped(keys, layer), mapped(values, layer)) for layer, (keys, values) in enumerate(reversed(seen))]
    found = Regression((1, 0))
    found.add(seen, true, np.ones((40, 3), bool))
    for kind in ("key", "value"):
        np.testing.assert_allclose(found.solved()[f"{kind}_weight"], weights, atol=1e-2)
        np.testing.assert_allclose(found.solved()[f"{kind}_bias"], bias, atol=1e-2)


# ---------------------------------------------------------------- whether it helps


def test_predictions_become_good(base: Path, tmp_path: Path) -> None:
    """Held-out cross-entropy of the base on predicted caches falls in training; it ends far below that of an
    untrained predictor, below that of the kept layers alone, and above that of the base without prediction."""
    held, learned = items(10_000, 16), items(20_000, 240)
    recipe = {"batch": 8, "rate": 3e-3, "warmup": 5, "checkpoint": 1000}

    def measured(**changes: Any) -> dict[str, float]:
        fitted = decoder(base, **{"recipe": recipe, "start": "random", **changes}).fit(learned, validation=held)
        found: dict[str, float] = fitted.artifact.notes["validation"]
        return found

    untrained, trained, solved = measured(steps=0), measured(steps=30), measured(steps=0, start="regression")
    alone = untrained["aux_loss"]
    for found in (trained, solved):
        assert found["base_loss"] < untrained["base_loss"] - 0.3
        assert found["base_loss"] < alone
        assert found["base_loss"] > found["exact_loss"]
        assert found["k_loss/average"] < untrained["k_loss/average"]


def test_a_base_that_norms_its_keys_is_predicted_too(tmp_path: Path) -> None:
    saved(tmp_path / "base", qk_norm=True)
    handle = decoder(tmp_path / "base", keep=1.0, steps=0).fit(items(0, 16), validation=items(90, 4))
    measured = handle.artifact.notes["validation"]
    assert measured["base_loss"] == pytest.approx(measured["exact_loss"], rel=0.05)
    assert handle.complete(text(0))[0].usage["predicted_tokens"] > 0
