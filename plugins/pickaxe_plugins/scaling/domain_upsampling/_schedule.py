"""Which domain, and which of its documents, comes next: deterministic, exact in its proportions, resumable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pickaxe.errors import InvalidParams
from pickaxe.randomness import generator

_BLOCK = 4096


class Credits:
    """Each draw adds the mix to the credits, takes the domain with the largest (the first of equal ones), subtracts 1.

    After n draws of one mix a domain has at most one draw more than its n w_d, and at most H_k - 1 less.  `credits`
    and `counts` (D,) are the whole state: from them draws go on exactly.
    """

    def __init__(self, domains: int, credits: np.ndarray | None = None, counts: np.ndarray | None = None) -> None:
        self.credits = np.zeros(domains) if credits is None else np.array(credits, float)
        self.counts = np.zeros(domains, np.int64) if counts is None else np.array(counts, np.int64)

    def draw(self, mix: np.ndarray, n: int) -> np.ndarray:
        """The next n domains, (n,) int64.  A domain of weight 0 is never drawn, whatever its credit."""
        used = np.flatnonzero(mix > 0)
        credits, weights = self.credits[used], np.ascontiguousarray(mix[used])
        add, largest = np.add, credits.argmax
        order = []
        for _ in range(n):
            add(credits, weights, credits)
            place = largest()
            credits[place] -= 1.0
            order.append(place)
        self.credits[used] = credits
        drawn = used[np.array(order, np.int64)]
        self.counts += np.bincount(drawn, minlength=len(mix))
        return drawn

    def copy(self) -> Credits:
        return Credits(len(self.credits), self.credits, self.counts)


def schedule(
    documents: Sequence[int],
    mix: Sequence[float],
    total: int,
    delta: float = 0.2,
    final_mix: Sequence[float] | None = None,
    *,
    seed: int = 0,
    mean_tokens: Sequence[float] | None = None,
) -> Iterator[tuple[int, int]]:
    """`total` draws of (domain, document): the first (1 - delta) of them by `mix`, the others by `final_mix`.

    `documents` is how many each domain has; they come in one order, keyed by the seed, that starts again only when
    it is used up and goes on across the switch.  Mixes are shares of *tokens*: where documents of different domains
    differ in length give `mean_tokens`.  Raises `InvalidParams`.
    """
    counts = np.asarray(documents, np.int64)
    phases = [_draw_mix(each, counts, mean_tokens) for each in (mix, mix if final_mix is None else final_mix)]
    if not 0 <= delta <= 1:
        raise InvalidParams("delta", f"is {delta:g}, wanted a share between 0 and 1")
    switch = round((1 - delta) * total)
    orders = [
        generator(seed, "domain-upsampling", "order", d).permutation(int(count)) for d, count in enumerate(counts)
    ]
    credits = Credits(len(counts))
    for weights, draws in zip(phases, (switch, total - switch), strict=True):
        for start in range(0, draws, _BLOCK):
            before = credits.counts.copy()
            drawn = credits.draw(weights, min(_BLOCK, draws - start))
            places = ordinals(drawn, before)
            chosen = np.empty_like(drawn)
            for domain in np.unique(drawn).tolist():
                rows = drawn == domain
                chosen[rows] = orders[domain][places[rows] % len(orders[domain])]
            yield from zip(drawn.tolist(), chosen.tolist(), strict=True)


def ordinals(drawn: np.ndarray, before: np.ndarray) -> np.ndarray:
    """For domains drawn one after the other (n,), how many times each was drawn before; `before` (D,) at the start."""
    found = np.empty(len(drawn), np.int64)
    for domain, count in enumerate(before.tolist()):
        rows = np.flatnonzero(drawn == domain)
        found[rows] = count + np.arange(len(rows))
    return found


def _draw_mix(mix: Sequence[float], documents: np.ndarray, mean_tokens: Sequence[float] | None) -> np.ndarray:
    """Shares of draws: those of tokens over the mean length of a document."""
    weights = np.asarray(mix, float)
    if weights.shape != documents.shape:
        raise InvalidParams("mix", f"has {len(weights)} weights, there are {len(documents)} domains")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise InvalidParams("mix", "must hold finite weights that are not negative, one of them above 0")
    if ((documents < 1) & (weights > 0)).any():
        raise InvalidParams("documents", "are 0 in a domain that has a weight")
    if mean_tokens is not None:
        weights = weights / np.asarray(mean_tokens, float)
    shares: np.ndarray = weights / weights.sum()
    return shares
