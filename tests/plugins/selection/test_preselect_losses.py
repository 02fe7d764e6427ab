"""preselect: losses by language models."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from topic_corpus import scorer

import pickaxe
from pickaxe import Call, Host, Item
from pickaxe_plugins.selection.preselect._losses import document_losses, windows


@given(st.integers(0, 300), st.integers(1, 60), st.integers(1, 60))
def test_windows_score_every_position_once(positions: int, block: int, stride: int) -> None:
    stride = min(stride, block)
    found = list(windows(positions, block, stride))
    scored = [place for window in found for place in range(window.first, window.end)]
    assert scored == list(range(1, positions))
    assert all(window.begin < window.first and window.end - window.begin <= block + 1 for window in found)


class LetterModel:
    """Stands for a language model: a token is a character, and only the context's length helps to guess it."""

    context_length = 40
    calls = 0

    def __init__(self, gain: float, bos: int | None = 0, eos: tuple[int, ...] = ()) -> None:
        self.gain, self.bos_id, self.eos_ids = gain, bos, eos

    @property
    def tokenizer(self) -> Any:
        return self

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(letter) for letter in text] for text in texts]

    def token_logprobs(self, lists: Sequence[Sequence[int]], call: Call) -> list[np.ndarray]:
        type(self).calls += 1
        assert max(map(len, lists)) <= self.context_length
        return [
            np.array([-2 + self.gain * (token in tokens[:place]) for place, token in enumerate(tokens)][1:], np.float32)
            for tokens in lists
        ]


@pytest.mark.parametrize(("bos", "eos", "tokens"), [(0, (), 5), (None, (7, 8), 5), (None, (), 4)])
def test_the_first_token_is_scored_where_something_can_stand_before_it(bos: Any, eos: Any, tokens: int) -> None:
    model: Any = LetterModel(0.0, bos, eos)
    np.testing.assert_allclose(document_losses(model, ["abcde", ""], 10, 5, Call()), [2 * tokens, 0])


def test_windows_reach_back_but_not_into_other_documents() -> None:
    model: Any = LetterModel(1.0)
    texts = ["abcabc", "abc"]
    np.testing.assert_allclose(document_losses(model, texts, 10, 5, Call()), [9, 6])
    # Windows of 3 positions, 1 apart: [BOS a b] [a b c] [b c a]: no letter is repeated in any.
    np.testing.assert_allclose(document_losses(model, texts, 2, 1, Call()), [12, 6])


def lettered(count: int = 40) -> list[Item]:
    """Half the texts repeat themselves, where gain helps."""
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = ["".join(draw.sample(letters, 20)) if row % 2 else draw.choice(letters) * 20 for row in range(count)]
    return [Item(str(row), text) for row, text in enumerate(texts)]


GAINS = {"weak": 0.1, "middle": 0.5, "strong": 1.0}


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "lm", lambda self, name, precision: LetterModel(GAINS[name]))


@pytest.mark.usefixtures("letters")
def test_models_score_documents_that_come_without_losses() -> None:
    known = Item("known", "zz", {"losses": np.array([9.0, 8.0, 7.0])})
    fit = scorer(benchmark_scores=(1, 2, 3), models=("weak", "middle", "strong")).fit([known, *lettered()[1:]])
    labels = fit.artifact.read_json("labels.json")
    assert labels["1"] == ["known", *(item.id for item in lettered()[2::2])]
    assert fit.artifact.notes["windows"]["block"] == 39  # what the context leaves of 1900
    assert fit.artifact.notes["windows"]["first_token_scored"] == dict.fromkeys(GAINS, True)


@pytest.mark.usefixtures("letters")
def test_a_resumed_fit_does_not_ask_a_finished_model_again(tmp_path: Path) -> None:
    handle = scorer(benchmark_scores=(1, 2, 3), models=("weak", "middle", "strong"))
    running = handle.fitting(lettered(), tmp_path / "out")
    for step in running:
        if step.stage == "losses" and step.step >= 2 * 40:  # the third model's turn
            break
    running.close()
    before = LetterModel.calls
    list(handle.fitting(lettered(), tmp_path / "out"))
    assert LetterModel.calls - before == 1


def test_losses_by_the_shipped_draft_model() -> None:
    lm = pickaxe.Host().lm("draft")
    text = "The quick brown fox jumps over the lazy dog, and the dog does not mind."
    tokens = lm.tokenizer.encode(text)
    before = [lm.tokenizer.bos_id] if lm.tokenizer.bos_id is not None else list(lm.tokenizer.eos_ids[:1])
    whole = -lm.token_logprobs([[*before, *tokens]])[0].sum()
    assert document_losses(lm, [text], 100, 50, Call())[0] == pytest.approx(whole, rel=1e-5)
    windowed = document_losses(lm, [text], 6, 2, Call())[0]
    assert windowed == pytest.approx(whole, rel=0.3)
    assert windowed != pytest.approx(whole, rel=1e-5)
