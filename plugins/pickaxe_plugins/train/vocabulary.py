"""A small byte-level vocabulary learned from the texts that a new network is trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pickaxe.extras import require
from pickaxe.tokenizers import Tokenizer

END = "<|endoftext|>"


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
    built.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer.open(folder)
    tokenizer.save(folder)
    return tokenizer
