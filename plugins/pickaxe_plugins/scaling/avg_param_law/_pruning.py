"""Gradual magnitude pruning: how sparse at which step, which weights go, and an optimiser that keeps them away.

Schedules by share of the training compute are those of arXiv 2501.12486; the cubic shape is Zhu and Gupta's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pickaxe.extras import require

Shape = Literal["cubic", "linear"]


def sparsity_at(step: np.ndarray | float, start: float, end: float, final: float, shape: Shape) -> np.ndarray:
    """Share of removed weights at a step: 0 before `start`, `final` from `end` on."""
    width = max(end - start, np.finfo(float).tiny)
    u = np.clip((np.asarray(step, np.float64) - start) / width, 0.0, 1.0)
    return final * (1 - (1 - u) ** 3) if shape == "cubic" else final * u


@dataclass(frozen=True)
class Schedule:
    """A schedule given by shares of the compute, as shares of the steps.

    `density` is the mean density of the prunable weights over all steps, `cost` the mean cost of a step relative to
    a dense one.
    """

    start: float
    end: float
    density: float
    cost: float


def schedule(
    final: float, shape: Shape = "cubic", start: float = 0.25, end: float = 0.75, never_pruned: float = 0.0
) -> Schedule:
    """In closed form; a step costs q + (1 - q) d at density d, where q is the share that is never pruned."""
    mean = (1 - final) + (final / 4 if shape == "cubic" else final / 2)
    dense, pruning, sparse = (never_pruned + (1 - never_pruned) * d for d in (1.0, mean, 1 - final))
    cost = 1 / (start / dense + (end - start) / pruning + (1 - end) / sparse)
    t0 = start * cost / dense
    t1 = t0 + (end - start) * cost / pruning
    return Schedule(t0, t1, t0 + (t1 - t0) * mean + (1 - t1) * (1 - final), cost)


def removed(sparsity: float, weights: int) -> int:
    """How many of the weights are removed, half to even."""
    return round(sparsity * weights)


def magnitude_mask(weights: np.ndarray, count: int, mask: np.ndarray | None = None) -> np.ndarray:
    """False for the `count` smallest |weights|; of equal ones the first in row-major order go first.

    Weights that `mask` removed stay removed, and are among the `count`.
    """
    size = np.abs(weights).ravel()
    if mask is not None:
        size = np.where(mask.ravel(), size, -1)
    kept = np.ones(size.shape, np.bool_)
    if count:
        threshold = np.partition(size, count - 1)[count - 1]
        kept = size >= threshold
        equal = np.flatnonzero(size == threshold)
        kept[equal[: count - int(len(size) - kept.sum())]] = False
    return kept.reshape(weights.shape)


# ---------------------------------------------------------------- while training


@dataclass(frozen=True)
class Course:
    """What is removed when: `steps` at which masks are updated, and the sparsity from each of them on."""

    steps: tuple[int, ...]
    sparsity: tuple[float, ...]

    @classmethod
    def of(cls, total: int, start: float, end: float, final: float, shape: Shape, interval: int) -> Course:
        """Every `interval` steps from `start` to `end` (in steps), where the final sparsity is reached."""
        first, last = min(round(start), total - 1), min(round(end), total - 1)
        steps = tuple(dict.fromkeys((*range(first, last, interval), last)))
        values = [float(sparsity_at(step, start, end, final, shape)) for step in steps[:-1]]
        return cls(steps, (*values, final))

    def at(self, total: int) -> np.ndarray:
        """The sparsity while each step is taken, (total,)."""
        found = np.zeros(total)
        for step, value in zip(self.steps, self.sparsity, strict=True):
            found[step:] = value
        return found


def pruning(inner: Any, sizes: Mapping[str, int], course: Course, scope: Literal["layer", "global"]) -> Any:
    """An optax optimiser around another one: named matrices lose their smallest weights for good.

    After each step removed weights, their gradients and their moments are exactly 0.  Its state holds the masks.
    """
    jax, optax = require("jax", extra="train"), require("optax", extra="train")
    jnp = jax.numpy
    names = sorted(sizes)
    wholes = [sum(sizes.values())] if scope == "global" else [sizes[name] for name in names]
    counts = jnp.array([[removed(value, whole) for whole in wholes] for value in course.sparsity], jnp.int32)
    steps = jnp.array(course.steps, jnp.int32)

    def start(params: Mapping[str, Any]) -> dict[str, Any]:
        masks = {name: jnp.ones(params[name].shape, bool) for name in names}
        return {"inner": inner.init(params), "masks": masks, "step": jnp.int32(0)}

    def remask(params: Mapping[str, Any], masks: Mapping[str, Any], place: Any) -> dict[str, Any]:
        sized = [jnp.where(masks[name], jnp.abs(params[name]), -1.0).ravel() for name in names]
        parts = [jnp.concatenate(sized)] if scope == "global" else sized
        kept = [_kept(jnp, part, counts[place, row]) for row, part in enumerate(parts)]
        if scope == "global":
            kept = jnp.split(kept[0], np.cumsum([sizes[name] for name in names])[:-1].tolist())
        return {name: part.reshape(masks[name].shape) for name, part in zip(names, kept, strict=True)}

    def update(grads: Mapping[str, Any], state: Mapping[str, Any], params: Mapping[str, Any]) -> tuple[Any, Any]:
        step = state["step"]
        place = jnp.clip(jnp.searchsorted(steps, step), 0, len(course.steps) - 1)
        masks = jax.lax.cond(
            steps[place] == step, lambda: remask(params, state["masks"], place), lambda: dict(state["masks"])
        )
        grads = {name: jnp.where(masks[name], part, 0) if name in masks else part for name, part in grads.items()}
        change, held = inner.update(grads, state["inner"], params)
        held = jax.tree_util.tree_map_with_path(lambda path, leaf: _cleared(jnp, path, leaf, masks), held)
        change = {
            name: jnp.where(masks[name], part, -params[name]) if name in masks else part
            for name, part in change.items()
        }
        return change, {"inner": held, "masks": masks, "step": step + 1}

    return optax.GradientTransformation(start, update)


def _kept(jnp: Any, size: Any, count: Any) -> Any:
    """`magnitude_mask` of a flat array, for a count known only while it runs."""
    threshold = jnp.sort(size)[jnp.maximum(count - 1, 0)]
    below, equal = size < threshold, size == threshold
    gone = below | (equal & (jnp.cumsum(equal) <= count - below.sum()))
    return ~(gone & (count > 0))


def _cleared(jnp: Any, path: Sequence[Any], leaf: Any, masks: Mapping[str, Any]) -> Any:
    """A part of the inner state without what belongs to removed weights."""
    name = next((part.key for part in path if getattr(part, "key", None) in masks), None)
    return leaf if name is None else jnp.where(masks[name], leaf, 0)
