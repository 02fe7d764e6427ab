"""The page of a run of the demo, made with pickaxe's own reports."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from demo.job import Step
from pickaxe import __version__
from pickaxe.report import Axis, Figure, Page, Series, Table

BINS = 40


def write(path: Path, steps: Sequence[Step]) -> None:
    by_title = {step.title: step.details for step in steps}
    path.parent.mkdir(parents=True, exist_ok=True)
    Page(
        title="From a mixed corpus to an answer",
        lead="Every step below went through a pickaxe server on loopback, each with a published method.",
        answer=tuple(f"{step.title}: {step.quality}." for step in steps),
        figures=(_alignments(by_title["score and pick"]), _gains(by_title["rerank"]), _times(steps)),
        tables=(_steps(steps), _answers(by_title["decode"]["answers"])),
        footer=(
            f"pickaxe {__version__}, {platform.machine()}, Python {platform.python_version()}, "
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC. "
            "Data: MetaTool (MIT) and XQuAD (CC BY-SA 4.0), see demo/data/SOURCES.md."
        ),
    ).write(path)


def _steps(steps: Sequence[Step]) -> Table:
    return Table(
        "What each step did",
        ("step", "method", "paper", "items", "seconds", "quality"),
        tuple(
            (step.title, step.method, step.paper, step.items, round(step.seconds, 1), step.quality) for step in steps
        ),
    )


def _answers(rows: Sequence[dict[str, Any]]) -> Table:
    return Table(
        "Answers of the language model, each from the three best tools found",
        ("request", "offered", "answer", "right tool", "named"),
        tuple((row["request"], row["offered"], row["answer"], row["reference"], row["right"]) for row in rows),
    )


def _alignments(details: dict[str, Any]) -> Figure:
    wanted, other, cut = details["wanted"], details["other"], details["cut"]
    edges = np.linspace(min(wanted + other), max(wanted + other), BINS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    counts = [np.histogram(values, edges)[0] for values in (wanted, other)]
    return Figure(
        "How like the target descriptions each document is",
        Axis("alignment (zip-fit, gzip 6)"),
        Axis("documents"),
        (
            Series("descriptions of tools", "bars", middles, counts[0]),
            Series("passages of articles", "bars", middles, counts[1]),
            Series("kept from here on", "line", (cut, cut), (0, max(map(max, counts)))),
        ),
    )


def _gains(details: dict[str, Any]) -> Figure:
    gains = np.sort([details["after"][query] - before for query, before in details["before"].items()])
    places = np.arange(len(gains))
    mean = float(gains.mean())
    return Figure(
        "Gain in nDCG@10 of each request by reranking",
        Axis("requests, by gain"),
        Axis("gain in nDCG@10"),
        (
            Series("gain", "bars", places, gains),
            Series(f"mean {mean:+.3f}", "line", (0, len(gains) - 1), (mean, mean)),
        ),
    )


def _times(steps: Sequence[Step]) -> Figure:
    return Figure(
        "Where the time went",
        Axis("time", "seconds"),
        Axis("step", categories=[f"{step.title} ({step.method})" for step in steps]),
        (Series("time", "bars", [step.seconds for step in steps], range(len(steps))),),
    )
