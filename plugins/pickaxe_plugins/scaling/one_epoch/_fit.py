"""The recipe of `one-epoch`: a model of the size that a budget asks for, trained on every document once."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import ArtifactWriter, Call, Item, Progress
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture
from pickaxe.randomness import generator
from pickaxe_plugins.scaling import _pretraining
from pickaxe_plugins.scaling._one_epoch_plan import adjusted, pass_order, power_law

CURVE = "curve.npy"
"""(3, n): iterations, training loss, test loss."""


class Recipe(pickaxe.Params):
    """What the recipe of `one-epoch` trains."""

    budget: float = Field(default=1e12, gt=0, description="Parameters times tokens.")
    batch: int = Field(default=16, ge=1, description="Rows of an iteration.")
    context: int = Field(default=128, ge=8, description="Tokens of a row.")
    vocab: int = Field(default=1024, ge=257, description="Most tokens of the vocabulary learned from the documents.")
    largest_width: int = Field(default=512, ge=32, description="Widest network to consider.")
    rate: float = Field(default=3e-3, gt=0, description="Highest learning rate.")
    warmup: int = Field(default=50, ge=0, description="Iterations until the highest rate.")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the embeddings and last hidden states dropped."
    )
    on_exhausted: Literal["stop", "repeat"] = Field(
        default="stop",
        description="When every document was seen before the budget is spent: stop, or start another pass.",
    )
    measure: int = Field(default=20, ge=2, description="Iterations between measurements of the test loss.")


def train_once(
    recipe: Recipe,
    target_ratio: float,
    examples: Iterable[Item],
    validation: Iterable[Item] | None,
    out: ArtifactWriter,
    call: Call,
) -> Generator[Progress, None, None]:
    """Train, and write the model, `curve.npy`, `law.json` and the order in which the documents were seen."""
    from pickaxe_plugins.train import llama
    from pickaxe_plugins.train.descent import adamw, descend
    from pickaxe_plugins.train.settings import Recipe as Descent

    data = _pretraining.prepared(examples, validation, recipe.vocab, recipe.context, recipe.batch, out.path)
    tokenizer, rows, test = data.tokenizer, data.rows, data.test
    yield Progress("vocabulary", 1, 1, {"documents": len(data.corpus.train), "tokens": tokenizer.vocab_size})
    wanted, _ = adjusted(math.sqrt(recipe.budget), math.sqrt(recipe.budget), target_ratio)
    architecture = _pretraining.network(wanted, tokenizer.vocab_size, recipe.context, recipe.largest_width)
    size = _pretraining.parameters(architecture)
    planned = math.ceil(recipe.budget / size / (recipe.batch * recipe.context))
    order = _order(rows.ids, recipe, planned, call.seed)
    curve = _Measured(out)
    optimiser = adamw(Descent(rate=recipe.rate, warmup=recipe.warmup), len(order))
    steps = descend(
        _loss(architecture, recipe.dropout),
        optimiser,
        llama.initial(architecture, call.seed),
        lambda step: {
            "rows": rows.ids[order[step]],
            "test": test.ids[: 4 * recipe.batch],
            "measure": np.bool_(step % recipe.measure == 0 or step + 1 == len(order)),
        },
        len(order),
        out,
        seed=call.seed,
        checkpoint=5 * recipe.measure,
    )
    while True:
        try:
            progress = next(steps)
        except StopIteration as ended:
            weights: dict[str, np.ndarray] = ended.value
            break
        call.check()
        curve.add(progress)
        yield progress
    llama.save(weights, architecture, out.path)
    out.write_array("order.npy", order)
    out.write_array("documents.npy", rows.starts)
    out.write_json("law.json", curve.law())
    out.notes |= {
        "documents": len(data.corpus.train),
        "duplicates_left_out": data.corpus.duplicates,
        "parameters": size,
        "iterations": len(order),
        "planned_iterations": planned,
        "tokens": len(order) * recipe.batch * recipe.context,
        "passes": math.ceil(len(order) / (len(rows.ids) // recipe.batch)),
        "order_sha256": hashlib.sha256(order.tobytes() + rows.digest.encode()).hexdigest(),
        "notice": _notice(len(order), planned),
        "test_loss": curve.last,
        "versions": _pretraining.versions(),
    }


def _order(rows: np.ndarray, recipe: Recipe, planned: int, seed: int) -> np.ndarray:
    """Rows of each iteration, (iterations, batch): whole batches of one permutation, or of one for each pass."""
    passes = math.ceil(planned / (len(rows) // recipe.batch)) if recipe.on_exhausted == "repeat" else 1
    order = [pass_order(len(rows), recipe.batch, generator(seed, "order", number)) for number in range(passes)]
    return np.concatenate(order)[:planned].astype(np.int64)


def _notice(taken: int, planned: int) -> str:
    if taken >= planned:
        return ""
    return (
        f"every document was seen after {taken} of {planned} iterations: give more documents, or a smaller budget, "
        "rather than a second pass"
    )


@functools.lru_cache(maxsize=4)
def _loss(architecture: Architecture, dropout: float) -> Callable[..., Any]:
    """The loss of a step, beside the test loss where it is to be measured (elsewhere NaN)."""
    jax = require("jax", extra="train")
    train = _pretraining.next_token_loss(architecture, dropout)
    plain = _pretraining.next_token_loss(architecture, 0.0)

    def loss(weights: Mapping[str, Any], given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        still = jax.lax.stop_gradient(dict(weights))
        test = jax.lax.cond(
            given["measure"], lambda: plain(still, given["test"], key), lambda: jax.numpy.float32(float("nan"))
        )
        return train(weights, given["rows"], key), {"test_loss": test}

    return loss


class _Measured:
    """The curve so far, kept in the unfinished artifact: an interrupted fit goes on with it."""

    def __init__(self, out: ArtifactWriter) -> None:
        self._out = out
        path = out.file(CURVE)
        old = np.load(path) if path.is_file() else np.empty((3, 0))
        self._points = {int(step): (train, test) for step, train, test in old.T.tolist()}

    def add(self, progress: Progress) -> None:
        test = progress.metrics["test_loss"]
        if not math.isnan(test):
            self._points[progress.step] = progress.metrics["loss"], test
            self._out.write_array(CURVE, self._array())

    def _array(self) -> np.ndarray:
        return np.array([(step, *self._points[step]) for step in sorted(self._points)]).T.reshape(3, -1)

    @property
    def last(self) -> float:
        return float(self._array()[2, -1])

    def law(self) -> dict[str, float | None]:
        """The power law from a tenth of the iterations on; no values for fewer than three points."""
        iterations, _, test = self._array()
        late = iterations >= 0.1 * iterations[-1]
        if late.sum() < 3:
            return {"coefficient": None, "exponent": None, "r2": None}
        found = power_law(iterations[late], test[late])
        return {"coefficient": float(found.coefficient), "exponent": float(found.exponent), "r2": float(found.r2)}
