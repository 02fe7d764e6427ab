"""TILDEv2 against a toy index, impacts, scores, expansion and training loss in float64."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from golden import golden, understood

from pickaxe_plugins.reranking.tildev2 import _terms
from pickaxe_plugins.reranking.tildev2._expander import survivors
from pickaxe_plugins.reranking.tildev2._postings import Postings, stored
from pickaxe_plugins.reranking.tildev2._training import contrast, score_matrix

FILE = understood(golden("67-tildev2"), "paper", "how", "tolerance", "inputs", "expected")
TOLERANCE = understood(FILE["tolerance"], "float", "ids")
INPUTS = understood(
    FILE["inputs"], "vocab", "special_ids", "documents", "queries", "quantize_bits", "train", "expand"
)  # fmt: skip
EXPECTED = understood(
    FILE["expected"],
    "stop_ids",
    "index_max_pooled",
    "clean_queries",
    "scores",
    "quantized_index",
    "train",
    "expansion_ids_sorted",
)
CLOSE = {"abs": TOLERANCE["float"], "rel": 0}
SIZE = 1 + max(INPUTS["vocab"].values())


def stopped() -> np.ndarray:
    return _terms.mask(_terms.stop_ids(INPUTS["vocab"]), SIZE) | _terms.mask(np.array(INPUTS["special_ids"]), SIZE)


def index() -> _terms.Entries:
    documents = [understood(each, "input_ids", "logits") for each in INPUTS["documents"]]
    weights = [np.maximum(each["logits"], 0) for each in documents]
    return _terms.pooled([each["input_ids"] for each in documents], weights, stopped())


def tables(entries: _terms.Entries) -> list[dict[str, float]]:
    found: list[dict[str, float]] = [{} for _ in INPUTS["documents"]]
    for row, term, weight in zip(*(each.tolist() for each in entries), strict=True):
        found[row][str(term)] = weight
    return found


def test_stop_ids() -> None:
    assert _terms.stop_ids(INPUTS["vocab"]).tolist() == EXPECTED["stop_ids"]


def test_the_index_keeps_the_highest_weight_of_each_term() -> None:
    same(tables(index()), EXPECTED["index_max_pooled"])


def same(found: Sequence[Mapping[str, float]], wanted: Sequence[Mapping[str, float]]) -> None:
    assert [each.keys() for each in found] == [each.keys() for each in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one == {term: pytest.approx(weight, **CLOSE) for term, weight in other.items()}


def test_impacts() -> None:
    entries, _, _ = stored(index(), "float32", INPUTS["quantize_bits"])
    assert tables(entries) == EXPECTED["quantized_index"]


@pytest.mark.parametrize("row", range(len(INPUTS["queries"])))
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_scores(row: int, dtype: str) -> None:
    asked = _terms.query_terms(INPUTS["queries"][row], stopped())
    assert asked.tolist() == EXPECTED["clean_queries"][row]
    entries, scale, _ = stored(index(), dtype, None)
    postings = Postings.of(entries, SIZE, len(INPUTS["documents"]), scale)
    wanted = np.array(EXPECTED["scores"][row], float)
    given = np.random.default_rng(row).permutation(len(wanted))
    close: dict[str, Any] = CLOSE if dtype == "float32" else {"rel": 2e-3, "abs": 1e-6}
    assert postings.scores(asked, given) == pytest.approx(wanted[given], **close)
    rows, scores, counts = postings.search([asked], len(wanted))
    order = [place for place in np.argsort(-wanted, kind="stable").tolist() if wanted[place] > 0]
    assert rows[0, : counts[0]].tolist() == order
    assert scores[0, : counts[0]] == pytest.approx(wanted[order], **close)


def test_training() -> None:
    case = understood(INPUTS["train"], "group_size", "query_ids", "query_lengths_incl_cls_sep", "doc_ids", "doc_logits")
    wanted = understood(EXPECTED["train"], "score_matrix", "loss")
    ids = np.array(case["query_ids"])
    places, lengths = np.arange(ids.shape[1]), np.array(case["query_lengths_incl_cls_sep"])[:, None]
    used = ((places > 0) & (places < lengths - 1)).astype(float)
    matrix = score_matrix(ids, used, np.array(case["doc_ids"]), np.maximum(case["doc_logits"], 0))
    assert np.asarray(matrix) == pytest.approx(np.array(wanted["score_matrix"]), **CLOSE)
    assert float(contrast(matrix, case["group_size"])[0]) == pytest.approx(wanted["loss"], **CLOSE)


def test_expansion() -> None:
    case = understood(INPUTS["expand"], "m", "vocab_logits_at_first_position", "passage_ids", "bad_ids")
    unlikely = _terms.mask(np.array(case["bad_ids"]), SIZE)
    rows = zip(case["vocab_logits_at_first_position"], case["passage_ids"], strict=True)
    found = [survivors(np.array(logits), passage, unlikely, case["m"]) for logits, passage in rows]
    assert [sorted(each) for each in found] == EXPECTED["expansion_ids_sorted"]
