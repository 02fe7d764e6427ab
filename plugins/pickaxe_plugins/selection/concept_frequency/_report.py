"""What `concept-frequency` tells: columns, the answer in words, figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pickaxe import Column, Items
from pickaxe.errors import InvalidItems
from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe_plugins.selection.concept_frequency._log_linear import LogLinear

CONCEPT_COLUMNS = (
    Column("frequency", "documents that show the concept, in text and image where tagged", "float64", direction="none"),
    Column("text_count", "texts with all of its words", "float64", direction="none", nullable=True),
    Column("image_count", "images tagged with it", "float64", direction="none", nullable=True),
    Column("both_count", "documents with both", "float64", direction="none", nullable=True),
    Column("log10_frequency", "log10 of the frequency, at least 1", "float64", direction="none"),
    Column("predicted_accuracy", "by the line over all concepts, 0 to 100", "float64", nullable=True),
)
DOCUMENT_COLUMNS = (
    Column("rarity", "mean or largest -log10 frequency of its concepts; higher is rarer", "float64", nullable=True),
    Column("misaligned", "1: text and image share no concept", "float64", direction="lower", nullable=True),
    Column("n_concepts", "concepts in its text", "int64", direction="none"),
)
_BARS = 30


def accuracies(items: Items) -> np.ndarray:
    """(n,) in percent, NaN where an item has none."""
    found = np.full(len(items), np.nan)
    for row, item in enumerate(items):
        given = item.get("accuracy")
        if given is None:
            continue
        if not 0 <= float(given) <= 100:  # type: ignore[arg-type]  # a number
            raise InvalidItems(f"items[{row}].fields.accuracy", f"is {given}, wanted 0 to 100 (item {item.id!r})")
        found[row] = float(given)  # type: ignore[arg-type]  # a number
    return found


# ---------------------------------------------------------------- concepts


def of_concepts(
    items: Items, frequency: np.ndarray, accuracy: np.ndarray, law: LogLinear | None, long_tail: int
) -> dict[str, Any]:
    """The summary of concepts, at least one."""
    rarest = np.argsort(frequency, kind="stable")[:long_tail].tolist()
    summary = explain(list(_answer(frequency, accuracy, law)), list(_figures(frequency, law)))
    if law is not None:
        summary["law"] = {
            "r": law.r, "p value": law.p_value, "slope per decade": law.slope_per_decade, "slope per ln": law.slope,
            "intercept": law.intercept, "bins used": int(law.used.sum()), "why not": law.reason,
        }  # fmt: skip
        summary["bins"] = {
            "up to count": law.edges, "concepts": law.members, "mean accuracy": law.means,
            "standard deviation": law.stds, "used": law.used,
        }  # fmt: skip
    summary["long tail"] = [
        {"concept": items[row].text or items[row].id, "frequency": frequency[row], "accuracy": accuracy[row]}
        for row in rarest
    ]
    return summary


def _answer(frequency: np.ndarray, accuracy: np.ndarray, law: LogLinear | None) -> Iterator[str]:
    absent = int((frequency == 0).sum())
    few = int((frequency < 10).sum())
    yield (
        f"Of {len(frequency)} concepts {absent} never occur and {few} fewer than 10 times; the median frequency is "
        f"{number(float(np.median(frequency)), 3)}."
    )
    if law is None:
        yield "No law can be given: no concept came with an accuracy."
    elif law.reason:
        yield f"No law can be given: {law.reason}."
    else:
        bins = f"{int(law.used.sum())} bins"
        yield (
            f"Ten times the frequency goes with {number(law.slope_per_decade, 3)} points of accuracy "
            f"(r {number(law.r, 3)} over the means of {bins}, p {number(law.p_value, 2)})."
        )
        low, high = (number(float(each), 3) for each in law.edges[law.used][[0, -1]])
        yield (
            f"The line holds from {low} to {high} occurrences and extrapolates outside; it is about means, not about "
            "single concepts."
        )
    if 0 < np.nanmax(accuracy, initial=0) <= 1:
        yield "Warning: no accuracy is above 1 %. Are they shares? Then multiply them by 100."


def _figures(frequency: np.ndarray, law: LogLinear | None) -> Iterator[Figure]:
    logs = np.log10(np.maximum(frequency, 1.0))
    heights, edges = np.histogram(logs, _BARS, (0.0, max(1.0, float(logs.max()))))
    yield Figure(
        "Concepts by frequency",
        Axis("log10 of the frequency"),
        Axis("concepts"),
        (Series("concepts", "bars", (edges[1:] + edges[:-1]) / 2, heights),),
        "Concepts that never occur are counted at 0.",
    )
    if law is None:
        return
    full = law.members > 0
    shown = np.flatnonzero(full)[:200]
    means, spread = law.means[shown], law.stds[shown]
    series = [Series("mean of a bin", "points", law.edges[shown], means, means - spread, means + spread)]
    if not law.reason:
        grid = np.geomspace(1.0, max(law.edges[-1], 1.0), 60)
        series.append(Series("line over the inner bins", "line", grid, law.predict(grid)))
    yield Figure(
        "Accuracy by frequency",
        Axis("frequency", scale="log"),
        Axis("accuracy", "%"),
        series,
        "At right edges of the bins; whiskers: standard deviation of the concepts of a bin.  The line leaves out the "
        "first and last bins and extrapolates there.",
    )


# ---------------------------------------------------------------- documents


def of_documents(columns: Mapping[str, np.ndarray], shown: Sequence[int]) -> dict[str, Any]:
    """The summary of documents, at least one."""
    found, misaligned = columns["n_concepts"], columns["misaligned"]
    with_text = int((found > 0).sum())
    answer = [
        f"{with_text} of {len(found)} documents hold a concept, {number(float(found.mean()), 3)} each on average."
    ]
    summary: dict[str, Any] = {}
    tags = np.array(shown)
    if (tags >= 0).any():
        with_image, count = int((tags > 0).sum()), int(np.nansum(misaligned))
        extracted = max(with_text, with_image)
        summary["misalignment"] = {
            "misaligned": count, "with concepts in the text": with_text, "with concepts in the image": with_image,
            "degree of those with concepts": count / extracted if extracted else float("nan"),
            "degree of all": count / len(found),
        }  # fmt: skip
        answer.append(
            f"In {count} of them text and image share no concept: {number(100 * count / len(found), 3)}% of all."
        )
    rarity = columns["rarity"][~np.isnan(columns["rarity"])]
    figures = []
    if len(rarity):
        heights, edges = np.histogram(rarity, _BARS)
        bars = Series("documents", "bars", (edges[1:] + edges[:-1]) / 2, heights)
        figures.append(Figure("Documents by rarity", Axis("rarity"), Axis("documents"), (bars,)))
    return {**explain(answer, figures), **summary}
