"""Which items of a pool to ask labels for: base methods of active learning, and balance over pseudo labels."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from pickaxe import Call

Base = Literal["entropy", "coreset", "badge", "random"]
Fallback = Literal["reference", "next_class"]


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """(N,) -sum p ln(p + 1e-6), in nats."""
    return -np.einsum("nk,nk->n", probabilities, np.log(probabilities + 1e-6))


def k_center(features: np.ndarray, labelled: np.ndarray, count: int, call: Call) -> np.ndarray:
    """`count` rows, each the farthest from all labelled and chosen ones, the first on ties; without labels from row 0.

    Euclidean distance of features (N, d) and labelled (L, d).
    """
    norms = np.einsum("nd,nd->n", features, features)
    apart = np.full(len(features), np.inf)

    def nearer(rows: np.ndarray) -> None:
        found = norms[:, None] - 2 * (features @ rows.T) + np.einsum("ld,ld->l", rows, rows)
        np.minimum(apart, found.min(axis=1), out=apart)

    for start in range(0, len(labelled), 64):
        call.check()
        nearer(labelled[start : start + 64])
    chosen = np.empty(count, np.int64)
    for at in range(count):
        call.check()
        chosen[at] = int(apart.argmax())
        nearer(features[chosen[at] : chosen[at] + 1])
        apart[chosen[: at + 1]] = -np.inf
    return chosen


def badge_factors(probabilities: np.ndarray) -> np.ndarray:
    """(N, K) onehot(pseudo) - p: with the features x it makes the gradient embedding a outer x."""
    factors = -probabilities
    factors[np.arange(len(factors)), probabilities.argmax(axis=1)] += 1
    return factors


def badge(
    probabilities: np.ndarray, features: np.ndarray, count: int, rng: np.random.Generator, call: Call
) -> np.ndarray:
    """`count` rows by k-means++ on gradient embeddings (N, K d), which are never made.

    The first has the largest norm; each next is drawn in proportion to its squared distance to the chosen ones:
    <g_i, g_j> = <a_i, a_j> <x_i, x_j>.
    """
    factors = badge_factors(probabilities)
    norms = np.einsum("nk,nk->n", factors, factors) * np.einsum("nd,nd->n", features, features)
    chosen = np.empty(count, np.int64)
    chosen[0], apart = norms.argmax(), np.full(len(norms), np.inf)
    for at in range(1, count):
        call.check()
        last = chosen[at - 1]
        inner = (factors @ factors[last]) * (features @ features[last])
        np.minimum(apart, np.maximum(norms + norms[last] - 2 * inner, 0), out=apart)
        apart[chosen[:at]] = 0
        total = np.cumsum(apart, dtype=np.float64)
        if total[-1] > 0:
            chosen[at] = min(np.searchsorted(total, rng.random() * total[-1], side="right"), len(norms) - 1)
        else:  # all others have the embedding of a chosen one
            free = np.setdiff1d(np.arange(len(norms)), chosen[:at])
            chosen[at] = rng.choice(free)
    return chosen


def informative(
    base: Base,
    probabilities: np.ndarray,
    features: np.ndarray,
    labelled: np.ndarray,
    count: int,
    rng: np.random.Generator,
    call: Call,
) -> np.ndarray:
    """Rows of the most informative `count` items, best first."""
    match base:
        case "entropy":
            return np.argsort(-entropy(probabilities), kind="stable")[:count]
        case "coreset":
            return k_center(features, labelled, count, call)
        case "badge":
            return badge(probabilities, features, count, rng, call)
        case "random":
            return rng.permutation(len(features))[:count]


class Picks(NamedTuple):
    """Places among the candidates in the order of picking, and whether each was of the wanted class."""

    rows: np.ndarray
    forced: np.ndarray


def balanced(pseudo: np.ndarray, counts: np.ndarray, count: int, rng: np.random.Generator, fallback: Fallback) -> Picks:
    """`count` of the candidates with these pseudo labels, filling the classes with the fewest labels (K,).

    Each time the class of the lowest count, the lowest index on ties, gets a random candidate.  Without one left,
    "reference" takes any candidate and counts nothing, so that the rest is random too; "next_class" turns to the
    smallest class that has one.
    """
    counts, order = counts.copy(), rng.permutation(len(pseudo))
    queues = {label: list(order[pseudo[order] == label][::-1]) for label in range(len(counts))}
    rows, forced = list[int](), list[bool]()
    while len(rows) < count:
        open_ones = [label for label in queues if queues[label]]
        among = range(len(counts)) if fallback == "reference" else open_ones
        wanted = min(among, key=lambda label: counts[label])
        if queues[wanted]:
            rows.append(int(queues[wanted].pop()))
            counts[wanted] += 1
            forced.append(True)
            continue
        used = set(rows)
        rest = [int(row) for row in order if int(row) not in used][: count - len(rows)]
        rows += rest
        forced += [False] * len(rest)
    return Picks(np.array(rows, np.int64), np.array(forced, bool))
