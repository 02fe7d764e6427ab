"""What `mates` probes: a causal model on disk with the state of its training, and texts as its tokens."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pickaxe import Host, Item
from pickaxe.artifact import file_digest
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe.extras import require
from pickaxe.lm.network import tokenizer_of
from pickaxe.lm.weights import Architecture, open_checkpoint
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.selection.mates._probe import State
from pickaxe_plugins.train import llama, trained
from pickaxe_plugins.train.loop import Text
from pickaxe_plugins.train.trained import Trained

_MOMENT = re.compile(r"^state.*\.(mu|nu)\['(.+)'\]$")
"""How `trained.write` names Adam's moments, whatever they are chained with."""


@dataclass(frozen=True, slots=True)
class Base:
    """A model in the middle of its training."""

    architecture: Architecture
    tokenizer: Tokenizer
    state: State
    step: int
    digest: str
    """sha256 of the model's files and of the training state."""

    @classmethod
    def open(cls, host: Host, model: str, fresh_optimizer: bool) -> Base:
        """Read the model, and beside it `training.safetensors`, whose weights are the ones that count.

        Raises `InvalidParams` when Adam's moments are not there, unless a fresh optimiser is allowed.
        """
        path = host.model_path(model)
        checkpoint = open_checkpoint(path)
        weights = llama.load(checkpoint.architecture, checkpoint.tensors)
        file, step, digest = path / trained.FILE, 0, checkpoint.digest
        if file.is_file():
            found = trained.read(file, Trained(weights))
            weights, step = found.tree, found.step
            digest = hashlib.sha256(f"{digest} {file_digest(file)}".encode()).hexdigest()
        state = State.fresh(weights) if fresh_optimizer else moments(file, weights)
        if state is None:
            raise InvalidParams(
                "model",
                f"{model!r} has no optimiser state, without which scores are noise: write it as {trained.FILE} with "
                "pickaxe_plugins.train.trained, or allow fresh_optimizer",
            )
        return cls(checkpoint.architecture, tokenizer_of(host.models, path), state, step, digest)

    def probe(self, text: str, most: int) -> Text | None:
        """The first tokens of a text, all but the first of which count; None when there is no second one."""
        ids = np.array(self.tokenizer.encode(text)[: min(most, self.architecture.context)], np.int32)
        return counted(ids, 1, 1.0) if len(ids) > 1 else None

    def reference(self, items: Iterable[Item]) -> list[Text]:
        """Contexts and targets as tokens, of which the targets' count; a long context loses its beginning."""
        found: list[Text] = []
        for row, item in enumerate(items):
            context = self.tokenizer.encode(str(item.get("context") or ""))
            given = item.get("target")
            target = self.tokenizer.encode(str(item.text or "") if given is None else str(given))
            ids = np.array([*context, *target], np.int32)
            first = max(1, len(context))
            weight = item_weight(item, row)
            if len(ids) <= first:
                raise InvalidItems(f"validation[{row}].fields.target", f"has no token to predict (item {item.id!r})")
            cut = max(0, len(ids) - self.architecture.context)
            if weight:
                found.append(counted(ids[cut:], max(1, first - cut), weight))
        if not found:
            raise InvalidItems("validation", "holds no reference with weight: influence is about the loss on them")
        return found


def counted(ids: np.ndarray, first: int, weight: float) -> Text:
    """The tokens from place `first` on count, each with that weight."""
    weights = np.full(len(ids), weight, np.float32)
    weights[:first] = 0
    return Text(ids, weights)


def item_weight(item: Item, row: int) -> float:
    """The field `weight`, by default 1."""
    weight = item.get("weight")
    if weight is None:
        return 1.0
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
        raise InvalidItems(f"validation[{row}].fields.weight", f"must be a number from 0 (item {item.id!r})")
    return float(weight)


def moments(file: Path, weights: dict[str, np.ndarray]) -> State | None:
    """Adam's moments in a file of `trained.write`; None when it has none."""
    if not file.is_file():
        return None
    found: dict[str, dict[str, np.ndarray]] = {"mu": {}, "nu": {}}
    counts: list[int] = []
    with require("safetensors", extra="cpu").safe_open(str(file), "numpy") as stored:
        for name in stored.keys():  # noqa: SIM118 - it is no dictionary
            matched = _MOMENT.match(name)
            if matched:
                found[matched[1]][matched[2]] = stored.get_tensor(name)
            elif name.startswith("state") and name.endswith(".count"):
                counts.append(int(stored.get_tensor(name)))
    if not counts or not found["mu"]:
        return None
    for kind, named in found.items():
        odd = sorted(named.keys() ^ weights.keys()) or [
            name for name, array in named.items() if array.shape != weights[name].shape
        ]
        if odd:
            raise ArtifactMismatch(
                f"{str(file)!r} has moments ({kind}) of another network: {odd[0]} differs",
                metadata={"artifact": file, "tensor": odd[0]},
            )
    return State(weights, found["mu"], found["nu"], max(counts))


def given_influence(items: Sequence[Item]) -> np.ndarray | None:
    """(n,) the field `influence` of all items, None when no item has it."""
    values = [item.get("influence") for item in items]
    if all(value is None for value in values):
        return None
    for row, (item, value) in enumerate(zip(items, values, strict=True)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidItems(
                f"examples[{row}].fields.influence",
                f"must be a finite number, as all examples or none have it (item {item.id!r})",
            )
    return np.array(values, np.float64)
