"""Training of a cross-encoder: each query's right passage against others, by a softmax (arXiv:2101.08751)."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import pickaxe
from pickaxe import Call, Progress
from pickaxe.artifact import ArtifactWriter
from pickaxe.cross_encoder.graph import WORDS
from pickaxe.errors import InvalidParams
from pickaxe.extras import require
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.train import bert, bert_files, optimisers
from pickaxe_plugins.train.descent import Loss, Shuffle, Stopping, descend
from pickaxe_plugins.train.pairs import Encoded, Framing, batch

if TYPE_CHECKING:
    from pickaxe_plugins.reranking.cross_encoder import Params


@dataclass(frozen=True, slots=True)
class Query:
    """A query, the passage that answers it, and some that do not."""

    id: str
    text: str
    positive: str
    negatives: tuple[str, ...] = ()


def train(
    queries: Sequence[Query],
    checked: Sequence[Query],
    start: Path,
    words: Path | None,
    params: Params,
    out: ArtifactWriter,
    call: Call,
) -> Iterator[Progress]:
    """Write the folder of a cross-encoder into `out`, trained from the one in `start`, or from an encoder.

    `words` is the model that `start` has its word embeddings and tokenizer of, if they are not its own.  With
    `checked` queries the weights after the epoch of their highest mean reciprocal rank are kept.
    """
    jax = require("jax", extra="train")
    config, weights = bert.shortened(*bert_files.load(start, words), params.layers)
    if config.head is None:
        config, weights = bert.with_heads(config, weights, call.seed, head=bert.Head("pooler"))
    if params.max_tokens > config.positions:
        raise InvalidParams("max_tokens", f"is {params.max_tokens}; {params.base!r} reads at most {config.positions}")
    tokenizer = Tokenizer.open(words or start)
    draws = _Draws(queries, Framing(tokenizer, params.max_tokens), params, call.seed)
    frozen = {WORDS: jax.numpy.asarray(weights.pop(WORDS))} if params.freeze_words else {}
    steps = params.epochs * draws.shuffle.per_epoch
    rate = optimisers.Linear(params.rate, steps, round(params.warmup * steps))
    optimiser = optimisers.adamw(rate, decay=params.decay, clip=params.clip, decayed=optimisers.matrices)
    exam = _Exam(checked, draws, config, frozen)
    trained = yield from descend(
        _loss(config, params.dropout, params.negatives + 1),
        optimiser,
        weights,
        lambda step: {**draws.given(step), "frozen": frozen},
        steps,
        out,
        seed=call.seed,
        checkpoint=params.checkpoint,
        stopping=Stopping(exam, every=draws.shuffle.per_epoch, patience=0) if checked else None,
    )
    bert_files.save(out.path, config, {**frozen, **trained}, like=words or start)
    (out.file("sentence_bert_config.json")).write_text(json.dumps({"max_seq_length": params.max_tokens}))
    out.notes |= {"queries": len(queries), "steps": steps, "layers": config.layers, "seed": call.seed}
    if checked:
        out.notes |= {"validation_mrr": -exam({name: np.asarray(each) for name, each in trained.items()})}


class _Draws:
    """What a step learns from: `batch` queries, each with its right passage first and `negatives` others."""

    def __init__(self, queries: Sequence[Query], framing: Framing, params: Params, seed: int) -> None:
        self._queries, self._framing, self._seed = queries, framing, seed
        self._count = params.negatives
        self._passages = list(dict.fromkeys(query.positive for query in queries))
        self.size = params.batch
        self.shuffle = Shuffle(len(queries), params.batch, seed)

    def given(self, step: int) -> dict[str, Any]:
        rows = [self._queries[row] for row in self.shuffle.rows(step)]
        encoded = [pair for query in rows for pair in self.pairs(query, step)]
        known = np.zeros(self.size, np.float32)
        known[: len(rows)] = 1 / len(rows)
        return {**batch(encoded, self.size * (self._count + 1)), "shares": known}

    def pairs(self, query: Query, epoch: int) -> list[Encoded]:
        """The query with its right passage and with others: its own wrong ones first, then those of other queries."""
        random = pickaxe.generator(self._seed, "negatives", query.id, epoch)
        own = [query.negatives[row] for row in random.permutation(len(query.negatives))[: self._count]]
        while len(own) < self._count:
            other = self._passages[int(random.integers(len(self._passages)))]
            if other != query.positive:
                own.append(other)
        return self._framing.pairs([query.text] * (self._count + 1), [query.positive, *own])


class _Exam:
    """Minus the mean reciprocal rank of the right passages among those that training would compare them with."""

    def __init__(self, queries: Sequence[Query], draws: _Draws, config: bert.Config, frozen: Mapping[str, Any]) -> None:
        self._pairs = [draws.pairs(query, 0) for query in queries]
        self._config, self._frozen = config, frozen

    def __call__(self, weights: Mapping[str, Any]) -> float:
        ranks = []
        for pairs in self._pairs:
            scores = _scores(self._config)({**self._frozen, **weights}, batch(pairs))
            ranks.append(1 + int((np.asarray(scores)[1:] >= scores[0]).sum()))
        return -float(np.mean(1 / np.array(ranks)))


@functools.lru_cache(maxsize=4)
def _loss(config: bert.Config, dropout: float, group: int) -> Loss:
    jax = require("jax", extra="train")

    def loss(weights: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        every = {**given["frozen"], **weights}
        scores = bert.scores(every, config, given, dropout=dropout, key=key)[:, 0].reshape(-1, group)
        right = jax.nn.log_softmax(scores)[:, 0]
        first = (scores.argmax(1) == 0) * given["shares"]
        return -(given["shares"] * right).sum(), {"first": first.sum()}

    return loss


@functools.lru_cache(maxsize=4)
def _scores(config: bert.Config) -> Any:
    jax = require("jax", extra="train")
    return jax.jit(lambda weights, given: bert.scores(weights, config, given)[:, 0])
