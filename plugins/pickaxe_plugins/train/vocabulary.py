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
    built = library.Tokenizer(library.models.WordPiece(unk_token="[UNK]"))
    built.normalizer = library.normalizers.BertNormalizer(lowercase=True)
    built.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    built.decoder = library.decoders.WordPiece()
    trainer = library.trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(BERT_TOKENS), show_progress=False)
    built.train_from_iterator(texts, trainer)
    ends = [(token, BERT_TOKENS.index(token)) for token in ("[SEP]", "[CLS]")]
    built.post_processor = library.processors.BertProcessing(*ends)
    return _written(built, folder)


def _written(built: Any, folder: Path) -> Tokenizer:
    built.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer.open(folder)
    tokenizer.save(folder)
    return tokenizer
