"""Recall, precision, IoU and Precision Omega of retrieved spans against reference spans (arXiv 2502.15854)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pickaxe_plugins.evaluation.token_iou._spans import Chunking, Cover, Ranges, joined, totals

Mode = Literal["strict", "official"]
Take = int | Literal["needed"]
Empty = Literal["zero", "nan", "error"]


@dataclass(frozen=True)
class Questions:
    """What is known of n questions, in one unit of length.

    `references` and `retrieved` are owned by questions; `own` (len(retrieved),) says which chunks are of the
    question's corpus, `rank` their place in the list from 0.  `chunks` are owned by chunkings, `chunking` (n,)
    names the question's, -1 where it is not known.  `reach` is the largest end of all.
    """

    n: int
    references: Ranges
    retrieved: Ranges
    own: np.ndarray
    rank: np.ndarray
    chunks: Ranges
    chunking: np.ndarray
    reach: int


def measure(data: Questions, mode: Mode, take: Take) -> Mapping[str, np.ndarray]:
    """Column → values (n,); NaN: precision and IoU without retrieved chunks, Omega and chunks without a chunking."""
    merged = Cover(data.references, data.reach)
    omega, needed = _omega(data, merged, mode)
    depth = np.full(data.n, take) if isinstance(take, int) else needed
    retrieved = data.rank < np.nan_to_num(depth)[data.retrieved.owner]
    kept, own = data.retrieved[retrieved], data.retrieved[retrieved & data.own]
    cover = Cover(own, data.reach)
    hit = totals(merged.ranges.owner, cover.held(merged.ranges), data.n)
    references = merged.ranges if mode == "strict" else data.references
    wanted = references.sums(data.n)
    uncovered = wanted - totals(references.owner, cover.held(references), data.n)
    total = kept.sums(data.n)
    meets = merged.held(own) > 0 if mode == "strict" else merged.touched(own)
    recall, precision = _ratio(hit, wanted), _ratio(hit, total)
    both = precision + recall
    return {
        "iou": np.where(total > 0, _ratio(hit, total + uncovered), np.nan),
        "recall": recall,
        "precision": precision,
        "precision_omega": omega,
        "f1": np.where(both == 0, 0.0, 2 * precision * recall / np.where(both == 0, 1, both)),
        "n_hit_chunks": totals(own.owner, meets, data.n),
        "chunks_needed": needed,
    }


def _omega(data: Questions, merged: Cover, mode: Mode) -> tuple[np.ndarray, np.ndarray]:
    """Precision Omega, and how many chunks of the corpus meet a reference."""
    known = data.chunking >= 0
    wanted = merged.ranges
    asked = wanted[known[wanted.owner]]
    chunking = Chunking(data.chunks, data.reach, touching=mode == "official")
    question, chunk = chunking.met(asked.owned_by(data.chunking[asked.owner]), asked.owner)
    met = Cover(data.chunks[chunk].owned_by(question), data.reach)
    covered = totals(wanted.owner, met.held(wanted), data.n)
    whole = Cover(joined([met.ranges, wanted]), data.reach).ranges.sums(data.n)
    needed = np.bincount(question, minlength=data.n).astype(np.float64)
    return np.where(known, _ratio(covered, whole), np.nan), np.where(known, needed, np.nan)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
