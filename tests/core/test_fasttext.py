"""The fastText wrapper, on models trained here in milliseconds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pickaxe.call import Call
from pickaxe.errors import ArtifactCorrupt, Cancelled, InvalidItems, InvalidParams, UnknownArtifact, Unmet
from pickaxe.fasttext_model import FastText
from pickaxe.fasttext_model.scan import Scan

SMALL = {"dim": 8, "bucket": 1000, "lr": 0.5, "epoch": 10, "word_ngrams": 2}


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fasttext") / "lines.txt"
    good = ["__label__good fine words read well", "__label__good great words"] * 30
    bad = ["__label__bad awful noise reads badly", "__label__bad poor noise"] * 30
    path.write_text("\n".join(good + bad) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(lines: Path) -> FastText:
    return FastText.train(lines, **SMALL)


def test_learns_and_names_labels(model: FastText) -> None:
    labels, probabilities = model.predict(["great words", "awful noise"])
    assert [row[0] for row in labels] == ["__label__good", "__label__bad"]
    assert probabilities.shape == (2, 2)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-4)
    assert (probabilities[:, 0] >= probabilities[:, 1]).all()


def test_probability_reads_labels_by_name(model: FastText) -> None:
    texts = ["great words", "awful noise", "", "words noise"]
    good, bad = model.probability(texts, "good"), model.probability(texts, "__label__bad")
    assert good.dtype == np.float32
    np.testing.assert_allclose(good + bad, 1, atol=1e-4)
    assert good[0] > 0.5 > good[1]
    with pytest.raises(InvalidParams, match="'ugly' is not one of the model's: __label__good, __label__bad"):
        model.probability(texts, "ugly")


def test_a_text_is_one_line_whatever_it_holds(model: FastText) -> None:
    texts = ["great\nwords", "a\ud800b", "\0", "日本"]
    assert model.probability(texts, "good")[0] == model.probability(["great words"], "good")[0]
    assert np.isfinite(model.probability(texts, "good")).all()


def test_predictions_do_not_depend_on_the_batch(model: FastText) -> None:
    texts = ["great words", "awful noise", "fine", "poor"] * 600
    whole = model.probability(texts, "good")
    np.testing.assert_array_equal(whole[:4], [model.probability([text], "good")[0] for text in texts[:4]])
    np.testing.assert_array_equal(whole, np.tile(whole[:4], 600))


def test_none_and_few(model: FastText) -> None:
    labels, probabilities = model.predict([])
    assert (labels, probabilities.shape) == ([], (0, 2))
    labels, probabilities = model.predict(["great words"], k=1)
    assert (labels, probabilities.shape) == ([["__label__good"]], (1, 1))


def test_a_call_that_is_over_predicts_nothing(model: FastText) -> None:
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        model.predict(["great words"], call=call)


def test_equal_seed_equal_bytes(lines: Path, tmp_path: Path) -> None:
    written = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        FastText.train(lines, tmp_path / name, seed=seed, **SMALL)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] != written[2]


def test_save_and_load(model: FastText, tmp_path: Path) -> None:
    model.save(tmp_path / "model.bin")
    loaded = FastText.load(tmp_path / "model.bin")
    assert loaded.labels == model.labels
    texts = ["great words", "awful noise"]
    np.testing.assert_allclose(loaded.probability(texts, "good"), model.probability(texts, "good"), atol=1e-6)


def odd_texts(lines: Path) -> list[str]:
    """What a line may hold: words known and not, labels, the sign of the end, blanks of all kinds, no text at all."""
    words = [
        *lines.read_text().split()[:20],
        "unseen",
        "__label__none",
        "</s>",
        "a\tb",
        "x\ny",
        "\0q",
        "\u2028z",
        "ä日",
    ]
    draw = random.Random(0)
    drawn = [" ".join(draw.choices(words, k=draw.randint(1, 30))) for _ in range(200)]
    return [*drawn, "", "  ", "\ud800 bad", "good" * 1000]


@pytest.mark.parametrize(
    ("settings", "by_itself"),
    [
        ({}, True),
        ({"word_ngrams": 1}, True),
        ({"word_ngrams": 3, "loss": "ova"}, True),
        ({"min_chars": 2, "max_chars": 3}, False),
        ({"loss": "hs"}, False),
    ],
)
def test_a_model_from_a_file_says_what_the_library_says(
    settings: dict[str, Any], by_itself: bool, lines: Path, tmp_path: Path
) -> None:
    FastText.train(lines, tmp_path / "model.bin", **{**SMALL, **settings})
    model, texts = FastText.load(tmp_path / "model.bin"), odd_texts(lines)
    assert (Scan.open(tmp_path / "model.bin") is not None) == by_itself
    labels, probabilities = model.predict(texts)
    for label in model.labels:
        wanted = [row[names.index(label)] for names, row in zip(labels, probabilities, strict=True)]
        found = model.probability(texts, label)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        assert [model.probability([text], label)[0] for text in texts] == found.tolist()
    assert model.probability([], "good").shape == (0,)


def test_quantised_is_smaller_and_still_right(lines: Path, tmp_path: Path) -> None:
    model = FastText.train(lines, tmp_path / "model.bin", **SMALL)
    model.quantise()
    model.save(tmp_path / "model.ftz")
    assert (tmp_path / "model.ftz").stat().st_size < (tmp_path / "model.bin").stat().st_size
    loaded = FastText.load(tmp_path / "model.ftz")
    assert [row[0] for row in loaded.predict(["great words", "awful noise"])[0]] == ["__label__good", "__label__bad"]
    with pytest.raises(Unmet, match="quantised"):
        loaded.label_vectors()


def test_vectors_explain_the_prediction(lines: Path) -> None:
    model = FastText.train(lines, dim=8, bucket=0, lr=0.5, epoch=10)
    assert set(model.words) >= {"great", "words", "noise", "</s>"}
    mean = model.word_vectors(["great", "words", "</s>"]).mean(axis=0)
    logits = model.label_vectors() @ mean
    expected = np.exp(logits) / np.exp(logits).sum()
    found = [model.probability(["great words"], label)[0] for label in model.labels]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert model.word_vectors([]).shape == (0, 8)


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(UnknownArtifact, match=r"none\.bin"):
        FastText.load(tmp_path / "none.bin")
    (tmp_path / "text.bin").write_text("not a model")
    with pytest.raises(ArtifactCorrupt, match="not a fastText model"):
        FastText.load(tmp_path / "text.bin")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(InvalidItems, match="nothing to learn from"):
        FastText.train(tmp_path / "empty.txt")
