"""The calibration sets of all documents of a call, and what they are like."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pickaxe import Call
from pickaxe.errors import InvalidItems, Violation
from pickaxe.randomness import generator
from pickaxe_plugins.reranking.calibration_sets._read import Candidates
from pickaxe_plugins.reranking.calibration_sets._strategies import NEEDS, Search, faithful_set, relevant_set, spearman

if TYPE_CHECKING:
    from pickaxe_plugins.reranking.calibration_sets._method import Params

STATISTICS: Mapping[str, str] = {
    "candidates": "Candidates of the document.",
    "quality": "Mean aggregate of the set.",
    "margin": "Mean gap of neighbours in the set; faithfulness: mean of positives less mean of negatives.",
    "diversity": "Mean of 1 - self-BLEU over the set.",
    "surprise": "Minus the rank correlation of metric and beam order; faithfulness: mean likelihood of negatives less "
    "that of positives.",
    "extractiveness_gap": "Faithfulness: mean density of positives less that of negatives.",
    "length": "Mean white-space words of the set.",
}


@dataclass(frozen=True)
class Chosen:
    """The set of one document."""

    group: str
    rows: tuple[int, ...]
    """Rows of its members: best first, faithfulness positives first; repeated where it was filled up."""
    positives: int
    """How many of `rows` are positives (relevance: 0)."""
    statistics: Mapping[str, float]

    @property
    def padded(self) -> bool:
        return len(set(self.rows)) < len(self.rows)


def check_needs(found: Candidates, strategy: str, where: str) -> None:
    """Raise `InvalidItems` for every candidate that lacks what the strategy looks at."""
    name = NEEDS.get(strategy)
    if name is None:
        return
    values = {"sample_idx": found.sample_idx, "likelihood": found.likelihood, "density": found.density}[name]
    concerned = found.own if "surprise" in strategy else np.ones(len(values), bool)
    remedy = {
        "sample_idx": "give the beam's index",
        "likelihood": "give it, or source and a model",
        "density": "give it, or the source",
    }
    missing = np.flatnonzero(np.isnan(values) & concerned)
    if len(missing):
        raise InvalidItems(
            Violation(f"{where}[{row}].fields.{name}", f"is missing, which strategy {strategy} needs: {remedy[name]}")
            for row in missing
        )


def choose(found: Candidates, aggregate: np.ndarray, params: Params, call: Call) -> Iterator[Chosen]:
    """The set of each document, documents by name."""
    for group, rows in sorted(found.groups().items()):
        call.check()
        ordered = sorted(rows, key=lambda row: (-aggregate[row], found.items[row].id))
        search = Search(params.search_limit, lambda name=group: generator(call.seed, "sets", name))  # type: ignore[misc]  # mypy cannot infer a lambda's default
        if params.target == "relevance":
            places = relevant_set(found.pool(ordered, aggregate), params.strategy_used, params.k, search)
            chosen, positives = [ordered[place] for place in places], 0
        else:
            chosen = _faithful(found, ordered, aggregate, params, search, group)
            positives = params.n_pos
        yield Chosen(group, tuple(chosen), positives, _statistics(found, aggregate, chosen, positives, len(rows)))


def _faithful(
    found: Candidates, ordered: Sequence[int], aggregate: np.ndarray, params: Params, search: Search, group: str
) -> list[int]:
    positives = [row for row in ordered if found.positive[row]]
    negatives = [row for row in ordered if not found.positive[row]]
    references = [place for place, row in enumerate(positives) if found.reference[row]]
    if len(references) > 1:
        raise InvalidItems(f"group {group!r}", f"has {len(references)} references: one candidate may be the reference")
    removed = params.reference_status == "remove" and references
    if not negatives or len(positives) <= bool(removed):
        raise InvalidItems(
            f"group {group!r}", f"has {len(positives)} positives and {len(negatives)} negatives: it needs one of each"
        )
    counts = params.n_pos, params.n_neg
    pools = found.pool(positives, aggregate), found.pool(negatives, aggregate)
    best, worst = faithful_set(
        *pools, params.strategy_used, counts, search, references[0] if references else None, params.reference_status
    )
    return [positives[place] for place in best] + [negatives[place] for place in worst]


def _statistics(
    found: Candidates, aggregate: np.ndarray, chosen: Sequence[int], positives: int, candidates: int
) -> dict[str, float]:
    rows = list(chosen)
    pool = found.pool(rows, aggregate)
    quality, k = pool.aggregate, len(rows)
    known = {
        "candidates": float(candidates),
        "quality": math.fsum(quality) / k,
        "diversity": float(pool.bleu.diversity(np.arange(k)[None])[0]),
        "length": float(pool.lengths.mean()),
    }
    if positives:
        split = [slice(None, positives), slice(positives, None)]
        best, worst = (float(quality[part].mean()) for part in split)
        likely = [float(pool.likelihood[part].mean()) for part in split]
        dense = [float(pool.density[part].mean()) for part in split]
        return known | {
            "margin": best - worst,
            "surprise": likely[1] - likely[0],
            "extractiveness_gap": dense[0] - dense[1],
        }
    beams = pool.sample_idx
    surprise = math.nan if np.isnan(beams).any() else -float(spearman(quality[None], -beams[None])[0])
    margin = float(quality[0] - quality[-1]) / (k - 1)
    return known | {"margin": margin, "surprise": surprise, "extractiveness_gap": math.nan}
