"""The scorer wrap-check: what it keeps, and how near a rephrase is to its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems

TEXTS = Path(__file__).parents[3] / "benchmarks" / "membership_texts.json"
PAIRS = json.loads(TEXTS.read_text(encoding="utf-8"))
"""Famous sentences, each retold in other words."""
SOURCE = "The Danube rises in the Black Forest and flows through ten countries before it reaches the Black Sea."
REPHRASE = "Ten countries are crossed by the river Danube, which starts in Germany's Black Forest and ends in the sea."
ASKED = "Question: Where does it rise?\nAnswer: In the Black Forest.\nQuestion: Where does it end?\nAnswer: In the sea."


def scored(*pairs: tuple[str, str] | tuple[str, str, str], **params: Any) -> Any:
    items = [
        Item(str(row), source, {"second_text": text, **({"style": style[0]} if style else {})})
        for row, (source, text, *style) in enumerate(pairs)
    ]
    return pickaxe.scorer("wrap-check", **params).score(items)


def test_a_rephrase_is_nearer_than_another_text() -> None:
    grid = [(one["famous"], other["retold"]) for one in PAIRS for other in PAIRS]
    similarity = scored(*grid).primary.reshape(len(PAIRS), -1)
    own = np.diag(similarity)[:, None]
    others = ~np.eye(len(PAIRS), dtype=bool)
    assert (own > similarity)[others].mean() > 0.95
    assert similarity.min() >= -1
    assert similarity.max() <= 1


def test_a_copy_is_rejected_by_its_overlap() -> None:
    found = scored(*[(each["famous"], each["famous"], "medium") for each in PAIRS])
    assert (found["overlap8"] == 1).all()
    assert (found["length_ratio"] == 1).all()
    assert not found["keep"].any()
    assert set(found["reason"]) == {"copy"}
    assert found.primary == pytest.approx(np.ones(len(PAIRS)), abs=1e-5)


def test_retold_texts_are_kept() -> None:
    assert scored(*[(each["famous"], each["retold"]) for each in PAIRS])["keep"].all()


def test_reasons_and_measures() -> None:
    found = scored(
        (SOURCE, REPHRASE, "hard"),
        (SOURCE, ASKED, "qa"),
        (SOURCE, REPHRASE, "qa"),
        (SOURCE, ""),
        (SOURCE, "I'm sorry, I cannot rewrite this text."),
        (SOURCE, "A river."),
        (SOURCE, "It is a river. " * 5),
    )
    assert found["reason"].tolist() == ["", "", "no pairs", "empty", "refusal", "length", "repetition"]
    assert found["keep"].tolist() == [True, True, False, False, False, False, False]
    assert found["qa_pairs"].tolist() == [0, 2, 0, 0, 0, 0, 0]
    assert found["length_ratio"][5] == pytest.approx(2 / 18)
    assert found["distinct2"][0] == 1
    assert found["distinct2"][6] < 0.5


def test_a_least_similarity_rejects_what_is_about_something_else() -> None:
    found = scored((SOURCE, REPHRASE), (SOURCE, PAIRS[0]["retold"]), min_similarity=0.5, cleaning={"max_ratio": 9})
    assert found["keep"].tolist() == [True, False]
    assert found["reason"].tolist() == ["", "unlike"]


def test_own_styles() -> None:
    french = {"name": "fr", "prompt": "Fais-en un dialogue.", "pairs": ["Question :", "Réponse :"]}
    found = scored((SOURCE, "Question : Où naît-il ? Réponse : En Forêt-Noire.", "fr"), styles=[french])
    assert (found["keep"][0], found["qa_pairs"][0]) == (True, 1)


def test_an_unknown_style_is_named() -> None:
    with pytest.raises(InvalidItems, match=r"items\[1\]\.fields\.style: is 'poem', unknown \(item '1'\).*easy, medium"):
        scored((SOURCE, REPHRASE, "easy"), (SOURCE, REPHRASE, "poem"))
