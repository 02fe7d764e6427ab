"""Runs and throughput measurements, read from items."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pickaxe import Item
from pickaxe.errors import InvalidItems
from pickaxe_plugins.scaling._curves import Place
from pickaxe_plugins.scaling.languini._stream import PAD

Unit = Literal["chars", "bytes"]


_ABSURD = 700.0
"""Nats for a character, byte or token of which a perplexity is no number any more; blind guesses take some 14."""


@dataclass(frozen=True)
class Run:
    """One trained and evaluated model.  NaN stands for what the item does not say."""

    row: int
    id: str
    model: str
    split: str
    nll: float
    """Sum over scored targets, in nats."""
    tokens: float
    chars: float
    bytes: float
    tokens_per_second: float
    steps: float
    batch: float
    seq_len: float
    device: str

    def length(self, unit: Unit) -> float:
        return self.chars if unit == "chars" else self.bytes

    def loss(self, unit: Unit) -> float:
        """Nats for each character or byte."""
        return self.nll / self.length(unit)

    @property
    def token_ppl(self) -> float:
        return math.exp(self.nll / self.tokens)

    @property
    def trained(self) -> float:
        return self.steps * self.batch * self.seq_len

    @property
    def hours(self) -> float:
        """Accelerator hours on the device of the throughput."""
        return self.trained / self.tokens_per_second / 3600

    def nearest(self, classes: Sequence[float], tolerance: float) -> float:
        """The compute class; 0 when none is within the tolerance."""
        if math.isnan(self.hours):
            return 0.0
        near = min(classes, key=lambda hours: abs(math.log(self.hours / hours)))
        return near if abs(self.hours / near - 1) <= tolerance else 0.0


def read_runs(items: Iterable[Item], where: str, unit: Unit, last_n: int | None) -> list[Run]:
    """The runs; raises `InvalidItems` naming item and field."""
    runs = []
    for row, item in enumerate(items):
        place = Place(item, f"{where}[{row}]")
        nll, tokens = _nll(place, last_n)
        chars, size = _lengths(place)
        if math.isnan(chars if unit == "chars" else size):
            field = "string_length" if unit == "chars" else "string_bytes"
            raise place.error(field, f"is missing, as is text: what is a perplexity per {unit[:-1]} without it")
        if nll > _ABSURD * (length := float(np.nanmin([chars, size, tokens]))):
            raise place.error("total_nll", f"is {nll:g} nats for a length of {length:g}: are both of the same text?")
        text = {name: str(place.item.get(name) or "") for name in ("model", "split", "device")}
        rest = {name: _number(place, name) for name in ("tokens_per_second", "steps", "batch", "seq_len")}
        runs.append(Run(row, item.id, text["model"] or item.id, text["split"], nll, tokens, chars, size,
                        **rest, device=text["device"]))  # fmt: skip
    return runs


def check_devices(runs: Sequence[Run], where: str) -> None:
    """Raise `InvalidItems` when throughputs of different devices would be compared."""
    named = {run.device for run in runs if run.device}
    if len(named) > 1:
        row = next(run.row for run in runs if run.device and run.device != runs[0].device)
        raise InvalidItems(
            f"{where}[{row}].fields.device",
            f"mixes devices ({', '.join(sorted(named))}): hours compare only on one; measure each throughput on it, or "
            "set allow_mixed",
        )


def _number(place: Place, name: str) -> float:
    value = place.number(name)
    return math.nan if value is None else value


def _nll(place: Place, last_n: int | None) -> tuple[float, float]:
    """Sum of the negative log-probabilities and how many there are; NaN for a count that is not known."""
    total = place.number("total_nll", above=None)
    given = place.item.get("token_logprobs")
    if (total is None) == (given is None):
        raise place.error("total_nll", "is missing: give total_nll or token_logprobs, and not both")
    if total is not None:
        if total < 0:
            raise place.error("total_nll", f"must be at least 0, in nats (got {total:g})")
        return total, _number(place, "token_count")
    logprobs = np.asarray(given, np.float64)
    scored = _last(place, logprobs, "token_logprobs", last_n)
    if not np.isfinite(scored).all() or (scored > 0).any():
        raise place.error("token_logprobs", "must be natural logarithms of probabilities: finite, at most 0")
    targets = place.item.get("targets")
    if targets is not None:
        ids = np.asarray(targets)
        if ids.shape != logprobs.shape:
            raise place.error("targets", f"has shape {ids.shape}, token_logprobs has {logprobs.shape}")
        scored = scored[_last(place, ids, "targets", last_n) != PAD]
    if not len(scored):
        raise place.error("token_logprobs", "holds nothing but padding: nothing was scored")
    return -float(scored.sum()), float(len(scored))


def _last(place: Place, values: np.ndarray, name: str, last_n: int | None) -> np.ndarray:
    """The values that count, in one row: of windows (w, seq_len) the last `last_n` of each."""
    if values.ndim == 1:
        return values
    if values.ndim != 2:
        raise place.error(name, f"has shape {values.shape}, wanted (n,) or (windows, seq_len)")
    kept = values.shape[1] if last_n is None else last_n
    if kept > values.shape[1] or values.shape[1] % kept:
        raise place.error(name, f"has windows of {values.shape[1]} targets, which last_n={kept} does not divide")
    return values[:, -kept:].ravel()


def _lengths(place: Place) -> tuple[float, float]:
    """Characters and bytes of the scored text; NaN for what is not known."""
    text = place.item.text
    if text is not None:
        if not text:
            raise place.error("text", "is empty: nothing was scored")
        return float(len(text)), float(len(text.encode()))
    return _number(place, "string_length"), _number(place, "string_bytes")


@dataclass(frozen=True)
class Throughput:
    """One measurement of training speed, 0 where memory was exceeded; `hours`, `batch`, `seq_len` are the plan's."""

    row: int
    model: str
    config: str
    device: str
    tokens_per_second: float
    batch_size: float
    hours: float
    batch: float
    seq_len: float

    @property
    def configuration(self) -> str:
        return f"{self.model} {self.config}".strip()


def read_throughputs(items: Iterable[Item], hours: float, batch: int, seq_len: int) -> list[Throughput]:
    """The measurements, with the parameters' plan where the items have none."""
    found = []
    for row, item in enumerate(items):
        place = Place(item, f"items[{row}]")
        speed = place.number("tokens_per_second", above=None)
        if speed is not None and speed < 0:
            raise place.error("tokens_per_second", f"must be above 0, or 0 where memory was exceeded (got {speed:g})")
        if speed is None:
            raise place.error("tokens_per_second", "is missing: measure the throughput of the configuration")
        text = [str(item.get(name) or "") for name in ("model", "config", "device")]
        plan = [place.number(name) or standard
                for name, standard in (("hours", hours), ("batch", batch), ("seq_len", seq_len))]  # fmt: skip
        found.append(Throughput(row, text[0] or item.id, text[1], text[2], speed, _number(place, "batch_size"), *plan))
    return found
