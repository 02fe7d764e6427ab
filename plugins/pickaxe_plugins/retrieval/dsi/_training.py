"""Teaching a new language model to say identifiers, in JAX."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickaxe import ArtifactWriter, Call, Progress
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture
from pickaxe_plugins.retrieval.dsi import _beams, _heads, _losses
from pickaxe_plugins.retrieval.dsi._identifiers import PAD, Identifiers
from pickaxe_plugins.retrieval.dsi._params import Params
from pickaxe_plugins.retrieval.dsi._sources import Pairs
from pickaxe_plugins.retrieval.dsi._trie import Trie
from pickaxe_plugins.train import llama
from pickaxe_plugins.train.descent import Loss, Shuffle, Stopping, adamw, descend

ROOM = 32
"""Batches are padded to multiples of so many tokens, so that few shapes are compiled."""
SPARE = 8
"""Positions beyond the longest identifier of now."""
TOP = 10

Weights = dict[str, dict[str, np.ndarray]]
"""{"lm": those of `llama`, "head": those of `heads`}."""


def architecture(params: Params, vocabulary: int, identifiers: Identifiers) -> Architecture:
    """Text tokens, the start token, then identifier tokens where they are read; atomic ones never are."""
    said = 0 if identifiers.kind == "atomic" else identifiers.vocabulary
    return params.network.sized(vocabulary + 1 + said, params.span_len + 1 + identifiers.longest + SPARE)


def initial(form: Architecture, identifiers: Identifiers, pawa: bool, seed: int) -> Weights:
    longest = identifiers.longest + SPARE
    return {
        "lm": llama.initial(form, seed),
        "head": _heads.initial(identifiers.vocabulary, form.width, longest, pawa, seed),
    }


@dataclass(frozen=True)
class Batches:
    """Arrays of one step: `ids` (B, T), `starts` (B,) of the start tokens, `targets` (B, L) with PAD behind them.

    A `row` of -1 in a batch pads it.
    """

    pairs: Pairs
    identifiers: np.ndarray
    """(documents, L) int32 tokens, `_losses.IGNORED` behind each identifier's end."""
    start: int

    @classmethod
    def of(cls, pairs: Pairs, identifiers: Identifiers, start: int) -> Batches:
        table = np.full((len(identifiers), identifiers.longest), _losses.IGNORED, np.int32)
        for row in range(len(identifiers)):
            tokens = identifiers.encode(row)
            table[row, : len(tokens)] = tokens
        return cls(pairs, table, start)

    def batch(self, chosen: np.ndarray, size: int) -> dict[str, np.ndarray]:
        texts = [self.pairs.texts[row] for row in chosen]
        lengths = np.array([len(each) for each in texts])
        depth = self.identifiers.shape[1]
        width = ROOM * -(-(int(lengths.max()) + 1 + depth) // ROOM)
        ids, starts = np.zeros((size, width), np.int32), np.zeros(size, np.int32)
        targets = np.full((size, depth), _losses.IGNORED, np.int32)
        targets[: len(texts)] = self.identifiers[self.pairs.rows[chosen]]
        said = np.where(targets[:, :-1] == _losses.IGNORED, 0, self.start + 1 + targets[:, :-1])
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            ids[row, len(text)] = self.start
            ids[row, len(text) + 1 : len(text) + depth] = said[row]
        starts[: len(texts)] = lengths
        return {"ids": ids, "starts": starts, "targets": targets}


@dataclass(frozen=True)
class Objective:
    """The loss of one step; hashable, so that equal ones are compiled once."""

    form: Architecture
    dropout: float
    consistency: float
    kind: _losses.Consistency

    def states(self, weights: Any, given: Mapping[str, Any], key: Any | None) -> Any:
        """Hidden states (B, L, width) that the identifier's tokens are said from; a pass of dropout with a key."""
        jax = require("jax", extra="train")
        jnp = jax.numpy
        noise: Any = 0.0
        drop = key is not None and self.dropout > 0
        if drop:
            below, above = jax.random.split(key)
            embedded = jnp.asarray(weights["lm"]["embedding"])[given["ids"]]
            noise = _dropped(embedded, self.dropout, below) - embedded
        hidden = llama.hidden_states(weights["lm"], self.form, given["ids"], noise)
        places = given["starts"][:, None] + np.arange(given["targets"].shape[1])
        states = jnp.take_along_axis(hidden, places[..., None], 1)
        return _dropped(states, self.dropout, above) if drop else states

    def logits(self, weights: Any, states: Any, targets: Any) -> Any:
        """(B, L, V), adapted to the tokens before each."""
        jnp = require("jax", extra="train").numpy
        before = jnp.where(targets == _losses.IGNORED, PAD, targets)[:, :-1]
        return _heads.logits(states, weights["head"]["head"], _heads.adaptation(weights["head"], before, jnp))

    def __call__(self, weights: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        jax = require("jax", extra="train")
        targets = given["targets"]
        if not self.consistency:
            return _losses.cross_entropy(self.logits(weights, self.states(weights, given, key), targets), targets), {}
        one, other = (self.states(weights, given, each) for each in jax.random.split(key))
        p, q = self.logits(weights, one, targets), self.logits(weights, other, targets)
        plain = _losses.cross_entropy(jax.numpy.concatenate([p, q]), jax.numpy.concatenate([targets, targets]))
        between = (
            _losses.symmetric_kl(p, q)
            if self.kind == "kl"
            else _losses.contrastive(one, other, targets != _losses.IGNORED)
        )
        return plain + self.consistency * between, {"cross_entropy": plain, "consistency": between}


@functools.lru_cache(maxsize=8)
def objective(form: Architecture, dropout: float, consistency: float, kind: _losses.Consistency) -> Loss:
    return Objective(form, dropout, consistency, kind)


def _dropped(values: Any, share: float, key: Any) -> Any:
    jax = require("jax", extra="train")
    return values * jax.random.bernoulli(key, 1 - share, values.shape) / (1 - share)


# ------------------------------------------------------------ choosing by validation


class Plain:
    """A `_beams.Stepper` over the weights of training: without a cache, every step reads everything anew."""

    def __init__(self, form: Architecture, weights: Any, prompts: list[np.ndarray], width: int, longest: int) -> None:
        """`width` rows are read at a time, of prompts that end with the start token."""
        self._form, self._weights, self._width = form, weights, width
        self._start = int(prompts[0][-1])
        self._lengths = np.array([len(each) for each in prompts])
        self._ids = np.zeros((len(prompts), int(self._lengths.max()) + longest), np.int32)
        for row, each in enumerate(prompts):
            self._ids[row, : len(each)] = each
        self._prefixes = np.zeros((len(prompts), 0), np.int64)

    def begin(self) -> np.ndarray:
        return self._read()

    def step(self, owner: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        self._ids, self._lengths = self._ids[owner], self._lengths[owner] + 1
        self._ids[np.arange(len(tokens)), self._lengths - 1] = tokens + self._start + 1
        self._prefixes = np.concatenate([self._prefixes[owner], tokens[:, None]], 1)
        return self._read()

    def _read(self) -> np.ndarray:
        parts = []
        for start in range(0, len(self._ids), self._width):
            rows = np.arange(start, start + self._width) % len(self._ids)  # always as many: one shape is compiled
            states = _last(self._form)(self._weights["lm"], self._ids[rows], self._lengths[rows] - 1)
            made = _heads.adaptation(self._weights["head"], self._prefixes[rows])
            found = _heads.logits(
                np.asarray(states), self._weights["head"]["head"], None if made is None else made[:, -1]
            )
            parts.append(_heads.log_softmax(found.astype(np.float64)))
        return np.concatenate(parts)[: len(self._ids)]


@functools.lru_cache(maxsize=4)
def _last(form: Architecture) -> Callable[..., Any]:
    jax = require("jax", extra="train")

    def last(weights: Any, ids: Any, places: Any) -> Any:
        hidden = llama.hidden_states(weights, form, ids)
        return jax.numpy.take_along_axis(hidden, places[:, None, None], 1)[:, 0]

    compiled: Callable[..., Any] = jax.jit(last)
    return compiled


@dataclass(frozen=True)
class Exam:
    """Validation queries: token ids, and the rows of their documents."""

    form: Architecture
    prompts: list[np.ndarray]
    relevant: list[frozenset[int]]
    trie: Trie
    longest: int
    call: Call

    def mrr(self, weights: Any) -> float:
        """MRR@10 of constrained beam search with 10 beams."""
        tree = {part: {name: np.asarray(array) for name, array in weights[part].items()} for part in weights}
        stepper = Plain(self.form, tree, self.prompts, 64, self.longest)
        total = 0.0
        for found, right in zip(
            _beams.search(self.trie, stepper, TOP, self.longest, True, self.call), self.relevant, strict=True
        ):
            order = found.rows[np.lexsort((found.rows, -found.logprobs))][:TOP].tolist()
            total += next((1 / (place + 1) for place, row in enumerate(order) if row in right), 0.0)
        return total / len(self.prompts)


def train(
    form: Architecture, weights: Weights, batches: Batches, params: Params, exam: Exam | None, out: ArtifactWriter,
    seed: int,
) -> Generator[Progress, None, Weights]:  # fmt: skip
    """The trained weights; with an exam the best ones by it, after each epoch."""
    recipe = params.recipe
    shuffle = Shuffle(len(batches.pairs), recipe.batch, seed)
    stopping = None
    if exam is not None:
        stopping = Stopping(lambda tree: -exam.mrr(tree), shuffle.per_epoch, params.patience)
    trained: Weights = yield from descend(
        objective(form, params.dropout, params.consistency, params.consistency_kind),
        adamw(recipe, recipe.steps(len(batches.pairs)), matrices_only=True),
        weights,
        lambda step: batches.batch(shuffle.rows(step), recipe.batch),
        recipe.steps(len(batches.pairs)),
        out,
        seed=seed,
        checkpoint=recipe.checkpoint,
        stopping=stopping,
    )
    return trained
