"""Small models trained on real, synthetic and mixed text, as many tokens each, and their perplexity by domain."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pickaxe import ArtifactWriter, Item, Progress
from pickaxe.errors import InvalidItems
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture
from pickaxe_plugins.generation.wrap._recipe import ORIGINS, Place, Pools
from pickaxe_plugins.train.settings import Net, Recipe

if TYPE_CHECKING:
    from pickaxe.tokenizers import Tokenizer
    from pickaxe_plugins.train.loop import Text

KINDS = ("real", "synthetic", "mixed")


@dataclass(frozen=True)
class Contest:
    """Three models that differ in nothing but what they read; the one of the mix stays in the artifact."""

    net: Net
    recipe: Recipe
    tokens: int | None
    out: ArtifactWriter
    seed: int

    def run(self, pools: Pools, order: Sequence[Place], validation: Sequence[Item]) -> Generator[Progress, None, None]:
        """Train, and write `training.json`: perplexities by kind and domain, "all" over every validation token."""
        from pickaxe_plugins.train import llama, vocabulary

        streams: Mapping[str, Sequence[Place]] = {
            **{side: [(side, place) for place in range(len(pools.sides[side].tokens))] for side in ORIGINS},
            "mixed": order,
        }
        everything = (pools.row(place)["text"] for side in ORIGINS for place in streams[side])
        tokenizer = vocabulary.learn(everything, self.net.vocab, self.out.path)
        architecture = self.net.architecture(tokenizer.vocab_size)
        held_out = domains(validation, tokenizer, architecture.context)
        mix = len(encoded(pools, order, tokenizer, None))
        tokens = mix if self.tokens is None else self.tokens
        for kind in KINDS:
            if not self.out.done(kind):
                ids = encoded(pools, streams[kind], tokenizer, tokens)
                yield from self._one(kind, windows(ids, architecture.context), architecture, held_out)
        report = {
            "tokens": tokens,
            "mix_tokens": mix,
            "parameters": sum(math.prod(shape) for _, shape in llama.shapes(architecture)),
            "perplexity": {kind: self.out.stage_notes(kind)["perplexity"] for kind in KINDS},
        }
        self.out.write_json("training.json", report)
        self.out.notes["perplexity"] = report["perplexity"]
        self.out.notes["versions"] = {name: require(name, extra="train").__version__ for name in ("jax", "optax")}

    def _one(
        self, kind: str, texts: Sequence[Text], architecture: Architecture, held_out: Mapping[str, Sequence[Text]]
    ) -> Generator[Progress, None, None]:
        from pickaxe_plugins.train import llama, loop

        start = llama.initial(architecture, self.seed)
        weights = yield from loop.train(architecture, start, texts, self.recipe, self.out, self.seed, kind)
        losses = {
            domain: loop.mean_loss(architecture, weights, parts, self.recipe.batch) * len(parts)
            for domain, parts in held_out.items()
        }
        if kind == "mixed":
            llama.save(weights, architecture, self.out.path)
        self.out.finish(kind, perplexity=perplexities(losses, held_out))


def encoded(pools: Pools, places: Sequence[Place], tokenizer: Tokenizer, tokens: int | None) -> np.ndarray:
    """Ids of the documents, each with an end of text after it and one before the first; over and over, cut to `tokens`.

    None: all documents once.
    """
    end = _end(tokenizer)
    rounds: Iterable[Place] = places if tokens is None else itertools.cycle(places)
    parts, total = [np.array([end], np.int32)], 1
    for place in rounds:
        if tokens is not None and total >= tokens:
            break
        ids = [*tokenizer.encode(pools.row(place)["text"]), end]
        parts.append(np.array(ids, np.int32))
        total += len(ids)
    return np.concatenate(parts)[:tokens]


def windows(ids: np.ndarray, context: int) -> list[Text]:
    """Stretches of the model's context; a shorter rest is left out unless it is all there is."""
    count = len(ids) // context
    parts = np.split(ids[: count * context], count) if count else [ids]
    return [_text(part, 1 / (len(part) - 1)) for part in parts]


def domains(validation: Sequence[Item], tokenizer: Tokenizer, context: int) -> dict[str, list[Text]]:
    """Validation documents by domain, each token but the first to be predicted once, with weight 1."""
    found: dict[str, list[Text]] = {}
    for row, item in enumerate(validation):
        if not (item.text or "").split():
            raise InvalidItems(f"validation[{row}].text", f"is empty (item {item.id!r})")
        ids = np.array([_end(tokenizer), *tokenizer.encode(item.text or ""), _end(tokenizer)], np.int32)
        parts = found.setdefault(str(item.fields.get("domain", "other")), [])
        parts += [_text(part, 1.0) for part in _overlapping(ids, context)]
    if not found:
        raise InvalidItems("validation", "is empty: train=true measures the models on it")
    return found


def perplexities(losses: Mapping[str, float], held_out: Mapping[str, Sequence[Text]]) -> dict[str, float]:
    """exp(loss / tokens) of each domain, and of all together: the average weighted by their tokens."""
    tokens = {domain: sum(len(part.ids) - 1 for part in parts) for domain, parts in held_out.items()}
    found = {domain: math.exp(losses[domain] / tokens[domain]) for domain in losses}
    return {**found, "all": math.exp(sum(losses.values()) / sum(tokens.values()))}


def _overlapping(ids: np.ndarray, context: int) -> Iterator[np.ndarray]:
    """Stretches that share one id, so that each but the very first is predicted once."""
    return (ids[start : start + context] for start in range(0, len(ids) - 1, context - 1))


def _text(ids: np.ndarray, weight: float) -> Text:
    from pickaxe_plugins.train.loop import Text

    weights = np.full(len(ids), weight, np.float32)
    weights[0] = 0
    return Text(ids, weights)


def _end(tokenizer: Tokenizer) -> int:
    return tokenizer.eos_ids[0]
