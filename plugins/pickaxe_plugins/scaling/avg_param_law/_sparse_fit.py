"""The recipe of `avg-param-law`: a small language model pruned while it is trained (arXiv 2501.12486)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import ArtifactWriter, Call, Item, Progress
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture
from pickaxe.randomness import generator
from pickaxe_plugins.scaling import _pretraining
from pickaxe_plugins.scaling._one_epoch_plan import pass_order
from pickaxe_plugins.scaling.avg_param_law._pruning import Course, Shape, pruning, schedule

PRUNABLE = ("q", "k", "v", "o", "gate", "up", "down")
"""Matrices of a layer that lose weights; embeddings, which are the output too, and norms stay dense."""


class Training(pickaxe.Params):
    """What the recipe `sparse-pretrain` trains."""

    steps: int = Field(default=1000, ge=2, description="Steps of the whole run.")
    batch: int = Field(default=16, ge=1, description="Rows of a step.")
    context: int = Field(default=128, ge=8, description="Tokens of a row.")
    params: float = Field(default=1e6, gt=0, description="Wanted parameters of the dense network.")
    vocab: int = Field(default=1024, ge=257, description="Most tokens of the vocabulary learned from the documents.")
    largest_width: int = Field(default=512, ge=32, description="Widest network to consider.")
    rate: float = Field(default=3e-3, gt=0, description="Highest learning rate.")
    warmup: int = Field(default=50, ge=0, description="Steps until the highest rate.")


@dataclass(frozen=True)
class Pruned:
    """How much is pruned, when and where."""

    sparsity: float
    shape: Shape
    start: float
    end: float
    interval: int
    scope: Literal["layer", "global"]


def prunable(architecture: Architecture) -> dict[str, int]:
    """Names and sizes of the matrices that lose weights."""
    from pickaxe_plugins.train import llama

    return {name: math.prod(shape) for name, shape in llama.shapes(architecture) if name.rpartition(".")[2] in PRUNABLE}


def train_sparse(
    training: Training,
    plan: Pruned,
    examples: Iterable[Item],
    validation: Iterable[Item] | None,
    out: ArtifactWriter,
    call: Call,
) -> Generator[Progress, None, None]:
    """Dense, pruning and recovery phase in one run with one learning-rate schedule.

    Leaves the model with zeros where weights were removed, `mask.safetensors` (uint8, 1 where a weight is left) and
    `trajectory.npy`, the active prunable weights of each step.
    """
    from pickaxe_plugins.train import llama
    from pickaxe_plugins.train.descent import descend
    from pickaxe_plugins.train.settings import Recipe

    data = _pretraining.prepared(examples, validation, training.vocab, training.context, training.batch, out.path)
    tokenizer, rows, test = data.tokenizer, data.rows, data.test
    yield Progress("vocabulary", 1, 1, {"documents": len(data.corpus.train), "tokens": tokenizer.vocab_size})
    architecture = _pretraining.network(training.params, tokenizer.vocab_size, training.context, training.largest_width)
    sizes, total = prunable(architecture), _pretraining.parameters(architecture)
    share = 1 - sum(sizes.values()) / total
    planned = schedule(plan.sparsity, plan.shape, plan.start, plan.end, share)
    interval = plan.interval or max(1, training.steps // 100)
    course = Course.of(
        training.steps,
        planned.start * training.steps,
        planned.end * training.steps,
        plan.sparsity,
        plan.shape,
        interval,
    )
    optimiser = _optimiser(
        Recipe(rate=training.rate, warmup=training.warmup), training.steps, tuple(sizes.items()), course, plan.scope
    )
    passes = math.ceil(training.steps / (len(rows.ids) // training.batch))
    order = np.concatenate(
        [pass_order(len(rows.ids), training.batch, generator(call.seed, "order", each)) for each in range(passes)]
    )
    start = llama.initial(architecture, call.seed)
    weights: dict[str, np.ndarray] = yield from descend(
        _loss(architecture),
        optimiser,
        start,
        lambda step: {"rows": rows.ids[order[step]]},
        training.steps,
        out,
        seed=call.seed,
    )
    masks = {name: (weights[name] != 0).astype(np.uint8) for name in sizes}
    require("safetensors.numpy", extra="cpu").save_file(masks, str(out.file("mask.safetensors")))
    llama.save(weights, architecture, out.path)
    trajectory = _trajectory(course, training.steps, sizes, plan.scope)
    out.write_array("trajectory.npy", trajectory)
    plain = _pretraining.next_token_loss(architecture, 0.0)
    out.notes |= {
        "parameters": total,
        "prunable": sum(sizes.values()),
        "final_prunable": int(trajectory[-1]),
        "average_prunable": float(trajectory.mean()),
        "never_pruned_share": share,
        "tokens": training.steps * training.batch * training.context,
        "passes": passes,
        "test_loss": float(plain(weights, test.ids[: 16 * training.batch], None)),
        "versions": _pretraining.versions(),
    }


def _trajectory(course: Course, steps: int, sizes: Mapping[str, int], scope: str) -> np.ndarray:
    """Active prunable weights while each step is taken, (steps,)."""
    wholes = [sum(sizes.values())] if scope == "global" else list(sizes.values())
    return np.array([sum(n - round(s * n) for n in wholes) for s in course.at(steps).tolist()], np.float64)


@functools.lru_cache(maxsize=2)
def _optimiser(
    recipe: Any, steps: int, sizes: tuple[tuple[str, int], ...], course: Course, scope: Literal["layer", "global"]
) -> Any:
    from pickaxe_plugins.train.descent import adamw

    return pruning(adamw(recipe, steps), dict(sizes), course, scope)


@functools.lru_cache(maxsize=2)
def _loss(architecture: Architecture) -> Callable[..., Any]:
    train = _pretraining.next_token_loss(architecture, 0.0)
    return lambda weights, given, key: (train(weights, given["rows"], key), {})
