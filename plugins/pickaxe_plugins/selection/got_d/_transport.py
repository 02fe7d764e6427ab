"""Entropic optimal transport between few targets and many candidates, in blocks: the potentials and their cost.

Uniform weights, squared Euclidean cost C, absolute epsilon.  Let x_j be a candidate and y_i a target:
(f_i - C_ij) / eps = (f_i - |y_i|^2 + 2 x_j.y_i) / eps - |x_j|^2 / eps, so that one product of matrices and one exp
for each pair make both half steps of Sinkhorn: g is the c-transform of f, and the mass that it brings to each
target says how f changes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

from pickaxe import Call

T = TypeVar("T")

BLOCK_BYTES = 2 << 20
"""Size of a block of pairs: it stays in the cache of a core."""
SAMPLE = 20_000
"""Candidates on which the first, rough rounds run when there are many more."""
ROUGH = 200
"""Most iterations of a round that only prepares the next."""


class Step(NamedTuple):
    """One iteration: the largest change of a target's potential."""

    epsilon: float
    iteration: int
    change: float


@dataclass(frozen=True)
class Settings:
    epsilon: float
    tolerance: float = 1e-6
    max_iterations: int = 2000
    momentum: float = 1.0


@dataclass(frozen=True)
class Solution:
    """f (n,) float64, shifted so that the candidates' mean potential is 0; the figures of the plan."""

    f: np.ndarray
    epsilon: float
    candidates: int
    transport_cost: float
    dual_objective: float
    divergence: float
    """KL divergence of the plan from independence, in nats: near 0 when epsilon blurs everything."""
    mass_error: float
    """Largest difference of a target's mass from 1/n; the candidates' masses are exact."""
    iterations: int
    change: float
    converged: bool

    @property
    def kl_regularised_cost(self) -> float:
        return self.transport_cost + self.epsilon * self.divergence


class Costs:
    """Squared distances between targets (n, d) and a pool (m, d), of which only blocks are in memory.

    `rows` chooses from the pool.  Blocks of products are kept when all of them fit into `keep_bytes`.
    """

    def __init__(
        self,
        pool: np.ndarray,
        targets: np.ndarray,
        dtype: type[np.floating],
        *,
        rows: np.ndarray | None = None,
        block: int | None = None,
        keep_bytes: int = 0,
    ) -> None:
        self.centre = targets.mean(axis=0, dtype=np.float64)
        """Subtracted from all vectors: distances stay, rounding errors shrink."""
        centred = targets - self.centre
        self.dtype = np.dtype(dtype)
        self.floor = self.dtype.type(np.log(np.finfo(self.dtype).tiny) + 10)
        self.norms = np.einsum("nd,nd->n", centred, centred)
        self.doubled = np.ascontiguousarray(2 * centred.T, self.dtype)
        self._pool, self._rows, self._block, self._keep_bytes = pool, rows, block, keep_bytes
        size = block or max(16, BLOCK_BYTES // (self.dtype.itemsize * self.n))
        self._starts = [*range(0, self.m, size), self.m]
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._keep = self.pair_bytes <= keep_bytes

    @property
    def n(self) -> int:
        return len(self.norms)

    @property
    def m(self) -> int:
        return len(self._pool) if self._rows is None else len(self._rows)

    @property
    def pair_bytes(self) -> int:
        """What all blocks of products take."""
        return self.n * self.m * self.dtype.itemsize

    def sampled(self, size: int, rng: np.random.Generator, targets: np.ndarray) -> Costs:
        """The same for so many candidates, drawn without replacement."""
        chosen = np.sort(rng.choice(self.m, size, replace=False))
        rows = chosen if self._rows is None else self._rows[chosen]
        return Costs(self._pool, targets, self.dtype.type, rows=rows, block=self._block, keep_bytes=self._keep_bytes)

    def products(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """(stop - start, n) 2 x.y and (stop - start,) |x|^2 of centred vectors."""
        if found := self._kept.get(start):
            return found
        at = slice(start, stop) if self._rows is None else self._rows[start:stop]
        centred = (self._pool[at] - self.centre).astype(self.dtype)
        made = centred @ self.doubled, np.einsum("md,md->m", centred, centred, dtype=np.float64)
        if self._keep:
            self._kept[start] = made
        return made

    def over(self, work: Callable[[slice, np.ndarray, np.ndarray], T], call: Call) -> Iterator[T]:
        """What `work(rows, products, norms)` gives for each block, in order; blocks are worked on in threads."""

        def one(span: tuple[int, int]) -> T:
            call.check()
            return work(slice(*span), *self.products(*span))

        spans = list(pairwise(self._starts))
        if len(spans) < 2:
            yield from map(one, spans)
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            waiting = [pool.submit(one, span) for span in spans]
            try:
                for each in waiting:
                    yield each.result()
            finally:
                pool.shutdown(cancel_futures=True)


def exponents(products: np.ndarray, costs: Costs, f: np.ndarray, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """exp of (f_i - C_ij + |x_j|^2) / eps less its maximum over targets, (rows, n), and that maximum (rows,)."""
    s = products * costs.dtype.type(1 / epsilon)
    s += ((f - costs.norms) / epsilon).astype(costs.dtype)
    highest = s.max(axis=1)
    s -= highest[:, None]
    np.maximum(s, costs.floor, out=s)  # what underflows would be slow to add, and counts for nothing
    return np.exp(s, out=s), highest.astype(np.float64)


def transformed(
    products: np.ndarray, norms: np.ndarray, costs: Costs, f: np.ndarray, epsilon: float, m: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(g, exponents, their sums) of a block: g_j = eps (log 1/m - LSE_i((f_i - C_ij) / eps))."""
    e, highest = exponents(products, costs, f, epsilon)
    sums = (e @ np.ones(costs.n, costs.dtype)).astype(np.float64)
    return norms - epsilon * (highest + np.log(sums) + math.log(m)), e, sums


def _pass(costs: Costs, f: np.ndarray, epsilon: float, call: Call) -> tuple[np.ndarray, np.ndarray]:
    """The candidates' potentials (m,), and the mass (n,) that they bring to each target."""
    g, mass = np.empty(costs.m), np.zeros(costs.n)

    def work(rows: slice, products: np.ndarray, norms: np.ndarray) -> np.ndarray:
        g[rows], e, sums = transformed(products, norms, costs, f, epsilon, costs.m)
        return (1 / sums).astype(costs.dtype) @ e

    for part in costs.over(work, call):
        mass += part
    return g, mass / costs.m


def _thin(costs: Costs, g: np.ndarray, targets: np.ndarray, epsilon: float, call: Call) -> np.ndarray:
    """LSE_j((g_j - C_ij) / eps) of the chosen targets with a running maximum: their mass underflowed."""

    def work(rows: slice, products: np.ndarray, norms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        s = (products[:, targets] - costs.norms[targets] + (g[rows] - norms)[:, None]) / epsilon
        highest = s.max(axis=0)
        return highest, np.exp(s - highest).sum(axis=0)

    top, total = np.full(len(targets), -np.inf), np.zeros(len(targets))
    for highest, sums in costs.over(work, call):
        new = np.maximum(top, highest)
        total = total * np.exp(top - new) + sums * np.exp(highest - new)
        top = new
    return top + np.log(total)


def _wanted(costs: Costs, f: np.ndarray, epsilon: float, call: Call) -> np.ndarray:
    """f after one iteration: the two half steps of Sinkhorn."""
    g, mass = _pass(costs, f, epsilon, call)
    thin = np.flatnonzero(mass * costs.m < 1e15 * np.finfo(costs.dtype).tiny)
    mass[thin] = 1
    new = f - epsilon * (math.log(costs.n) + np.log(mass))
    if len(thin):
        new[thin] = -epsilon * (math.log(costs.n) + _thin(costs, g, thin, epsilon, call))
    return new


def _rounds(
    costs: Costs, targets: np.ndarray, settings: Settings, rng: np.random.Generator
) -> Iterator[tuple[Costs, Settings]]:
    """From ten times epsilon down to it, halving; on a sample first when there are many candidates."""
    small = costs.sampled(SAMPLE, rng, targets) if costs.m > 4 * SAMPLE else costs
    for factor in (10, 5, 2.5, 1.25):
        epsilon = factor * settings.epsilon
        yield small, Settings(epsilon, max(settings.tolerance, epsilon / 100), ROUGH, settings.momentum)
    if small is not costs:
        yield (
            small,
            Settings(settings.epsilon, max(settings.tolerance, settings.epsilon / 1000), ROUGH, settings.momentum),
        )
    yield costs, settings


def _descend(
    costs: Costs, f: np.ndarray, settings: Settings, call: Call
) -> Generator[Step, None, tuple[np.ndarray, int, float]]:
    """Iterate until the change is below the tolerance; a momentum that makes changes grow is given up."""
    momentum, best, change, iteration = settings.momentum, math.inf, math.inf, 0
    for iteration in range(1, settings.max_iterations + 1):
        move = _wanted(costs, f, settings.epsilon, call) - f
        change = float(np.abs(move).max())
        if momentum > 1 and not change <= 10 * best:
            momentum = 1.0
        best = min(best, change)
        f = f + momentum * move
        yield Step(settings.epsilon, iteration, change)
        if change <= settings.tolerance:
            break
    return f, iteration, change


def solve(
    costs: Costs, targets: np.ndarray, settings: Settings, rng: np.random.Generator, call: Call
) -> Generator[Step, None, Solution]:
    """The potentials; yields every iteration.  Not converging is told by the solution, not raised."""
    f, iteration, change = np.zeros(costs.n), 0, math.inf
    for of, rough in _rounds(costs, targets, settings, rng):
        f, iteration, change = yield from _descend(of, f, rough, call)
    return _described(costs, f, settings, iteration, change, call)


def finished(steps: Generator[Step, None, Solution]) -> Solution:
    """The solution of a transport whose iterations nobody follows."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            solution: Solution = end.value
            return solution


def _described(costs: Costs, f: np.ndarray, settings: Settings, iterations: int, change: float, call: Call) -> Solution:
    epsilon, m, n = settings.epsilon, costs.m, costs.n
    g, mass = np.empty(m), np.zeros(n)

    def work(rows: slice, products: np.ndarray, norms: np.ndarray) -> tuple[np.ndarray, float]:
        g[rows], e, sums = transformed(products, norms, costs, f, epsilon, m)
        per_target = (1 / sums).astype(costs.dtype) @ e
        inner = np.einsum("mn,mn->m", e, products, dtype=np.float64)
        return per_target, float(norms.sum() - (inner / sums).sum())

    cost = 0.0
    for part, of_block in costs.over(work, call):
        mass += part
        cost += of_block
    mass /= m
    cost = cost / m + float(mass @ costs.norms)
    dual = float(f.mean() + g.mean())
    divergence = (float(mass @ f) + float(g.mean()) - cost) / epsilon + math.log(n * m)
    error = float(np.abs(mass - 1 / n).max())
    converged = change <= settings.tolerance
    return Solution(f + float(g.mean()), epsilon, m, cost, dual, divergence, error, iterations, change, converged)
