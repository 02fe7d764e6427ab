"""Vocabularies that are learned: the same from the same texts, and complete."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pickaxe_plugins.train import vocabulary

TEXTS = ["Talkers walked, walkers talked; unwalkable talk.", "The harbour was QUIET that evening.", "日本語 é"] * 2


@pytest.mark.parametrize("learn", [vocabulary.learn, vocabulary.learn_words])
def test_the_same_texts_give_the_same_vocabulary(learn: Callable[..., object], tmp_path: Path) -> None:
    written = []
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        learn(iter(TEXTS), 300, folder)
        written.append((folder / "tokenizer.json").read_bytes())
    assert len(set(written)) == 1


def test_word_pieces_cover_every_word_of_the_texts(tmp_path: Path) -> None:
    tokenizer = vocabulary.learn_words(TEXTS, 120, tmp_path)
    unknown = vocabulary.BERT_TOKENS.index("[UNK]")
    for text in TEXTS:
        assert unknown not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode("talkers talked")) == "talkers talked"
    assert tokenizer.encode("", add_special=True) == [2, 3]
