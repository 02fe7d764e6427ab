"""What `domain-upsampling` shows: the planned final mix, or what each domain was worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pickaxe.report import Axis, Figure, Series, explain
from pickaxe_plugins.scaling.domain_upsampling._mix import Domains, Plan, noise_limit

_MOST_NAMES = 40
_MOST_SERIES = 6


def plan_report(domains: Domains, plan: Plan, total: float, delta: float, cap: float) -> dict[str, Any]:
    names = domains.names
    shares = {
        group: [float(mix[np.array(domains.groups) == group].sum()) for mix in (domains.base, plan.final)]
        for group in dict.fromkeys(domains.groups)
    }
    moved = ", ".join(f"{group} from {before:.3g} to {after:.3g}" for group, (before, after) in shares.items())
    answer = [
        f"Train {plan.switch:.4g} of {total:.4g} tokens on the base mix and the last {delta:.3g} of them on the final "
        f"mix, which moves {moved}.",
        *_repetition(names, plan.epochs, cap),
    ]
    places = range(len(names))
    mixes = [Series("base mix", "points", domains.base, places), Series("final mix", "bars", plan.final, places)]
    epochs = [Series("epochs", "bars", plan.epochs, places), Series("cap", "points", [cap] * len(names), places)]
    axis = Axis("domain", categories=names)
    figures = [
        Figure("Weights of the domains", Axis("weight"), axis, mixes),
        Figure("Passes over what each domain has", Axis("epochs"), axis, epochs),
    ]
    rows = {
        name: {"base weight": domains.base[d], "final weight": plan.final[d], "effective weight": plan.effective[d],
               "upsampling factor": plan.factor[d], "tokens seen": plan.tokens_seen[d], "epochs": plan.epochs[d]}
        for d, name in enumerate(names)
    }  # fmt: skip
    return {
        **explain(answer, figures if len(names) <= _MOST_NAMES else []),
        "training": {"total tokens": total, "delta": delta, "switch token": plan.switch},
        "domains": rows,
        "group shares": {group: {"base": before, "final": after} for group, (before, after) in shares.items()},
    }


def utility_report(measured: Mapping[str, Any], utility: np.ndarray, worth: np.ndarray, cap: float) -> dict[str, Any]:
    """`utility` (D, B) by benchmark, `worth` (D,) taken together."""
    names, benchmarks = measured["domains"], measured["benchmarks"]
    best, worst = int(np.nanargmax(worth)), int(np.nanargmin(worth))
    values, sign = measured["values"], np.array(measured["sign"])
    gain = sign * (np.array(values["upsampled"]) - np.array(values["base"]))
    said = ", ".join(f"{name} {each:+.3g}" for name, each in zip(benchmarks, gain.tolist(), strict=True))
    answer = [
        f"Leaving out {names[best]} hurts most (utility {worth[best]:+.3g}), leaving out {names[worst]} least "
        f"({worth[worst]:+.3g}).",
        f"The final mix against the base mix, better is above 0: {said}.",
        _noise_words(measured, utility),
        *_repetition(names, np.array([np.nan if each is None else each for each in measured["epochs"]]), cap),
    ]
    return {
        **explain(answer, _utility_figures(measured, utility)),
        "utility": {
            name: dict(zip(benchmarks, row, strict=True)) for name, row in zip(names, utility.tolist(), strict=True)
        },
        "measured": {branch: dict(zip(benchmarks, row, strict=True)) for branch, row in values.items()},
        "training": {name: measured[name] for name in ("total_tokens", "switch_token", "seeds")},
        "domains": {
            name: {key: measured[key][d] for key in ("base_weight", "final_weight", "achieved_share", "tokens_seen",
                                                      "epochs")}
            for d, name in enumerate(names)
        },
    }  # fmt: skip


def _noise_words(measured: Mapping[str, Any], utility: np.ndarray) -> str:
    if measured["sigma"] is None:
        return (
            "One seed only: no spread can be given, so no difference is known to be more than chance; fit with seeds=2."
        )
    real = np.abs(utility) > noise_limit(np.array(measured["sigma"]))
    return (
        f"{int(real.sum())} of {real.size} utilities exceed two standard deviations of a difference between seeds "
        f"({measured['seeds']} seeds)."
    )


def _repetition(names: Sequence[str], epochs: np.ndarray, cap: float) -> list[str]:
    over = [place for place in np.argsort(-np.nan_to_num(epochs)) if epochs[place] > cap]
    if not over:
        return []
    shown = ", ".join(f"{names[place]} {epochs[place]:.3g}" for place in over[:5])
    more = f" and {len(over) - 5} more" if len(over) > 5 else ""
    return [f"Warning: more than {cap:g} epochs of {shown}{more}: repeated tokens teach less and less."]


def _utility_figures(measured: Mapping[str, Any], utility: np.ndarray) -> list[Figure]:
    figures = []
    names, benchmarks = measured["domains"], measured["benchmarks"]
    places = range(len(names))
    if len(names) <= _MOST_NAMES:
        limits = None if measured["sigma"] is None else noise_limit(np.array(measured["sigma"]))
        series = []
        for b, benchmark in enumerate(benchmarks[:_MOST_SERIES]):
            ends = (None, None) if limits is None else (utility[:, b] - limits[b], utility[:, b] + limits[b])
            series.append(Series(benchmark, "points", utility[:, b], places, low=ends[0], high=ends[1]))
        note = "" if limits is None else "Whiskers: two standard deviations of a difference between seeds."
        title = "What leaving a domain out of the last phase costs"
        axis = Axis("domain left out", categories=names)
        figures.append(Figure(title, Axis("utility", "nats or share right"), axis, series, note))
    if len(measured["deltas"]) and (swept := _swept(measured)):
        deltas = [0.0, *(delta for delta, _ in swept)]
        table = np.array([measured["values"]["base"], *(measured["values"][branch] for _, branch in swept)])
        series = [Series(name, "line", deltas, table[:, b]) for b, name in enumerate(benchmarks[:_MOST_SERIES])]
        axes = Axis("delta, the share of the final mix"), Axis("measured", "nats or share right")
        figures.append(Figure("Benchmarks over the length of the last phase", *axes, series))
    return figures


def _swept(measured: Mapping[str, Any]) -> list[tuple[float, str]]:
    """(delta, branch) of the final mix, by rising delta; nothing where one delta was tried."""
    found = sorted((delta, name) for name, delta in measured["deltas"].items() if name.startswith("upsampled"))
    return found if len(found) > 1 else []
