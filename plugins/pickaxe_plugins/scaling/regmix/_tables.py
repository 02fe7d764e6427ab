"""Proxy runs and candidate mixtures out of items: nested, as tensors, or one column a domain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickaxe import Item
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe_plugins.scaling.regmix._params import Params

LOSS = "loss"
"""The field of a single loss, and its name as a target."""


@dataclass(frozen=True)
class Runs:
    """Mixtures (n, D) and what was measured of them (n, T), both float64, in an order fixed by the ids."""

    ids: tuple[str, ...]
    mixtures: np.ndarray
    losses: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, rows: np.ndarray) -> Runs:
        return Runs(tuple(self.ids[row] for row in rows), self.mixtures[rows], self.losses[rows])


@dataclass(frozen=True)
class Reader:
    """What to read of an item.  `domains` are in the order of the regressor's features."""

    domains: tuple[str, ...]
    targets: tuple[str, ...]
    tolerance: float
    normalise: bool

    @classmethod
    def of(cls, item: Item, params: Params) -> Reader:
        """By the parameters and, where they leave it open, the first example."""
        mixture = item.get("mixture")
        named = {*(params.prior or ()), *(mixture if isinstance(mixture, dict) else ())}
        domains = params.domains or tuple(sorted(named))
        if not domains:
            raise InvalidParams(
                "domains", "are missing: name them, unless items have a field `mixture` that maps domains to weights"
            )
        return cls(domains, _targets(item, params), params.sum_tolerance, params.normalise)

    def mixture(self, item: Item, where: str) -> np.ndarray:
        """The weights (D,) of one item."""
        place, values = self._weights(item, f"{where}.fields")
        if strange := sorted(set(values) - set(self.domains)):
            raise InvalidItems(f"{place}.{strange[0]}", f"is no domain; known are {', '.join(self.domains)}{_id(item)}")
        if missing := [name for name in self.domains if name not in values]:
            raise InvalidItems(f"{place}.{missing[0]}", f"is missing: give 0 for a domain that is not used{_id(item)}")
        weights = np.array([_number(values[name], f"{place}.{name}", item) for name in self.domains])
        if (weights < 0).any():
            raise InvalidItems(f"{place}.{self.domains[int(weights.argmin())]}", f"is negative{_id(item)}")
        return self._scaled(weights, place, item)

    def _weights(self, item: Item, place: str) -> tuple[str, Mapping[str, Any]]:
        """Where they stand, and the weights by domain: from `mixture`, else `weights`, else one field a domain."""
        mixture, weights = item.get("mixture"), item.get("weights")
        if isinstance(mixture, dict):
            return f"{place}.mixture", mixture
        if not isinstance(weights, np.ndarray):
            return place, {name: item.get(name) for name in self.domains if item.get(name) is not None}
        if weights.shape != (len(self.domains),):
            raise InvalidItems(
                f"{place}.weights", f"has shape {weights.shape}, there are {len(self.domains)} domains{_id(item)}"
            )
        return f"{place}.weights", dict(zip(self.domains, weights.tolist(), strict=True))

    def _scaled(self, weights: np.ndarray, place: str, item: Item) -> np.ndarray:
        total = float(weights.sum())
        if self.normalise and total > 0:
            return weights / total
        if abs(total - 1) > self.tolerance:
            hint = " (they look like percent)" if abs(total - 100) < 1 else ""
            raise InvalidItems(
                place,
                f"weights add up to {total:.6g}, not to 1 within {self.tolerance:g}{hint}: correct them, or set "
                f"normalise to have them scaled{_id(item)}",
            )
        return weights

    def losses(self, item: Item, where: str) -> np.ndarray:
        """What was measured (T,)."""
        found = [_loss(item, name) for name in self.targets]
        for name, value in zip(self.targets, found, strict=True):
            if value is None:
                raise InvalidItems(
                    f"{where}.fields",
                    f"have no target {name!r}; there are {', '.join(_offered(item)) or 'none'}{_id(item)}: fill it, or "
                    "leave the run out",
                )
        return np.array(
            [
                _number(value, f"{where}.fields.losses.{name}", item)
                for name, value in zip(self.targets, found, strict=True)
            ]
        )

    def measured(self, item: Item, where: str) -> np.ndarray:
        """The same of a mixture to be scored: NaN (T,) unless every target was measured."""
        if any(_loss(item, name) is None for name in self.targets):
            return np.full(len(self.targets), np.nan)
        return self.losses(item, where)

    def runs(self, items: Iterable[Item], label: str) -> Runs:
        """All runs, in the order of their ids (shorter ones first, so that numbers count up), each once."""
        found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for row, item in enumerate(items):
            where = f"{label}[{row}]"
            mixture, losses = self.mixture(item, where), self.losses(item, where)
            if item.id in found:
                before = found[item.id]
                if not (np.array_equal(before[0], mixture) and np.array_equal(before[1], losses)):
                    raise InvalidItems(f"{where}.id", f"{item.id!r} was used before, with other weights or losses")
            found[item.id] = mixture, losses
        ids = sorted(found, key=lambda each: (len(each), each))
        mixtures = np.array([found[each][0] for each in ids]).reshape(len(ids), len(self.domains))
        losses = np.array([found[each][1] for each in ids]).reshape(len(ids), len(self.targets))
        return Runs(tuple(ids), mixtures, losses)


def _targets(item: Item, params: Params) -> tuple[str, ...]:
    if isinstance(params.target, dict):
        return tuple(sorted(params.target))
    if params.target:
        return (params.target,)
    offered = _offered(item)
    if len(offered) != 1:
        raise InvalidParams(
            "target", f"is missing: name one of {', '.join(offered) or '(no losses found)'}, or weights of several"
        )
    return (offered[0],)


def _offered(item: Item) -> Sequence[str]:
    """Targets that the item has."""
    losses = item.get("losses")
    if isinstance(losses, dict):
        return sorted(name for name, value in losses.items() if value is not None)
    return [LOSS] if item.get(LOSS) is not None else []


def _loss(item: Item, name: str) -> object:
    """From `losses`, or a field of that name, of which `loss` is the usual one."""
    losses = item.get("losses")
    return losses[name] if isinstance(losses, dict) and name in losses else item.get(name)


def _number(value: object, place: str, item: Item) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        hint = ": write a decimal point" if isinstance(value, str) and "," in value else ""
        raise InvalidItems(place, f"is {value!r}, wanted a number{hint}{_id(item)}")
    if not math.isfinite(value):
        raise InvalidItems(place, f"is {float(value)}, wanted a finite number: leave out runs without one{_id(item)}")
    return float(value)


def _id(item: Item) -> str:
    return f" (item {item.id!r})"
