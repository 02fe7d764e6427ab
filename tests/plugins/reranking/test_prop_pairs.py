"""`prop-pairs`, and the drawing of word sets: language models, draws, labels and bad input."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe_plugins.reranking.prop._pairs import Sampler, draw, right_one
from pickaxe_plugins.reranking.prop._statistics import Collector, Statistics, smoothed, stop_words, words
from pickaxe_plugins.reranking.prop._stemmer import stem

ARTICLES = Path(__file__).parents[2] / "golden/files/29-prop/wiki_toy_trimmed.jsonl"
TEXTS = ["rain falls plain rain", "tea water tea hot", "moon orbit water moon"]


def corpus(texts: list[str]) -> Statistics:
    collector = Collector()
    for text in texts:
        collector.add(text)
    return collector.finish()


def sampler(found: Statistics, keep: np.ndarray | None = None, **options: float) -> Sampler:
    kept = np.ones(len(found.vocabulary)) if keep is None else keep
    return Sampler(found, found.background("df"), kept, found.mean_length, **options)  # type: ignore[arg-type]  # sizes


@pytest.fixture(scope="module")
def articles() -> list[str]:
    return [json.loads(line)["text"] for line in ARTICLES.read_text(encoding="utf-8").splitlines()]


def test_words_and_stop_words() -> None:
    assert words("The RAIN, in Spain's plains (2024) über") == ["rain", "spain", "plains", "ber"]
    assert {"the", "of", "whereas"} <= stop_words()
    assert words("of the 123 …") == []


fruit = st.sampled_from(["apple", "berry", "cherry", "damson", "elder", "fig"])
texts = st.lists(st.lists(fruit, min_size=1, max_size=12), min_size=1, max_size=5)


@given(texts, st.floats(0.01, 1e6), st.sampled_from(["cf", "df"]))
@settings(max_examples=60, deadline=None)
def test_probabilities_add_up_to_one(given_texts: list[list[str]], mu: float, kind: str) -> None:
    found = corpus([" ".join(each) for each in given_texts])
    background = found.background(kind)  # type: ignore[arg-type]  # one of the two
    document = found.counts(given_texts[0])
    assert smoothed(document, background, mu).sum() == pytest.approx(1, abs=1e-9)
    assert smoothed(document, background, 1e12) == pytest.approx(background, abs=1e-9)
    shares = np.zeros(len(background))
    shares[document.numbers] = document.counts / document.length
    assert smoothed(document, background, 1e-12) == pytest.approx(shares, abs=1e-9)


def test_draws_follow_likelihood_times_keep(articles: list[str]) -> None:
    found = corpus(articles[:6])
    keep = found.keep(1e-3, rare=0)
    drawn = sampler(found, keep, support_size=20000, keep_ties=True)
    document = found.counts(words(articles[0]))
    weights = smoothed(document, drawn.background, drawn.mu) * keep
    rows = draw(np.random.default_rng(0), np.cumsum(weights), 100_000)
    counts = np.bincount(rows, minlength=len(weights))
    expected = weights / weights.sum() * 100_000
    common = expected >= 5
    assert common.mean() > 0.9
    observed, wanted = counts[common], expected[common]
    statistic, freedom = float(((observed - wanted) ** 2 / wanted).sum()), len(observed) - int(common.all())
    # p > 0.001 by Wilson and Hilferty's normal approximation of chi-square
    z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    assert z < 3.09


def test_pairs_are_of_one_length_and_labelled_by_likelihood(articles: list[str]) -> None:
    found = corpus(articles)
    drawn = sampler(found, found.keep(1e-4))
    document = found.counts(words(articles[3]))
    pairs = drawn.pairs(document, 200, seed=0, name="3")
    assert len(pairs) == 200
    chances = dict(zip(found.vocabulary, smoothed(document, drawn.background, drawn.mu).tolist(), strict=True))

    def likelihood(each: tuple[str, ...]) -> float:
        return sum(math.log(chances[word]) for word in each)

    for pair in pairs:
        assert len(pair.positive) == len(pair.negative) >= 1
        assert likelihood(pair.positive) > likelihood(pair.negative)
        assert likelihood(pair.positive[::-1]) == pytest.approx(likelihood(pair.positive))
    assert 2.5 < np.mean([len(pair.positive) for pair in pairs]) < 4
    assert (right_one(-1.0, -2.0), right_one(-2.0, -1.0), right_one(-1.0, -1.0)) == (1, 2, 2)


def test_pairs_depend_on_seed_and_id_alone(articles: list[str]) -> None:
    found = corpus(articles[:10])
    drawn = sampler(found)
    documents = [(str(row), found.counts(words(text))) for row, text in enumerate(articles[:10])]

    def pairs(document: tuple[str, object]) -> object:
        return drawn.pairs(document[1], 10, 7, document[0])  # type: ignore[arg-type]  # counts

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(pairs, documents)) == [pairs(each) for each in documents]
    assert drawn.pairs(documents[0][1], 10, 8, "0") != drawn.pairs(documents[0][1], 10, 7, "0")


def test_documents_with_nothing_to_tell_apart() -> None:
    found = corpus(["rain rain", "rain"])
    assert sampler(found).pairs(found.counts(["rain"]), 5, 0, "a") == []
    assert len(sampler(found, keep_ties=True).pairs(found.counts(["rain"]), 5, 0, "a")) == 5
    assert sampler(found, keep=np.zeros(1)).pairs(found.counts(["rain"]), 5, 0, "a") == []


def test_stems_become_words_again() -> None:
    collector = Collector(stems=True)
    for text in ("running runs ran runner", "waters watering watered"):
        collector.add(text)
    found, forms = collector.finish(), collector.forms()
    assert forms["water"] == {"watered": 1, "watering": 1, "waters": 1}
    drawn = Sampler(found, found.background("df"), np.ones(len(found.vocabulary)), 4.0, forms=forms)
    pairs = drawn.pairs(found.counts(["water", "run"]), 30, 0, "a")
    every = {word for pair in pairs for word in (*pair.positive, *pair.negative)}
    assert every <= {form for each in forms.values() for form in each}


STEMS = """
caresses:caress ponies:poni cats:cat feed:feed agreed:agre plastered:plaster motoring:motor sing:sing
conflated:conflat hopping:hop filing:file happy:happi sky:sky relational:relat rational:ration
hopefulness:hope triplicate:triplic electrical:electr revival:reviv adoption:adopt controll:control rate:rate
cease:ceas is:is generalizations:gener oscillators:oscil
"""
"""Words and their stems, of the paper's examples."""


def test_stems() -> None:
    for case in STEMS.split():
        word, wanted = case.split(":")
        assert stem(word) == wanted


# ---------------------------------------------------------------- the scorer


def test_scores_by_hand() -> None:
    handle = pickaxe.scorer("prop-pairs", min_cf=0, mu=2.0, background="cf").fit(
        [Item(str(n), t) for n, t in enumerate(TEXTS)]
    )
    items = [
        Item("in", "tea the hot", {"document": TEXTS[1]}),
        Item("out", "tea snow", {"document": TEXTS[0]}),
        Item("own", "snow", {"document": "snow snow"}),
        Item("none", "of the", {"document": TEXTS[0]}),
        Item("strange", "日本", {"document": ""}),
    ]
    found = handle.score(items)
    tea, hot = (2 + 2 * 2 / 12) / 6, (1 + 2 / 12) / 6
    assert found["loglik"][0] == pytest.approx(math.log(tea) + math.log(hot), abs=1e-12)
    assert found["loglik_per_word"][0] == pytest.approx(found["loglik"][0] / 2)
    assert found["loglik"][1] == pytest.approx(math.log((2 * 2 / 12) / 6))
    assert found["loglik"][2] == pytest.approx(math.log(2 / 4))
    assert np.isnan(found["loglik"][3:]).all()
    assert found["n_oov"].tolist() == [0, 1, 0, 0, 0]
    assert [flag.index for flag in found.flags] == [3, 4]
    assert handle.artifact.notes["mean_length"] == 4


def test_a_title_is_likelier_under_its_own_article(articles: list[str]) -> None:
    titles = [json.loads(line)["title"] for line in ARTICLES.read_text(encoding="utf-8").splitlines()]
    handle = pickaxe.scorer("prop-pairs", stem=True).fit([Item(str(row), text) for row, text in enumerate(articles)])
    rows = [row for row in range(20) if words(titles[row])]
    items = [Item(f"{row} {other}", titles[row], {"document": articles[other]}) for row in rows for other in rows]
    table = handle.score(items)["loglik"].reshape(len(rows), len(rows))
    assert (np.nanargmax(np.nan_to_num(table, nan=-1e9), axis=1) == np.arange(len(rows))).mean() > 0.8


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMismatch, match="fit"):
        pickaxe.scorer("prop-pairs").score([Item("a", "x", {"document": "y"})])
    for examples in ([], [Item("a", "rain")], [Item("a", "rain"), Item("b", "the of"), Item("c", "日本")]):
        with pytest.raises(InvalidItems, match="2 are needed"):
            pickaxe.scorer("prop-pairs").fit(examples, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    for wrong in ({"mu": 0}, {"mu": "large"}, {"mu": float("nan")}, {"min_cf": -1}, {"background": "idf"}):
        with pytest.raises(InvalidParams):
            pickaxe.scorer("prop-pairs", **wrong)
    fitted = pickaxe.scorer("prop-pairs").fit(TEXTS)
    assert np.isnan(fitted.score([Item("a", "unheard", {"document": "rain"})])["loglik"]).all()
    with pytest.raises(InvalidItems, match="document"):
        fitted.score([Item("a", "rain")])
    assert fitted.artifact.notes["skipped_documents"] == 0
