"""Min-K% Prob: its invariants, its errors, and the shipped draft model behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams, Unmet
from pickaxe_plugins.selection._roc import roc
from pickaxe_plugins.selection.min_k_prob import ratio_column
from pickaxe_plugins.selection.min_k_prob._stats import from_logits, lowest_means, surprise_scores

TEXTS = (
    "We hold these truths to be self-evident, that all men are created equal.",
    "Zebra quantum the of lamp purple seven Over",
    "It was the best of times, it was the worst of times, it was the age of wisdom",
    "one two",
)
ALL = ("ppl_neg", "nll", "zlib", "lowercase", "ref", "min_k_pp")
logprob_lists = st.lists(st.floats(-20, 0, allow_nan=False), min_size=1, max_size=40)


def item(values: Sequence[float], **fields: object) -> Item:
    return Item("x", fields={"token_logprobs": np.asarray(values, float), **fields})  # type: ignore[dict-item]


def labelled(rng: np.random.Generator, n: int = 40, label_shift: float = 1.0) -> list[Item]:
    rows = []
    for row in range(n):
        values = -rng.exponential(2.0 if row % 2 else 2.0 + label_shift, 30)
        rows.append(Item(str(row), fields={"token_logprobs": values, "label": row % 2}))
    return rows


# ---------------------------------------------------------------- what must hold


@settings(deadline=None)
@given(logprob_lists)
def test_the_whole_share_is_minus_nll(values: list[float]) -> None:
    found = pickaxe.scorer("min-k-prob", ratio=1.0, columns=("nll",)).score([item(values)])
    assert found["min_k"][0] == pytest.approx(-found["nll"][0])


@settings(deadline=None)
@given(logprob_lists)
def test_min_k_never_falls_as_the_share_grows(values: list[float]) -> None:
    ratios = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
    means = lowest_means([np.array(values)], ratios)[0]
    assert np.all(np.diff(means) >= -1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(-20, 0, allow_nan=False), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_order_of_tokens_does_not_matter(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    scorer = pickaxe.scorer("min-k-prob", ratios=(0.5,))
    first, second = scorer.score([item(values)]), scorer.score([item(shuffled)])
    for name in ("min_k", "min_k_50", "nll", "ppl_neg"):
        assert first[name][0] == pytest.approx(second[name][0])


@settings(deadline=None)
@given(logprob_lists)
def test_a_certain_token_changes_nothing_while_the_count_stays(values: list[float]) -> None:
    n = len(values)
    if max(1, int(n * 0.2)) == max(1, int((n + 1) * 0.2)):
        means = lowest_means([np.array(values), np.array([*values, 0.0])], (0.2,))[:, 0]
        assert means[0] == pytest.approx(means[1])


def test_many_lengths_together_are_each_alone() -> None:
    rng = np.random.default_rng(0)
    arrays = [-rng.exponential(3, n) for n in (0, 1, 7, 7, 7, 2, 300, 1, 40)]
    together = lowest_means(arrays, (0.2, 0.6))
    for array, row in zip(arrays, together, strict=True):
        expected = [np.sort(array)[: max(1, int(len(array) * r))].mean() if len(array) else np.nan for r in (0.2, 0.6)]
        np.testing.assert_allclose(row, expected)


def test_batched_is_single_and_any_budget_gives_the_same() -> None:
    params = {"model": "draft", "reference": "draft", "columns": ALL, "ratios": (0.05, 0.5)}
    together = pickaxe.scorer("min-k-prob", **params).score(TEXTS)
    packed = pickaxe.scorer("min-k-prob", **params, batch_tokens=16).score(TEXTS)
    for row, text in enumerate(TEXTS):
        alone = pickaxe.scorer("min-k-prob", **params).score([text])
        for name in together.columns:
            tolerance = 1e-4 * max(1.0, abs(float(alone[name][0])))
            assert together[name][row] == pytest.approx(alone[name][0], abs=tolerance), name
            assert packed[name][row] == pytest.approx(alone[name][0], abs=tolerance), name


def test_text_and_its_own_log_probabilities_give_the_same_columns() -> None:
    lm = pickaxe.Host().lm("draft")
    ids = lm.tokenizer.encode_batch(list(TEXTS))
    own = lm.token_logprobs(ids)
    lower = lm.token_logprobs(lm.tokenizer.encode_batch([text.lower() for text in TEXTS]))
    items = [
        Item(str(row), text, {"token_logprobs": a, "token_logprobs_lower": b, "token_logprobs_ref": a})
        for row, (text, a, b) in enumerate(zip(TEXTS, own, lower, strict=True))
    ]
    columns = ("ppl_neg", "nll", "zlib", "lowercase", "ref")
    from_text = pickaxe.scorer("min-k-prob", model="draft", reference="draft", columns=columns).score(TEXTS)
    from_values = pickaxe.scorer("min-k-prob", columns=columns).score(items)
    for name in ("min_k", *columns, "n_tokens"):
        np.testing.assert_allclose(from_text[name], from_values[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_min_k_plus_plus_of_the_model_is_that_of_its_logits() -> None:
    lm = pickaxe.Host().lm("draft")
    ids = lm.tokenizer.encode(TEXTS[0])
    logits = lm.full_logprobs(ids)[:-1]
    given_logits = Item("x", fields={"logits": logits, "token_ids": np.array(ids[1:])})
    scorer = pickaxe.scorer("min-k-prob", model="draft", columns=("min_k_pp", "nll"))
    found = scorer.score([Item("t", TEXTS[0]), given_logits])
    assert found["min_k_pp"][0] == pytest.approx(found["min_k_pp"][1], abs=2e-2)
    assert found["nll"][0] == pytest.approx(found["nll"][1], abs=1e-3)


def test_point_mass_has_no_surprise() -> None:
    logits = np.array([[0.0, -np.inf, -np.inf], [0.0, 0.0, 0.0]])
    logprobs, means, stds = from_logits(logits, np.array([0, 2]))
    np.testing.assert_array_equal(surprise_scores(logprobs, means, stds), [0.0, 0.0])
    assert logprobs[0] == 0.0


# ---------------------------------------------------------------- ROC and calibration


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_pairwise_one_and_swapped_labels_mirror_it(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in pairs], float)
    labels = np.array([label for _, label in pairs])
    if labels.all() or not labels.any():
        return
    wins = [(a > b) + (a == b) / 2 for a in scores[labels] for b in scores[~labels]]
    assert roc(scores, labels).auc == pytest.approx(np.mean(wins))
    assert roc(scores, ~labels).auc == pytest.approx(1 - np.mean(wins))


def test_threshold_is_the_best_balanced_accuracy(tmp_path: Path) -> None:
    examples = labelled(np.random.default_rng(1))
    scorer = pickaxe.scorer("min-k-prob").fit(examples, out=tmp_path / "a")
    found = scorer.score(examples)
    labels = np.array([each.fields["label"] for each in examples])
    seen = found["seen"]
    accuracy = (seen[labels == 1].mean() + 1 - seen[labels == 0].mean()) / 2
    assert scorer.artifact is not None
    figures = scorer.artifact.read_json("calibration.json")["columns"]["min_k"]
    assert accuracy == pytest.approx(figures["best_balanced_accuracy"])
    best = max(
        (np.mean(found["min_k"][labels == 1] >= t) + np.mean(found["min_k"][labels == 0] < t)) / 2
        for t in found["min_k"]
    )
    assert accuracy == pytest.approx(best)
    assert {"auc", "tpr_at_5pct_fpr", "tpr_at_1pct_fpr"} <= figures.keys()


def test_threshold_for_a_false_positive_rate(tmp_path: Path) -> None:
    examples = labelled(np.random.default_rng(2), 200)
    scorer = pickaxe.scorer("min-k-prob", max_fpr=0.05).fit(examples, out=tmp_path / "a")
    seen = scorer.score(examples)["seen"]
    labels = np.array([each.fields["label"] for each in examples])
    assert seen[labels == 0].mean() <= 0.05
    assert seen[labels == 1].mean() > 0


def test_no_false_positive_allowed_and_hopeless_scores_mark_nothing(tmp_path: Path) -> None:
    worse = [item([-9.0], label=1), item([-1.0], label=0)]
    scorer = pickaxe.scorer("min-k-prob", max_fpr=0.0).fit(worse, out=tmp_path / "a")
    assert scorer.score(worse)["seen"].tolist() == [0, 0]


def test_decision_does_not_depend_on_invert(tmp_path: Path) -> None:
    examples = labelled(np.random.default_rng(3))
    plain = pickaxe.scorer("min-k-prob", ratios=(0.5,)).fit(examples, out=tmp_path / "a")
    turned = pickaxe.scorer("min-k-prob", artifact=tmp_path / "a", invert=True)
    a, b = plain.score(examples), turned.score(examples)
    np.testing.assert_array_equal(a["seen"], b["seen"])
    np.testing.assert_array_equal(a["nll"], b["nll"])
    for name in ("min_k", "min_k_50", "ppl_neg"):
        np.testing.assert_array_equal(a[name], -b[name])
    directions = {column.name: column.direction for column in turned.columns}
    assert directions["nll"] == "higher"


def test_threshold_of_other_settings_is_refused(tmp_path: Path) -> None:
    pickaxe.scorer("min-k-prob").fit(labelled(np.random.default_rng(4)), out=tmp_path / "a")
    with pytest.raises(ArtifactMismatch, match="ratio"):
        pickaxe.scorer("min-k-prob", artifact=tmp_path / "a", ratio=0.3).score([item([-1.0])])


def test_calibration_needs_both_labels_and_scores() -> None:
    scorer = pickaxe.scorer("min-k-prob")
    with pytest.raises(InvalidItems, match="both labels"):
        scorer.fit([item([-1.0], label=1), item([-2.0], label=1)])
    with pytest.raises(InvalidItems, match="label: is 2"):
        scorer.fit([item([-1.0], label=2)])
    with pytest.raises(InvalidItems, match="no text that can be scored"):
        scorer.fit([item([], label=1)])
    with pytest.raises(InvalidItems, match="label"):
        scorer.fit([item([-1.0])])


# ---------------------------------------------------------------- cutting texts


def test_short_texts_give_nan_and_a_flag() -> None:
    found = pickaxe.scorer("min-k-prob", model="draft").score(["", "a", TEXTS[0]])
    assert np.isnan(found["min_k"][:2]).all()
    assert found["n_tokens"].tolist()[:2] == [0, 0]
    assert [(flag.index, flag.reason) for flag in found.flags] == [(0, "too_short"), (1, "too_short")]


def test_bos_makes_one_token_scorable() -> None:
    with_bos = pickaxe.scorer("min-k-prob", model="draft", add_bos=True).score(["a", TEXTS[0]])
    without = pickaxe.scorer("min-k-prob", model="draft", add_bos=False).score(["a", TEXTS[0]])
    assert (with_bos["n_tokens"] - without["n_tokens"]).tolist() == [1, 1]
    assert not np.isnan(with_bos["min_k"]).any()


def test_truncation_is_reported() -> None:
    lm = pickaxe.Host().lm("draft")
    found = pickaxe.scorer("min-k-prob", model="draft", max_tokens=8).score([TEXTS[0], "one two"])
    assert found["truncated"].tolist() == [True, False]
    assert found["n_tokens"][0] == 7
    assert found.flags[0].reason == "truncated"
    kept = lm.token_logprobs([lm.tokenizer.encode(TEXTS[0])[:8]])[0]
    assert found["nll"][0] == pytest.approx(-kept.mean(), abs=1e-4)


def test_chunks_are_averaged_and_nothing_is_left_out() -> None:
    lm = pickaxe.Host().lm("draft")
    ids = lm.tokenizer.encode(TEXTS[2])
    found = pickaxe.scorer("min-k-prob", model="draft", max_tokens=8, window="chunks", ratio=0.5).score([TEXTS[2]])
    parts = [part.tolist() for part in np.array_split(np.array(ids), -(-len(ids) // 8))]
    means = [np.sort(each)[: max(1, len(each) // 2)].mean() for each in lm.token_logprobs(parts)]
    assert found["min_k"][0] == pytest.approx(np.mean(means), abs=1e-4)
    assert found["n_tokens"][0] == len(ids) - len(parts)
    assert not found["truncated"][0]


def test_equal_numbers_of_words() -> None:
    long, short = " ".join(TEXTS[:3]), "only three words"
    first = pickaxe.scorer("min-k-prob", model="draft", words=10).score([long, short])
    same = pickaxe.scorer("min-k-prob", model="draft").score([" ".join(long.split()[:10])])
    assert first["min_k"][0] == pytest.approx(same["min_k"][0], abs=1e-4)
    assert first["zlib"][0] == pytest.approx(same["zlib"][0], abs=1e-4)
    assert np.isnan(first["min_k"][1])
    assert "fewer than 10 words" in first.flags[0].message


def test_share_of_seen_chunks_of_a_book(tmp_path: Path) -> None:
    params = {"model": "draft", "words": 5, "window": "chunks"}
    examples = [Item(str(row), text, {"label": row % 2}) for row, text in enumerate(TEXTS[:2])]
    scorer = pickaxe.scorer("min-k-prob", **params).fit(examples, out=tmp_path / "a")
    book = TEXTS[2]
    found = scorer.score([book])
    words = book.split()
    pieces = [" ".join(words[start : start + 5]) for start in range(0, len(words) - 4, 5)]
    each = scorer.score(pieces)
    assert found["seen_share"][0] == pytest.approx(each["seen"].mean())
    assert found["min_k"][0] == pytest.approx(each["min_k"].mean(), abs=1e-4)


# ---------------------------------------------------------------- columns and errors


def test_columns_follow_the_parameters() -> None:
    scorer = pickaxe.scorer("min-k-prob", ratios=(0.05, 0.125, 1.0), columns=("nll",))
    names = [column.name for column in scorer.columns]
    assert names == ["min_k", "min_k_05", "min_k_12.5", "min_k_100", "nll", "n_tokens", "truncated"]
    assert list(scorer.score([item([-1.0, -2.0])]).columns) == names
    assert ratio_column(0.3) == "min_k_30"


def test_what_cannot_be_computed_is_nan_and_flagged() -> None:
    found = pickaxe.scorer("min-k-prob", columns=("zlib", "lowercase", "min_k_pp")).score([item([-1.0, -2.0])])
    assert all(np.isnan(found[name][0]) for name in ("zlib", "lowercase", "min_k_pp"))
    assert found.flags[0].reason == "incomplete"
    assert found["min_k"][0] == -2.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"token_logprobs": np.array([-1.0, np.nan])}, "NaN at position 1"),
        ({"token_logprobs": np.array([-1.0, 0.5])}, "at most 0"),
        ({"token_logprobs": np.zeros((2, 2))}, "shape"),
        ({"token_logprobs": np.array([-1.0]), "token_logprobs_lower": np.array([0.1])}, "token_logprobs_lower"),
        ({"logits": np.zeros((3, 4))}, "token_ids"),
        ({"logits": np.zeros((1, 4)), "token_ids": np.array([4])}, "outside the vocabulary"),
        ({"logits": np.zeros(3), "token_ids": np.array([0])}, "logits"),
        ({}, "neither text nor token_logprobs"),
    ],
)
def test_bad_items_are_named(fields: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InvalidItems, match=message) as caught:
        pickaxe.scorer("min-k-prob", columns=("lowercase",)).score([item([-1.0]), Item("bad", fields=fields)])
    assert "'bad'" in str(caught.value)
    assert "items[1]" in str(caught.value)


def test_rounding_above_zero_is_let_through() -> None:
    assert pickaxe.scorer("min-k-prob").score([item([5e-7])])["n_tokens"][0] == 1


def test_reference_column_without_a_reference_model() -> None:
    with pytest.raises(Unmet, match="reference"):
        pickaxe.scorer("min-k-prob", columns=("ref",)).score([item([-1.0])])


@pytest.mark.parametrize(
    "params",
    [
        {"ratio": 0},
        {"ratio": 1.1},
        {"ratios": (0.2, 0.0)},
        {"ratios": (0.2, 0.2)},
        {"columns": ("entropy",)},
        {"max_tokens": 1},
        {"max_fpr": 1.0},
    ],
)
def test_bad_parameters(params: dict[str, object]) -> None:
    with pytest.raises(InvalidParams):
        pickaxe.scorer("min-k-prob", **params)


def test_example_is_in_order() -> None:
    example = pickaxe.show("min-k-prob").example
    found = pickaxe.scorer("min-k-prob").score(example.items)
    assert found["min_k"][0] > found["min_k"][1]
