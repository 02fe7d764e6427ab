"""domain-specificity: signs, units, masks, the n-gram pair, language models of all three kinds, errors."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Host, Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams, Unmet
from pickaxe.report import explained
from pickaxe_plugins.selection.domain_specificity import _losses, _method, _word_ngrams
from pickaxe_plugins.selection.domain_specificity._masked_lm import MaskedLM
from pickaxe_plugins.selection.domain_specificity._word_ngrams import NgramModel, joined
from pickaxe_plugins.train import bert, bert_files, vocabulary
from pickaxe_plugins.train.pairs import Framing, batch

CORPORA = Path(__file__).parents[2] / "golden" / "files" / "22-token-iou"
LAW = ["The court held that the contract was void.", "The court affirmed; the appeal is dismissed with costs."]
PROSE = ["We walked along the river in the rain.", "She made soup and bread for all of us that night."]
NATS = st.lists(st.floats(0, 20, allow_nan=False), min_size=1, max_size=30)


def chunks(*names: str) -> list[str]:
    """Stretches of 60 words."""
    found = []
    for name in names:
        words = re.findall(r"\w+|[^\w\s]+", (CORPORA / f"{name}.md").read_text("utf-8").lower())
        found += [" ".join(words[start : start + 60]) for start in range(0, len(words) - 59, 60)]
    return found


def brought(general: Any, domain: Any, text: str | None = None, **fields: Any) -> Item:
    pair = {"token_logprobs_general": -np.array(general, float), "token_logprobs_domain": -np.array(domain, float)}
    return Item("x", text, {**pair, **fields})


@pytest.fixture(scope="module")
def pair() -> Any:
    return pickaxe.scorer("domain-specificity").fit(LAW, unlabelled=PROSE)


# ---------------------------------------------------------------- the definition


@settings(deadline=None)
@given(NATS)
def test_swapped_models_turn_the_sign_and_equal_ones_give_zero(general: list[float]) -> None:
    domain = general[::-1]
    scores = pickaxe.scorer("domain-specificity").score(
        [brought(general, domain), brought(domain, general), brought(general, general)]
    )
    assert scores["ds"][0] == -scores["ds"][1]
    assert scores["ds"][2] == 0
    assert scores["ds"][0] == pytest.approx(np.mean(general) - np.mean(domain), abs=1e-12)


@settings(deadline=None)
@given(NATS, st.integers(1, 4))
def test_characters_do_not_see_how_the_text_was_cut(domain: list[float], parts: int) -> None:
    split = np.repeat(np.array(domain) / parts, parts)
    text = "a text of some length"
    scores = pickaxe.scorer("domain-specificity", normalise="char").score(
        [brought([1.0], domain, text), brought([1.0], split, text)]
    )
    assert scores["loss_domain"][0] == pytest.approx(scores["loss_domain"][1], rel=1e-9)
    assert scores["n_units"].tolist() == [len(text)] * 2


def test_auto_counts_characters_when_the_tokens_differ() -> None:
    scorer = pickaxe.scorer("domain-specificity")
    even = scorer.score([brought([1, 3], [1, 1], "four")])
    odd = scorer.score([brought([1, 3], [1, 1, 2], "four")])
    assert (even["loss_general"][0], odd["loss_general"][0]) == (2.0, 1.0)
    with pytest.raises(InvalidItems, match="need the text"):
        scorer.score([brought([1, 3], [1, 1, 2])])
    with pytest.raises(InvalidItems, match="use normalise=char"):
        pickaxe.scorer("domain-specificity", normalise="token").score([brought([1, 3], [1, 1, 2], "four")])


def test_groups_hold_means_and_errors_and_the_report_says_them() -> None:
    items = [brought([2.0], [1.0], group="law"), brought([4.0], [1.0], group="law"), brought([1.0], [2.0])]
    scores = pickaxe.scorer("domain-specificity").score(items)
    table = scores.groups
    assert table is not None
    assert table.keys == ("law", "all texts")
    np.testing.assert_allclose(table.columns["ds"], [2.0, -1.0])
    np.testing.assert_allclose(table.columns["standard_error"], [1.0, np.nan])
    answer, figures = explained(scores.summary)
    assert answer[0].startswith("law: domain specificity 2")
    assert "One text only" in answer[-1]
    assert list(figures[0].series[0].x) == [2.0, -1.0]


# ---------------------------------------------------------------- n-grams


def test_n_gram_chances_are_a_distribution_and_the_formula() -> None:
    ids = [np.array([0, 1, 0, 1, 2, 0, 1]), np.array([2, 2, 0])]
    for order in (1, 2, 3, 4):
        model = NgramModel.counted(ids, 3, order, 0.6)
        for history in ([], [0], [0, 1], [1, 0, 1], [2, 3, 0]):
            lines = [np.array([*history, word]) for word in range(4)]
            last = np.exp(model.log_probs(*joined(lines)))[len(history) :: len(history) + 1]
            assert last.sum() == pytest.approx(1.0)
    model = NgramModel.counted(ids, 3, 2, 0.6)
    single = (4 - 1 + 0.5) / (10 + 2.0)  # word 1 three times among ten
    assert np.exp(model.log_probs(*joined([np.array([0, 1])])))[1] == pytest.approx(0.6 * 1.0 + 0.4 * single)


@given(order=st.integers(1, 4), words=st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_a_long_text_read_in_runs_has_the_same_sum(order: int, words: list[int]) -> None:
    ids = np.array(words)
    model = NgramModel.counted([ids[::-1].clip(0, 2), ids[1:].clip(0, 2)], 3, order, 0.6)
    whole = -model.log_probs(*joined([ids])).sum()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_word_ngrams, "RUN", 5)
        assert model.nats(ids) == pytest.approx(whole, rel=1e-12)


def test_a_text_longer_than_a_run_gets_the_loss_of_the_whole(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["The appeal is void, the court held in the rain.", "A river.", *PROSE]
    usual = pair.score(texts)["ds"]
    monkeypatch.setattr(_method, "RUN", 4)
    monkeypatch.setattr(_word_ngrams, "RUN", 4)
    np.testing.assert_allclose(pair.score(texts)["ds"], usual, rtol=1e-12)


def test_texts_of_the_domain_come_first(pair: Any) -> None:
    scores = pair.score(["The appeal is void, the court held.", "We walked in the rain along the river."])
    assert scores["ds"][0] > 0 > scores["ds"][1]


def test_the_sides_of_the_fit_swapped_turn_the_sign(pair: Any) -> None:
    texts = [*LAW, *PROSE, "something else entirely"]
    other = pickaxe.scorer("domain-specificity").fit(PROSE, unlabelled=LAW).score(texts)
    np.testing.assert_allclose(pair.score(texts)["ds"], -other["ds"], rtol=0, atol=1e-12)
    same = pickaxe.scorer("domain-specificity").fit(LAW, unlabelled=LAW).score(texts)
    assert not same["ds"].any()


def test_both_models_learn_from_equally_many_words() -> None:
    handle = pickaxe.scorer("domain-specificity").fit(LAW, unlabelled=PROSE * 50)
    notes = handle.artifact.notes
    assert notes["words_general"] == notes["words_domain"]
    unequal = pickaxe.scorer("domain-specificity", equal=False).fit(LAW, unlabelled=PROSE * 50).artifact.notes
    assert unequal["words_general"] > unequal["words_domain"]


def test_finance_is_nearer_to_finance_than_speeches_are() -> None:
    finance, speeches = chunks("finance"), chunks("state_of_the_union")
    half = len(finance) // 2
    handle = pickaxe.scorer("domain-specificity").fit(finance[:half], unlabelled=chunks("wikitexts", "chatlogs"))
    inside, outside = handle.score(finance[half:])["ds"], handle.score(speeches)["ds"]
    assert inside.mean() > 2 > 0 > outside.mean()
    assert (inside > 0).mean() > 0.95
    assert (outside > 0).mean() < 0.15
    assert (inside[:, None] > outside).mean() >= 0.95  # AUC


# ---------------------------------------------------------------- language models


def test_a_causal_model_against_itself_gives_zero_and_its_own_loss() -> None:
    lm = Host().lm("draft")
    scores = pickaxe.scorer("domain-specificity", loss="causal", general="draft", domain="draft").score(LAW)
    expected = [-lm.token_logprobs([lm.tokenizer.encode(text)])[0].mean() for text in LAW]
    np.testing.assert_allclose(scores["loss_general"], expected, rtol=1e-3)
    assert not scores["ds"].any()
    cut = pickaxe.scorer("domain-specificity", loss="causal", general="draft", domain="draft", max_tokens=4).score(LAW)
    assert [flag.reason for flag in cut.flags] == ["truncated"] * 2
    assert cut["n_units"].tolist() == [3, 3]


def masked_folder(folder: Path, seed: int, texts: list[str]) -> tuple[bert.Config, dict[str, np.ndarray]]:
    folder.mkdir(exist_ok=True)
    tokenizer = vocabulary.learn_words(texts, 150, folder)
    shape = bert.Config(layers=2, width=32, heads=4, mlp=48, vocab=tokenizer.vocab_size, positions=32, mlm=True)
    weights = bert.initial(shape, seed=seed, scale=0.2)
    bert_files.save(folder, shape, weights)
    return shape, weights


def test_masked_words_get_the_chances_of_the_network_in_jax(tmp_path: Path) -> None:
    config, weights = masked_folder(tmp_path / "a", 1, [*LAW, *PROSE])
    model = MaskedLM(Host(), str(tmp_path / "a"))
    framing = Framing(model.tokenizer, 32)
    rows = framing.texts(LAW)
    places = [np.array([2, 4]), np.array([1])]
    found = model.log_probs([row.ids.tolist() for row in rows], places)
    mask = model.tokenizer.token_to_id("[MASK]")
    assert mask is not None
    masked = [replace(row, ids=np.where(np.isin(np.arange(len(row)), at), mask, row.ids)) for row, at in
              zip(rows, places, strict=True)]  # fmt: skip
    given = batch(masked)
    logits = np.asarray(
        bert.mlm_logits(weights, config, bert.hidden_states(weights, config, given["ids"], given["lengths"]))
    )
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for line, (row, at) in enumerate(zip(rows, places, strict=True)):
        np.testing.assert_allclose(found[line], logs[line, at, row.ids[at]], atol=1e-4)


def test_masks_are_those_of_the_seed_and_more_of_them_scatter_less(tmp_path: Path) -> None:
    masked_folder(tmp_path / "a", 1, [*LAW, *PROSE])
    masked_folder(tmp_path / "b", 2, [*LAW, *PROSE])
    folders = {"loss": "mlm", "general": str(tmp_path / "a"), "domain": str(tmp_path / "b")}

    def ds(seed: int, **params: Any) -> np.ndarray:
        return pickaxe.scorer("domain-specificity", **folders, **params).score(LAW, call=pickaxe.Call(seed=seed))["ds"]

    np.testing.assert_array_equal(ds(3), ds(3))
    assert (ds(3) != ds(4)).any()
    few, many = (np.std([ds(seed, repeats=repeats) for seed in range(24)], axis=0) for repeats in (2, 32))
    assert np.all(many < few / 2)  # 1/4 is expected
    exact = ds(0, exact=True)
    np.testing.assert_array_equal(exact, ds(9, exact=True))
    mean = np.mean([ds(seed, repeats=64, mask_prob=0.01) for seed in range(4)], axis=0)
    np.testing.assert_allclose(mean, exact, atol=0.5)


def test_two_vocabularies_count_characters(tmp_path: Path) -> None:
    masked_folder(tmp_path / "a", 1, LAW)
    masked_folder(tmp_path / "b", 2, [*LAW, *PROSE])
    folders = {"loss": "mlm", "general": str(tmp_path / "a"), "domain": str(tmp_path / "b")}
    scores = pickaxe.scorer("domain-specificity", **folders).score(LAW)
    assert scores["n_units"].tolist() == list(map(len, LAW))
    with pytest.raises(InvalidParams, match="use char or auto"):
        pickaxe.scorer("domain-specificity", **folders, normalise="token").score(LAW)
    with pytest.raises(Unmet, match="no head for masked words"):
        pickaxe.scorer("domain-specificity", loss="mlm", general="encoder", domain="encoder").score(LAW)


def test_the_fresh_task_head_is_that_of_the_seed(tmp_path: Path) -> None:
    masked_folder(tmp_path / "a", 1, [*LAW, *PROSE])
    masked_folder(tmp_path / "b", 2, [*LAW, *PROSE])
    folders = {"loss": "task_head", "general": str(tmp_path / "a"), "domain": str(tmp_path / "b")}
    items = [Item("label", LAW[0], {"label": 1}), Item("choice", LAW[1], {"label": 2, "choices": [*PROSE, *LAW]})]
    scorer = pickaxe.scorer("domain-specificity", **folders)
    first = scorer.score(items, call=pickaxe.Call(seed=1))
    np.testing.assert_array_equal(first["ds"], scorer.score(items, call=pickaxe.Call(seed=1))["ds"])
    assert (first["ds"] != scorer.score(items, call=pickaxe.Call(seed=2))["ds"]).all()
    vector = Host().encoder(str(tmp_path / "a")).encode([LAW[0]], normalize=False)[0]
    logits = _losses.head(1, 2, 32) @ vector
    assert first["loss_general"][0] == pytest.approx(np.log(np.exp(logits).sum()) - logits[1], abs=1e-5)
    with pytest.raises(InvalidItems, match="0 to 1"):
        scorer.score([Item("x", "text", {"label": 2})])


# ---------------------------------------------------------------- bad input


def test_empty_texts_have_no_score_and_nothing_is_lost(pair: Any) -> None:
    scores = pair.score(["", "   ", LAW[0], "\ud800"])
    assert np.isnan(scores["ds"]).tolist() == [True, True, False, False]
    assert [(flag.index, flag.reason) for flag in scores.flags] == [(0, "too_short"), (1, "too_short")]
    assert len(pair.score([])) == 0
    assert len(pair.score(["word " * 300_000, LAW[0]])) == 2
    twice = pair.score([Item("same", LAW[0]), Item("same", LAW[0])])
    assert twice["ds"][0] == twice["ds"][1]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"token_logprobs_general": np.zeros(2)}, "both or neither"),
        ({"token_logprobs_general": np.zeros((2, 2)), "token_logprobs_domain": np.zeros(2)}, "shape"),
        ({"token_logprobs_general": np.array([np.nan]), "token_logprobs_domain": np.zeros(1)}, "no log-probability"),
        ({"token_logprobs_general": np.array([0.5]), "token_logprobs_domain": np.zeros(1)}, "no log-probability"),
    ],
)
def test_given_log_probabilities_are_checked(fields: Any, said: str) -> None:
    with pytest.raises(InvalidItems, match=said):
        pickaxe.scorer("domain-specificity").score([Item("x", "text", fields)])


def test_what_is_missing_is_said(pair: Any) -> None:
    with pytest.raises(Unmet, match="fit with texts of the domain"):
        pickaxe.scorer("domain-specificity").score(LAW)
    with pytest.raises(InvalidItems, match="is missing"):
        pair.score([Item("x")])
    for examples, unlabelled in (([], PROSE), (LAW, []), (LAW, ["  "])):
        with pytest.raises(InvalidItems, match="hold no words"):
            pickaxe.scorer("domain-specificity").fit(examples, unlabelled=unlabelled)
    with pytest.raises(ArtifactMismatch, match="was counted with"):
        pickaxe.scorer("domain-specificity", order=3, artifact=str(pair.artifact.path)).score(LAW)
    for params in ({"loss": "causal"}, {"loss": "task_head", "domain": "x", "normalise": "char"}, {"order": 5}):
        with pytest.raises(InvalidParams):
            pickaxe.scorer("domain-specificity", **params)
    with pytest.raises(InvalidParams, match="only ngram"):
        pickaxe.scorer("domain-specificity", loss="causal", domain="draft").fit(LAW, unlabelled=PROSE)
