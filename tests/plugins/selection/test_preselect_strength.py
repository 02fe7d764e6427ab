"""preselect: strength and its invariances, labels and thresholds, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from topic_corpus import BENCHMARK, examples, scorer

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe_plugins.selection.preselect._corpus import training_line
from pickaxe_plugins.selection.preselect._strength import Cut, bits_per_character, extremes, strength

# ---------------------------------------------------------------- strength

loss_rows = arrays(np.float64, st.tuples(st.integers(1, 20), st.just(6)), elements=st.integers(0, 30).map(float))


@given(loss_rows, st.floats(0.5, 3), st.floats(0, 100))
def test_strength_depends_on_order_alone(losses: np.ndarray, slope: float, shift: float) -> None:
    plain = strength(losses, BENCHMARK)
    np.testing.assert_array_equal(strength(losses * slope + shift, BENCHMARK), plain)
    np.testing.assert_array_equal(strength(np.exp(losses / 10), BENCHMARK), plain)
    np.testing.assert_array_equal(strength(losses, np.log(BENCHMARK).tolist()), plain)


@given(st.lists(st.permutations(range(6)), min_size=1, max_size=10))
def test_reversing_the_benchmark_mirrors_strength_without_ties(orders: list[list[int]]) -> None:
    losses = np.array(orders, float)
    np.testing.assert_allclose(strength(losses, BENCHMARK[::-1]), 1 - strength(losses, BENCHMARK), atol=1e-12)


@given(loss_rows)
def test_strength_is_1_exactly_where_losses_fall_with_the_benchmark(losses: np.ndarray) -> None:
    np.testing.assert_array_equal(strength(losses, BENCHMARK) == 1, (np.diff(losses, axis=1) < 0).all(axis=1))


@given(loss_rows)
def test_two_models_give_0_or_1(losses: np.ndarray) -> None:
    assert set(strength(losses[:, :2], (1, 2))) <= {0.0, 1.0}


def test_equal_benchmark_scores_are_no_pair_and_equal_losses_no_match() -> None:
    assert strength(np.array([[3.0, 2.0, 1.0]]), (1, 1, 2))[0] == 1
    assert strength(np.array([[2.0, 2.0, 1.0]]), (1, 2, 3))[0] == pytest.approx(2 / 3)
    assert np.isnan(strength(np.array([[2.0, np.nan, 1.0]]), (1, 2, 3))[0])


def test_bits_per_character() -> None:
    losses, characters = np.array([[70.0, 60.0]]), np.array([100])
    bits = bits_per_character(losses, characters)
    assert bits[0, 0] == pytest.approx(70 / (100 * math.log(2)))
    np.testing.assert_allclose(bits_per_character(2 * losses, 2 * characters), bits)


# ---------------------------------------------------------------- labels and thresholds


@given(
    arrays(np.float64, st.integers(1, 60), elements=st.integers(0, 15).map(lambda pairs: pairs / 15)),
    st.one_of(st.just("all_pairs"), st.floats(0.05, 0.5)),
    st.integers(2, 30),
)
def test_classes_are_disjoint_equal_and_apart(strengths: np.ndarray, positive: Any, limit: int) -> None:
    best, worst = extremes(strengths, positive, limit)
    assert len(best) == len(worst) <= limit
    assert not set(best) & set(worst)
    if len(best):
        assert strengths[worst].max() <= strengths[best].min()
    if positive == "all_pairs":
        assert (strengths[best] == 1).all()
        assert len(best) == min((strengths == 1).sum(), (strengths < 1).sum(), limit)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 500)), min_size=1, max_size=60), st.floats(0.01, 1))
def test_the_kept_share_exceeds_the_wish_by_the_last_document_at_most(
    rows: list[tuple[int, int]], fraction: float
) -> None:
    scores, characters = np.array(rows).T
    cut = Cut.of(scores / 20, characters)
    threshold = cut.threshold(fraction)
    above, at = characters[scores / 20 > threshold].sum(), characters[scores / 20 == threshold]
    assert above <= fraction * characters.sum() + 1e-9
    assert cut.characters[: cut.before(fraction) + 1].sum() <= fraction * characters.sum() + at.max() + 1e-9


def test_everything_is_kept_at_share_1() -> None:
    assert Cut.of(np.array([0.2, 0.9, 0.5]), np.array([5, 5, 5])).threshold(1) == 0.2


def test_training_lines_are_one_line_each() -> None:
    assert training_line("A\nb\n", True) == "__label__1 A b "


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"benchmark_scores": (1.0,)}, "benchmark_scores"),
        ({"benchmark_scores": (1.0, 1.0)}, "benchmark_scores"),
        ({"benchmark_scores": (1.0, math.nan)}, "benchmark_scores[1]"),
        ({"models": ("lm",)}, "(all)"),
        ({"stride": 20, "block": 10}, "(all)"),
        ({"keep_fraction": 0}, "keep_fraction"),
        ({"max_per_class": 1}, "max_per_class"),
    ],
)
def test_wrong_parameters(params: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        scorer(**params)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize("positive", [0.0, 0.6, "most"])
def test_wrong_share_of_positives(positive: Any) -> None:
    with pytest.raises(InvalidParams, match="positive"):
        scorer(positive=positive)


@pytest.mark.parametrize(
    "losses", [np.ones(5), np.ones((6, 1)), np.array([1, 1, 1, 1, 1, -0.1]), np.array([1, 1, 1, 1, 1, np.inf])]
)
def test_wrong_losses_name_the_item(losses: np.ndarray) -> None:
    bad = [*examples(3), Item("bad", "text", {"losses": losses})]
    with pytest.raises(InvalidItems, match=r"\[3\]\.fields\.losses.*'bad'"):
        scorer().score(bad)
    with pytest.raises(InvalidItems, match=r"\[3\]\.fields\.losses.*'bad'"):
        scorer().fit(bad)


@pytest.mark.parametrize(("losses", "missing"), [((1.0,) * 6, "positive"), ((6.0, 5, 4, 3, 2, 1), "negative")])
def test_no_class_left(losses: tuple[float, ...], missing: str) -> None:
    with pytest.raises(InvalidItems, match=f"leave no {missing}"):
        scorer().fit([Item(str(row), "text", {"losses": np.array(losses)}) for row in range(9)])


def test_nothing_to_fit_on() -> None:
    with pytest.raises(InvalidParams, match="benchmark_scores"):
        pickaxe.scorer("preselect").fit(examples(5))
    with pytest.raises(InvalidItems, match="no document with a loss of every model"):
        scorer().fit(["text without losses"])


def test_scoring_without_fit_needs_losses_and_benchmark() -> None:
    with pytest.raises(InvalidItems, match="without a fit it is needed"):
        scorer().score(["text"])
    with pytest.raises(InvalidParams, match="benchmark_scores"):
        pickaxe.scorer("preselect").score(examples(1))
    with pytest.raises(InvalidItems, match="text"):
        scorer().score([Item("textless", fields={"losses": np.ones(6)})])


def test_the_docs_page_names_every_parameter() -> None:
    page = (Path(__file__).parents[3] / "docs/methods/preselect.md").read_text("utf-8")
    for name in type(scorer().params).model_fields:
        assert f"`{name}`" in page
