"""Gradient descent on any loss over any tree of arrays: checkpoints, exact resume, early stopping."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import pickaxe
from pickaxe import ArtifactWriter, Progress
from pickaxe.extras import require
from pickaxe_plugins.train import trained
from pickaxe_plugins.train.settings import Recipe
from pickaxe_plugins.train.trained import Trained

Result = TypeVar("Result")
Tree = Any
"""Nested dictionaries, lists and tuples of arrays."""
Loss = Callable[[Tree, Mapping[str, Any], Any], tuple[Any, Mapping[str, Any]]]
"""(what is trained, what a step is given, random key) -> (the loss, further scalars to report)."""


@functools.lru_cache(maxsize=4)
def adamw(recipe: Recipe, steps: int, *, beta2: float = 0.999, floor: float = 0.0, matrices_only: bool = False) -> Any:
    """The recipe's optimiser for so many steps; the rate ends at `floor` of its peak.

    With `matrices_only`, weight decay leaves out whatever has one axis: norms and biases.
    """
    jax, optax = require("jax", extra="train"), require("optax", extra="train")
    warmup = min(recipe.warmup, steps - 1)
    schedule = optax.warmup_cosine_decay_schedule(
        recipe.rate / (warmup + 1), recipe.rate, warmup, steps, floor * recipe.rate
    )
    mask = (lambda tree: jax.tree_util.tree_map(lambda leaf: leaf.ndim > 1, tree)) if matrices_only else None
    step = optax.adamw(schedule, b2=beta2, weight_decay=recipe.decay, mask=mask)
    return optax.chain(optax.clip_by_global_norm(recipe.clip), step)


@dataclass(frozen=True, slots=True)
class Stopping:
    """When to end early, and that the best weights are kept."""

    measure: Callable[[Tree], float]
    """What is to fall, on data that is not learned from: a validation loss, or a metric with a minus sign."""
    every: int = 100
    """Steps between measurements."""
    patience: int = 3
    """Measurements without a gain after which training ends; 0: it never does, but the best weights are kept."""
    gain: float = 0.0
    """By how much the measure must fall to count as better."""


def descend(
    loss: Loss,
    optimiser: Any,
    start: Tree,
    given: Callable[[int], Mapping[str, Any]],
    steps: int,
    out: ArtifactWriter,
    *,
    seed: int,
    stage: str = "train",
    checkpoint: int = 100,
    stopping: Stopping | None = None,
) -> Generator[Progress, None, Tree]:
    """Train and return the new tree, its arrays in NumPy; each step reports `loss` and the scalars beside it.

    `given(step)` is what a step learns from, and may hold frozen arrays too.  Every `checkpoint` steps everything
    is written to `out`; a fit that was interrupted goes on from there to the same arrays, bit by bit.  Pass the
    same `loss` object to compile it only once.
    """
    begin = Trained(start)
    options: dict[str, Any] = {"seed": seed, "stage": stage, "checkpoint": checkpoint, "stopping": stopping}
    ended = yield from go_on(loss, optimiser, begin, given, steps, out, **options)
    return ended.tree


def go_on(
    loss: Loss,
    optimiser: Any,
    begin: Trained,
    given: Callable[[int], Mapping[str, Any]],
    steps: int,
    out: ArtifactWriter,
    *,
    seed: int,
    stage: str = "train",
    checkpoint: int = 100,
    stopping: Stopping | None = None,
) -> Generator[Progress, None, Trained]:
    """As `descend`, from a state of training (see `trained.read`) up to step number `steps`; the new state.

    Steps go on counting where `begin` stopped, for `given`, for the keys and for the optimiser: so a training in
    parts, with the same arguments, ends with the bits of one that was never stopped.  With `stopping` the tree is the
    best one measured and `step` its step; its optimiser state is only kept when that is the last step.
    """
    jax = require("jax", extra="train")
    update = _compiled(loss, optimiser)
    saved = _Checkpoint(out)
    # A step may write into the memory of the state that it is given, which must not be the caller's.
    tree = jax.tree_util.tree_map(jax.numpy.array, begin.tree)
    state = optimiser.init(tree) if begin.state is None else jax.tree_util.tree_map(jax.numpy.array, begin.state)
    best = _Best(stopping, tree, begin.step)
    at, (tree, state) = saved.restore(begin.step, (tree, state), best)
    while at < steps and not best.enough:
        key = jax.random.fold_in(jax.random.key(seed), at)
        tree, state, value, told = update(tree, state, given(at), key)
        at += 1
        metrics = {"loss": float(value), **{name: float(each) for name, each in told.items()}, **best.look(tree, at)}
        if at % checkpoint == 0 and at < steps and not best.enough:
            saved.keep((tree, state), best, at)
        yield Progress(stage, at, steps, metrics)
    saved.remove()
    if best.step not in (None, at):
        return Trained(best.tree, None, int(best.step or 0), begin.position)
    tree, state = jax.tree_util.tree_map(np.asarray, (tree, state))
    return Trained(tree, state, at, begin.position)


def finished(run: Generator[Progress, None, Result], report: Callable[[Progress], object] | None = None) -> Result:
    """What a training returns, once all of it has run; `report` is told of every step."""
    while True:
        try:
            progress = next(run)
        except StopIteration as end:
            value: Result = end.value
            return value
        if report is not None:
            report(progress)


class Shuffle:
    """Which of `count` examples a step sees, `size` at a time, each once an epoch, in an order keyed by the seed."""

    def __init__(self, count: int, size: int, seed: int) -> None:
        self._count, self._size, self._seed = count, size, seed
        self.per_epoch = math.ceil(count / size)
        self._order = functools.lru_cache(maxsize=1)(self._permutation)

    def rows(self, step: int) -> np.ndarray:
        epoch, place = divmod(step, self.per_epoch)
        return self._order(epoch)[place * self._size : (place + 1) * self._size]

    def _permutation(self, epoch: int) -> np.ndarray:
        return pickaxe.generator(self._seed, "order", epoch).permutation(self._count)


@functools.lru_cache(maxsize=4)
def _compiled(loss: Loss, optimiser: Any) -> Callable[..., Any]:
    """One step: (tree, optimiser state, given, key) -> (tree, state, loss, scalars)."""
    jax, optax = require("jax", extra="train"), require("optax", extra="train")

    def update(tree: Tree, state: Any, given: Mapping[str, Any], key: Any) -> tuple[Tree, Any, Any, Any]:
        (value, told), slope = jax.value_and_grad(lambda each: loss(each, given, key), has_aux=True)(tree)
        change, state = optimiser.update(slope, state, tree)
        return optax.apply_updates(tree, change), state, value, told

    step: Callable[..., Any] = jax.jit(update, donate_argnums=(0, 1))
    return step


class _Best:
    """The best tree so far, when there is a `Stopping`."""

    def __init__(self, stopping: Stopping | None, tree: Tree, step: int) -> None:
        self._stopping = stopping
        self.tree: Tree = require("jax", extra="train").tree_util.tree_map(np.asarray, tree) if stopping else None
        self.step: int | None = None
        """Where it was measured; None: nowhere yet."""
        self.value, self.waited = math.inf, 0
        self._began = step

    @property
    def enough(self) -> bool:
        return self._stopping is not None and 0 < self._stopping.patience <= self.waited

    def look(self, tree: Tree, step: int) -> dict[str, float]:
        """Measure when it is time; what there is to report."""
        if self._stopping is None or (step - self._began) % self._stopping.every:
            return {}
        value = float(self._stopping.measure(tree))
        self.waited += 1
        if value < self.value - self._stopping.gain:
            self.value, self.step, self.waited = value, step, 0
            # A copy: the next step may write into this tree's memory.
            self.tree = require("jax", extra="train").tree_util.tree_map(np.array, tree)
        return {"validation": value, "best": self.value}


class _Checkpoint:
    """The state of training in the unfinished artifact, and the best one beside it."""

    STAGE = "checkpoint"

    def __init__(self, out: ArtifactWriter) -> None:
        self._out = out

    def restore(self, begin: int, fresh: tuple[Any, Any], best: _Best) -> tuple[int, tuple[Any, Any]]:
        """Steps done, and the state after them; the fresh state if there is none."""
        step = int(self._out.stage_notes(self.STAGE)["step"]) if self._out.done(self.STAGE) else 0
        if step <= begin or not self._file(step).is_file():  # gone when the training had ended, but not what follows
            return begin, fresh
        found = trained.read(self._file(step), Trained({"now": fresh[0], "best": best.tree}, fresh[1]))
        best.tree, best.step = found.tree["best"], found.position["step"]
        best.value, best.waited = float(found.position["value"]), found.position["waited"]
        return step, (found.tree["now"], found.state)

    def keep(self, state: tuple[Any, Any], best: _Best, step: int) -> None:
        """Write a new file, enter it, then drop the one before: one of them is whole at any time."""
        position = {"step": best.step, "value": str(best.value), "waited": best.waited}
        now = Trained({"now": state[0], "best": best.tree}, state[1], step, position)
        trained.write(self._file(step), now)
        self._out.finish(self.STAGE, step=step)
        self.remove(but=step)

    def remove(self, but: int | None = None) -> None:
        for path in self._out.path.glob("checkpoint-*.safetensors"):
            if but is None or path != self._file(but):
                path.unlink()

    def _file(self, step: int) -> Path:
        return self._out.file(f"checkpoint-{step}.safetensors")
