"""Answering: the query and what follows attend over contexts that were read apart."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from pickaxe.lm import KV, Contexts, Draw, Generation, Step, TokenTrie, Transcript, logsumexp
from pickaxe.randomness import generator
from pickaxe_plugins.decoding.ape._contexts import Held, assemble
from pickaxe_plugins.decoding.ape._request import Asked

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.lm import LM

ROOM = 256
"""Slots for an answer to begin with."""


def assembled(held: Held, spare: int) -> tuple[KV, np.ndarray]:
    """Prefix and contexts in one cache with room for `spare` more tokens, and which slots are contexts'."""
    parts = [held.prefix, *held.contexts]
    cache = assemble(parts, spare)
    return cache, np.arange(cache.width) >= held.prefix.width


def over_contexts(
    lm: LM, asked: Asked, held: Held, settings: tuple[float, float], count: int, call: Call
) -> Generator[Step]:
    """Samples one after the other, each on the same keys and values: none of them is copied."""
    sampling, width = asked.sampling, len(asked.query)
    assert sampling.max_tokens is not None
    assert sampling.seed is not None
    base, mask = assembled(held, width + min(sampling.max_tokens, ROOM))
    contexts = Contexts(mask, *settings)
    positions = asked.start + np.arange(width)
    first, base = lm.forward([asked.query], past=base, positions=positions[None], contexts=contexts, call=call)
    draw, trie = Draw.of(sampling), _trie(asked, lm)
    for sample in range(count):
        row = Transcript(lm.tokenizer, sampling.max_tokens, sample=sample, stop=sampling.stop, allowed=trie)
        random = generator(sampling.seed, "sample", sample)
        logits, cache = first, base
        while True:
            assert logits is not None
            yield row.draw(logits[0], logsumexp(logits)[0], draw, random)
            if row.finished:
                break
            call.check()
            place = np.array([[asked.start + width + len(row.generated) - 1]])
            logits, cache = lm.forward([row.generated[-1:]], past=cache, positions=place, contexts=contexts, call=call)


def in_order(lm: LM, asked: Asked, count: int, call: Call) -> Generator[Step]:
    """Plain decoding of prefix, contexts and query as one text."""
    ids = [*asked.prefix, *chain(*asked.contexts), *asked.query] if asked.contexts else asked.whole
    request = Generation(ids, replace(asked.sampling, n=count), allowed=_trie(asked, lm))
    with closing(lm.generate_all([request], call)) as steps:
        for _, step in steps:
            yield step


def _trie(asked: Asked, lm: LM) -> TokenTrie | None:
    return TokenTrie.of_texts(asked.prompt.allowed, lm.tokenizer) if asked.prompt.allowed else None
