"""`fm-constrained`: outputs are substrings of the texts, end where they may, and come from either kind of index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Item, Prompt, Sampling
from pickaxe.data import completions
from pickaxe.errors import ArtifactMismatch, InvalidItems, Unmet
from pickaxe_plugins.retrieval._token_index import TokenIndex
from pickaxe_plugins.retrieval.fm_constrained import MOST, FollowIndex

TEXTS = [
    Item("rain", "The rain in Spain stays mainly in the plain."),
    Item("tea", "Green tea is brewed at about 80 degrees, black tea with boiling water."),
    Item("blank", "  "),
]
SMALL: dict[str, Any] = {"model": "draft", "precision": "fp32", "max_tokens": 8}


@pytest.fixture(scope="module")
def fitted() -> Any:
    return pickaxe.decoder("fm-constrained", **SMALL).fit(TEXTS)


def said(handle: Any, *prompts: Prompt) -> list[Any]:
    return completions(handle.decode(prompts))


def test_outputs_are_substrings(fitted: Any) -> None:
    prompts = [Prompt("What is tea?", sampling=Sampling(n=6, temperature=1.5, seed=3)), Prompt("The sky")]
    found = said(fitted, *prompts)
    assert len(found) == 7
    assert all(any(each.text in f" {item.text}" for item in TEXTS) for each in found)
    assert len({each.text for each in found}) > 2


def test_an_output_from_the_start_of_a_text_to_its_end(fitted: Any) -> None:
    whole = pickaxe.decoder("fm-constrained", **SMALL, start="text", artifact=fitted.artifact.path)
    found = said(whole, Prompt("Weather:", sampling=Sampling(n=4, temperature=2.0, seed=1, max_tokens=64)))
    assert {each.text for each in found} <= {f" {item.text}" for item in TEXTS[:2]}
    assert {each.finish_reason for each in found} == {"stop"}


def test_an_output_may_end_anywhere_when_it_may() -> None:
    index = TokenIndex.build([[5, 6, 7, 2], [5, 8, 2]])
    strict, loose = FollowIndex(index, 2, [2, 0]), FollowIndex(index, 2, [2, 0], anywhere=True)
    assert strict.allowed([]).tolist() == [5, 6, 7, 8]
    assert strict.allowed([5]).tolist() == [6, 8]
    assert strict.allowed([6, 7]).tolist() == [2]
    assert loose.allowed([]).tolist() == [5, 6, 7, 8]
    assert loose.allowed([5]).tolist() == [0, 2, 6, 8]
    assert FollowIndex(index, 2, [2], at_start=True).allowed([]).tolist() == [5]


def test_the_logits_that_stay_are_as_they_were() -> None:
    follow = FollowIndex(TokenIndex.build([[5, 6, 7, 2], [5, 8, 2]]), 2, [2])
    logits = np.arange(10, dtype=np.float32)
    kept = follow([5], logits)
    assert np.flatnonzero(np.isfinite(kept)).tolist() == [6, 8]
    assert (kept[[6, 8]] == [6, 8]).all()
    assert (logits == np.arange(10)).all()


def test_long_outputs_and_many_of_them_forget_without_harm() -> None:
    random = np.random.default_rng(0)
    text = random.integers(3, 9, 2 * MOST).tolist()
    follow = FollowIndex(TokenIndex.build([[*text, 2]]), 2, [2])
    for size in range(0, MOST + 50, 7):
        assert text[size] in follow.allowed(text[:size])


def test_from_an_index_of_seal(tmp_path: Path) -> None:
    params = {"model": "draft", "precision": "fp32"}
    pickaxe.retriever("seal", **params).index(TEXTS, out=tmp_path / "index")
    handle = pickaxe.decoder("fm-constrained", **SMALL, index=str(tmp_path / "index"))
    assert all(any(each.text in f" {item.text}" for item in TEXTS) for each in said(handle, Prompt("Tea")))
    pickaxe.retriever("chronicles").index(TEXTS, out=tmp_path / "other")
    with pytest.raises(ArtifactMismatch, match="wanted seal"):
        said(pickaxe.decoder("fm-constrained", **SMALL, index=str(tmp_path / "other")), Prompt("Tea"))


def test_what_is_refused() -> None:
    with pytest.raises(Unmet, match="nothing to decode from"):
        said(pickaxe.decoder("fm-constrained", **SMALL), Prompt("Tea"))
    with pytest.raises(InvalidItems, match="at least one text"):
        pickaxe.decoder("fm-constrained", **SMALL).fit([Item("blank", " ")])
    assert said(pickaxe.decoder("fm-constrained", **SMALL)) == []
