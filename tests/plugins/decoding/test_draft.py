"""`draft`: what is sampled and learned, how near the draft comes, and that others draft with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import NET, items, saved, text, trained_base

import pickaxe
from pickaxe import Artifact, Host, Item, Prompt, Sampling
from pickaxe.errors import InvalidItems, PickaxeError, Unmet
from pickaxe.lm.weights import open_checkpoint
from pickaxe_plugins.train import distil, llama

SHAPE = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1}
RECIPE = {"epochs": 2, "batch": 4, "rate": 1e-2, "warmup": 2, "checkpoint": 3}


@pytest.fixture(scope="module")
def target() -> Path:
    return trained_base()


def drafting(model: Path, **changes: Any) -> Any:
    given = {"precision": "fp32", "temperature": 0, "shape": SHAPE, "length": 40, "recipe": RECIPE}
    return pickaxe.decoder("draft", model=str(model), **{**given, **changes})


def starts(count: int, first: int = 0) -> list[Item]:
    """Beginnings of texts, the first of them empty."""
    return [Item(str(row), text(first + row)[:10] if row else "") for row in range(count)]


def bits(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in Artifact.open(path).manifest["files"]}


# ---------------------------------------------------------------- parts


def test_the_start_of_the_embedding_is_a_truncated_svd() -> None:
    matrix = np.random.default_rng(0).standard_normal((50, 6)) @ np.diag([9, 7, 5, 3, 1, 0.1])
    whole = distil.reduced(matrix.astype(np.float32), 6, 0)
    inner = whole @ whole.T
    np.testing.assert_allclose(inner / inner.max(), matrix @ matrix.T / (matrix @ matrix.T).max(), atol=1e-5)
    left, values, _ = np.linalg.svd(matrix)
    best = left[:, :3] * values[:3]
    cut = distil.reduced(matrix.astype(np.float32), 3, 0)
    np.testing.assert_allclose(cut @ cut.T / np.square(cut).sum(), best @ best.T / np.square(best).sum(), atol=1e-5)
    for width in (3, 6, 8):
        made = distil.reduced(matrix.astype(np.float32), width, 0)
        assert made.shape == (50, width)
        assert np.square(made).mean() == pytest.approx(1 / width, rel=1e-4)


def test_likeness_is_that_of_the_two_distributions(tmp_path: Path) -> None:
    architecture, weights = saved(tmp_path)
    sequences = [np.array(ids, np.int32) for ids in ([1, 5, 9, 200], [7, 3])]
    draw = np.random.default_rng(0)
    logits = draw.standard_normal((2, 32, architecture.vocab)).astype(np.float32) * 3
    running = distil.likeness(architecture, weights, sequences, lambda ids, lengths: logits, 2)
    found = _end(running)
    expected: dict[str, list[float]] = {"kl": [], "acceptance": [], "agreement": []}
    for row, ids in enumerate(sequences):
        own = np.asarray(llama.logits(weights, llama.hidden_states(weights, architecture, ids[None])))[0]
        p, q = (np.exp(each) / np.exp(each).sum(-1, keepdims=True) for each in (logits[row, : len(ids)], own))
        expected["kl"] += (p * np.log(p / q)).sum(-1).tolist()
        expected["acceptance"] += np.minimum(p, q).sum(-1).tolist()
        expected["agreement"] += (p.argmax(-1) == q.argmax(-1)).tolist()
    assert found == {name: pytest.approx(np.mean(values), rel=1e-4) for name, values in expected.items()}


def _end(running: Any) -> Any:
    while True:
        try:
            next(running)
        except StopIteration as end:
            return end.value


# ---------------------------------------------------------------- the fit


@pytest.fixture(scope="module")
def learned(target: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A draft that was trained for a while, and what its fit measured."""
    path = tmp_path_factory.mktemp("draft") / "art"
    return path, _measured(target, path, recipe={**RECIPE, "epochs": 6})


def test_a_draft_comes_near_its_target_and_speaks(
    target: Path, learned: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    path, after = learned
    before = _measured(target, tmp_path / "new", steps=0)
    assert after["acceptance"] > before["acceptance"] + 0.2
    assert after["kl"] < before["kl"] - 1
    assert after["agreement"] > 0.4
    (found,) = pickaxe.decoder("draft", artifact=path).complete(Prompt("Anna has", sampling=Sampling(n=1)))
    assert found.text
    assert found.usage["completion_tokens"] == len(found.token_ids)


def _measured(target: Path, out: Path, **changes: Any) -> dict[str, float]:
    handle = drafting(target, samples=2, max_tokens=8, **changes).fit(starts(24), validation=starts(6, 50), out=out)
    notes = handle.artifact.notes
    assert notes["sequences"] == 48
    found: dict[str, float] = notes["validation"]
    return found


def test_a_copy_of_the_target_is_its_best_draft(target: Path, tmp_path: Path) -> None:
    found = _measured(target, tmp_path / "art", base=str(target), steps=0)
    assert found["acceptance"] == pytest.approx(1, abs=1e-3)
    assert found["agreement"] > 0.99


def test_what_is_learned_is_what_the_target_says(target: Path, tmp_path: Path) -> None:
    running = drafting(target, samples=2).fitting(starts(3), tmp_path / "art")
    next(each for each in running if each.stage == "train")
    rows = json.loads((tmp_path / "art.partial" / "samples-0.json").read_text())
    running.close()
    lm = Host().lm(str(target), "fp32")
    prompts = [lm.tokenizer.encode(each.text or "") or [lm.tokenizer.eos_ids[0]] for each in starts(3)]
    assert len(rows) == 6
    for row, ids in enumerate(rows):
        prompt = prompts[row // 2]
        assert ids[: len(prompt)] == prompt
        assert len(ids) == 40 or ids[-1] in lm.tokenizer.eos_ids
    assert rows[0] != rows[1]
    likelihood = np.mean(np.concatenate(lm.token_logprobs(rows)))
    assert likelihood > np.mean(np.concatenate(lm.token_logprobs([row[::-1] for row in rows]))) + 2


def test_texts_are_learned_as_they_are_without_samples(target: Path, tmp_path: Path) -> None:
    running = drafting(target, samples=0, length=8).fitting(items(0, 2), tmp_path / "art")
    next(each for each in running if each.stage == "train")
    rows = json.loads((tmp_path / "art.partial" / "samples-0.json").read_text())
    running.close()
    tokenizer = Host().lm(str(target), "fp32").tokenizer
    assert max(map(len, rows)) == 8
    assert list(chain(*rows)) == [token for row in range(2) for token in tokenizer.encode(text(row))]


@pytest.mark.parametrize("stop", ["sample", "train 1", "train 4", "measure"])
def test_an_interrupted_fit_goes_on_to_the_same_files(
    stop: str, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pickaxe_plugins.decoding._drafting.BLOCK", 4)
    given: dict[str, Any] = {"validation": starts(5, 50)}
    list(drafting(target).fitting(starts(10), tmp_path / "whole", **given))
    running = drafting(target).fitting(starts(10), tmp_path / "stopped", **given)
    stage, _, step = stop.partition(" ")
    next(each for each in running if each.stage == stage and (not step or each.step == int(step)))
    running.close()
    rest = list(drafting(target).fitting(starts(10), tmp_path / "stopped", **given))
    assert bits(tmp_path / "stopped") == bits(tmp_path / "whole")
    assert [each.step for each in rest if each.stage == "sample"] == ([8, 10, 14, 15] if stop == "sample" else [])
    assert len([each for each in rest if each.stage == "train"]) == {"train 4": 3, "measure": 0}.get(stop, 6)


def test_a_new_draft_has_the_targets_vocabulary_context_and_rotary_base(
    target: Path, learned: tuple[Path, dict[str, float]]
) -> None:
    made, of = open_checkpoint(learned[0]).architecture, open_checkpoint(target).architecture
    assert (made.vocab, made.context, made.rope_base, made.eps) == (of.vocab, of.context, of.rope_base, of.eps)
    assert (made.layers, made.width, made.heads, made.kv_heads, made.tied) == (1, 32, 2, 1, True)
    assert of.context == NET.context


def test_a_fit_goes_on_from_a_draft(target: Path, tmp_path: Path) -> None:
    first = list(drafting(target).fitting(starts(16), tmp_path / "one"))
    drafted = drafting(target, base=str(tmp_path / "one"))
    for more in (
        list(drafting(target).fitting(starts(16), tmp_path / "two", init_from=tmp_path / "one")),
        list(drafted.fitting(starts(16), tmp_path / "three")),
    ):
        kl = [[each.metrics["kl"] for each in told if each.stage == "train"] for told in (first, more)]
        assert kl[1][0] < kl[0][0]


# ---------------------------------------------------------------- its use


def test_speculative_decoding_takes_the_artifact_as_its_draft(
    target: Path, learned: tuple[Path, dict[str, float]]
) -> None:
    given = {"model": str(target), "precision": "fp32", "temperature": 0, "max_tokens": 24}
    prompts = [text(row)[:30] for row in range(3)]
    plain = [each for each in pickaxe.decoder("repeated-sampling", **given).complete(prompts) if each.choice == 0]
    for name in ("spectr", "mdsd"):
        found = pickaxe.decoder(name, **given, draft_model=str(learned[0])).complete(prompts)
        assert [each.text for each in found if each.choice == 0] == [each.text for each in plain]


REFUSED: Mapping[str, tuple[Mapping[str, Any], list[Item], type[PickaxeError], str]] = {
    "no examples": ({}, [], InvalidItems, "at least one"),
    "no chat template": ({"chat": True}, starts(2), Unmet, "chat template"),
    "another tokenizer": ({"base": "draft"}, starts(2), Unmet, "different tokenizers"),
}


@pytest.mark.parametrize(("changes", "examples", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_fits_that_cannot_be(
    changes: Mapping[str, Any],
    examples: list[Item],
    error: type[PickaxeError],
    message: str,
    target: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=message):
        drafting(target, **changes).fit(examples, out=tmp_path / "art")
    assert not (tmp_path / "art").exists()
