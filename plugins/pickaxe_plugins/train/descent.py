"""Gradient descent on any loss over any tree of arrays: AdamW on a cosine schedule, checkpoints, exact resume."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import ArtifactWriter, Progress
from pickaxe.extras import require
from pickaxe_plugins.train.settings import Recipe

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
) -> Generator[Progress, None, Tree]:
    """Train and return the new tree, its arrays in NumPy; each step reports `loss` and the scalars beside it.

    `given(step)` is what a step learns from, and may hold frozen arrays too.  Every `checkpoint` steps everything
    is written to `out`; a fit that was interrupted goes on from there to the same arrays, bit by bit.  Pass the
    same `loss` object to compile it only once.
    """
    jax = require("jax", extra="train")
    update = _compiled(loss, optimiser)
    saved = _Checkpoint(out)
    # A step may write into the memory of the state that it is given, which must not be the caller's.
    start = jax.tree_util.tree_map(jax.numpy.array, start)
    begin, (tree, state) = saved.restore((start, optimiser.init(start)))
    for step in range(begin, steps):
        key = jax.random.fold_in(jax.random.key(seed), step)
        tree, state, value, told = update(tree, state, given(step), key)
        if (step + 1) % checkpoint == 0 and step + 1 < steps:
            saved.keep((tree, state), step + 1)
        metrics = {"loss": float(value), **{name: float(each) for name, each in told.items()}}
        yield Progress(stage, step + 1, steps, metrics)
    saved.remove()
    return jax.tree_util.tree_map(np.asarray, tree)


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


class _Checkpoint:
    """Weights and optimiser state in the unfinished artifact."""

    STAGE = "checkpoint"

    def __init__(self, out: ArtifactWriter) -> None:
        self._out = out

    def restore(self, fresh: tuple[Any, Any]) -> tuple[int, tuple[Any, Any]]:
        """Steps done, and the state after them; the fresh state if there is none."""
        step = int(self._out.stage_notes(self.STAGE)["step"]) if self._out.done(self.STAGE) else 0
        if not step or not self._file(step).is_file():  # gone when the training had ended, but not what follows
            return 0, fresh
        tree = require("jax", extra="train").tree_util
        arrays = require("safetensors.numpy", extra="cpu").load_file(str(self._file(step)))
        leaves, form = tree.tree_flatten(fresh)
        return step, tree.tree_unflatten(form, [arrays[str(place)] for place in range(len(leaves))])

    def keep(self, state: tuple[Any, Any], step: int) -> None:
        """Write a new file, enter it, then drop the one before: one of them is whole at any time."""
        leaves = require("jax", extra="train").tree_util.tree_leaves(state)
        arrays = {str(place): np.asarray(leaf) for place, leaf in enumerate(leaves)}
        require("safetensors.numpy", extra="cpu").save_file(arrays, str(self._file(step)))
        self._out.finish(self.STAGE, step=step)
        self.remove(but=step)

    def remove(self, but: int | None = None) -> None:
        for path in self._out.path.glob("checkpoint-*.safetensors"):
            if but is None or path != self._file(but):
                path.unlink()

    def _file(self, step: int) -> Path:
        return self._out.file(f"checkpoint-{step}.safetensors")
