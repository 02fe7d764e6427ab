"""Small vocabularies learned from the texts that a new network is trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pickaxe.extras import require
from pickaxe.tokenizers import Tokenizer

END = "<|endoftext|>"
BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The first tokens of a word-piece vocabulary: 0 is padding."""


def learn(texts: Iterable[str], size: int, folder: Path) -> Tokenizer:
    """Byte-pair encoding of at most `size` tokens, of which the first ends a text; written to `folder`.

    Every text can be encoded: single bytes are always in the vocabulary.
    """
    library = require("tokenizers", extra="cpu")
    built = library.Tokenizer(library.models.BPE())
    built.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    built.train_from_iterator(texts, trainer)
    return _written(built, folder)


def learn_words(texts: Iterable[str], size: int, folder: Path) -> Tokenizer:
    """BERT's lower-cased word pieces, about `size` of them with `BERT_TOKENS`; written to `folder`.

    Characters that the texts never had are [UNK].
    """
    library = require("tokenizers", extra="cpu")
    normalizer = library.normalizers.BertNormalizer(lowercase=True)
    plain = [normalizer.normalize_str(text) for text in texts]
    letters = sorted({letter for text in plain for letter in text if not letter.isspace()})
    trained = _word_pieces(library, {})
    # The trainer numbers the letters that it meets inside words in the order of a hash table, another one each time,
    # and breaks ties by these numbers: so it is told all of them first.
    first = [*BERT_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    trainer = library.trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False)
    trained.train_from_iterator(plain, trainer)
    built = _word_pieces(library, trained.get_vocab())
    built.add_special_tokens(list(BERT_TOKENS))
    ends = [(token, BERT_TOKENS.index(token)) for token in ("[SEP]", "[CLS]")]
    built.post_processor = library.processors.BertProcessing(*ends)
    return _written(built, folder)


def _word_pieces(library: Any, vocabulary: dict[str, int]) -> Any:
    built = library.Tokenizer(library.models.WordPiece(vocabulary, unk_token="[UNK]"))
    built.normalizer = library.normalizers.BertNormalizer(lowercase=True)
    built.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    built.decoder = library.decoders.WordPiece()
    return built


def _written(built: Any, folder: Path) -> Tokenizer:
    built.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer.open(folder)
    tokenizer.save(folder)
    return tokenizer
