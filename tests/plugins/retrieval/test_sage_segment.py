"""`sage-segment`: chunks are a partition, what cuts and joins them, training, and bad input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pickaxe
from pickaxe import Call, Item, Scores
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe_plugins.retrieval._sage_network import training_pairs
from pickaxe_plugins.retrieval.sage_segment._chunks import Cutting, chunks, split

TEXT = "\n Teas\nMr. Grey drinks tea. It is green!  Is it hot?\n\nRain falls in J. Doe's garden... It stays wet.  "
TOPICS = ("tea", "rain", "moon")


class Topics:
    """An encoder of made-up texts: which topic they name; it notes what it was asked."""

    width = 8

    def __init__(self, digest: str = "topics") -> None:
        self.digest = digest
        self.asked: list[str] = []
        self.tokenizer = SimpleNamespace(encode_batch=lambda texts: [text.split() for text in texts])

    def encode(self, texts: Sequence[str], call: Call | None = None) -> np.ndarray:
        self.asked += texts
        rows = [pickaxe.generator(0, text).normal(0, 0.1, 8) for text in texts]
        for row, text in zip(rows, texts, strict=True):
            for place, topic in enumerate(TOPICS):
                row[place] += topic in text
            row[0] += np.nan if "broken" in text else 0
        found = np.array(rows, np.float32).reshape(-1, 8)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> dict[str, Topics]:
    encoders = {"encoder": Topics(), "another": Topics("another")}
    monkeypatch.setattr(pickaxe.Host, "encoder", lambda self, name="encoder": encoders[name])
    return encoders


def parts(text: str, scores: Scores, row: int = 0) -> list[str]:
    return [text[each.start : each.end] for each in scores.segments[row]]


def articles(count: int, first: int = 0) -> list[Item]:
    return [
        Item(f"{n}", "\n".join(" ".join(f"The {topic} of {n} is {s}." for s in range(3)) for topic in TOPICS))
        for n in range(first, first + count)
    ]


def test_sentences_and_paragraphs_keep_every_character() -> None:
    spans, begins = split(TEXT, "line")
    sentences = [TEXT[start:end] for start, end in spans]
    assert sentences == [
        "\n Teas\n", "Mr. Grey drinks tea. ", "It is green!  ", "Is it hot?\n\n", "Rain falls in J. Doe's garden... ",
        "It stays wet.  ",
    ]  # fmt: skip
    assert begins == [0, 1, 4]
    assert split(TEXT, "blank")[1] == [0, 3]
    assert split("", "line") == ([], [])
    assert split("你好。再见。", "line")[0] == [(0, 3), (3, 6)]


@given(st.text(alphabet='aB .!?\n。")\x00é', max_size=60))
def test_spans_put_together_are_the_text(text: str) -> None:
    spans, begins = split(text, "line")
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(start < end for start, end in spans)
    assert begins == sorted(set(begins))
    assert not spans or begins[0] == 0


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), st.booleans()), min_size=1, max_size=30),
    st.floats(0, 1.01), st.integers(1, 60), st.integers(0, 40), st.integers(0, 50),
)  # fmt: skip
def test_chunks_are_a_partition_and_keep_to_the_caps(
    drawn: list[tuple[float, int, bool]], ss: float, coarse: int, shortest: int, most: int
) -> None:
    scores = np.array([score for score, _, _ in drawn[1:]])
    tokens = [count for _, count, _ in drawn]
    begins = [0, *(row for row, (_, _, new) in enumerate(drawn) if new and row)]
    found = chunks(scores, begins, tokens, tokens, Cutting(ss, coarse, shortest, most))
    assert [row for chunk in found for row in range(chunk.first, chunk.last)] == list(range(len(drawn)))
    for chunk in found:
        size = sum(tokens[chunk.first : chunk.last])
        assert chunk.last - chunk.first == 1 or size <= (most or max(coarse, size * (most == 0 and shortest == 0)))
        if not shortest:
            assert (scores[chunk.first : chunk.last - 1] >= ss).all()
        assert chunk.goes_on == (scores[chunk.last - 1] if chunk.last < len(drawn) else 0)
    assert found[-1].goes_on == 0


@given(st.lists(st.floats(0, 1), max_size=20), st.floats(0, 1.01), st.floats(0, 1.01))
def test_a_higher_threshold_never_merges(drawn: list[float], one: float, other: float) -> None:
    scores, ones = np.array(drawn), [1] * (len(drawn) + 1)
    low, high = ({chunk.last for chunk in chunks(scores, [0], ones, ones, Cutting(ss))} for ss in sorted((one, other)))
    assert low <= high
    assert len(chunks(scores, [0], ones, ones, Cutting(0))) == 1
    assert len(chunks(scores, [0], ones, ones, Cutting(1.01))) == len(ones)


def test_long_chunks_are_cut_where_they_hold_least_and_short_ones_join_the_better_side() -> None:
    scores, ones = np.array([0.9, 0.6, 0.8, 0.7, 0.9]), [1] * 6
    assert [chunk.last for chunk in chunks(scores, [0], ones, ones, Cutting(max_tokens=4))] == [2, 6]
    assert [chunk.last for chunk in chunks(scores, [0], ones, ones, Cutting(max_tokens=3))] == [2, 4, 6]
    assert [chunk.last for chunk in chunks(scores, [0], ones, ones, Cutting(coarse_tokens=4))] == [4, 6]
    wanted = [0.9, 0.1, 0.2, 0.9]
    assert [chunk.last for chunk in chunks(np.array(wanted), [0], [1] * 5, [5, 5, 1, 5, 5], Cutting(min_chars=3))] == [
        2, 5,
    ]  # fmt: skip
    stuck = Cutting(min_chars=3, max_tokens=2)
    assert [chunk.last for chunk in chunks(np.array(wanted), [0], [1] * 5, [5, 5, 1, 5, 5], stuck)] == [2, 3, 5]


def test_a_text_is_cut_between_topics(topics: dict[str, Topics]) -> None:
    text = "The tea is green. More tea is hot. The moon is far. Then the moon is near.\nThe moon is full."
    found = pickaxe.scorer("sage-segment").score([text, "", "The rain. "])
    assert parts(text, found) == [
        "The tea is green. More tea is hot. ", "The moon is far. Then the moon is near.\n", "The moon is full.",
    ]  # fmt: skip
    assert found["n_chunks"].tolist() == [3, 0, 1]
    assert found["n_sentences"].tolist() == [5, 0, 1]
    assert found["forced"].tolist() == [1, 0, 0]
    assert np.isnan(found["min_score"]).tolist() == [False, True, True]
    cut, forced, end = (each.score for each in found.segments[0])
    assert found["min_score"][0] == pytest.approx(cut)
    assert cut < 0.55 <= forced
    assert end == 0
    assert len(topics["encoder"].asked) == 6  # one for each sentence


def test_every_sentence_and_every_paragraph(topics: dict[str, Topics]) -> None:
    text = "The tea is green. The moon is far.\nThe rain is wet. The tea is hot."
    assert len(parts(text, pickaxe.scorer("sage-segment", ss=0).score([text]))) == 2
    assert len(parts(text, pickaxe.scorer("sage-segment", ss=1.01).score([text]))) == 4


def test_fit_learns_topics_and_keeps_its_encoder(topics: dict[str, Topics], tmp_path: Path) -> None:
    recipe = {"epochs": 20, "batch": 32, "rate": 1e-2, "warmup": 5}
    segment = pickaxe.scorer("sage-segment", hidden=16, recipe=recipe)
    fitted = segment.fit(articles(6), validation=articles(2, 10), out=tmp_path / "fit")
    text = "The moon of 7 is 1. The moon of 7 is 2. The rain of 7 is 1. The rain of 7 is 2."
    assert parts(text, fitted.score([text])) == [text[:40], text[40:]]
    again = segment.fit(articles(6), validation=articles(2, 10), out=tmp_path / "again")
    assert again.artifact is not None
    assert fitted.artifact is not None
    assert again.artifact.digest == fitted.artifact.digest
    with pytest.raises(ArtifactMismatch, match="another"):
        pickaxe.scorer("sage-segment", encoder="another", artifact=tmp_path / "fit").score([text])


def test_training_pairs_are_balanced_neighbours_breaks_and_strangers() -> None:
    pairs = training_pairs([[[0, 1, 2], [3, 4, 5, 6]], [[7, 8]]], seed=0)
    together = [(a, b) for a, b, label in pairs if label]
    assert together == [(0, 1), (1, 2), (3, 4), (4, 5), (5, 6), (7, 8)]
    apart = [(a, b) for a, b, label in pairs if not label]
    assert apart[0] == (2, 3)
    assert len(apart) == len(together)
    paragraph = dict(enumerate([0] * 3 + [1] * 4 + [2] * 2))
    assert all(paragraph[a] != paragraph[b] for a, b in apart)


def test_bad_input(topics: dict[str, Topics]) -> None:
    segment = pickaxe.scorer("sage-segment")
    for wrong in ({"ss": -0.1}, {"ss": 1.1}, {"coarse_tokens": 0}, {"min_chars": -1}, {"hidden": 0}):
        with pytest.raises(InvalidParams, match=next(iter(wrong))):
            pickaxe.scorer("sage-segment", **wrong)
    with pytest.raises(InvalidItems, match="too few"):
        segment.fit(["One. Two."])
    with pytest.raises(InvalidItems, match="too few"):
        segment.fit([])
    with pytest.raises(InvalidItems, match="not finite"):
        segment.score(["broken tea. More."])
    found = pickaxe.scorer("sage-segment", max_tokens=2).score(["One sentence of many words."])
    assert [flag.reason for flag in found.flags] == ["long_sentence"]
    huge = "tea. " * 20_000 + "." * 50_000 + "\n" * 50_000 + " " * 50_000
    assert sum(len(part) for part in parts(huge, segment.score([huge]))) == len(huge)
