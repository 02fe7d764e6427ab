"""Teaching a language model to say what passages say: spans and titles of a query's gold passage (arXiv 2204.10628)."""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe import ArtifactWriter, Call, Item, Progress
from pickaxe.errors import InvalidItems
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture, open_checkpoint
from pickaxe.randomness import generator
from pickaxe_plugins.retrieval._windows import stop_words
from pickaxe_plugins.train import llama
from pickaxe_plugins.train.descent import Loss, Shuffle, adamw, descend
from pickaxe_plugins.train.loop import Text, batch

if TYPE_CHECKING:
    from pickaxe.host import Host
    from pickaxe_plugins.retrieval.seal import Params

SPANS, TITLES, PAIRS = 10, 3, 3
"""Targets of one query: spans and titles; pairs of spans of a passage without a query."""
WORDS = 10
"""Words of a span."""
LOWERED = 0.1
"""Share of sources put in lower case."""


def likeness(query: str, words: Sequence[str]) -> np.ndarray:
    """float64 (starts,): how well the span of 10 words from each word matches the query.

    The sum over the span's 3-grams of words of their best string ratio with a 3-gram of the query.
    """
    asked = _trigrams(query.lower().split())
    best = np.array([max(_ratio(each, other) for other in asked) for each in _trigrams([w.lower() for w in words])])
    sums = np.concatenate([[0.0], np.cumsum(best)])
    last = np.minimum(np.arange(len(words)) + WORDS - 2, len(best))
    return np.asarray(sums[np.maximum(last, 0)] - sums[np.minimum(np.arange(len(words)), len(best))])


def _trigrams(words: Sequence[str]) -> list[str]:
    return [" ".join(words[start : start + 3]) for start in range(max(1, len(words) - 2))]


@functools.lru_cache(maxsize=65536)
def _ratio(first: str, second: str) -> float:
    return SequenceMatcher(None, first, second, autojunk=False).ratio()


def starts(words: Sequence[str], likenesses: np.ndarray, stops: frozenset[str], count: int, random: Any) -> list[int]:
    """Starts of spans, drawn by softmax of the likenesses; a stop word starts none unless all words are."""
    legal = np.array([word.lower() not in stops for word in words])
    if not legal.any():
        legal[:] = True
    weights = np.where(legal, np.exp(likenesses - likenesses.max(initial=0)), 0.0)
    drawn: list[int] = random.choice(len(words), size=count, p=weights / weights.sum()).tolist()
    return drawn


@dataclass(frozen=True)
class Training:
    """One fit of the model of `seal`."""

    params: Params
    host: Host
    out: ArtifactWriter
    call: Call

    def run(self, examples: Iterable[Item], unlabelled: Iterable[Item] | None) -> Generator[Progress]:
        params = self.params
        lm = self.host.lm(params.model, params.precision)
        pairs = [pair for row, item in enumerate(examples) for pair in self._supervised(item, row)]
        if not pairs:
            raise InvalidItems("examples", "are none, or their passages are empty: fit needs a query and its passage")
        pairs += [pair for row, item in enumerate(unlabelled or ()) for pair in self._unsupervised(item, row)]
        texts = [self._text(lm.tokenizer.encode(source, add_special=True), lm.tokenizer.encode(target))
                 for source, target in pairs]  # fmt: skip
        found = open_checkpoint(self.host.model_path(params.model))
        weights = llama.load(found.architecture, found.tensors)
        recipe, seed = params.recipe, self.call.seed
        steps = recipe.steps(len(texts))
        shuffle = Shuffle(len(texts), recipe.batch, seed)
        trained: dict[str, np.ndarray] = yield from descend(
            _smoothed(found.architecture, params.label_smoothing),
            adamw(recipe, steps),
            dict(weights),
            lambda step: batch([texts[row] for row in shuffle.rows(step)], recipe.batch),
            steps,
            self.out,
            seed=seed,
            checkpoint=recipe.checkpoint,
        )
        llama.save(trained, found.architecture, self.out.path)
        lm.tokenizer.save(self.out.path)
        self.out.notes |= {"pairs": len(pairs), "steps": steps, "base": lm.digest, "seed": seed}

    def _supervised(self, item: Item, row: int) -> list[tuple[str, str]]:
        """(prompt, target): spans of the gold passage that look like the query, and its title."""
        params, query = self.params, item.text or ""
        words = str(item.get("gold") or "").split()
        title = str(item.get("title") or "")
        random = generator(self.call.seed, "seal", "spans", row)
        pairs = []
        if words and query.strip():
            drawn = starts(words, likeness(query, words), stop_words(params.language), SPANS, random)
            pairs += [(params.body_prompt.format(query=query), _span(words, start)) for start in drawn]
            pairs += [(params.title_prompt.format(query=query), f" {title} @@")] * (TITLES if title else 0)
        return [(_lowered(source, random), target) for source, target in pairs]

    def _unsupervised(self, item: Item, row: int) -> list[tuple[str, str]]:
        """(prompt, target) of a passage alone: a span from another one, and between the title and spans."""
        words, title = (item.text or "").split(), str(item.get("title") or "")
        random = generator(self.call.seed, "seal", "pairs", row)
        if not words:
            return []
        body, heading = self.params.passage_prompt + "Passage:", self.params.passage_prompt + "Title:"
        drawn = [_span(words, int(start)) for start in random.integers(0, len(words), 2 * PAIRS + 2)]
        pairs = [(body.format(query=drawn[2 * at].strip()), drawn[2 * at + 1]) for at in range(PAIRS)]
        if title:
            pairs += [(body.format(query=title), drawn[-1]), (heading.format(query=drawn[-2].strip()), f" {title} @@")]
        return [(_lowered(source, random), target) for source, target in pairs]

    @staticmethod
    def _text(source: list[int], target: list[int]) -> Text:
        counted = np.arange(len(source) + len(target)) >= max(len(source), 1)
        return Text(np.array(source + target, np.int32), counted.astype(np.float32))


def _span(words: Sequence[str], start: int) -> str:
    return "".join(f" {word}" for word in words[start : start + WORDS])


def _lowered(source: str, random: Any) -> str:
    return source.lower() if random.random() < LOWERED else source


@functools.lru_cache(maxsize=4)
def _smoothed(architecture: Architecture, smoothing: float) -> Loss:
    """Cross-entropy of the target's tokens, this share of it against the even distribution."""
    jax = require("jax", extra="train")
    jnp = jax.numpy

    def loss(weights: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        hidden = llama.hidden_states(weights, architecture, given["ids"])
        rows = jnp.take_along_axis(hidden, given["places"][..., None], 1)
        logprobs = jax.nn.log_softmax(llama.logits(weights, rows))
        own = jnp.take_along_axis(logprobs, given["targets"][..., None], -1)[..., 0]
        value = -(given["shares"] * ((1 - smoothing) * own + smoothing * logprobs.mean(-1))).sum()
        return value, {"nll": -(given["shares"] * own).sum()}

    return loss
