"""Calibration of a decoder on chosen sets: likelihood of the reference, and a ranking or a contrast of candidates."""

from __future__ import annotations

import functools
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe import ArtifactWriter, Progress
from pickaxe.errors import InvalidItems
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture, open_checkpoint
from pickaxe.randomness import generator
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.reranking.calibration_sets._likelihood import tokens
from pickaxe_plugins.reranking.calibration_sets._read import Candidates
from pickaxe_plugins.reranking.calibration_sets._sets import Chosen
from pickaxe_plugins.train import llama, optimisers, vocabulary
from pickaxe_plugins.train.descent import Loss, Shuffle, descend

if TYPE_CHECKING:
    from pickaxe_plugins.reranking.calibration_sets._method import Params

GRAIN = 16
"""Sequences are padded to multiples of so many tokens, so that few shapes are compiled."""


@dataclass(frozen=True)
class Lesson:
    """A document, what the model should write for it, and its calibration set in order."""

    source: str
    reference: str
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Objective:
    """The loss in numbers; hashable, so that a step is compiled once."""

    kind: str
    positives: int
    smoothing: float
    lam: float
    scale: float
    alpha: float
    mle_weight: float
    weight: float

    @classmethod
    def of(cls, params: Params) -> Objective:
        kind = params.loss_used
        default = 0.1 if kind == "ranking" else 1.0
        mle = default if params.mle_weight is None else params.mle_weight
        return cls(kind, params.n_pos, params.smoothing, params.lam, params.scale, params.alpha, mle, params.weight)


def lessons(found: Candidates, chosen: Sequence[Chosen], where: str) -> list[Lesson]:
    """What is learned of each set; without a reference it is the set's best candidate."""
    made = []
    for each in chosen:
        members = [found.items[row] for row in each.rows]
        source = members[0].get("source")
        if source is None:
            raise InvalidItems(f"{where}[{each.rows[0]}].fields.source", "is missing: fit reads the document")
        texts = tuple(item.text or "" for item in members)
        made.append(Lesson(str(source), str(members[0].get("reference") or texts[0]), texts))
    return made


def train(
    given: Sequence[Lesson],
    held: Sequence[Lesson],
    start: tuple[Path, Tokenizer] | None,
    params: Params,
    out: ArtifactWriter,
    seed: int,
) -> Generator[Progress, None, None]:
    """Write the folder of the calibrated decoder: from `start`, a model and its tokenizer, or a new one."""
    architecture, weights, tokenizer = _start(given, start, params, out.path, seed)
    draws = _Draws(given, tokenizer, params, architecture.context, seed)
    objective = Objective.of(params)
    head = generator(seed, "projection").standard_normal((params.projection, architecture.width))
    tree = {"net": weights, "head": {"weight": (head / architecture.width**0.5).astype(np.float32)}}
    loss = _loss(architecture, objective)
    exam = _Draws(held, tokenizer, params, architecture.context, seed) if held else draws
    before = exam.measure(loss, tree)
    steps = params.epochs * draws.shuffle.per_epoch
    rate = optimisers.Linear(params.rate, steps, round(params.warmup * steps))
    tree = yield from descend(
        loss,
        _optimiser(rate, params.head_rate, params.decay, params.clip),
        tree,
        draws.given,
        steps,
        out,
        seed=seed,
        checkpoint=params.checkpoint,
    )
    after = exam.measure(loss, tree)
    llama.save(tree["net"], architecture, out.path)
    tokenizer.save(out.path)
    out.notes |= {"sets": len(given), "steps": steps, "measured_on": "validation" if held else "examples"}
    out.notes |= {"before": before, "after": after}
    out.notes["versions"] = {name: require(name, extra="train").__version__ for name in ("jax", "optax")}


def _start(
    given: Sequence[Lesson], start: tuple[Path, Tokenizer] | None, params: Params, folder: Path, seed: int
) -> tuple[Architecture, dict[str, np.ndarray], Tokenizer]:
    if start is not None:
        path, tokenizer = start
        checkpoint = open_checkpoint(path)
        return checkpoint.architecture, llama.load(checkpoint.architecture, checkpoint.tensors), tokenizer
    texts = [text for each in given for text in (each.source, each.reference, *each.candidates)]
    tokenizer = vocabulary.learn(texts, params.net.vocab, folder)
    architecture = params.net.architecture(tokenizer.vocab_size)
    return architecture, llama.initial(architecture, seed), tokenizer


@functools.lru_cache(maxsize=4)
def _optimiser(rate: optimisers.Linear, head_rate: float, decay: float, clip: float) -> Any:
    """AdamW on the network by the schedule, on the projection at a constant rate; gradients clipped together."""
    optax = require("optax", extra="train")
    net = optimisers.adamw(rate, decay=decay, decayed=optimisers.matrices)
    parts = optax.multi_transform({"net": net, "head": optax.adam(head_rate)}, {"net": "net", "head": "head"})
    return optax.chain(optimisers.clipped(clip), parts)


class _Draws:
    """What a step learns from: sets of one size, each as its reference and its candidates."""

    def __init__(self, given: Sequence[Lesson], tokenizer: Tokenizer, params: Params, context: int, seed: int) -> None:
        self._rows = [
            [tokens(tokenizer, each.source, text, params, context) for text in (each.reference, *each.candidates)]
            for each in given
        ]
        self._batch = params.batch
        self.shuffle = Shuffle(len(given), params.batch, seed)

    def given(self, step: int) -> dict[str, np.ndarray]:
        return self._padded([self._rows[row] for row in self.shuffle.rows(step)])

    def measure(self, loss: Loss, tree: Mapping[str, Any]) -> dict[str, float]:
        """The loss and its parts, over all sets."""
        jax = require("jax", extra="train")
        evaluate, total = jax.jit(loss), dict[str, float]()
        for start in range(0, len(self._rows), self._batch):
            part = self._rows[start : start + self._batch]
            value, told = evaluate(tree, self._padded(part), None)
            for name, each in {"loss": value, **told}.items():
                total[name] = total.get(name, 0.0) + float(each) * len(part) / len(self._rows)
        return total

    def _padded(self, sets: Sequence[Sequence[tuple[list[int], int]]]) -> dict[str, np.ndarray]:
        """(sets, 1 + k, …) flattened: `ids` (R, T), `places` before the counted tokens, `targets`, `mask` (R, L);
        `shares` (sets,), 0 for the empty sets that fill up a batch."""
        rows = [row for each in sets for row in each]
        width = GRAIN * -(-max(len(ids) for ids, _ in rows) // GRAIN)
        count = GRAIN * -(-max(len(ids) - begin for ids, begin in rows) // GRAIN)
        size = self._batch * len(sets[0])
        ids = np.zeros((size, width), np.int32)
        places, targets = np.zeros((size, count), np.int32), np.zeros((size, count), np.int32)
        mask, shares = np.zeros((size, count), np.float32), np.zeros(self._batch, np.float32)
        for row, (each, begin) in enumerate(rows):
            n = len(each) - begin
            ids[row, : len(each)] = each
            places[row, :n] = np.arange(begin - 1, len(each) - 1)
            targets[row, :n], mask[row, :n] = each[begin:], 1
        shares[: len(sets)] = 1 / len(sets)
        return {"ids": ids, "places": places, "targets": targets, "mask": mask, "shares": shares}


@functools.lru_cache(maxsize=4)
def _loss(architecture: Architecture, objective: Objective) -> Loss:
    jax = require("jax", extra="train")

    def loss(tree: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        hidden = llama.hidden_states(tree["net"], architecture, given["ids"])
        states = jax.numpy.take_along_axis(hidden, given["places"][..., None], 1)
        logprobs = jax.nn.log_softmax(llama.logits(tree["net"], states))
        by_set = {"states": states, "logprobs": logprobs, "targets": given["targets"], "mask": given["mask"]}
        sets = len(given["shares"])
        by_set = {name: each.reshape(sets, -1, *each.shape[1:]) for name, each in by_set.items()}
        likelihood = _cross_entropy({name: each[:, :1] for name, each in by_set.items()}, given, objective.smoothing)
        members = {name: each[:, 1:] for name, each in by_set.items()}
        if objective.kind == "positive_distillation":
            best = _cross_entropy({name: each[:, :1] for name, each in members.items()}, given, objective.smoothing)
            return objective.weight * best, {"likelihood": likelihood, "calibration": best}
        calibration = _KINDS[objective.kind](members, tree["head"]["weight"], given, objective)
        told = {"likelihood": likelihood, "calibration": calibration}
        return objective.mle_weight * likelihood + objective.weight * calibration, told

    return loss


def _cross_entropy(rows: Mapping[str, Any], given: Mapping[str, Any], smoothing: float) -> Any:
    """Label-smoothed, the mean over all counted tokens of the sets that count."""
    import jax.numpy as jnp

    at = jnp.take_along_axis(rows["logprobs"], rows["targets"][..., None], -1)[..., 0]
    each = -((1 - smoothing) * at + smoothing * rows["logprobs"].mean(-1))
    counted = rows["mask"] * (given["shares"] > 0)[:, None, None]
    return (each * counted).sum() / jnp.maximum(counted.sum(), 1)


def _ranking(rows: Mapping[str, Any], head: Any, given: Mapping[str, Any], objective: Objective) -> Any:
    import jax.numpy as jnp

    at = jnp.take_along_axis(rows["logprobs"], rows["targets"][..., None], -1)[..., 0]
    lengths = jnp.maximum(rows["mask"].sum(-1), 1)
    scores = objective.scale * (at * rows["mask"]).sum(-1) / lengths**objective.alpha
    total: Any = 0.0
    for gap in range(1, scores.shape[1]):
        behind = jnp.maximum(0, scores[:, gap:] - scores[:, :-gap] + objective.lam * gap)
        total = total + (given["shares"] * behind.mean(1)).sum()
    return total


def _contrastive(rows: Mapping[str, Any], head: Any, given: Mapping[str, Any], objective: Objective) -> Any:
    import jax
    import jax.numpy as jnp

    projected = rows["states"] @ head.T
    pooled = (projected * rows["mask"][..., None]).sum(2) / jnp.maximum(rows["mask"].sum(2), 1)[..., None]
    unit = pooled / jnp.sqrt((pooled**2).sum(-1, keepdims=True) + 1e-12)
    cosines = unit @ unit.transpose(0, 2, 1)
    itself = jnp.eye(cosines.shape[1], dtype=bool)
    others = jax.nn.logsumexp(jnp.where(itself, -jnp.inf, cosines), axis=-1)
    first, second = np.triu_indices(objective.positives, 1)
    return (given["shares"] * (others[:, first] - cosines[:, first, second]).mean(1)).sum()


def _unlikelihood(rows: Mapping[str, Any], head: Any, given: Mapping[str, Any], objective: Objective) -> Any:
    import jax.numpy as jnp

    split = objective.positives
    towards = _cross_entropy({name: each[:, :split] for name, each in rows.items()}, given, objective.smoothing)
    away = jnp.log(jnp.maximum(1 - jnp.exp(rows["logprobs"][:, split:]), 1e-10))
    from_negatives = {"logprobs": away, "targets": rows["targets"][:, split:], "mask": rows["mask"][:, split:]}
    return (towards + _cross_entropy(from_negatives, given, objective.smoothing)) / 2


_KINDS = {"ranking": _ranking, "contrastive": _contrastive, "unlikelihood": _unlikelihood}
