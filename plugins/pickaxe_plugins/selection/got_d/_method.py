"""GOT-D: items that pull a pool's distribution towards a target, by the gradient of optimal transport (2405.02774)."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import ArtifactWriter, Call, Column, Example, InputField, Item, Items, Method, Progress, Scores, Segment
from pickaxe.errors import InvalidItems, Unmet
from pickaxe.hooks import hookimpl
from pickaxe.randomness import generator
from pickaxe_plugins.selection._embeddings import EMBEDDING, TEXT, Embedder
from pickaxe_plugins.selection.got_d import _transport
from pickaxe_plugins.selection.got_d._pool import Pool, concatenated_units, pieces, read_pool, read_targets
from pickaxe_plugins.selection.got_d._transport import Costs, Settings, Solution, Step

__all__ = ["GotD", "Params", "calibrated", "concatenated_units"]

EXACT_PAIRS = 50_000_000
"""Up to so many pairs of target and candidate, precision "auto" computes in 64 bits."""
BLURRED = 0.01
"""Nats of divergence from independence below which epsilon is too large."""
_ABOUT, _TARGETS, _POTENTIALS = "about.json", "targets.npy", "potentials.npy"

Epsilon = Annotated[float, Field(gt=0)] | Literal["auto"]


class Params(pickaxe.Params):
    """Parameters of `got-d`."""

    epsilon: Epsilon = Field(
        0.1,
        description="Blur of the transport, absolute, in squared distance (> 0); auto: 0.05 of the median cost.  "
        "For unit vectors, whose squared distances are 0 to 4, 0.01 to 0.05 is sensible.",
    )
    domain_epsilon: Epsilon | None = Field(None, description="The same for the distances of domains; null: epsilon.")
    tolerance: float = Field(1e-6, gt=0, description="Largest change of a potential in an iteration at the end.")
    max_iterations: int = Field(2000, ge=1, description="Most iterations at the final epsilon.")
    momentum: float = Field(1.0, ge=1, le=1.9, description="Over-relaxation; 1 is plain and is fallen back to.")
    scale: Literal["none", "unit_norm"] = Field("none", description="unit_norm: embeddings are scaled to length 1.")
    unit_chars: int | None = Field(
        1000, ge=1, description="Longer texts are cut into pieces of so many characters; null: never."
    )
    keep_domains: int | None = Field(
        None, ge=1, description="Only so many nearest domains make the pool, and items without one; null: all."
    )
    domain_sample: int = Field(20_000, ge=1, description="Candidates of a domain, drawn for its distance.")
    target_sample: int | None = Field(None, ge=1, description="So many targets, drawn by the seed; null: all.")
    batch: int | None = Field(None, ge=1, description="Candidates in a block; null: as many as fit a core's cache.")
    memory: int = Field(1024, ge=0, description="MiB for costs that are kept; if too few, they are computed each time.")
    precision: Literal["auto", "float32", "float64"] = Field(
        "auto", description="Of blocks; sums are 64 bits.  auto: float64 up to 50 million pairs."
    )
    require_convergence: bool = Field(False, description="Fail where the potentials did not converge.")
    model: str = Field("encoder", min_length=1, description="Sentence encoder of items that come without embedding.")


class GotD(Method[Params]):
    """Pick the items whose weight in a pool, if it grew, would bring the pool closest to a target.

    gain = -d OT(pool, targets) / d(mass of the item): high for what the targets have and the pool lacks.  `fit` solves
    entropic optimal transport between the pool (examples) and the targets (validation); any item can be scored.
    """

    title = "Get more for less: Principled Data Selection for Warming Up Fine-Tuning in LLMs"
    paper = "arXiv:2405.02774"
    version = 1
    Params = Params
    scope = "item"
    reads = (EMBEDDING, TEXT, InputField("domain", "text", "Name of the item's domain.", False))
    fit_reads = reads
    columns = (
        Column("gain", "-G: how fast transport gets cheaper as the item's mass grows", "float64"),
        Column("potential", "dual potential g, its mean over the pool is 0", "float64", direction="lower"),
        Column("nearest_target_distance", "squared distance to the nearest target", "float64", direction="lower"),
        Column(
            "domain_distance", "transport cost between the item's domain and the targets", "float64", "", "lower", True
        ),
    )
    fitted = "required"
    stages = ("read", "domains", "transport")
    cost = (
        "Fit: iterations x targets x candidates x d, one exp a pair; memory: the targets, blocks, and 8 bytes a "
        "candidate; the pool lies on the disk.  Scoring: one product with the targets."
    )
    reproduced = (
        "Potentials, costs and order of golden cases; selected < random < worst transport to the target on every seed."
    )

    @classmethod
    def example(cls) -> Example:
        """Targets in two places, of which the pool covers one well."""
        rng = np.random.default_rng(0)

        def around(x: float, y: float, count: int) -> Iterator[np.ndarray]:
            yield from (np.array([x, y]) + rng.normal(0, 0.1, (count, 2))).astype(np.float32)

        def items(name: str, vectors: Iterable[np.ndarray], domain: str) -> tuple[Item, ...]:
            return tuple(
                Item(f"{name}{at}", fields={"embedding": each, "domain": domain}) for at, each in enumerate(vectors)
            )

        pool = (*items("common", around(0, 0, 18), "web"), *items("rare", around(2, 0, 3), "books"))
        targets = (*items("t", around(0, 0, 5), ""), *items("u", around(2, 0, 5), ""))
        return Example({"epsilon": 0.1}, (pool[18], pool[0]), True, pool, targets)

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        """Solve the transport between the pool (examples) and the targets (validation)."""
        params = self.params
        embedder = Embedder(self.host, params.model, unit=params.scale == "unit_norm")
        targets = read_targets(validation, embedder, params.unit_chars, params.target_sample, call)
        path = out.file("pool.bin")
        pool = yield from read_pool(examples, embedder, params.unit_chars, path, call)
        try:
            yield Progress("read", pool.items, pool.items, self._need(pool, targets))
            yield from self._solved(pool, targets, out, call)
        finally:
            path.unlink()

    def _need(self, pool: Pool, targets: np.ndarray) -> dict[str, float]:
        """What the fit will take, told before it starts."""
        pairs = len(pool.vectors) * len(targets) * np.dtype(self._dtype(len(pool.vectors) * len(targets))).itemsize
        kept = pairs if pairs <= self.params.memory << 20 else 0
        fixed = 3 * targets.nbytes + 24 * len(pool.vectors) + 16 * _transport.BLOCK_BYTES
        return {
            "candidates": float(len(pool.vectors)),
            "targets": float(len(targets)),
            "memory_mib": (kept + fixed) / 2**20,
            "disk_mib": pool.vectors.nbytes / 2**20,
        }

    def _solved(self, pool: Pool, targets: np.ndarray, out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        params = self.params
        epsilon = self._epsilon(params.epsilon, pool.vectors, targets, call)
        domains = yield from self._domains(pool, targets, epsilon, call)
        kept = sorted(domains, key=lambda name: (domains[name], name))[: params.keep_domains]
        costs = self._costs(pool.vectors, targets, None if len(kept) == len(domains) else pool.rows_of(kept))
        trace: list[Step] = []
        solution = yield from _watched(self._solve(costs, targets, epsilon, "pool", call), trace)
        notes = _told(solution, self.params.require_convergence)
        about = {
            **notes,
            "epsilon": epsilon,
            "candidates": costs.m,
            "domains": domains,
            "kept_domains": kept,
            "dtype": costs.dtype.name,
            "scale": params.scale,
            "unit_chars": params.unit_chars,
            "trace": [list(step) for step in trace[:: -(-len(trace) // 200)]],
        }
        out.write_json(_ABOUT, about)
        out.write_array(_TARGETS, targets)
        out.write_array(_POTENTIALS, solution.f)
        out.notes |= {**notes, "targets": len(targets), "candidates": costs.m}

    def _dtype(self, pairs: int) -> type[np.floating]:
        wanted = self.params.precision
        exact = pairs <= EXACT_PAIRS if wanted == "auto" else wanted == "float64"
        return np.float64 if exact else np.float32

    def _costs(self, vectors: np.ndarray, targets: np.ndarray, rows: np.ndarray | None) -> Costs:
        m = len(vectors) if rows is None else len(rows)
        if m < 2:
            raise InvalidItems("examples", f"are {m} candidates, wanted two or more")
        dtype, params = self._dtype(m * len(targets)), self.params
        return Costs(vectors, targets, dtype, rows=rows, block=params.batch, keep_bytes=params.memory << 20)

    def _solve(
        self, costs: Costs, targets: np.ndarray, epsilon: float, what: str, call: Call
    ) -> Generator[Step, None, Solution]:
        params = self.params
        settings = Settings(epsilon, params.tolerance, params.max_iterations, params.momentum)
        return _transport.solve(costs, targets, settings, generator(call.seed, "got-d", what), call)

    def _epsilon(self, wanted: Epsilon, pool: np.ndarray, targets: np.ndarray, call: Call) -> float:
        if wanted != "auto":
            return wanted
        rng = generator(call.seed, "got-d", "epsilon")
        left, right = (each[np.sort(rng.permutation(len(each))[:1000])] for each in (pool, targets))
        costs = Costs(left, right, np.float64)
        products, norms = costs.products(0, len(left))
        return max(0.05 * float(np.median(norms[:, None] + costs.norms - products)), 1e-12)

    def _domains(
        self, pool: Pool, targets: np.ndarray, epsilon: float, call: Call
    ) -> Generator[Progress, None, dict[str, float]]:
        """Transport cost between the targets and a sample of each domain."""
        found: dict[str, float] = {}
        for number, name in enumerate(pool.domains):
            rows = np.flatnonzero(pool.domain_of == number)
            if len(rows) > self.params.domain_sample:
                rng = generator(call.seed, "got-d", "domain", name)
                rows = np.sort(rng.choice(rows, self.params.domain_sample, replace=False))
            of = self.params.domain_epsilon
            blur = epsilon if of is None else self._epsilon(of, pool.vectors, targets, call)
            costs = Costs(pool.vectors, targets, np.float64, rows=rows, keep_bytes=self.params.memory << 20)
            steps = self._solve(costs, targets, blur, f"domain {name}", call)
            found[name] = _transport.finished(steps).transport_cost
            yield Progress("domains", number + 1, len(pool.domains), {"distance": found[name]})
        return found

    # ------------------------------------------------------------ score

    @cached_property
    def _about(self) -> dict[str, Any]:
        assert self.artifact is not None  # the handle sees to it: `fitted` is "required"
        about: dict[str, Any] = self.artifact.read_json(_ABOUT)
        return about

    @cached_property
    def _fitted(self) -> tuple[np.ndarray, np.ndarray]:
        assert self.artifact is not None
        return np.array(self.artifact.read_array(_TARGETS)), np.array(self.artifact.read_array(_POTENTIALS))

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        about, (targets, f) = self._about, self._fitted
        parts = [pieces(item, about["unit_chars"]) for item in items]
        embedder = Embedder(self.host, self.params.model, unit=about["scale"] == "unit_norm", width=targets.shape[1])
        units = [unit for part in parts for unit in part]
        costs = Costs(
            embedder.rows(units, "items", call), targets, np.dtype(about["dtype"]).type, block=self.params.batch
        )
        g, nearest = np.empty(costs.m), np.empty(costs.m)

        def work(rows: slice, products: np.ndarray, norms: np.ndarray) -> None:
            g[rows] = _transport.transformed(products, norms, costs, f, about["epsilon"], about["candidates"])[0]
            nearest[rows] = np.maximum(norms + (costs.norms - products).min(axis=1), 0)

        for _ in costs.over(work, call):
            pass
        gain = calibrated(g, about["candidates"])
        ends = np.cumsum([0, *map(len, parts)])
        mean = [slice(*span) for span in pairwise(ends)]
        domains = about["domains"]
        return Scores(
            {
                "gain": np.array([gain[at].mean() for at in mean]),
                "potential": np.array([g[at].mean() for at in mean]),
                "nearest_target_distance": np.array([nearest[at].min() for at in mean]),
                "domain_distance": np.array([domains.get(item.get("domain"), np.nan) for item in items], np.float64),
            },
            segments=_segments(parts, gain, ends) if any(len(part) > 1 for part in parts) else (),
        )


def calibrated(g: np.ndarray, candidates: int) -> np.ndarray:
    """-G from potentials whose mean over the pool is 0: -m / (m - 1) g_j.

    G_j is the change of the transport cost when mass moves to j and the other masses shrink evenly.
    """
    return -candidates / (candidates - 1) * g


def _segments(parts: list[list[Item]], gain: np.ndarray, ends: np.ndarray) -> tuple[tuple[Segment, ...], ...]:
    rows: list[tuple[Segment, ...]] = []
    for part, first in zip(parts, ends, strict=False):
        places = np.cumsum([0, *(len(unit.text or "") for unit in part)])
        spans = enumerate(pairwise(places.tolist()), int(first)) if len(part) > 1 else ()
        rows.append(tuple(Segment(start, stop, float(gain[at])) for at, (start, stop) in spans))
    return tuple(rows)


def _watched(steps: Generator[Step, None, Solution], trace: list[Step]) -> Generator[Progress, None, Solution]:
    """The solution, each iteration told as progress and kept in the trace."""
    while True:
        try:
            trace.append(next(steps))
        except StopIteration as end:
            solution: Solution = end.value
            return solution
        step = trace[-1]
        yield Progress("transport", len(trace), 0, {"epsilon": step.epsilon, "change": step.change})


def _told(solution: Solution, require: bool) -> dict[str, Any]:
    """The figures of a solution and what is wrong with it."""
    notes: dict[str, Any] = {
        "converged": solution.converged,
        "iterations": solution.iterations,
        "change": solution.change,
        "transport_cost": solution.transport_cost,
        "dual_objective": solution.dual_objective,
        "kl_regularised_cost": solution.kl_regularised_cost,
        "mass_error": solution.mass_error,
        "mean_potential": 0.0,
    }
    if not solution.converged:
        text = (
            f"the potentials still changed by {solution.change:.3g} after {solution.iterations} iterations: epsilon "
            f"{solution.epsilon:g} is too small for them; raise epsilon, max_iterations or tolerance"
        )
        if require:
            raise Unmet(text, metadata={"change": solution.change, "iterations": solution.iterations})
        notes["warning"] = text
    elif solution.divergence < BLURRED:
        notes["warning"] = (
            f"epsilon {solution.epsilon:g} is so large that every candidate goes to all targets alike: scores only say "
            "the distance to the targets' mean; lower epsilon"
        )
    if "warning" in notes:
        warnings.warn(notes["warning"], stacklevel=2)
    return notes
