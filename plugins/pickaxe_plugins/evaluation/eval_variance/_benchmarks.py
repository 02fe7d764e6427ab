"""What seeds, items and checkpoints say about benchmarks, and about the same benchmarks with fewer items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pickaxe import Call
from pickaxe.randomness import generator
from pickaxe_plugins.evaluation.eval_variance import _item_response, _seed_stats
from pickaxe_plugins.evaluation.eval_variance._read import Benchmark

_NUMBERS = 1 << 18
"""Most scores whose rank correlations are taken at once: they stay in the processor's cache."""


@dataclass(frozen=True)
class Settings:
    ddof: int
    bootstrap: int
    drop_quantile: float
    irt_items: int


@dataclass(frozen=True)
class Standing:
    """One benchmark, measured; NaN where the input does not say."""

    benchmark: Benchmark
    mean: float
    std: float
    half_width: float
    analytic: float
    ends: tuple[float, float]
    wilson: tuple[float, float]
    taus: np.ndarray
    """One per seed, NaN for a constant trajectory."""
    ddof: int
    variants: tuple[Variant, ...] = field(default=())

    @property
    def name(self) -> str:
        return self.benchmark.place.name

    @property
    def seeds(self) -> int:
        return len(self.benchmark.scores)

    @property
    def checkpoints(self) -> int:
        return self.benchmark.scores.shape[1]

    @property
    def snr(self) -> float:
        """|mean| / standard deviation over seeds: a sign turned for direction lower changes nothing."""
        if self.std == 0:
            return math.inf
        return abs(self.mean) / self.std

    @property
    def least(self) -> float:
        return _seed_stats.detectable_difference(self.std)

    @property
    def constant(self) -> int:
        """Trajectories that never move, of which tau-b is not defined."""
        return int(np.isnan(self.taus).sum()) if self.checkpoints > 1 else 0

    @property
    def tau(self) -> float:
        known = self.taus[~np.isnan(self.taus)]
        return float(known.mean()) if len(known) else math.nan

    @property
    def tau_min(self) -> float:
        known = self.taus[~np.isnan(self.taus)]
        return float(known.min()) if len(known) else math.nan


@dataclass(frozen=True)
class Variant:
    """The same benchmark from fewer items."""

    kind: str
    items: int
    standing: Standing
    agreement: float
    """Kendall's tau-b of the models' scores with those on all items; NaN without responses."""


@dataclass(frozen=True)
class Model2PL:
    """The artifact of fit."""

    a: np.ndarray
    b: np.ndarray


def measure(benchmarks: Sequence[Benchmark], settings: Settings, irt: Model2PL | None, call: Call) -> list[Standing]:
    """All benchmarks, and their variants where the input allows some."""
    smaller = [(row, *each) for row, one in enumerate(benchmarks) for each in _fewer(one, settings, irt, call)]
    taus = rank_correlations([*benchmarks, *(one for _, _, _, one, _ in smaller)], call)
    found = [_standing(one, tau, settings, call) for one, tau in zip(benchmarks, taus[: len(benchmarks)], strict=True)]
    for (row, kind, count, one, agreement), tau in zip(smaller, taus[len(benchmarks) :], strict=True):
        variant = Variant(kind, count, _standing(one, tau, settings, call), agreement)
        found[row] = replace(found[row], variants=(*found[row].variants, variant))
    return found


def rank_correlations(benchmarks: Sequence[Benchmark], call: Call) -> list[np.ndarray]:
    """tau-b of every seed of every benchmark; those with as many checkpoints are taken together."""
    found: list[np.ndarray] = [np.empty(0)] * len(benchmarks)
    alike: dict[int, list[int]] = {}
    for row, each in enumerate(benchmarks):
        alike.setdefault(each.scores.shape[1], []).append(row)
    for steps, rows in alike.items():
        stacked = np.concatenate([benchmarks[row].sign * benchmarks[row].scores for row in rows])
        taus = np.empty(len(stacked))
        at_once = max(1, _NUMBERS // steps)
        for start in range(0, len(stacked), at_once):
            call.check()
            taus[start : start + at_once] = _seed_stats.tau_b(stacked[start : start + at_once])
        ends = np.cumsum([len(benchmarks[row].scores) for row in rows])
        for row, part in zip(rows, np.split(taus, ends[:-1]), strict=True):
            found[row] = part
    return found


def _standing(one: Benchmark, taus: np.ndarray, settings: Settings, call: Call) -> Standing:
    last = one.scores[:, -1]
    half = analytic = math.nan
    ends = wilson = (math.nan, math.nan)
    if one.items is not None:
        widths = _seed_stats.analytic_half_widths(one.items)
        means = one.items.reshape(len(last), -1).mean(axis=1)
        low, high = means - widths, means + widths
        if settings.bootstrap:
            low, high = _seed_stats.bootstrap_ends(one.items, settings.bootstrap, call)
        half, analytic = float((high - low).mean()) / 2, float(widths.mean())
        ends = float(low.mean()), float(high.mean())
        wilson_low, wilson_high = _seed_stats.wilson_ends(one.items)
        wilson = float(wilson_low.mean()), float(wilson_high.mean())
    return Standing(
        one,
        float(last.mean()),
        _seed_stats.spread(last, settings.ddof),
        half,
        analytic,
        ends,
        wilson,
        taus,
        settings.ddof,
    )


# ---------------------------------------------------------------- fewer items


def _fewer(
    one: Benchmark, settings: Settings, irt: Model2PL | None, call: Call
) -> list[tuple[str, int, Benchmark, float]]:
    """(kind, items left, benchmark, rank agreement) of the reduced benchmark and of the p-IRT estimate."""
    runs = one.items
    if runs is None:
        return []
    found = []
    if one.responses is not None and len(one.responses) > 1:
        keep = _item_response.kept(_item_response.analyse(one.responses).corrected, settings.drop_quantile)
        reduced = _from_items(one, keep)
        found.append(("best items", int(keep.sum()), reduced, _agreement(one.responses[:, keep].mean(axis=1), one)))
    if irt is not None and len(irt.a) == runs.shape[1] and settings.irt_items < len(irt.a):
        seen = generator(call.seed, "seen", len(irt.a)).choice(len(irt.a), settings.irt_items, replace=False)
        at_last = runs.mean(axis=2) if runs.ndim == 3 else runs
        every = one.trajectories if one.trajectories is not None else at_last[:, None]

        def estimated(answers: np.ndarray) -> np.ndarray:
            return _item_response.estimate(answers[:, seen], seen, irt.a, irt.b).p_irt

        scores = estimated(every.reshape(-1, len(irt.a))).reshape(every.shape[:2])
        agreement = math.nan if one.responses is None else _agreement(estimated(one.responses), one)
        guessed = replace(one, scores=scores, items=None, trajectories=None, responses=None)
        found.append(("p-IRT", len(seen), guessed, agreement))
    return found


def _from_items(one: Benchmark, keep: np.ndarray) -> Benchmark:
    """The benchmark of the kept items alone; without item scores of every checkpoint, at the last one."""
    assert one.items is not None
    items = one.items[:, keep]
    if one.trajectories is not None:
        trajectories = one.trajectories[:, :, keep]
        return replace(one, scores=trajectories.mean(axis=2), items=items, trajectories=trajectories, responses=None)
    scores = items.reshape(len(items), -1).mean(axis=1)[:, None]
    return replace(one, scores=scores, items=items, responses=None, steps=one.steps[-1:])


def _agreement(estimates: np.ndarray, one: Benchmark) -> float:
    assert one.responses is not None
    return _seed_stats.rank_agreement(estimates, one.responses.mean(axis=1))
