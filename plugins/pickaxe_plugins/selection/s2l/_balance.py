"""S2L's balanced choice: equal quotas over sources, and inside a source over clusters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pickaxe.randomness import generator


def quotas(sizes: Sequence[int], n: int) -> list[int]:
    """How many of n each group gives, by ascending size: floor(what is left / groups left), or all it has.

    Of equal sizes the first goes first; remainders drift to the larger groups, one each.
    """
    taken, left = [0] * len(sizes), n
    for at, group in enumerate(sorted(range(len(sizes)), key=lambda each: sizes[each])):
        taken[group] = min(sizes[group], left // (len(sizes) - at))
        left -= taken[group]
    return taken


def cluster_quotas(sizes: Sequence[int], n: int, min_cluster: int = 3) -> tuple[list[int], int]:
    """(how many each cluster of at least `min_cluster` members gives, how many all smaller ones give together)."""
    large = [at for at, size in enumerate(sizes) if size >= min_cluster]
    taken = [0] * len(sizes)
    for at, count in zip(large, quotas([sizes[at] for at in large], n), strict=True):
        taken[at] = count
    small = sum(size for size in sizes if size < min_cluster)
    return taken, min(small, n - sum(taken))


def order(sources: np.ndarray, labels: np.ndarray, min_cluster: int, seed: int) -> np.ndarray:
    """(n,) rank of every item, 0 first, such that the first n items are a balanced choice of n, for every n.

    Members of a cluster come in an order drawn by the seed, clusters take turns, the larger first; members of small
    clusters follow at random; sources take turns in the same way.  That is the rule of `quotas` as n grows: taking
    turns fills groups evenly, and what a round cannot give to all goes to the larger ones.
    """
    within = np.empty(len(labels), np.int64)
    for source in np.unique(sources):
        rows = np.flatnonzero(sources == source)
        within[rows] = _inside(labels[rows], min_cluster, seed, int(source))
    return _turns(within, sources)


def _inside(labels: np.ndarray, min_cluster: int, seed: int, source: int) -> np.ndarray:
    """Rank of each item inside its source."""
    _, cluster, counts = np.unique(labels, return_inverse=True, return_counts=True)
    drawn = generator(seed, "s2l", source).permutation(len(labels))
    place = np.empty(len(labels), np.int64)
    by_cluster = drawn[np.argsort(cluster[drawn], kind="stable")]
    place[by_cluster] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    small = counts[cluster] < min_cluster
    rank = np.empty(len(labels), np.int64)
    large = np.flatnonzero(~small)
    rank[large] = _turns(place[large], cluster[large])
    rest = drawn[small[drawn]]
    rank[rest] = len(large) + np.arange(len(rest))
    return rank


def _turns(place: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Rank of each item when groups take turns, larger ones first: by place in the group, then by the group."""
    found, of, counts = np.unique(group, return_inverse=True, return_counts=True)
    seat = np.empty(len(found), np.int64)
    seat[np.argsort(counts, kind="stable")] = np.arange(len(found))
    rank = np.empty(len(place), np.int64)
    rank[np.lexsort((-seat[of], place))] = np.arange(len(place))
    return rank


def thinned(total: int, want: int) -> list[int]:
    """Which checkpoints stay: every floor(total / want)-th from the first on, which may be more than `want`."""
    return list(range(0, total, max(1, total // want)))


def answer_loss(logprobs: Sequence[float], mask: Sequence[int]) -> float:
    """Mean negative log-probability of the tokens under the mask, in nats; NaN when there is none."""
    chosen = np.asarray(logprobs, np.float64)[np.asarray(mask, bool)]
    return float(-chosen.mean()) if len(chosen) else float("nan")
