"""What `idealized-runtime` tells: the answer in words, figures and a table of deployments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe_plugins.scaling.idealized_runtime._model import Deployment

_MOST = 40
_CURVES = 6


@dataclass(frozen=True)
class Use:
    """The requests of one deployment, averaged; NaN for what is not known.

    `runtime`, `low` and `high` are seconds a request, the ends by the interval of g.  `measured` and `quality` are
    means over the `measured_rows` and `quality_rows` that have one.
    """

    name: str
    deployment: Deployment
    rows: int
    prompt_tokens: float
    output_tokens: float
    runtime: float
    low: float
    high: float
    prompt_s: float
    decode_s: float
    overhead_s: float
    cost: float
    discrepancy: float
    measured_rows: int
    quality: float
    quality_rows: int
    best: float
    beyond: int
    """Requests beyond the measured sizes."""


def best(runtimes: np.ndarray, qualities: np.ndarray) -> np.ndarray:
    """1 where no other deployment is both faster and better, else 0, (n,); NaN where the quality is not known."""
    known = ~np.isnan(qualities) & ~np.isnan(runtimes)
    beaten = (runtimes[None, :] < runtimes[:, None]) & (qualities[None, :] > qualities[:, None])
    return np.where(known, 1.0 - beaten.any(1), np.nan)


def summary(uses: Sequence[Use], unknown: Sequence[str]) -> dict[str, Any]:
    """Answer, figures and table; `unknown` are deployments without an entry."""
    ranked = sorted(uses, key=lambda use: use.runtime)
    report = explain(list(_answer(ranked, unknown))[:6], _figures(ranked))
    if ranked:
        report["deployments"] = [_row(use) for use in ranked]
    return report


# ---------------------------------------------------------------- words


def _answer(ranked: Sequence[Use], unknown: Sequence[str]) -> Iterator[str]:
    if ranked:
        yield _fastest(ranked)
    if pareto := [use for use in ranked if use.best == 1]:
        named = (f"{use.name} ({number(use.runtime, 3)} s, quality {number(use.quality, 3)})" for use in pareto[:8])
        yield f"No other deployment is both faster and better than {', '.join(named)}."
    priced = [use for use in ranked if not np.isnan(use.cost)]
    if len(priced) > 1:
        cheap = min(priced, key=lambda use: use.cost)
        yield f"{cheap.name} is the cheapest of {len(priced)} with a price: {_dollars(cheap.cost)} for a request."
    for use in [use for use in ranked if use.measured_rows][:2]:
        yield (
            f"{use.name}: measured runtimes are {number(abs(use.discrepancy), 3)} s a request "
            f"{'above' if use.discrepancy >= 0 else 'below'} the estimates, over the {use.measured_rows} of {use.rows} "
            "requests with a measured one."
        )
    yield from _warnings(ranked, unknown)


def _fastest(ranked: Sequence[Use]) -> str:
    first = ranked[0]
    said = f"{first.name}: {number(first.runtime, 3)} s for a request{_between(first)}, the mean of {first.rows}"
    if len(ranked) == 1:
        return f"{said}."
    second = ranked[1]
    follows = f"next is {second.name} with {number(second.runtime, 3)} s{_between(second)}"
    return f"Fastest of {len(ranked)} is {said}; {follows}."


def _between(use: Use) -> str:
    if np.isnan(use.low):
        return ""
    return f" (interval {number(use.low, 3)} to {number(use.high, 3)})"


def _dollars(cost: float) -> str:
    return f"${number(cost, 3)}"


def _warnings(ranked: Sequence[Use], unknown: Sequence[str]) -> Iterator[str]:
    outputs, prompts = [use.output_tokens for use in ranked], [use.prompt_tokens for use in ranked]
    if len(ranked) > 1 and (max(outputs) > 1.1 * min(outputs) or max(prompts) > 1.1 * min(prompts)):
        yield (
            f"The deployments did not get equal requests (means of {number(min(prompts), 3)} to "
            f"{number(max(prompts), 3)} prompt and {number(min(outputs), 3)} to {number(max(outputs), 3)} output "
            "tokens): their runtimes compare requests too."
        )
    if beyond := sum(use.beyond for use in ranked):
        yield f"{beyond} of {sum(use.rows for use in ranked)} requests are larger than any measured one: extrapolated."
    if unknown:
        yield f"Without an entry, and so without an estimate: {', '.join(unknown[:5])}{' …' * (len(unknown) > 5)}."


# ---------------------------------------------------------------- figures and table


def _figures(ranked: Sequence[Use]) -> Iterator[Figure]:
    if not ranked:
        return
    shown = ranked[:_MOST]
    low, high = np.array([use.low for use in shown]), np.array([use.high for use in shown])
    sure = {} if np.isnan(low).all() else {"low": low, "high": high}
    yield Figure(
        "Seconds of a request, mean of all",
        Axis("runtime", "s"),
        Axis("deployment", categories=[use.name for use in shown]),
        [
            Series("in all", "points", [use.runtime for use in shown], range(len(shown)), **sure),
            Series("until the first token", "points", [use.prompt_s for use in shown], range(len(shown))),
        ],
        "Intervals are of the time for each token. Requests run one at a time on hardware of their own.",
    )
    if len(judged := [use for use in ranked if not np.isnan(use.quality)][:_MOST]) > 1:
        yield Figure(
            "Quality by runtime",
            Axis("runtime of a request", "s"),
            Axis("quality"),
            [Series(name, "points", [use.runtime for use in some], [use.quality for use in some])
             for name, some in (("neither faster nor better elsewhere", [u for u in judged if u.best == 1]),
                                ("another is faster and better", [u for u in judged if u.best == 0])) if some],
        )  # fmt: skip
    yield Figure(
        "Time to the first token by prompt size",
        Axis("prompt tokens"),
        Axis("time to the first token", "s"),
        [_curve(use.name, use.deployment.runtime_for_prompt_tokens) for use in ranked[:_CURVES]],
        "The measured sizes; requests between two of them run at the throughput of the larger one.",
    )


def _curve(name: str, table: Mapping[int, float]) -> Series:
    kept = np.unique(np.linspace(0, len(table) - 1, 100).round().astype(int))
    sizes, seconds = np.array(list(table)), np.array(list(table.values()))
    return Series(name, "line" if len(table) > 1 else "points", sizes[kept], seconds[kept])


def _row(use: Use) -> dict[str, Any]:
    known, quality = use.deployment, use.deployment.quality
    return {
        "deployment": use.name,
        "requests": use.rows,
        "seconds": use.runtime,
        "seconds low": use.low,
        "seconds high": use.high,
        "until first token": use.prompt_s,
        "further tokens": use.decode_s,
        "overhead": use.overhead_s,
        "dollars": use.cost,
        "measured - estimate": use.discrepancy,
        "requests with a measured runtime": use.measured_rows,
        "quality": use.quality,
        "requests with a quality": use.quality_rows,
        "tokens/s": 1 / known.runtime_per_output_token if known.runtime_per_output_token else None,
        "batch size of these seconds": known.batch_size,
        "r2 of the fit": None if quality is None else quality.r2,
        "held-out error": None if quality is None else quality.held_out_error,
        "hardware": known.hardware,
    }
