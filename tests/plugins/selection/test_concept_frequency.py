"""concept-frequency: lemmas, the index on disk, counts, the law over them, documents, and what it tells."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import pickaxe
from pickaxe import Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe.report import explained
from pickaxe_plugins.selection.concept_frequency import ConceptFrequency
from pickaxe_plugins.selection.concept_frequency._log_linear import frequency_correlation, log_linear
from pickaxe_plugins.selection.concept_frequency._nouns import Rules
from pickaxe_plugins.selection.concept_frequency._postings import intersection

TABLE = Path(__file__).parents[2] / "golden/files/14-concept-frequency/zero_shot_counts_and_accuracy.csv"
CAPTIONS = [
    "A dog in the park", "Two dogs and a polar bear", "Polar bears", "The bear sleeps", "A clock tower, a clock",
    "towers and clocks", "quokkas!", "",
]  # fmt: skip
VOCABULARY = st.sampled_from(["dog", "cat", "polar", "bear", "tower"])
SETS = st.lists(st.lists(VOCABULARY, max_size=4), min_size=1, max_size=12)


def fitted(texts: Any = CAPTIONS, **params: Any) -> Any:
    return pickaxe.scorer("concept-frequency", **params).fit(texts)


def again(handle: Any, **params: Any) -> Any:
    return pickaxe.scorer("concept-frequency", artifact=str(handle.artifact.path), **params)


def lemma_items(sets: list[list[str]], tags: Any = None) -> list[Item]:
    extra = [{}] * len(sets) if tags is None else [{"tag_probabilities": each} for each in tags]
    return [Item(f"d{row}", fields={"lemmas": each, **extra[row]}) for row, each in enumerate(sets)]


def names(*concepts: str) -> list[Item]:
    return [Item(str(row), name) for row, name in enumerate(concepts)]


# ---------------------------------------------------------------- lemmas


@pytest.mark.parametrize(
    ("word", "lemma"),
    [
        ("dogs", "dog"), ("boxes", "box"), ("cities", "city"), ("wolves", "wolf"), ("glasses", "glass"),
        ("bus", "bus"), ("glass", "glass"), ("children", "child"), ("men", "man"), ("firemen", "fireman"),
        ("houses", "house"), ("tennis", "tennis"), ("lens", "lens"), ("potatoes", "potato"), ("gas", "gas"),
        ("churches", "church"), ("dog", "dog"), ("cactus", "cactus"), ("pies", "pie"), ("as", "as"),
    ],
)  # fmt: skip
def test_rules(word: str, lemma: str) -> None:
    assert Rules().lemma(word) == lemma


def test_function_words_are_no_nouns() -> None:
    assert Rules().lemmas("The very lovely family of 3 dogs, famous!", True) == {"family", "dog"}
    assert "the" in Rules().lemmas("The dogs", False)


def test_another_tagger() -> None:
    class Letters:
        name = "letters"

        def lemma(self, word: str) -> str:
            return word[0]

        def lemmas(self, text: str, nouns_only: bool) -> set[str]:
            return set(text)

    class Mine(ConceptFrequency):
        tagger = Letters()

    with pickaxe.catalog.register(Mine, "letter-frequency", "scorer"):
        handle = pickaxe.scorer("letter-frequency").fit(["ab", "b"])
        assert handle.score(names("bee", "axe bee"))["text_count"].tolist() == [2, 1]


# ---------------------------------------------------------------- counts


def test_counts_of_captions() -> None:
    scores = fitted(examples=1).score(names("dog", "polar_bear", "Clock Towers", "unicorn", "unicorn dog", "!?", ""))
    assert scores["text_count"].tolist() == [2, 2, 2, 0, 2, 0, 0]
    assert scores["frequency"].tolist() == scores["text_count"].tolist()
    assert np.isnan(scores["image_count"]).all()
    assert [json.loads(each) for each in scores["examples"]] == [["0"], ["1"], ["4"], [], ["0"], [], []]
    np.testing.assert_allclose(scores["neg_log_frequency"][:4], [-np.log10(2)] * 3 + [0])


def test_unknown_words_may_empty_a_concept() -> None:
    assert fitted(unknown_words="empty").score(names("unicorn dog", "dog"))["text_count"].tolist() == [0, 2]


def test_lowercased_search_knows_no_plural() -> None:
    assert fitted(search="lowercased").score(names("Dogs", "Dog"))["text_count"].tolist() == [0, 2]


def test_all_words() -> None:
    assert fitted(pos="all").score(names("sleep", "the"))["text_count"].tolist() == [1, 2]
    assert fitted().score(names("the"))["text_count"].tolist() == [0]


@settings(max_examples=60, deadline=None)
@given(sets=SETS, concept=st.lists(VOCABULARY, min_size=1, max_size=3))
def test_counts_are_those_of_sets(sets: list[list[str]], concept: list[str]) -> None:
    handle = fitted(lemma_items(sets))
    known = {word for word in concept if any(word in each for each in sets)}
    expected = sum(known <= set(each) for each in sets) if known else 0
    spellings = names(" ".join(concept), "_".join(reversed(concept)).upper(), *sorted(known))
    found = handle.score(spellings)["text_count"].tolist()
    assert found[:2] == [expected, expected]
    assert all(expected <= each for each in found[2:])


@given(one=st.sets(st.integers(0, 50)), other=st.sets(st.integers(0, 50)))
def test_intersections(one: set[int], other: set[int]) -> None:
    arrays = (np.array(sorted(each), np.uint32) for each in sorted((one, other), key=len))
    assert intersection(*arrays).tolist() == sorted(one & other)


@settings(max_examples=30, deadline=None)
@given(sets=SETS, seed=st.integers(0, 100))
def test_images_and_thresholds(sets: list[list[str]], seed: int) -> None:
    tags = np.random.default_rng(seed).random((len(sets), 2)).round(1)
    handle = fitted(lemma_items(sets, tags), concepts=["dog", "polar bear"], threshold=0.2)
    before = None
    for threshold in (0.2, 0.5, 0.9):
        scores = again(handle, threshold=threshold).score(names("dog", "Polar_Bear"))
        assert scores["image_count"].tolist() == (tags > threshold).sum(0).tolist()
        assert (scores["both_count"] <= np.minimum(scores["text_count"], scores["image_count"])).all()
        assert before is None or (scores["frequency"] <= before).all()
        before = scores["frequency"]
    scores = handle.score(names("cat"))
    assert [flag.reason for flag in scores.flags] == (["no-tags"] if (tags >= 0).all() else [])
    if (tags > 0.2).any():
        with pytest.raises(ArtifactMismatch, match="probabilities above"):
            again(handle, threshold=0.1).score(names("dog"))


def test_shards_make_the_same_index() -> None:
    tags = np.random.default_rng(0).random((len(CAPTIONS), 2))
    items = [Item(f"é{row}", text, {"tag_probabilities": tags[row]}) for row, text in enumerate(CAPTIONS)]
    given = {"concepts": ["dog", "bear"], "threshold": 0.3}
    whole = fitted(items, **given)
    parts = [fitted(part, **given) for part in (items[:3], items[3:4], items[4:])]
    merged = whole.merge([part.artifact.path for part in parts])
    assert merged.artifact.manifest["files"] == whole.artifact.manifest["files"]
    assert merged.artifact.notes == whole.artifact.notes
    for other in ({"pos": "all"}, {"threshold": 0.4}, {"concepts": ["bear", "dog"]}):
        part = fitted(items, **{**given, **other})
        with pytest.raises(ArtifactMismatch, match=next(iter(other))):
            whole.merge([whole.artifact.path, part.artifact.path])
    with pytest.raises(InvalidItems):
        whole.merge([])


# ---------------------------------------------------------------- the law


def law_of(counts: Any, accuracy: Any, **settings: int) -> Any:
    return log_linear(np.asarray(counts, float), np.asarray(accuracy, float), **settings)


def test_an_exact_law_is_found() -> None:
    edges = np.exp(np.linspace(0, np.log(1e6), 12))
    law = law_of(edges, 5 + 3 * np.log(edges))
    assert law.r == pytest.approx(1)
    assert law.slope == pytest.approx(3)
    assert law.intercept == pytest.approx(5)
    assert law.slope_per_decade == pytest.approx(3 * np.log(10))
    np.testing.assert_allclose(law.predict(np.array([0, 1, 1e9, 1e40])), [5, 5, 5 + 27 * np.log(10), 100])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 3), shift=st.floats(-20, 20), c=st.integers(2, 50))
def test_r_does_not_depend_on_units(seed: int, scale: float, shift: float, c: int) -> None:
    draw = np.random.default_rng(seed)
    counts = np.exp(draw.uniform(0, 12, 300)).round().clip(1)
    accuracy = 4 * np.log(counts) + draw.normal(0, 10, 300)
    r = law_of(counts, accuracy).r
    assert law_of(counts, accuracy * scale + shift).r == pytest.approx(r, abs=1e-9)
    assert law_of(counts * c, accuracy).r == pytest.approx(r, abs=1e-9)


@given(seed=st.integers(0, 1000))
def test_the_line_is_scipys(seed: int) -> None:
    draw = np.random.default_rng(seed)
    counts = draw.integers(0, 10**6, 500) ** 2 // 10**6
    law = law_of(counts, draw.uniform(0, 100, 500))
    if not law.reason:
        peer = stats.linregress(np.log(law.edges[law.used]), law.means[law.used])
        assert (law.r, law.slope, law.p_value) == pytest.approx((peer.rvalue, peer.slope, peer.pvalue), rel=1e-6)
    assert law.members.sum() == 500


def test_empty_bins_are_left_out() -> None:
    law = law_of([1, 1000, 1001, 1e6], [1, 2, 3, 4])
    assert np.isnan(law.means[law.members == 0]).all()
    assert "three or more" in law.reason
    assert np.isnan(law.r)
    assert law_of([5, 5, 5], [1, 2, 3]).reason
    assert law_of([7], [1]).reason


def test_equal_accuracies_have_no_correlation() -> None:
    law = law_of(np.geomspace(1, 1e6, 200), np.full(200, 30.0))
    assert np.isnan(law.r)
    assert law.predict(np.array([100.0])) == pytest.approx(30)


@pytest.mark.parametrize("model", ["RN50/cc3m", "ViT-B-16/cc12m", "ViT-B-32/laion400m"])
def test_the_paper_s_correlations(model: str) -> None:
    law = table_law(model)
    expected = {"RN50/cc3m": 0.961, "ViT-B-16/cc12m": 0.923, "ViT-B-32/laion400m": 0.986}[model]
    assert law.r == pytest.approx(expected, abs=0.0006)  # as printed, rounded to three digits


def test_every_model_of_the_table_is_log_linear() -> None:
    with TABLE.open(encoding="utf-8", newline="") as stream:
        models = [name[4:] for name in next(csv.reader(stream)) if name.startswith("acc_")]
    found = {model: table_law(model).r for model in models}
    assert len(found) == 10
    assert min(found.values()) > 0.9, found


def table_law(model: str) -> Any:
    data = model.partition("/")[2]
    with TABLE.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row[f"count_{data}_both"]]
    counts, accuracy = ([float(row[name]) for row in rows] for name in (f"count_{data}_both", f"acc_{model}"))
    return law_of(counts, accuracy, drop_first=2 if data == "laion400m" else 1)


@given(seed=st.integers(0, 1000))
def test_correlation_of_frequencies(seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 20, (2, 30))
    one, other = ({f"c{row}": float(value) for row, value in enumerate(each)} for each in values)
    assert frequency_correlation({**one, "only here": 3.0}, other) == pytest.approx(stats.spearmanr(*values).statistic)
    assert np.isnan(frequency_correlation({"a": 1.0}, {"b": 1.0}))
    assert np.isnan(frequency_correlation({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0}))


# ---------------------------------------------------------------- what it tells


def counted(n: int = 300) -> list[Item]:
    draw = np.random.default_rng(1)
    counts = np.exp(draw.uniform(0, 12, n)).round() - 1
    accuracy = np.clip(10 + 5 * np.log(np.maximum(counts, 1)) + draw.normal(0, 5, n), 0, 100)
    return [
        Item(f"i{row}", f"concept {row}", {"count": float(count), "accuracy": float(value)})
        for row, (count, value) in enumerate(zip(counts, accuracy, strict=True))
    ]


def test_counts_of_ones_own_need_no_index() -> None:
    items = counted()
    scores = pickaxe.scorer("concept-frequency", primary="log_frequency", long_tail=7).score(items)
    law = scores.summary["law"]
    answer, figures = explained(scores.summary)
    assert law["slope per ln"] == pytest.approx(5, rel=0.1)
    assert f"{scores.summary['law']['bins used']} bins" in answer[1]
    assert "extrapolates" in answer[2]
    assert [figure.title for figure in figures] == ["Concepts by frequency", "Accuracy by frequency"]
    assert sum(value or 0 for value in figures[0].series[0].y) == len(items)
    bins = scores.summary["bins"]
    assert list(figures[1].series[0].y) == pytest.approx([each for each in bins["mean accuracy"] if each is not None])
    line = figures[1].series[1]
    assert line.y[-1] == pytest.approx(min(100, law["intercept"] + law["slope per ln"] * np.log(line.x[-1])))
    expected = np.clip(law["intercept"] + law["slope per ln"] * np.log(np.maximum(scores["frequency"], 1)), 0, 100)
    np.testing.assert_allclose(scores["predicted_accuracy"], expected)
    tail = [row["frequency"] for row in scores.summary["long tail"]]
    assert tail == sorted(scores["frequency"])[:7]
    np.testing.assert_allclose(scores.primary, scores["log10_frequency"])


def test_absent_concepts_and_no_law_are_told() -> None:
    scores = fitted().score(names("dog", "unicorn"))
    answer, figures = explained(scores.summary)
    assert "1 never occur" in answer[0]
    assert "no concept came with an accuracy" in answer[1]
    assert len(figures) == 1
    few = [Item("a", "dog", {"accuracy": 3.0}), Item("b", "bear", {"accuracy": 4.0})]
    assert "No law" in explained(fitted().score(few).summary)[0][1]
    shares = [Item("a", "dog", {"accuracy": 0.3}), Item("b", "bear", {"accuracy": 0.4})]
    assert "Are they shares?" in explained(fitted().score(shares).summary)[0][-1]


# ---------------------------------------------------------------- documents


def test_documents_by_their_concepts() -> None:
    handle = fitted(concepts=["dog", "polar bear", "unicorn"])
    scores = again(handle, items="documents").score(["a dog and polar bears", "the bear", "a unicorn dog"])
    assert scores["n_concepts"].tolist() == [2, 0, 1]
    assert scores["rarity"][0] == pytest.approx(-np.log10(2))
    assert np.isnan(scores["rarity"][1])
    assert np.isnan(scores["misaligned"]).all()
    assert "2 of 3 documents" in explained(scores.summary)[0][0]


def test_rarity_is_mean_or_max() -> None:
    handle = fitted(["dog cat"] + ["dog"] * 99, concepts=["dog", "cat"])
    assert again(handle, items="documents").score(["dog, cat"])["rarity"].tolist() == [-1.0]
    assert again(handle, items="documents", rarity="max").score(["dog, cat"])["rarity"].tolist() == [0.0]


def test_concepts_come_from_the_index_where_none_are_given() -> None:
    handle = fitted(["dog", "dog", "cat"], min_images=2, items="documents")
    assert handle.score(["dog", "cat"])["n_concepts"].tolist() == [1, 0]


def test_documents_need_an_index() -> None:
    with pytest.raises(ArtifactMismatch, match="fit"):
        pickaxe.scorer("concept-frequency", items="documents").score(["dog"])


# ---------------------------------------------------------------- bad input


def test_no_items() -> None:
    for kind in ("concepts", "documents"):
        assert len(fitted(items=kind).score([])) == 0


@pytest.mark.parametrize(
    "fields",
    [{"count": -1.0}, {"count": float("nan")}, {"count": 1.0, "accuracy": 101.0}, {"count": 1.0, "accuracy": -0.1},
     {"count": float("inf")}, {"count": 1.0, "accuracy": float("nan")}, {}, {"count": "many"}],
)  # fmt: skip
def test_wrong_concepts(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidItems, match="'x'"):
        pickaxe.scorer("concept-frequency").score([Item("x", "dog", fields)])


@pytest.mark.parametrize("tags", [[0.1], [0.1, 1.1], [0.1, -0.1], [0.1, float("nan")], [["a", "b"]], [[0.1, 0.2]]])
def test_wrong_probabilities(tags: Any) -> None:
    with pytest.raises(InvalidItems, match="'d0'"):
        fitted([Item("d0", "dog", {"tag_probabilities": np.array(tags)})], concepts=["dog", "cat"])


def test_wrong_documents_and_names() -> None:
    with pytest.raises(InvalidItems, match="empty"):
        fitted([])
    for work in (lambda: fitted([Item("x")]), lambda: fitted().score([Item("x")])):
        with pytest.raises(InvalidItems, match="'x'"):
            work()


@pytest.mark.parametrize(
    "params",
    [
        {"concepts": ["a", ""]},
        {"concepts": ["a"], "concepts_file": "b"},
        {"concepts_file": "no such file"},
        {"num_bins": 3},
        {"threshold": 1.5},
    ],
)
def test_wrong_parameters(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        fitted(**params)


def test_changed_settings_are_refused() -> None:
    handle = fitted()
    for changed in ({"pos": "all"}, {"lemma_overrides": {"dogs": "wolf"}}):
        with pytest.raises(ArtifactMismatch, match="fit again"):
            again(handle, **changed).score(names("dog"))


def test_a_huge_text_and_odd_ids() -> None:
    items = [Item("a\ud800", "dog " * 500_000), Item("a\ud800", "dog"), Item("", "cat")]
    scores = fitted(items, examples=5).score(names("dog", "cat"))
    assert scores["text_count"].tolist() == [2, 1]
    assert json.loads(scores["examples"][0]) == ["a\ud800", "a\ud800"]


def test_concepts_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "concepts.txt"
    file.write_text("dog\npolar bear\n", "utf-8")
    handle = fitted(concepts_file=str(file), items="documents")
    assert handle.score(["a dog"])["n_concepts"].tolist() == [1]
