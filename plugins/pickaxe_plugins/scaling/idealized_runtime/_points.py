"""Profile points of deployments, gathered from examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pickaxe import Item
from pickaxe_plugins.scaling._curves import Place
from pickaxe_plugins.scaling.idealized_runtime._profile import Trial

_COUNTS = ("batch_size", "hidden", "layers")
_NUMBERS = ("num_accelerators", "price_per_hour")
_TEXTS = ("tokenizer", "hardware")


@dataclass
class Trials:
    """Seconds by (prompt tokens, output tokens), and facts of the deployment, of one deployment."""

    seconds: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, p: int, o: int, seconds: np.ndarray) -> None:
        self.seconds[p, o] = np.concatenate([self.seconds.get((p, o), np.empty(0)), seconds])


@dataclass
class Points:
    """Trials by deployment."""

    trials: dict[str, Trials] = field(default_factory=dict)

    @classmethod
    def read(cls, examples: Iterable[Item]) -> Points:
        """Points of the examples; trials of equal sizes are pooled.

        Raises `InvalidItems` for sizes and runtimes that cannot be, and for facts of a deployment that differ.
        """
        found = cls()
        for row, item in enumerate(examples):
            place = Place(item, f"examples[{row}]")
            trials = found.trials.setdefault(str(item.get("deployment") or "default"), Trials())
            trials.add(_size(place, "num_prompt_tokens", 1), _size(place, "num_output_tokens", 1), _seconds(place))
            for name, value in _facts(place).items():
                if trials.facts.setdefault(name, value) != value:
                    raise place.error(
                        name, f"is {value!r} here and {trials.facts[name]!r} before: give each its own deployment"
                    )
        return found

    def add(self, name: str, trials: Iterable[Trial], facts: Mapping[str, Any]) -> None:
        """Trials of a profiled decoder."""
        held = self.trials.setdefault(name, Trials())
        held.facts |= facts
        for p, o, seconds in trials:
            held.add(p, o, np.array([seconds]))

    def as_json(self) -> dict[str, Any]:
        return {
            name: {
                "trials": [[p, o, seconds.tolist()] for (p, o), seconds in sorted(trials.seconds.items())],
                "facts": trials.facts,
            }
            for name, trials in self.trials.items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Points:
        return cls(
            {
                name: Trials({(p, o): np.array(seconds) for p, o, seconds in held["trials"]}, held["facts"])
                for name, held in value.items()
            }
        )


def _size(place: Place, name: str, least: int) -> int:
    value = place.number(name, above=None)
    if value is None:
        raise place.error(name, "is missing")
    if value < least or value != round(value):
        raise place.error(name, f"must be a whole number of at least {least} (got {value:g})")
    return round(value)


def _seconds(place: Place) -> np.ndarray:
    several, one = place.array("runtimes"), place.number("runtime")
    if (several is None) == (one is None):
        raise place.error("runtimes", "is missing: give runtimes or runtime, and not both")
    seconds = np.array([one]) if several is None else several
    if not len(seconds) or (seconds <= 0).any():
        raise place.error("runtimes", "must hold at least one number, all above 0")
    return seconds


def _facts(place: Place) -> dict[str, Any]:
    facts: dict[str, Any] = {name: _size(place, name, 1) for name in _COUNTS if place.item.get(name) is not None}
    facts |= {name: value for name in _NUMBERS if (value := place.number(name)) is not None}
    facts |= {name: str(text) for name in _TEXTS if (text := place.item.get(name))}
    return facts
