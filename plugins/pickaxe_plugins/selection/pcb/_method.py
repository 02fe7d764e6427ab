"""PCB: which items to label next, informative ones in balance over pseudo classes (arXiv 2311.11178)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

import pickaxe
from pickaxe import (
    ArtifactWriter,
    Call,
    Column,
    Example,
    Flag,
    InputField,
    Item,
    Items,
    Method,
    Progress,
    Scores,
)
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe.randomness import generator
from pickaxe_plugins.selection._embeddings import EMBEDDING, TEXT, Embedder
from pickaxe_plugins.selection.pcb import _classes, _pick, _report
from pickaxe_plugins.selection.pcb._classes import Mode, class_matrix
from pickaxe_plugins.selection.pcb._pick import Base, Fallback, balanced

__all__ = ["PCB", "Params", "balanced", "class_matrix"]

_ABOUT, _MATRIX = "about.json", "class_matrix.npy"
Vector = tuple[float, ...]


class Params(pickaxe.Params):
    """Parameters of `pcb`."""

    classes: tuple[str, ...] = Field((), description="Names of the classes, two or more; not needed with an artifact.")
    class_vectors: tuple[tuple[Vector, ...], ...] = Field(
        (), description="For each class the vectors of its name or descriptions, in the space of the items' embeddings."
    )
    template: str = Field("{}", min_length=1, description="What is encoded for a class without vectors; {}: its name.")
    descriptions: dict[str, tuple[str, ...]] = Field({}, description="For AS and AE: class to texts about it.")
    mode: Mode = Field(
        "none", description="none: names; AS: mean of the logits of descriptions; AE: of their embeddings."
    )
    logit_scale: float = Field(100.0, gt=0, description="Factor of the cosines, exp(logit_scale) of CLIP.")
    base: Base = Field("entropy", description="What makes an item informative.")
    gamma: float = Field(
        0.1, gt=0, le=1, description="Share of all items, labelled ones included, that is informative."
    )
    n_query: int | None = Field(None, ge=1, description="How many to select; null: as many as classes.")
    fallback: Fallback = Field(
        "reference", description="Without a candidate of the wanted class: the rest at random, or next_class."
    )
    epochs: int = Field(200, ge=1, description="Fit: passes over the labelled items.")
    lr: float = Field(0.002, gt=0, description="Fit: learning rate.")
    batch: int = Field(32, ge=1, description="Fit: labelled items in a step.")
    model: str = Field("encoder", min_length=1, description="Sentence encoder of texts, names and descriptions.")

    @model_validator(mode="after")
    def _classes_fit(self) -> Self:
        if self.classes and (len(self.classes) < 2 or len(set(self.classes)) < len(self.classes)):
            raise ValueError("classes must be two or more different names")
        if self.class_vectors and len(self.class_vectors) != len(self.classes):
            raise ValueError(f"class_vectors are {len(self.class_vectors)} for {len(self.classes)} classes")
        widths = {len(vector) for of_class in self.class_vectors for vector in of_class}
        if len(widths) > 1 or 0 in widths:
            raise ValueError("class_vectors must have one length")
        told = [len(of) for of in self.class_vectors] or [len(self.descriptions.get(each, ())) for each in self.classes]
        if self.mode != "none" and 0 in told:
            raise ValueError(f"mode {self.mode} needs a description of class {self.classes[told.index(0)]!r}")
        if self.mode == "none" and any(count != 1 for count in map(len, self.class_vectors)):
            raise ValueError("class_vectors must have one vector a class; mode AS or AE takes more")
        return self


@dataclass(frozen=True)
class Classes:
    """Names and (K, d) matrix."""

    names: tuple[str, ...]
    matrix: np.ndarray
    scale: float

    def labels(self, items: Sequence[Item], where: str) -> np.ndarray:
        """(n,) class of each item, -1 without a label; raises `InvalidItems` for other classes."""
        place = {name: at for at, name in enumerate(self.names)}
        found = np.full(len(items), -1)
        for row, item in enumerate(items):
            label = item.get("label")
            if label is not None:
                if label not in place:
                    raise InvalidItems(f"{where}[{row}].fields.label", f"{label!r} is no class (item {item.id!r})")
                found[row] = place[str(label)]
        return found


class PCB(Method[Params]):
    """Choose which items to label next: informative ones, in balance over the classes they seem to have.

    Items with a `label` are labelled, all others the pool.  `fit` learns class vectors from labelled items.
    """

    title = "Active Prompt Learning in Vision Language Models"
    paper = "arXiv:2311.11178"
    version = 1
    Params = Params
    scope = "pool"
    reads = (EMBEDDING, TEXT, InputField("label", "text", "Class of a labelled item.", False))
    fit_reads = (EMBEDDING, TEXT, InputField("label", "text", "Class of the item."))
    columns = (
        Column("priority", "n_query + 1 - order if selected, else informativeness, in (0, 1); 0: labelled", "float64"),
        Column("selected", "1: label this one next", "int64"),
        Column("order", "1, 2 ... of the selected ones; 0: none", "int64", "", "none"),
        Column("pseudo_label", "index of the likeliest class", "int64", "", "none"),
        Column("entropy", "-sum p ln(p + 1e-6)", "float64", "nats", "none"),
        Column("informative", "1: among the share gamma", "int64"),
    )
    fitted = "optional"
    stages = ("read", "train")
    cost = (
        "N K d for probabilities; coreset N q d and badge N q (K + d) for a subset of q.  Memory: 8 N d bytes for "
        "vectors and 16 N K for probabilities."
    )
    reproduced = (
        "Golden cases; on digits, entropy with PCB beats entropy alone and random choice and balances the labels."
    )

    @classmethod
    def example(cls) -> Example:
        """Three classes in a plane; the first has two labels."""
        rng = np.random.default_rng(0)
        corners = np.array([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])
        made = [corners[row % 3] + rng.normal(0, 0.2, 2) for row in range(18)]
        named = {0: "east", 3: "east", 1: "north"}
        items = tuple(
            Item(f"i{row:02}", fields={"embedding": each} | ({"label": named[row]} if row in named else {}))
            for row, each in enumerate(made)
        )
        params = {
            "classes": ["east", "north", "south"],
            "class_vectors": [[corner] for corner in corners.tolist()],
            "logit_scale": 10.0,
            "gamma": 0.5,
            "epochs": 5,
        }
        return Example(params, items, examples=tuple(item for item in items if "label" in item.fields))

    def declared_columns(self) -> tuple[Column, ...]:
        if self.artifact is None:
            return self.columns
        names = self.artifact.read_json(_ABOUT)["classes"]
        return self.columns + tuple(
            Column(f"p:{name}", f"probability of class {name}", "float64", "", "none") for name in names
        )

    # ------------------------------------------------------------ classes

    def _start(self, call: Call) -> Classes:
        """Before any learning: vectors of the classes' names or descriptions."""
        params = self.params
        if not params.classes:
            raise InvalidParams("classes", "are needed: name two or more, or give an artifact")
        vectors = [np.array(of_class) for of_class in params.class_vectors]
        if not vectors:
            told = [
                [params.template.replace("{}", name)] if params.mode == "none" else params.descriptions[name]
                for name in params.classes
            ]
            encoder = self.host.encoder(params.model)
            vectors = [encoder.encode(texts, call, normalize=False) for texts in told]
        return Classes(params.classes, class_matrix(vectors, params.mode), params.logit_scale)

    @cached_property
    def _learned(self) -> Classes:
        assert self.artifact is not None
        about: Mapping[str, Any] = self.artifact.read_json(_ABOUT)
        if self.params.classes and list(self.params.classes) != about["classes"]:
            raise ArtifactMismatch(
                "the artifact has other classes than the parameter: leave `classes` out, or fit again"
            )
        return Classes(tuple(about["classes"]), np.array(self.artifact.read_array(_MATRIX)), about["logit_scale"])

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        """Learn class vectors from scratch, that is from the names; `validation` is only measured on."""
        classes, params = self._start(call), self.params
        features, labels = self._labelled(examples, "examples", classes, call)
        yield Progress("read", len(labels), len(labels))
        steps = _classes.learn(
            classes.matrix,
            features,
            labels,
            classes.scale,
            epochs=params.epochs,
            rate=params.lr,
            batch=params.batch,
            rng=generator(call.seed, "pcb", "fit"),
            normalised=params.mode != "AS",
        )
        for epoch, step in enumerate(steps, 1):
            matrix, loss = step
            yield Progress("train", epoch, params.epochs, {"loss": loss})
        out.write_array(_MATRIX, matrix)
        counts = np.bincount(labels, minlength=len(classes.names))
        out.write_json(_ABOUT, {"classes": list(classes.names), "logit_scale": classes.scale})
        out.notes |= {"labelled": counts.tolist(), "imbalance": float(counts.std()), "loss": loss}
        if validation is not None:
            held, truth = self._labelled(validation, "validation", classes, call)
            out.notes["accuracy"] = float(((held @ matrix.T).argmax(axis=1) == truth).mean())

    def _labelled(
        self, given: Iterable[Item], where: str, classes: Classes, call: Call
    ) -> tuple[np.ndarray, np.ndarray]:
        items = list(given)
        if not items:
            raise InvalidItems(where, "are empty: give labelled items")
        return self._features(items, where, classes, call), classes.labels(items, where)

    def _features(self, items: Sequence[Item], where: str, classes: Classes, call: Call) -> np.ndarray:
        embedder = Embedder(self.host, self.params.model, unit=True, width=classes.matrix.shape[1])
        return embedder.rows(items, where, call)

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        if not len(items):
            return Scores({each.name: np.empty(0, each.dtype) for each in self.declared_columns()})
        classes = self._start(call) if self.artifact is None else self._learned
        # By id: what is drawn, and which of equals comes first, does not depend on the order of the items.
        order = sorted(range(len(items)), key=lambda row: (items[row].id, row))
        sorted_items = [items[row] for row in order]
        features = self._features(items, "items", classes, call)[order]
        labels = classes.labels(items, "items")[order]
        probabilities = _classes.probabilities(features, classes.matrix, classes.scale, call)
        columns, summary, flags = self._chosen(sorted_items, features, labels, probabilities, classes, call)
        back = np.argsort(order)
        columns |= {f"p:{name}": probabilities[:, at] for at, name in enumerate(classes.names) if self.artifact}
        found = {name: values[back] for name, values in columns.items()}
        return Scores(found, summary=summary, flags=tuple(Flag(order[0], *flag) for flag in flags))

    def _chosen(
        self,
        items: Sequence[Item],
        features: np.ndarray,
        labels: np.ndarray,
        probabilities: np.ndarray,
        classes: Classes,
        call: Call,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any], list[tuple[str, str]]]:
        params, k = self.params, len(classes.names)
        pool, wanted = np.flatnonzero(labels < 0), params.n_query or k
        if wanted > len(pool):
            raise InvalidParams("n_query", f"is {wanted}, only {len(pool)} items are not labelled")
        flags, size = list[tuple[str, str]](), int(params.gamma * len(items) + 1e-9)
        if size < wanted:
            flags.append(("subset-raised", f"gamma makes {size} informative items, raised to n_query, {wanted}"))
        size = min(max(size, wanted), len(pool))
        rng = generator(call.seed, "pcb", int((labels >= 0).sum()))
        counts = np.bincount(labels[labels >= 0], minlength=k)
        base: Base = params.base if counts.sum() else "random"
        best = _pick.informative(base, probabilities[pool], features[pool], features[labels >= 0], size, rng, call)
        subset, pseudo = pool[best], probabilities.argmax(axis=1)
        if counts.sum():
            picks, forced = balanced(pseudo[subset], counts, wanted, rng, params.fallback)
        else:
            picks, forced = np.arange(wanted), np.zeros(wanted, bool)
        rows = subset[picks]
        columns = _columns(rows, subset, pool, _pick.entropy(probabilities), pseudo)
        note = flags[0][1] + "." if flags else ""
        picked = np.bincount(pseudo[rows], minlength=k)
        return columns, _report.tell(classes.names, counts, picked, int((~forced).sum()), note), flags


def _columns(
    rows: np.ndarray, subset: np.ndarray, pool: np.ndarray, entropy: np.ndarray, pseudo: np.ndarray
) -> dict[str, np.ndarray]:
    n = len(entropy)
    order, informative, priority = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n)
    order[rows], informative[subset] = np.arange(1, len(rows) + 1), 1
    rest = pool[~np.isin(pool, subset)]
    ranking = np.concatenate([subset, rest[np.argsort(-entropy[rest], kind="stable")]])
    priority[ranking] = 1 - np.arange(1, len(ranking) + 1) / (len(ranking) + 1)
    priority[rows] = len(rows) + 1 - order[rows]
    return {
        "priority": priority,
        "selected": (order > 0).astype(np.int64),
        "order": order,
        "pseudo_label": pseudo,
        "entropy": entropy,
        "informative": informative,
    }
