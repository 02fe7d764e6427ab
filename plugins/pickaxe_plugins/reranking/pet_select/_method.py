"""The scorer `pet-select`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import ArtifactWriter, Call, Column, Example, InputField, Item, Items, Method, Progress, Scores
from pickaxe.errors import ArtifactMismatch
from pickaxe.extras import require
from pickaxe.hooks import hookimpl
from pickaxe_plugins.reranking.pet_select._complexity import WEIGHTS
from pickaxe_plugins.reranking.pet_select._learning import Learner
from pickaxe_plugins.reranking.pet_select._records import read
from pickaxe_plugins.reranking.pet_select._training import logits

_ABOUT, _VECTORS, _RESIDUAL = "selector.json", "vectors.npy", "residual.npy"


class Params(pickaxe.Params):
    """Parameters of `pet-select`."""

    price: float = Field(0.0, ge=0, description="What 1000 tokens cost, in chances of success; 0: the likeliest wins.")
    model: str = Field("encoder", min_length=1, description="Sentence encoder of the queries: alias, name or path.")
    threshold: float | None = Field(
        None, ge=0, le=1, description="Fit: complexity from which a task is hard; null: the best quantile of `grid`."
    )
    grid: tuple[float, ...] = Field(
        (0.33, 0.5, 0.67), min_length=1, description="Fit: quantiles of complexity that are tried as threshold."
    )
    weights: tuple[float, float, float, float, float] = Field(
        WEIGHTS,
        description="Fit: of lines, cyclomatic, Halstead vocabulary, inverted maintainability, cognitive complexity.",
    )
    n_triplets: int = Field(3, ge=1, description="Fit: triplets of each anchor.")
    symmetric: bool = Field(False, description="Fit: hard queries are anchors, too.")
    margin: float = Field(5.0, gt=0, description="Fit: by how much farther the other side should be.")
    triplet_epochs: int = Field(15, ge=0, description="Fit: epochs of the triplets; 0: the encoder as it is.")
    triplet_rate: float = Field(3e-4, gt=0, description="Fit: highest learning rate of the triplets.")
    loss: Literal["bce", "softmax"] = Field(
        "bce", description="Fit: bce learns each technique's success, softmax which one ranks first."
    )
    epochs: int = Field(20, ge=1, description="Fit: epochs of the selector.")
    rate: float = Field(1e-3, gt=0, description="Fit: learning rate of the selector.")
    batch: int = Field(16, ge=1, description="Fit: triplets or tasks of a step.")
    held_out: float = Field(
        0.2, ge=0, lt=1, description="Fit: share of the examples that measures, where there is no validation."
    )

    @pydantic.model_validator(mode="after")
    def _sums(self) -> Params:
        if min(self.weights) < 0 or not math.isclose(sum(self.weights), 1, abs_tol=1e-6):
            raise ValueError(f"weights must not be negative and add up to 1, not {sum(self.weights):g}")
        if not all(0 < each < 1 for each in self.grid):
            raise ValueError("grid holds quantiles between 0 and 1")
        return self


class PetSelect(Method[Params]):
    """Route each query to the prompting technique that will likely solve it, and at what price.

    `fit` learns from tasks on which all techniques were run.  It parts queries with easy and hard reference solutions
    by a contrastive layer on a frozen encoder; a small network then predicts which techniques succeed.
    """

    title = "Selection of Prompt Engineering Techniques for Code Generation through Predicting Code Complexity"
    paper = "arXiv:2409.16416"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "The query; no code is needed."),)
    fit_reads = (
        InputField("text", "text", "The query."),
        InputField("passed", "struct", "Technique to whether it solved the task."),
        InputField("tokens", "struct", "Technique to the tokens of all its calls."),
        InputField("code", "text", "A reference solution in Python, for its complexity.", False),
        InputField("complexity", "float64", "Complexity from 0 to 1, where there is no code.", False),
    )
    columns = (
        Column("utility", "Highest chance of success less the price of its tokens.", "float64"),
        Column("best", "Index of the technique to use.", "int64", "", "none"),
        Column("technique", "Its name.", "str", "", "none"),
        Column("expected_tokens", "Mean tokens that it took in training.", "float64", "tokens", "lower"),
        Column("nearest", "Id of the nearest training task.", "str", "", "none"),
        Column("nearest_technique", "What was best there.", "str", "", "none"),
    )
    fitted = "required"
    stages = ("complexity", "triplets", "selector")
    cost = "One encoder call per query; fit: some milliseconds per solution and seconds of training."
    reproduced = (
        "Metrics, ranking, losses and routing of the authors' code (golden cases); the complexities equal those of "
        "radon and cognitive_complexity on 557 functions.  APPS, MBPP and HumanEval were not run."
    )

    def declared_columns(self) -> tuple[Column, ...]:
        """After the fixed ones, the chance of success for each technique."""
        if self.artifact is None:
            return self.columns
        doc = "Predicted chance that {} solves it."
        return (
            *self.columns,
            *(Column(f"p_{name}", doc.format(name), "float64") for name in self._about["techniques"]),
        )

    @classmethod
    def example(cls) -> Example:
        """Short tasks that a cheap technique solves, and long ones that need a costly one."""
        easy, hard = "return the sum", "parse the file, then sort every nested list, then merge the trees"
        loop = "def f(x):\n  for i in x:\n    if i and x:\n      while i:\n        i -= 1\n  return x\n"
        examples = tuple(
            Item(
                f"{kind}{row}",
                f"{text} of list {row}",
                {
                    "code": "def f(x):\n    return x\n" if kind == "easy" else loop * (1 + row % 2),
                    "passed": {"plain": kind == "easy", "refine": True},
                    "tokens": {"plain": 600.0 + row, "refine": 3000.0},
                },
            )
            for row in range(6)
            for kind, text in (("easy", easy), ("hard", hard))
        )
        return Example(
            params={"triplet_epochs": 2, "epochs": 30, "grid": (0.5,), "price": 0.1},
            items=(Item("short", f"{easy} of list 7"), Item("long", f"{hard} of list 8")),
            examples=examples,
        )

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        require("jax", extra="train")
        params = self.params
        tasks, skipped = read(examples, params.weights, None, "examples")
        yield Progress("complexity", len(tasks.ids), len(tasks.ids))
        if validation is None:
            tasks, held = tasks.split(params.held_out, call.seed)
        else:
            held, more = read(validation, params.weights, tasks, "validation")
            skipped |= more
        encoder = self.host.encoder(params.model)
        vectors, held_vectors = (_scaled(encoder.encode(each.texts, call)) for each in (tasks, held))
        learner = Learner(tasks, vectors, held, held_vectors, params, out, call)
        learned = yield from learner.run()
        out.write_array(_VECTORS, vectors + vectors @ learned.residual.T)
        out.write_array(_RESIDUAL, learned.residual)
        for name, array in learned.selector.items():
            out.write_array(f"{name}.npy", array)
        about: dict[str, Any] = {
            "techniques": tasks.techniques,
            "tokens": tasks.tokens.mean(0).tolist(),
            "ids": tasks.ids,
            "best": tasks.best.tolist(),
            "encoder": encoder.digest,
            "threshold": learned.threshold,
        }
        about["bounds"] = None if tasks.bounds is None else {"low": tasks.bounds.low, "high": tasks.bounds.high}
        out.write_json(_ABOUT, about)
        out.notes |= {"tasks": len(tasks.ids), "skipped": skipped, "seed": call.seed, "threshold": learned.threshold}
        out.notes |= {"measured": learned.measured}

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        about, names = self._about, np.array(self._about["techniques"])
        vectors = _scaled(self._encoder.encode(items.texts(), call))
        moved = vectors + vectors @ self._array(_RESIDUAL).T
        chances = 1 / (1 + np.exp(-logits(self._weights, moved).astype(float)))
        tokens = np.array(about["tokens"])
        utility = chances - self.params.price * tokens / 1000
        best = utility.argmax(1)
        known = self._array(_VECTORS)
        # |a - b|^2 = |a|^2 + |b|^2 - 2 a b, of which |a|^2 changes no order
        nearest = ((known**2).sum(1) - 2 * moved @ known.T).argmin(1)
        columns = {
            "utility": utility.max(1),
            "best": best.astype(np.int64),
            "technique": names[best],
            "expected_tokens": tokens[best],
            "nearest": np.array(about["ids"])[nearest],
            "nearest_technique": names[np.array(about["best"])[nearest]],
        }
        return Scores({**columns, **{f"p_{name}": chances[:, place] for place, name in enumerate(names)}})

    # ------------------------------------------------------------ the artifact

    @cached_property
    def _about(self) -> dict[str, Any]:
        assert self.artifact is not None  # the handle sees to it: `fitted` is "required"
        found: dict[str, Any] = self.artifact.read_json(_ABOUT)
        return found

    @cached_property
    def _encoder(self) -> Any:
        encoder = self.host.encoder(self.params.model)
        if encoder.digest != self._about["encoder"]:
            raise ArtifactMismatch(
                f"the selector was fitted with another encoder than {self.params.model!r}: name that one, or fit again",
                metadata={"model": self.params.model},
            )
        return encoder

    @cached_property
    def _weights(self) -> dict[str, np.ndarray]:
        return {
            f"{part}{layer}": self._array(f"{part}{layer}.npy") for layer in range(3) for part in ("weight", "bias")
        }

    def _array(self, name: str) -> np.ndarray:
        assert self.artifact is not None
        return self.artifact.read_array(name)


def _scaled(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors at length sqrt(d), so that numbers are of size 1 and a margin of 5 can be reached."""
    return vectors * np.float32(vectors.shape[1] ** 0.5)
