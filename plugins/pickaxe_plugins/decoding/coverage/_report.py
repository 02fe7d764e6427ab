"""What `coverage` tells: the answer in words, and its figures, out of the reports of the groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe_plugins.decoding._selection import RULES
from pickaxe_plugins.decoding.coverage._law import Law

_MOST = 6
"""Groups of one figure."""
_BEYOND = 100
"""A law is drawn at most so many times beyond the samples."""

Report = Mapping[str, Any]


def told(reports: Mapping[str, Report], confidence: float) -> dict[str, Any]:
    """The entries `answer` and `figures` of the summary."""
    answer = [
        sentence for name, report in islice(reports.items(), _MOST) for sentence in _answer(name, report, confidence)
    ]
    if len(reports) > 1:
        ends = {name: float(report["coverage"][-1]) for name, report in reports.items()}
        most = max(ends, key=lambda name: ends[name])
        answer.insert(0, f"The highest coverage at the end of its curve is that of {most}: {number(ends[most], 3)}.")
    return explain(answer, _figures(dict(islice(reports.items(), _MOST)), confidence))


def _answer(name: str, report: Report, confidence: float) -> Iterator[str]:
    k, coverage = report["k"], report["coverage"]
    interval = ""
    if "low" in report:
        low, high = (number(float(report[end][-1]), 3) for end in ("low", "high"))
        interval = f" ({confidence:.0%} interval {low} to {high})"
    yield (
        f"{name}: of {report['problems']} problems, {number(float(coverage[0]), 3)} are solved with {k[0]} sample"
        f"{'' if k[0] == 1 else 's'} and {number(float(coverage[-1]), 3)} with {k[-1]}{interval}."
    )
    if report["problems"] == 1:
        yield f"{name}: one problem only: nothing can be said of others, give more problems."
    yield from _law_answer(name, report)
    if "selection" in report:
        yield from _selection_answer(name, report["selection"])
    if "at_budget" in report:
        found = report["at_budget"]
        yield (
            f"{name}: {number(found['usd'])} dollars buy {number(np.floor(found['k']))} samples per problem and so a "
            f"coverage of {number(found['coverage'], 3)}{_by_law(found)}."
        )


def _law_answer(name: str, report: Report) -> Iterator[str]:
    if report.get("law_refused"):
        yield f"{name}: no law fits: coverage {report['law_refused']}."
    elif report.get("law") and report["law"]["a"] == 0:
        yield f"{name}: all is solved at the first k, so no law can be fitted: take harder problems, or a smaller k."
    for found in report.get("predicted", ()):
        coverage = number(found["coverage"], 3)
        yield f"{name}: with {found['k']} samples its law gives a coverage of {coverage}{_by_law(found)}."
    if "target" in report:
        found = report["target"]
        k = "no number of samples" if np.isinf(found["k"]) else f"{number(float(np.ceil(found['k'])))} samples"
        yield f"{name}: a coverage of {number(found['coverage'])} takes {k} by its law{_by_law(found)}."


def _by_law(found: Report) -> str:
    return ", which extrapolates beyond the samples" if found["extrapolated"] else ""


def _selection_answer(name: str, selection: Report) -> Iterator[str]:
    reached = {rule: float(selection[rule][-1]) for rule in RULES if rule in selection}
    if reached:
        rule = max(reached, key=lambda each: reached[each])
        behind = float(selection["coverage"][-1]) - reached[rule]
        yield (
            f"{name}: without a verifier, {RULES[rule]} ({rule}) is right for {number(reached[rule], 3)} of "
            f"{selection['problems']} problems, {number(behind, 3)} below coverage."
        )


# ---------------------------------------------------------------- figures


def _figures(reports: Mapping[str, Report], confidence: float) -> Iterator[Figure]:
    series = [_curve(name, report, report["k"]) for name, report in reports.items()]
    laws = [_law(name, report) for name, report in reports.items() if report.get("law")] if len(reports) <= 3 else []
    shaded = f"Shaded: {confidence:.0%} of the resamples of problems." if series and series[0].low is not None else ""
    beyond = "Where a law runs on beyond the curve it extrapolates." if laws else ""
    yield Figure(
        "Coverage by number of samples",
        Axis("samples k", scale="log"),
        Axis("coverage"),
        (*series, *laws),
        " ".join(filter(None, (shaded, beyond))),
    )
    chosen = {name: report["selection"] for name, report in reports.items() if len(report.get("selection", {})) > 3}
    for name, selection in islice(chosen.items(), 2):
        rules = [Series(rule, "line", selection["k"], selection[rule]) for rule in RULES if rule in selection]
        yield Figure(
            f"What selection keeps of coverage: {name}",
            Axis("samples k", scale="log"),
            Axis("share of problems"),
            (Series("coverage", "line", selection["k"], selection["coverage"]), *rules),
            "Below all samples: the mean over random subsets.",
        )
    if all("usd_shared" in report for report in reports.values()):
        yield Figure(
            "Coverage by cost",
            Axis("cost per problem", "USD", "log"),
            Axis("coverage"),
            [_curve(name, report, report["usd_shared"]) for name, report in reports.items()],
            "The prompt is paid once.",
        )


def _curve(name: str, report: Report, x: Any) -> Series:
    if "low" in report:
        return Series(name, "band", x, report["coverage"], report["low"], report["high"])
    return Series(name, "line", x, report["coverage"])


def _law(name: str, report: Report) -> Series:
    """The law on a grid that reaches the predictions, within reason."""
    asked = [each["k"] for each in report.get("predicted", ())]
    if "target" in report:
        asked.append(report["target"]["k"])
    most = min(max([report["k"][-1], *asked]), report["k"][-1] * _BEYOND)
    grid = np.geomspace(1, most, 60)
    return Series(f"{name}, law", "line", grid, Law(**report["law"]).coverage(grid))
