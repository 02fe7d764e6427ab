"""One HTML page with the figures and plots of a run; it needs nothing from a network."""

from __future__ import annotations

import io
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np

from demo.job import Step
from pickaxe import __version__

mpl.use("svg")
from matplotlib import pyplot as plt

BLUE, ORANGE, GREY = "#1f5fa8", "#b3500a", "#5a5a5a"


def write(path: Path, steps: Sequence[Step]) -> None:
    page = jinja2.Environment(autoescape=True).from_string(
        (Path(__file__).parent / "report.html.j2").read_text(encoding="utf-8")
    )
    by_title = {step.title: step.details for step in steps}
    text = page.render(
        steps=steps,
        answers=by_title["decode"]["answers"],
        plots=[
            ("How like the target descriptions each document is", _svg(_alignments, by_title["score and pick"])),
            ("Gain in nDCG@10 of each request by reranking", _svg(_gains, by_title["rerank"])),
            ("Where the time went", _svg(_times, steps)),
        ],
        version=__version__,
        machine=f"{platform.machine()}, Python {platform.python_version()}",
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _svg(draw: Callable[[Any, Any], None], data: Any) -> str:
    figure, axes = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    draw(axes, data)
    axes.spines[["top", "right"]].set_visible(False)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def _alignments(axes: Any, details: dict[str, Any]) -> None:
    bins = np.linspace(min(details["wanted"] + details["other"]), max(details["wanted"] + details["other"]), 40)
    axes.hist(details["wanted"], bins, alpha=0.7, color=BLUE, label="descriptions of tools")
    axes.hist(details["other"], bins, alpha=0.7, color=ORANGE, label="passages of articles")
    axes.axvline(details["cut"], color=GREY, linestyle="--", label="kept from here on")
    axes.set(xlabel="alignment (zip-fit, gzip 6)", ylabel="documents")
    axes.legend(frameon=False)


def _gains(axes: Any, details: dict[str, Any]) -> None:
    queries = sorted(details["before"], key=lambda query: details["after"][query] - details["before"][query])
    delta = np.array([details["after"][query] - details["before"][query] for query in queries])
    axes.bar(range(len(delta)), delta, color=np.where(delta < 0, ORANGE, BLUE), width=1.0)
    axes.axhline(delta.mean(), color=GREY, linestyle="--", label=f"mean {delta.mean():+.3f}")
    axes.set(xlabel="requests, by gain", ylabel="gain in nDCG@10")
    axes.legend(frameon=False)


def _times(axes: Any, steps: Sequence[Step]) -> None:
    titles = [f"{step.title} ({step.method})" for step in steps][::-1]
    bars = axes.barh(titles, [step.seconds for step in steps][::-1], color=BLUE)
    axes.bar_label(bars, fmt="%.1f s", padding=3)
    axes.set_xlabel("seconds")
