"""Golden cases of SEAL: the index against a suffix array, n-gram weights and document scores against the authors'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

from pickaxe_plugins.retrieval._token_index import TokenIndex
from pickaxe_plugins.retrieval.seal._score import Scorer, Settings, Weighed

FILE = understood(golden("21-seal-fm-index"), "inputs", "expected", "tolerance", "how")
INPUTS = understood(FILE["inputs"], "docs", "eos", "index_queries", "queries", "variants")
EXPECTED = understood(FILE["expected"], "index", "aggregate")
TOLERANCE = understood(FILE["tolerance"], "score_rtol", "score_atol", "counts", "order")

NAMES = {
    "max_occurrences_1": "max_hits",
    "n_docs_complete_score": "fully_score",
    "use_top_k_unigrams": "unigrams",
    "add_best_unigrams_to_ngrams": "unigram_keys",
    **{name: name for name in ("alpha", "beta", "smoothing", "single_key", "allow_overlaps")},
}
"""The authors' parameter → ours."""


@pytest.fixture(scope="module")
def index() -> TokenIndex:
    return TokenIndex.build(INPUTS["docs"])


def close(value: float) -> Any:
    return pytest.approx(value, rel=TOLERANCE["score_rtol"], abs=TOLERANCE["score_atol"])


def settings_of(variant: dict[str, Any]) -> Settings:
    given = dict(understood(variant, "unigrams", *NAMES))
    if not given.pop("unigrams"):
        given["use_top_k_unigrams"] = 0
    return Settings(**{NAMES[name]: value for name, value in given.items()})


def test_the_file_says_what_is_compared_how() -> None:
    assert TOLERANCE["counts"] == "exact"
    assert TOLERANCE["order"] == "ties (equal scores) in any order"
    assert len(EXPECTED["index"]) == len(INPUTS["index_queries"])
    assert len(EXPECTED["aggregate"]) == len(INPUTS["queries"])


@pytest.mark.parametrize("row", range(len(INPUTS["index_queries"])))
def test_counts_documents_and_continuations(row: int, index: TokenIndex) -> None:
    expected = understood(EXPECTED["index"][row], "ngram", "count", "docs", "continuations")
    ngram = INPUTS["index_queries"][row]
    assert expected["ngram"] == ngram
    low, high = index.ranges([ngram])
    assert index.counts([ngram]).tolist() == [expected["count"]]
    _, documents, _ = index.occurrences(low, high, np.array([len(ngram)]))
    assert sorted(set(documents.tolist())) == expected["docs"]
    tokens, counts, _ = index.following(low, high)
    assert [list(pair) for pair in zip(tokens.tolist(), counts.tolist(), strict=True)] == expected["continuations"]


@pytest.mark.parametrize("name", INPUTS["variants"])
@pytest.mark.parametrize("row", range(len(INPUTS["queries"])))
def test_weights_and_scores(row: int, name: str, index: TokenIndex) -> None:
    query = understood(INPUTS["queries"][row], "ngrams", "unigram_logprobs")
    expected = understood(EXPECTED["aggregate"][row][name], "doc_scores", "ngram_weights")
    settings = settings_of(INPUTS["variants"][name])
    keys = {tuple(ngram): logprob for ngram, logprob in query["ngrams"]}
    weighed = Weighed.of(index, keys, np.array(query["unigram_logprobs"]), settings, special=(0, 1, 2))
    weights = dict(zip(weighed.keys, weighed.weights.tolist(), strict=True))
    assert weights == {tuple(ngram): close(weight) for ngram, weight in expected["ngram_weights"]}
    scores = dict(Scorer(index, settings, INPUTS["eos"]).best(weighed))
    assert scores == {document: close(score) for document, score in expected["doc_scores"]}
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
