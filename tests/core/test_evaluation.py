"""Measures by ir-measures against those of `pickaxe.metrics`."""

from __future__ import annotations

import math

import pytest

from pickaxe import metrics
from pickaxe.errors import InvalidParams
from pickaxe.evaluation import evaluate, means

QRELS = {"q1": {"a": 2, "b": 1, "c": 0}, "q2": {"d": 1}, "q3": {"e": 1}}
RUN = {"q1": ["c", "b", "x", "a"], "q2": ["d"], "unjudged": ["a"]}


def test_equals_our_own() -> None:
    found = evaluate(RUN, QRELS, ["nDCG@3", "RR@10", "R@2"])
    assert found["nDCG@3"] == pytest.approx(metrics.ndcg(RUN, QRELS, 3))
    assert found["RR@10"] == pytest.approx(metrics.mrr(RUN, QRELS, 10))
    assert found["R@2"] == pytest.approx(metrics.recall(RUN, QRELS, 2))
    assert found["RR@10"]["q3"] == 0
    assert means(found)["R@2"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert math.isnan(means({"x": {}})["x"])


@pytest.mark.parametrize("measure", ["no", "nDCG@", "nDCG(", "nDCG(x=1)@3", ""])
def test_measures_that_do_not_exist(measure: str) -> None:
    with pytest.raises(InvalidParams, match="measures"):
        evaluate(RUN, QRELS, [measure])
