"""`fullrank.fit`: what is learned from a list, labels from a teacher, resume, and reranking with the result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import pickaxe
from pickaxe import Artifact, Host, Item, Items, Method, Ranked, Ranking, catalog
from pickaxe.errors import InvalidItems, InvalidParams, ModelMissing
from pickaxe.hooks import hookimpl
from pickaxe_plugins.reranking.fullrank import parse_permutation
from pickaxe_plugins.reranking.fullrank._training import Lesson, learnt
from pickaxe_plugins.train import vocabulary

NET = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "vocab": 400, "context": 512}
RECIPE = {"epochs": 6, "batch": 4, "rate": 1e-2, "warmup": 2, "noise": 5.0, "checkpoint": 3}
PARAMS: dict[str, Any] = {"net": NET, "recipe": RECIPE, "precision": "fp32"}


class Longest(Method[pickaxe.Params]):
    """Longest passage first."""

    asked: ClassVar[list[int]] = []

    @hookimpl
    def rerank(self, candidates: Items, top_n: int) -> Ranking:
        self.asked.append(len(candidates))
        order = sorted(range(len(candidates)), key=lambda row: -len(candidates[row].text or ""))
        return Ranking(tuple(Ranked(row, candidates[row].id, 1.0) for row in order[:top_n]))


@pytest.fixture(autouse=True)
def methods() -> Iterator[None]:
    Longest.asked[:] = []
    with catalog.register(Longest, "longest-first", "reranker"):
        yield


def lists(count: int, labelled: bool = True, n: int = 5) -> list[Item]:
    """Passages of different lengths in a random order, longest first in the label."""
    items = []
    for row in range(count):
        lengths = np.random.default_rng(row).permutation(n) + 1
        fields: dict[str, Any] = {"passages": ["x" * int(length) for length in lengths]}
        if labelled:
            fields["permutation"] = np.argsort(-lengths)
        items.append(Item(f"e{row}", "the longest", fields))
    return items


def losses(reranker: Any, examples: list[Item], out: Path, **given: Any) -> list[float]:
    steps = reranker.fitting(examples, out, **given)
    return [step.metrics["loss"] for step in steps if step.stage == "train"]


def bits(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in Artifact.open(path).manifest["files"]}


def test_fit_learns_and_the_artifact_reranks(tmp_path: Path) -> None:
    reranker = pickaxe.reranker("fullrank", **PARAMS)
    found = losses(reranker, lists(8), tmp_path / "art", validation=lists(9)[8:])
    assert len(found) == 12
    assert found[-1] < found[0] - 1
    fitted = pickaxe.reranker("fullrank", artifact=tmp_path / "art")
    notes = fitted.artifact.notes if fitted.artifact else {}
    assert math.isfinite(notes["validation_loss"])
    assert notes["parameters"] < 50_000
    for n in (1, 5, 7):
        candidates = [Item(f"c{row}", "x" * row) for row in range(n)]
        for strategy in ("full", "sliding"):
            opened = pickaxe.reranker("fullrank", artifact=tmp_path / "art", strategy=strategy, window=4, step=2)
            assert sorted(opened.rerank("the longest", candidates).ids) == sorted(item.id for item in candidates)


def test_the_artifact_holds_a_model_that_opens_by_its_path(tmp_path: Path) -> None:
    losses(pickaxe.reranker("fullrank", **PARAMS), lists(4), tmp_path / "art")
    lm = Host().lm(str(tmp_path / "art"), "fp32")
    assert lm.tokenizer.decode(lm.tokenizer.encode("[2] > [1]")) == "[2] > [1]"
    served = Host(artifacts=tmp_path)
    with pytest.raises(ModelMissing, match="on this server"):
        served.lm(str(tmp_path / "art"))
    ranking = served.open("fullrank", "reranker", artifact="artifacts/art").rerank("q", ["a", "b"])
    assert len(ranking) == 2


def test_a_resumed_fit_gives_the_same_files(tmp_path: Path) -> None:
    reranker = pickaxe.reranker("fullrank", **PARAMS, teacher="longest-first")
    examples = lists(8, labelled=False)
    losses(reranker, examples, tmp_path / "whole")
    asked = len(Longest.asked)
    running = reranker.fitting(examples, tmp_path / "stopped")
    assert next(step for step in running if step.step == 7 and step.stage == "train")
    running.close()  # type: ignore[attr-defined]
    Longest.asked[:] = []
    assert len(losses(reranker, examples, tmp_path / "stopped")) == 12 - 6
    assert Longest.asked == []
    assert asked == 8
    assert bits(tmp_path / "stopped") == bits(tmp_path / "whole")


def test_other_examples_are_another_fit(tmp_path: Path) -> None:
    reranker = pickaxe.reranker("fullrank", **PARAMS, teacher="longest-first")
    running = reranker.fitting(lists(5, False), tmp_path / "art")
    assert next(step for step in running if step.step == 4 and step.stage == "train")
    running.close()  # type: ignore[attr-defined]
    losses(reranker, lists(5, False)[1:], tmp_path / "art")
    losses(reranker, lists(5, False)[1:], tmp_path / "fresh")
    assert bits(tmp_path / "art") == bits(tmp_path / "fresh")


def test_a_teacher_labels_completely_what_has_no_label(tmp_path: Path) -> None:
    options: dict[str, Any] = {**PARAMS, "recipe": {**RECIPE, "epochs": 1}, "window": 4, "step": 2}
    losses(pickaxe.reranker("fullrank", **options, teacher="longest-first"), lists(2, False, 9), tmp_path / "asked")
    assert max(Longest.asked) == 4
    losses(pickaxe.reranker("fullrank", **options), lists(2, True, 9), tmp_path / "given")
    made, given = bits(tmp_path / "asked"), bits(tmp_path / "given")
    assert made == given
    assert Artifact.open(tmp_path / "asked").manifest["references"].keys() == {"longest-first"}


def test_fit_goes_on_from_an_artifact_or_a_model(tmp_path: Path) -> None:
    first = losses(pickaxe.reranker("fullrank", **PARAMS), lists(8), tmp_path / "one")
    more = losses(pickaxe.reranker("fullrank", **PARAMS), lists(8), tmp_path / "two", init_from=tmp_path / "one")
    assert more[0] < first[0] - 1
    based = pickaxe.reranker("fullrank", **PARAMS, base=str(tmp_path / "one"))
    assert losses(based, lists(8), tmp_path / "three") == more


def test_the_target_follows_the_prompt_and_alone_is_learned(tmp_path: Path) -> None:
    tokenizer = vocabulary.learn(["[1] > [2] > [3]", "value of passages"] * 9, 300, tmp_path)
    lesson = Lesson("largest", ("value 3", "value [2]", "value 1"), (2, 0, 1))
    text = learnt(lesson, tokenizer, 4096, "importance", 100)
    learned = text.weights > 0
    assert tokenizer.decode(text.ids[learned].tolist()) == "[3] > [1] > [2]"
    assert not learned[: learned.argmax()].any()
    assert learned[learned.argmax() :].all()
    prompt = tokenizer.decode(text.ids[~learned].tolist())
    assert prompt.endswith("\n\n")
    assert "value (2)" in prompt
    total, tokens = text.weights.sum(), tokenizer.encode("[3] > [1] > [2]")
    brackets = tokens.index(tokenizer.encode(" >")[0])
    weights = text.weights[learned] * len(tokens)
    np.testing.assert_allclose(weights[:brackets], 2, rtol=1e-6)
    assert weights[brackets] == pytest.approx(1)
    np.testing.assert_allclose(weights[-1], 1.5, rtol=1e-6)
    plain = learnt(lesson, tokenizer, 4096, "lm", 100)
    assert plain.weights.sum() == pytest.approx(1)
    assert total > 1
    assert parse_permutation(tokenizer.decode(text.ids[learned].tolist()), 3).order == (2, 0, 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"passages": ["a", "b"]}, "give one, or a teacher"),
        ({"passages": ["a", "b"], "permutation": np.array([1, 1])}, "each once"),
        ({"passages": ["a", "b"], "permutation": np.array([1, 2])}, "0 to 1"),
        ({"passages": ["a", "b"], "permutation": np.array([[0, 1]])}, "each once"),
        ({"passages": [], "permutation": np.array([], np.int64)}, "each once"),
    ],
)
def test_examples_that_cannot_be_learned_are_named(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidItems, match=f"'bad'.*{message}"):
        losses(pickaxe.reranker("fullrank", **PARAMS), [*lists(1), Item("bad", "q", fields)], tmp_path / "art")
    assert not (tmp_path / "art").exists()


def test_what_cannot_be_fitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParams, match="leave both out"):
        losses(pickaxe.reranker("fullrank", ranker="longest-first"), lists(1), tmp_path / "art")
    with pytest.raises(InvalidParams, match="teacher needs step below window"):
        pickaxe.reranker("fullrank", teacher="longest-first", window=4, step=4)
    with pytest.raises(InvalidItems, match="at least one list"):
        losses(pickaxe.reranker("fullrank", **PARAMS), [], tmp_path / "art")
