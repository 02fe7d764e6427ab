"""Golden cases of token-iou: metrics in both modes, range arithmetic, and the tags of the question writer."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.evaluation.span_qa._tags import tagged
from pickaxe_plugins.evaluation.token_iou._spans import Cover, Ranges

FILE = understood(golden("22-token-iou"), "paper", "how", "tolerance", "inputs", "expected")
TOLERANCE = understood(FILE["tolerance"], "float")["float"]
INPUTS = understood(FILE["inputs"], "params", "note", "tag_text")
PARAMS = understood(INPUTS["params"], "mode", "unit", "piece_length")
EXPECTED = understood(FILE["expected"], "cases", "ranges", "tag_text")
METRICS = ("iou", "recall", "precision", "precision_omega", "chunks_needed")


def items(given: dict[str, Any]) -> list[Item]:
    understood(given, "chunks", "questions", "retrieved")
    chunks = {"all_chunks": given["chunks"]}
    return [
        Item(
            f"question {row}",
            fields={
                "references": np.array(understood(question, "corpus_id", "references")["references"]),
                "corpus": question["corpus_id"],
                "retrieved": {"retrieved": found},
                "all_chunks": chunks,
            },
        )
        for row, (question, found) in enumerate(zip(given["questions"], given["retrieved"], strict=True))
    ]


@pytest.mark.parametrize("mode", [PARAMS["mode"], "strict"])
@pytest.mark.parametrize("case", EXPECTED["cases"], ids=range(len(EXPECTED["cases"])))
def test_metrics(case: dict[str, Any], mode: str) -> None:
    understood(case, "inputs", "expected", "expected_strict")
    depth = max(len(found) for found in case["inputs"]["retrieved"])
    scorer = pickaxe.scorer("token-iou", mode=mode, unit=PARAMS["unit"], k=depth)
    scores = scorer.score(items(case["inputs"]))
    expected = dict(case["expected" if mode == "official" else "expected_strict"])
    spread = expected.pop("mean_std_population", {})
    understood(expected, *METRICS)
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, atol=TOLERANCE, rtol=0)
    (overall,) = scores.summary["Overall"]
    for name, (mean, std) in understood(spread, *METRICS).items():
        assert overall[f"mean_{name}"] == pytest.approx(mean, abs=TOLERANCE)
        assert overall[f"std_{name}"] == pytest.approx(std, abs=TOLERANCE)


@pytest.mark.parametrize("case", EXPECTED["ranges"], ids=range(len(EXPECTED["ranges"])))
def test_ranges(case: dict[str, Any]) -> None:
    """Union as listed; intersections and difference by length, the official lists being in no useful order."""
    understood(case, "ranges", "target", "union", "difference", "intersections")
    given, target = ranges(case["ranges"]), ranges([case["target"]])
    union = Cover(given, 100).ranges
    assert np.column_stack([union.start, union.end]).tolist() == case["union"]
    shared = Cover(target, 100).held(given)
    assert shared.tolist() == [end - start for start, end in (part or (0, 0) for part in case["intersections"])]
    assert Cover(target, 100).touched(given).tolist() == [part is not None for part in case["intersections"]]
    assert int((given.lengths - shared).sum()) == sum(end - start for start, end in case["difference"])


def ranges(rows: list[list[int]]) -> Ranges:
    start, end = np.array(rows, np.int64).T
    return Ranges(np.zeros(len(rows), np.int64), start, end)


def test_tags() -> None:
    expected = understood(EXPECTED["tag_text"], "tagged", "tag_indexes")
    text, edges = tagged(INPUTS["tag_text"], PARAMS["piece_length"])
    assert (text, edges) == (expected["tagged"], expected["tag_indexes"])
