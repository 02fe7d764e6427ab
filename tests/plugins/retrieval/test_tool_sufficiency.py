"""`tool-sufficiency`: invariants, columns by depth, the report, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.report import explained

IDS = [f"t{number}" for number in range(12)]


def query(found: list[str], relevant: list[str]) -> Item:
    return Item("q", fields={"found": tuple(found), "relevant": tuple(relevant)})


@given(st.permutations(IDS), st.sets(st.sampled_from(IDS), min_size=1, max_size=7))
def test_sufficiency_is_at_most_recall_and_grows_with_depth(run: list[str], needed: set[str]) -> None:
    depths = (1, 2, 3, 5, 8, 12)
    found = pickaxe.scorer("tool-sufficiency", cutoffs=depths).score([query(run, sorted(needed))])
    whole = [float(found[f"sufficiency@{k}"][0]) for k in depths]
    share = [float(found[f"recall@{k}"][0]) for k in depths]
    assert all(one <= other for one, other in zip(whole, share, strict=True))
    assert whole == sorted(whole)
    assert all(value == 0 for value, k in zip(whole, depths, strict=True) if len(needed) > k)
    assert whole[-1] == 1
    if len(needed) == 1:
        assert whole == share
    assert all(0 <= found[f"ndcg@{k}"][0] <= 1 for k in depths)


def test_columns_and_report_follow_the_cutoffs() -> None:
    scorer = pickaxe.scorer("tool-sufficiency", cutoffs=(2, 1))
    found = scorer.score([query(["a", "b"], ["b", "a"]), query(["a"], ["a", "b"]), query([], ["b"])])
    assert [each.name for each in scorer.columns] == [
        "sufficiency@2", "sufficiency@1", "ndcg@2", "ndcg@1", "recall@2", "recall@1",
    ]  # fmt: skip
    assert found.primary.tolist() == [1, 0, 0]
    assert found["recall@2"].tolist() == [1, 0.5, 0]
    answer, figures = explained(found.summary)
    assert answer == ("All tools are among the first 2 for 33.3% of 3 queries; 50% of the single tools are.",)
    assert [list(series.y) for series in figures[0].series] == [
        pytest.approx([0, 1 / 3]), pytest.approx([1 / 3, 0.5]),
    ]  # fmt: skip
    assert found.summary["means"]["recall@2"] == pytest.approx(np.mean(found["recall@2"]))


def test_bad_input() -> None:
    scorer = pickaxe.scorer("tool-sufficiency")
    with pytest.raises(InvalidItems, match=r"items\[0\]\.fields\.found: holds an id more than once"):
        scorer.score([query(["a", "a"], ["a"])])
    with pytest.raises(InvalidItems, match=r"items\[1\]\.fields\.relevant: is empty"):
        scorer.score([query(["a"], ["a"]), query(["a"], [])])
    with pytest.raises(InvalidItems, match=r"fields\.found"):
        scorer.score(["text"])
    for wrong in ((), (0,), (5, 5)):
        with pytest.raises(InvalidParams, match="cutoffs"):
            pickaxe.scorer("tool-sufficiency", cutoffs=wrong)
    assert len(scorer.score([])) == 0
