"""preselect: the classifier that a fit trains, and ready models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from topic_corpus import BENCHMARK, TOPICS, corpus, examples, scorer

import pickaxe
from pickaxe import Host, Item
from pickaxe.artifact import Artifact
from pickaxe.errors import ArtifactCorrupt, InvalidParams, UnknownArtifact, Unmet
from pickaxe_plugins.selection.preselect._strength import strength


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("preselect") / "artifact"
    return scorer(positive=0.2, epoch=5, lr=0.5).fit(examples(), validation=examples(200, 9), out=out)


# ---------------------------------------------------------------- the classifier


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_best_tenth_is_of_the_predictive_topic(seed: int) -> None:
    fitted = scorer(dim=100).fit(examples(3000, seed), seed=seed)
    assert fitted.artifact.notes["per_class"] > 100
    fresh = list(corpus(1000, seed + 100))
    best = np.argsort(-fitted.score([text for _, text in fresh])["quality"], kind="stable")[:100]
    assert np.mean([fresh[row][0] == "maths" for row in best]) >= 0.9


def test_scores_do_not_depend_on_company_or_a_trailing_newline(fitted: Any) -> None:
    texts = [text for _, text in corpus(40, 5)]
    together = fitted.score(texts)["quality"]
    alone = [fitted.score([text])["quality"][0] for text in texts]
    lines = fitted.score([text + "\n" for text in texts])["quality"]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, lines)
    assert fitted.score(["lemma\nproof"])["quality"] == fitted.score(["lemma proof"])["quality"]


def test_an_empty_text_is_not_kept(fitted: Any) -> None:
    scores = fitted.score(["", "lemma theorem proof"])
    assert np.isnan(scores["quality"][0])
    assert not scores["keep"][0]
    assert [(flag.index, flag.reason) for flag in scores.flags] == [(0, "empty")]


@pytest.mark.parametrize("share", [0.05, 0.37, 1.0])
def test_keep_follows_the_share_of_characters(fitted: Any, share: float) -> None:
    items = examples()
    scores = fitted.with_artifact(fitted.artifact.path).score(items)
    other = pickaxe.scorer("preselect", artifact=fitted.artifact.path, keep_fraction=share).score(items)
    np.testing.assert_array_equal(other["quality"], scores["quality"])
    lengths = np.array([len(item.text or "") for item in items])
    kept = lengths[other["keep"]].sum() / lengths.sum()
    assert share - 0.01 <= kept <= share + 0.01 or (share == 1 and kept == 1)


def test_the_table_of_thresholds(fitted: Any) -> None:
    table = fitted.artifact.read_json("thresholds.json")
    assert [float(share) for share in table] == sorted([0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5], key=str)
    tenth = pickaxe.scorer("preselect", artifact=fitted.artifact.path, keep_fraction=0.1).score(examples())
    np.testing.assert_array_equal(tenth["keep"], tenth["quality"].astype(float) >= table["0.1"])


def test_strength_and_bits_beside_quality(fitted: Any) -> None:
    items = [*examples(5), Item("bare", "no losses here")]
    scores = fitted.score(items)
    expected = strength(np.array([item.fields["losses"] for item in items[:5]]), BENCHMARK)
    np.testing.assert_array_equal(scores["strength"][:5], expected)
    assert np.isnan(scores["strength"][5])
    assert np.isnan(scores["bpc_mean"][5])


def test_without_a_fit_strength_is_the_score() -> None:
    items = examples(20)
    scores = scorer().score(items)
    assert list(scores.columns) == ["strength", "bpc_mean"]
    np.testing.assert_array_equal(
        scores.primary, strength(np.array([item.fields["losses"] for item in items]), BENCHMARK)
    )


def test_words_that_the_classifier_likes(fitted: Any) -> None:
    words = fitted.artifact.read_json("words.json")
    assert {word for word, _ in words["for"][:8]} <= set(TOPICS["maths"].split())
    assert words["for"][0][1] > 0 > words["against"][0][1]


def test_the_manifest_tells_the_fit(fitted: Any) -> None:
    notes = fitted.artifact.notes
    assert (notes["models"], notes["pairs"], notes["documents"], notes["sample"]) == (6, 15, 600, 600)
    assert notes["per_class"] == 120
    assert notes["validation"]["accuracy"] > 0.7
    assert notes["validation"]["auc"] > 0.7
    assert len(fitted.artifact.read_array("strength.npy")) == len(fitted.artifact.read_json("documents.json")) == 600


def test_labelled_validation_and_unlabelled_sample() -> None:
    labelled = [
        Item(str(row), text, {"label": int(topic == "maths")}) for row, (topic, text) in enumerate(corpus(50, 3))
    ]
    fit = scorer(positive=0.2).fit(examples(), validation=labelled, unlabelled=[text for _, text in corpus(70, 4)])
    assert fit.artifact.notes["validation"]["documents"] == 50
    assert fit.artifact.notes["sample"] == 70


def test_incomplete_and_empty_documents_are_left_out() -> None:
    items = examples(60)
    partial = Item("partial", "text", {"losses": np.array([1.0, np.nan, 1, 1, 1, 1])})
    fit = scorer(positive=0.2).fit([*items, partial, Item("none", "text"), Item("empty", "")])
    notes = fit.artifact.notes
    assert (notes["documents"], notes["dropped_without_loss"], notes["dropped_empty"]) == (62, 2, 1)
    assert fit.artifact.read_json("documents.json") == [item.id for item in items]


def test_quantising_makes_it_smaller(fitted: Any) -> None:
    small = scorer(positive=0.2, epoch=5, lr=0.5, quantise=True).fit(examples())
    sizes = [handle.artifact.file("model.bin").stat().st_size for handle in (small, fitted)]
    assert sizes[0] < sizes[1] / 3
    texts = [text for _, text in corpus(100, 5)]
    found, expected = (handle.score(texts)["quality"] for handle in (small, fitted))
    assert np.corrcoef(found, expected)[0, 1] > 0.9
    assert small.artifact.has("words.json")


# ---------------------------------------------------------------- ready models


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A fastText model with labels of its own."""
    from pickaxe.fasttext_model import FastText

    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"__label__{topic} {text}\n" for topic, text in corpus(400, 1)))
    FastText.train(lines, tmp_path / "foreign.bin", dim=8, epoch=10, lr=0.5)
    return tmp_path / "foreign.bin"


def test_a_ready_model_is_adopted(foreign: Path) -> None:
    handle: Any = pickaxe.scorer("preselect", adopt=str(foreign), label="cook", threshold=0.5).fit([])
    assert sorted(handle.artifact.notes["adopted"]["labels"]) == sorted(f"__label__{topic}" for topic in TOPICS)
    scores = handle.score(["rice garlic butter sauce", "election court vote budget"])
    assert scores["keep"].tolist() == [True, False]
    assert np.isnan(scores["strength"]).all()
    assert handle.artifact.read_json("words.json")["for"][0][0] in TOPICS["cook"].split()
    foreign.unlink()
    np.testing.assert_array_equal(handle.score(["rice"])["quality"], handle.score(["rice"])["quality"])


def test_a_ready_model_cuts_by_share_of_a_sample(foreign: Path) -> None:
    texts = [text for _, text in corpus(200, 2)]
    handle: Any = pickaxe.scorer("preselect", adopt=str(foreign), label="cook", keep_fraction=0.2).fit(texts)
    assert 0.15 < handle.score(texts)["keep"].mean() < 0.25


def test_a_label_may_be_given_as_a_number() -> None:
    assert pickaxe.scorer("preselect", label=1).params.label == "1"


def test_a_ready_model_without_a_sample_needs_a_threshold(foreign: Path) -> None:
    handle = pickaxe.scorer("preselect", adopt=str(foreign), label="cook").fit([])
    with pytest.raises(InvalidParams, match="threshold"):
        handle.score(["text"])


def test_a_quantised_ready_model_has_no_words(foreign: Path) -> None:
    from pickaxe.fasttext_model import FastText

    model = FastText.train(foreign.with_name("lines.txt"), dim=8, word_ngrams=2, bucket=1000)
    model.quantise()
    model.save(foreign.with_name("small.bin"))
    handle: Any = pickaxe.scorer("preselect", adopt=str(foreign.with_name("small.bin")), label="shop").fit(["a text"])
    assert not handle.artifact.has("words.json")
    assert "quantised" in handle.artifact.notes["no_words"]


def test_what_cannot_be_adopted(foreign: Path) -> None:
    with pytest.raises(InvalidParams, match="'1' is not one"):
        pickaxe.scorer("preselect", adopt=str(foreign)).fit([])
    with pytest.raises(UnknownArtifact):
        pickaxe.scorer("preselect", adopt=str(foreign) + "x").fit([])
    foreign.write_bytes(b"nothing like it")
    with pytest.raises(ArtifactCorrupt):
        pickaxe.scorer("preselect", adopt=str(foreign), label="cook").fit([])


def test_a_server_adopts_resources_only(foreign: Path, tmp_path: Path) -> None:
    host = Host(artifacts=tmp_path, resources={"topics": foreign})
    with pytest.raises(Unmet, match="topics"):
        list(pickaxe.scorer("preselect", host=host, adopt=str(foreign), label="cook").fitting([], tmp_path / "a"))
    list(pickaxe.scorer("preselect", host=host, adopt="topics", label="cook").fitting([], tmp_path / "a"))
    assert Artifact.open(tmp_path / "a").has("model.bin")
