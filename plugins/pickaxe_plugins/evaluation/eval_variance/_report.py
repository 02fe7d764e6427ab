"""What `eval-variance` tells: the answer in words, figures and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pickaxe import Flag
from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe_plugins.evaluation.eval_variance._benchmarks import Standing
from pickaxe_plugins.evaluation.eval_variance._item_response import Analysis
from pickaxe_plugins.evaluation.eval_variance._seed_stats import Z95, Difference, spread_ends

_MOST = 40
"""Rows of a figure with names."""
_DRAWN = 3
_POINTS = 200


def _n(value: float) -> str:
    return number(value, 3)


def _best(standings: Sequence[Standing], value: str) -> Standing | None:
    known = [each for each in standings if not math.isnan(getattr(each, value))]
    return max(known, key=lambda each: getattr(each, value), default=None)


# ---------------------------------------------------------------- benchmarks


def benchmarks(standings: Sequence[Standing], primary: str, flags: Sequence[Flag]) -> dict[str, Any]:
    """Seeds, items and checkpoints of each benchmark."""
    if not standings:
        return {}
    summary = explain(list(_benchmark_words(standings, primary, flags))[:6], _benchmark_figures(standings))
    summary["Benchmarks"] = [_row(each) for each in standings]
    if variants := [
        {"benchmark": each.name, "estimated from": kind, "items": count, **_numbers(found), "rank agreement": agreement}
        for each in standings
        for kind, count, found, agreement in (
            ("all items", _items(each), each, math.nan),
            *((one.kind, one.items, one.standing, one.agreement) for one in each.variants),
        )
        if each.variants
    ]:
        summary["Fewer items"] = variants
    return summary


def _benchmark_words(standings: Sequence[Standing], primary: str, flags: Sequence[Flag]) -> Iterator[str]:
    by_snr, by_tau = _best(standings, "snr"), _best(standings, "tau")
    first = (by_tau if primary == "monotonicity" else by_snr) or by_tau or standings[0]
    if not math.isnan(first.std):
        low, high = _std_ends(first)
        yield (
            f"{first.name}: mean {_n(first.mean)}, standard deviation over {first.seeds} seeds {_n(first.std)} (95% "
            f"interval {_n(low)} to {_n(high)}). Two single runs must differ by {_n(first.least)} to be told apart at "
            "95%."
        )
    if by_snr is not None and len(standings) > 1:
        worst = min((each for each in standings if not math.isnan(each.snr)), key=lambda each: each.snr)
        if worst is not by_snr:
            yield (
                f"{by_snr.name} has the highest signal-to-noise ratio over seeds ({_n(by_snr.snr)}), {worst.name} the "
                f"lowest ({_n(worst.snr)})."
            )
    if by_tau is not None:
        yield (
            f"{by_tau.name} {'rises most steadily' if len(standings) > 1 else 'follows training'} over its "
            f"{by_tau.checkpoints} checkpoints: Kendall's tau-b {_n(by_tau.tau)} on average, {_n(by_tau.tau_min)} in "
            "the worst seed."
        )
    if not math.isnan(first.half_width):
        yield (
            f"The items of {first.name} add ±{_n(first.half_width)} (95%) of their own: that is the error of the test "
            "set, which other seeds neither show nor shrink."
        )
    for flag in flags:
        if flag.reason != "one-checkpoint":
            yield f"{standings[flag.index].name}: {flag.message}."


def _std_ends(each: Standing) -> tuple[float, float]:
    return spread_ends(each.std, each.seeds, each.ddof)


def _benchmark_figures(standings: Sequence[Standing]) -> Iterator[Figure]:
    shown = standings[:_MOST]
    names = Axis("benchmark", categories=[each.name for each in shown])
    rows = range(len(shown))
    means = np.array([each.mean for each in shown])
    noise = np.array([Z95 * each.std for each in shown])
    series = [Series("over seeds", "points", means, rows, means - noise, means + noise)]
    if any(not math.isnan(each.half_width) for each in shown):
        ends = np.array([each.ends for each in shown])
        series.append(Series("over items", "points", ends.mean(axis=1), rows, ends[:, 0], ends[:, 1]))
    yield Figure(
        "Two sources of noise: other seeds, other items",
        Axis("score at the last checkpoint"),
        names,
        series,
        "Over seeds: mean and 1.96 standard deviations of one run. Over items: 95% interval of the mean of one run.",
    )
    if any(math.isfinite(each.snr) for each in shown):
        yield Figure(
            "Signal-to-noise ratio over seeds",
            Axis("mean / standard deviation"),
            names,
            [Series("signal-to-noise ratio", "bars", [each.snr for each in shown], rows)],
        )
    if moving := [each for each in standings if each.checkpoints > 1][:_DRAWN]:
        tokens = all(each.benchmark.tokens for each in moving)
        yield Figure(
            "Scores over training",
            Axis("tokens" if tokens else "checkpoint"),
            Axis("score"),
            [_trajectory(each, tokens) for each in moving],
            "Line: mean over seeds. Shaded: lowest to highest seed.",
        )


def _trajectory(each: Standing, tokens: bool) -> Series:
    one = each.benchmark
    at = np.unique(np.linspace(0, each.checkpoints - 1, _POINTS).astype(int))
    steps = one.steps if tokens else np.arange(1.0, each.checkpoints + 1)
    scores = one.scores[:, at]
    return Series(each.name, "band", steps[at], scores.mean(axis=0), scores.min(axis=0), scores.max(axis=0))


def _items(each: Standing) -> int:
    items = each.benchmark.items
    return 0 if items is None else items.shape[1]


def _row(each: Standing) -> dict[str, Any]:
    low, high = _std_ends(each)
    return {
        "benchmark": each.name,
        "seeds": each.seeds,
        "checkpoints": each.checkpoints,
        **_numbers(each),
        "seed std low": low,
        "seed std high": high,
        "detectable difference": each.least,
        "standard deviation divides by": f"seeds - {each.ddof}",
    }


def _numbers(each: Standing) -> dict[str, float]:
    return {
        "mean": each.mean,
        "seed std": each.std,
        "signal to noise": each.snr,
        "monotonicity": each.tau,
        "item interval ±": each.half_width,
    }


# ---------------------------------------------------------------- comparisons


def comparisons(found: Sequence[tuple[str, Difference, int, int]]) -> dict[str, Any]:
    """A against B, on one or more benchmarks."""
    if not found:
        return {}
    return {
        **explain(list(_comparison_words(found)), [_forest(found[:_MOST])]),
        "Comparisons": [
            {
                "comparison": name, "A minus B": each.diff, "runs of A": n_a, "runs of B": n_b, "seed std": each.std,
                "detectable difference": each.least, "z": each.z, "p": each.p,
            }
            for name, each, n_a, n_b in found
        ],
    }  # fmt: skip


def _comparison_words(found: Sequence[tuple[str, Difference, int, int]]) -> Iterator[str]:
    for name, each, n_a, n_b in sorted(found, key=lambda row: -abs(row[1].diff))[:5]:
        ahead = f"{name}: {'A' if each.diff > 0 else 'B'} is ahead by {_n(abs(each.diff))}"
        chance = "" if math.isnan(each.p) else f" (p {_n(each.p)} of {n_a} and {n_b} runs)"
        if each.diff == 0:
            yield f"{name}: A and B score the same{chance}."
        elif math.isnan(each.std):
            yield f"{ahead}, from one run each: whether that is seed noise cannot be said; give more seeds or seed_std."
        else:
            verdict = "more than" if each.detectable else "less than"
            yield f"{ahead}, {verdict} the {_n(each.least)} that seeds alone can do to two runs (95%){chance}."
    if len(found) > 1:
        yield (
            f"These are {len(found)} comparisons: by chance alone about {_n(0.05 * len(found))} of them would seem "
            "detectable."
        )


def _forest(found: Sequence[tuple[str, Difference, int, int]]) -> Figure:
    differences = np.array([each.diff for _, each, _, _ in found])
    least = np.array([each.least for _, each, _, _ in found])
    rows = range(len(found))
    return Figure(
        "A minus B, with what seeds alone can do",
        Axis("difference of means"),
        Axis("comparison", categories=[name for name, *_ in found]),
        [Series("difference", "points", differences, rows, differences - least, differences + least)],
        "Whiskers: the difference of two single runs that other seeds exceed in 5% of cases. Detectable: 0 is outside.",
    )


# ---------------------------------------------------------------- questions and models


def questions(told: Sequence[tuple[str, Sequence[str], np.ndarray, Analysis, np.ndarray]]) -> dict[str, Any]:
    """Item analysis of one or more benchmarks."""
    answer, figures, tables = [], [], []
    for name, _, responses, analysis, keep in told:
        title = name or "all items"
        corrected = analysis.corrected
        undefined, negative = int(np.isnan(corrected).sum()), int((corrected < 0).sum())
        tables.append(
            {
                "benchmark": title, "models": len(responses), "items": len(keep), "kept": int(keep.sum()),
                "mean difficulty": float(analysis.difficulty.mean()), "negative discrimination": negative,
                "no discrimination defined": undefined,
            }
        )  # fmt: skip
        answer.append(
            f"{title}: {negative} of {len(keep)} items are answered better by models that are worse on the rest, "
            f"{undefined} tell no models apart; {len(keep) - int(keep.sum())} least discriminating ones are dropped."
        )
        figures.append(_scatter(title, analysis, keep))
    if not told:
        return {}
    caution = "The paper found that dropping such items does not reduce seed variance: check with item_scores of seeds."
    return {**explain([*answer[:5], caution], figures[:_DRAWN]), "Item analysis": tables}


def _scatter(title: str, analysis: Analysis, keep: np.ndarray) -> Figure:
    series = []
    for name, wanted in (("kept", keep), ("dropped", ~keep)):
        rows = np.flatnonzero(wanted & ~np.isnan(analysis.corrected))
        rows = (
            rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _POINTS)).astype(int))] if len(rows) else rows
        )
        series.append(Series(name, "points", analysis.difficulty[rows], analysis.corrected[rows]))
    return Figure(
        f"Items of {title}",
        Axis("share of models that are right"),
        Axis("corrected discrimination"),
        series,
        f"At most {_POINTS} items of each kind are drawn.",
    )


def estimates(names: Sequence[str], rows: Sequence[Mapping[str, float]], n: int) -> dict[str, Any]:
    """p-IRT of new models."""
    if not rows:
        return {}
    best = max(range(len(rows)), key=lambda row: rows[row]["p_irt"])
    answer = [
        f"{names[best]} has the highest estimated score on all {n} items: {_n(rows[best]['p_irt'])} ± "
        f"{_n(Z95 * rows[best]['p_irt_error'])} (95%), from {rows[best]['n_seen']:.0f} answers."
    ]
    if len(rows) > 1:
        second = max((row for row in range(len(rows)) if row != best), key=lambda row: rows[row]["p_irt"])
        gap = rows[best]["p_irt"] - rows[second]["p_irt"]
        error = Z95 * math.hypot(rows[best]["p_irt_error"], rows[second]["p_irt_error"])
        told = "is more" if gap > error else "is not more"
        answer.append(f"It is {_n(gap)} ahead of {names[second]}, which {told} than the errors of both ({_n(error)}).")
    shown = range(min(len(rows), _MOST))
    values = np.array([rows[row]["p_irt"] for row in shown])
    errors = Z95 * np.array([rows[row]["p_irt_error"] for row in shown])
    figure = Figure(
        "Estimated score on all items",
        Axis("p-IRT"),
        Axis("model", categories=[names[row] for row in shown]),
        [Series("estimate", "points", values, shown, values - errors, values + errors)],
        "95% intervals of ability and of the unseen answers; errors of the items' parameters are not in them.",
    )
    return {**explain(answer, [figure]), "Estimates": [{"model": names[at], **rows[at]} for at in range(len(rows))]}


def choices(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Multiple choice: means of all metrics, with the error of the test set."""
    if not rows:
        return {}
    wanted = {
        "accuracy": "correct",
        "probability of the right option": "correct_mass",
        "accuracy of letters": "letter_correct",
        "probability of the right letter": "letter_mass",
    }
    table: dict[str, dict[str, float]] = {}
    for label, name in wanted.items():
        values = np.array([row[name] for row in rows])
        if not np.isnan(values).any():
            table[label] = {
                "mean": float(values.mean()),
                "half width": Z95 * float(values.std()) / math.sqrt(len(rows)),
            }
    means = np.array([each["mean"] for each in table.values()])
    halves = np.array([each["half width"] for each in table.values()])
    places = range(len(table))
    answer = [
        f"Over {len(rows)} questions: "
        + ", ".join(f"{label} {_n(each['mean'])} ± {_n(each['half width'])}" for label, each in table.items())
        + " (95%, over questions)."
    ]
    figure = Figure(
        "Metrics of the same answers",
        Axis("mean over questions"),
        Axis("metric", categories=table),
        [Series("mean", "points", means, places, means - halves, means + halves)],
        "95% intervals over questions; they say nothing of other seeds.",
    )
    loss = -float(np.mean([row["loglikelihood"] for row in rows]))
    return {**explain(answer, [figure]), "Metrics": table, "Mean NLL of the right option (nats)": loss}
