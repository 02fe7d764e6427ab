"""Fields of `eval-variance`, read from items and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pickaxe import Item
from pickaxe.errors import InvalidItems


@dataclass(frozen=True)
class Place:
    """An item and where it stands, for errors that name both."""

    item: Item
    row: int
    where: str
    name: str
    """Its id, told apart from equal ones."""

    @property
    def group(self) -> str:
        return str(self.item.get("group") or "")

    def error(self, field: str, what: str) -> InvalidItems:
        return InvalidItems(f"{self.where}.fields.{field}", f"{what} (item {self.item.id!r})")

    def array(self, field: str, *dimensions: int) -> np.ndarray | None:
        """Finite numbers as float64, of one of these numbers of dimensions and not empty; None when absent."""
        value = self.item.get(field)
        if value is None:
            return None
        if isinstance(value, (dict, str)) or np.asarray(value).dtype.kind not in "biuf":
            raise self.error(
                field,
                "is no array of numbers: its rows may differ in length, cells be empty, or marks be decimal commas",
            )
        array = np.asarray(value, np.float64)
        if array.ndim not in dimensions or not array.size:
            wanted = " or ".join(map(str, dimensions))
            raise self.error(field, f"has shape {array.shape}, wanted {wanted} dimensions, none of them empty")
        if len(wrong := np.argwhere(~np.isfinite(array))):
            at = wrong[0].tolist()
            raise self.error(
                field, f"is {array[tuple(at)]} at {at}: fill that cell, or leave out its run or checkpoint"
            )
        return array

    def needed(self, field: str, *dimensions: int) -> np.ndarray:
        array = self.array(field, *dimensions)
        if array is None:
            raise self.error(field, "is missing")
        return array

    def shares(self, field: str, *dimensions: int) -> np.ndarray:
        """A needed array of numbers from 0 to 1."""
        array = self.needed(field, *dimensions)
        self.within(field, array)
        return array

    def within(self, field: str, array: np.ndarray) -> None:
        outside = array[(array < 0) | (array > 1)]
        if len(outside):
            raise self.error(field, f"holds {outside[0]:g}, outside 0 to 1: divide percent by 100")

    def places_of(self, field: str, n: int) -> np.ndarray:
        """Different whole numbers from 0 to n - 1."""
        array = self.needed(field, 1)
        found = array.astype(np.int64)
        if (found != array).any() or (found < 0).any() or (found >= n).any():
            raise self.error(field, f"must hold whole numbers from 0 to {n - 1}, the places of the items of fit")
        if len(np.unique(found)) < len(found):
            raise self.error(field, "names an item twice")
        return found

    def one_of(self, field: str, *known: str) -> str:
        """A label; the first of `known` when absent."""
        value = self.item.get(field)
        if value is None:
            return known[0]
        if value not in known:
            raise self.error(field, f"is {value!r}, wanted {' or '.join(map(repr, known))}")
        return str(value)

    def number(self, field: str) -> float | None:
        """A finite number, not negative; None when absent."""
        value = self.item.get(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise self.error(field, f"must be a number of at least 0 (got {value!r})")
        return float(value)


def places(items: Sequence[Item], where: str = "items") -> list[Place]:
    seen: dict[str, int] = {}
    found = []
    for row, item in enumerate(items):
        seen[item.id] = seen.get(item.id, 0) + 1
        name = item.id if seen[item.id] == 1 else f"{item.id} ({seen[item.id]})"
        found.append(Place(item, row, f"{where}[{row}]", name))
    return found


@dataclass(frozen=True)
class Benchmark:
    """Scores of runs of one benchmark, or of one way to measure it."""

    place: Place
    scores: np.ndarray
    """(S, T): seeds x checkpoints."""
    items: np.ndarray | None
    """(S, n) or (S, n, R): scores of the items at the last checkpoint, R samples each."""
    trajectories: np.ndarray | None
    """(S, T, n): scores of the items at every checkpoint."""
    responses: np.ndarray | None
    """(M, n): scores of the items by models, for item analysis."""
    sign: int
    """-1 where lower is better."""
    steps: np.ndarray
    """(T,): tokens, or the numbers of the checkpoints."""
    tokens: bool


def benchmark(place: Place) -> Benchmark:
    """Read one item of mode benchmark."""
    trajectories = place.array("item_trajectories", 3)
    scores, items = place.array("scores", 1, 2), place.array("item_scores", 2, 3)
    if scores is None and trajectories is None:
        raise place.error("scores", "is missing: give seeds x checkpoints, or item_trajectories")
    if scores is None:
        assert trajectories is not None
        scores = trajectories.mean(axis=2)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if trajectories is not None:
        if trajectories.shape[:2] != scores.shape:
            raise place.error(
                "item_trajectories",
                f"is of {trajectories.shape[0]} seeds and {trajectories.shape[1]} checkpoints, scores of "
                f"{scores.shape[0]} and {scores.shape[1]}",
            )
        items = trajectories[:, -1] if items is None else items
    if items is not None and len(items) != len(scores):
        raise place.error("item_scores", f"is of {len(items)} seeds, scores of {len(scores)}")
    responses = place.array("responses", 2)
    if responses is not None and items is not None and responses.shape[1] != items.shape[1]:
        raise place.error("responses", f"is of {responses.shape[1]} items, item_scores of {items.shape[1]}")
    if place.one_of("kind", "", "accuracy") == "accuracy":
        for field, array in (("scores", scores), ("item_scores", items), ("item_trajectories", trajectories)):
            if array is not None:
                place.within(field, array)
    sign = 1 if place.one_of("direction", "higher", "lower") == "higher" else -1
    tokens = _tokens(place, scores.shape)
    steps = np.arange(1.0, scores.shape[1] + 1) if tokens is None else tokens
    return Benchmark(place, scores, items, trajectories, responses, sign, steps, tokens is not None)


def _tokens(place: Place, shape: tuple[int, ...]) -> np.ndarray | None:
    tokens = place.array("checkpoint_tokens", 1, 2)
    if tokens is None:
        return None
    if tokens.ndim == 2:
        if tokens.shape[0] != shape[0] or (tokens != tokens[0]).any():
            raise place.error("checkpoint_tokens", "differs between seeds: compare checkpoints of equal token counts")
        tokens = tokens[0]
    if len(tokens) != shape[1]:
        raise place.error("checkpoint_tokens", f"has {len(tokens)} values, scores have {shape[1]} checkpoints")
    if (np.diff(tokens) <= 0).any() or tokens[0] < 0:
        raise place.error("checkpoint_tokens", "must rise: sort the checkpoints by the tokens they have seen")
    return tokens
