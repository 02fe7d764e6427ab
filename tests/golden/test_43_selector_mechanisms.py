"""The mechanisms on scores, Jaccard similarities and the probability of meeting in a band: closed forms."""

import math
from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.selection.selector._mechanisms import pareto, pareto_probability, per_group, top_fraction
from pickaxe_plugins.selection.selector._minhash import WORDS, candidate_probability, jaccard

FILE = golden("43-selector")
INPUTS, EXPECTED = FILE["inputs"], FILE["expected"]
GIVEN = understood(
    INPUTS["mechanism"],
    *("score", "tokens", "domain", "uniform", "pareto_alpha", "token_fraction", "per_domain_fraction"),
)
WANTED = understood(
    EXPECTED["mechanism"],
    *("top_token_fraction", "per_domain_top_fraction", "pareto_keep_probability", "pareto_kept"),
)
LSH = understood(INPUTS["lsh"], "bands", "rows", "shingle")
SCORES = np.array(GIVEN["score"])
PAIRS = list(zip(INPUTS["dedup_pairs"], EXPECTED["jaccard"], EXPECTED["lsh_candidate_probability"], strict=True))


def kept(mechanism: dict[str, Any]) -> list[int]:
    """Rows that a pipeline of this one stage keeps."""
    items = [
        Item(str(row), "text", {"score": score, "tokens": tokens, "domain": str(domain)})
        for row, (score, tokens, domain) in enumerate(
            zip(GIVEN["score"], GIVEN["tokens"], GIVEN["domain"], strict=True)
        )
    ]
    stage = {"name": "only", "utility": {"column": "score"}, "mechanism": mechanism}
    return np.flatnonzero(pickaxe.scorer("selector", stages=[stage]).score(items)["keep"]).tolist()


def test_top_fraction_of_the_tokens() -> None:
    fraction = GIVEN["token_fraction"]
    mask = top_fraction(SCORES, fraction, np.array(GIVEN["tokens"]))
    assert np.flatnonzero(mask).tolist() == WANTED["top_token_fraction"]
    stage = {"kind": "top_fraction", "fraction": fraction, "by": "tokens", "tokens": {"column": "tokens"}}
    assert kept(stage) == WANTED["top_token_fraction"]


def test_top_fraction_of_every_domain() -> None:
    fraction = GIVEN["per_domain_fraction"]
    mask = per_group(SCORES, np.array(GIVEN["domain"]), fraction)
    assert np.flatnonzero(mask).tolist() == WANTED["per_domain_top_fraction"]
    stage = {"kind": "per_group", "fraction": fraction, "group": "domain"}
    assert kept(stage) == WANTED["per_domain_top_fraction"]


def test_pareto() -> None:
    alpha = GIVEN["pareto_alpha"]
    assert pareto_probability(SCORES, alpha) == pytest.approx(WANTED["pareto_keep_probability"], rel=1e-12)
    mask = pareto(SCORES, np.array(GIVEN["uniform"]), alpha)
    assert np.flatnonzero(mask).tolist() == WANTED["pareto_kept"]


@pytest.mark.parametrize(("pair", "similarity", "probability"), PAIRS)
def test_jaccard_and_the_chance_to_meet(pair: list[str], similarity: float, probability: float) -> None:
    assert WORDS.pattern == INPUTS["word_regex"]
    left, right = pair
    found = jaccard(left, right, LSH["shingle"])
    assert math.isclose(found, similarity, rel_tol=1e-12, abs_tol=1e-12)
    chance = candidate_probability(found, LSH["bands"], LSH["rows"])
    assert math.isclose(chance, probability, rel_tol=1e-9, abs_tol=1e-12)
