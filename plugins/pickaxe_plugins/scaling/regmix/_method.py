"""The scorer `regmix`."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np

from pickaxe import ArtifactWriter, Call, Column, Example, Flag, InputField, Item, Items, Method, Progress, Scores
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe.randomness import generator, uniform
from pickaxe_plugins.scaling.regmix._params import Params
from pickaxe_plugins.scaling.regmix._quality import Quality, quality
from pickaxe_plugins.scaling.regmix._regressors import Regressors, check_learnable, fit_all, fit_one
from pickaxe_plugins.scaling.regmix._report import report
from pickaxe_plugins.scaling.regmix._search import Best, Objective, enough, search, simulated
from pickaxe_plugins.scaling.regmix._tables import Reader, Runs

LEAST_RUNS = 10
_OPTIMUM, _TOP, _FOUND = "optimal_mixture.json", "top_mixtures.npy", "found.json"
_REFIT_BLOCKS = 1
"""Blocks of the search that every refit looks at."""
_SLACK = 1e-9


class RegMix(Method[Params]):
    """Find the mixture of training data whose loss a regression over many small runs predicts to be lowest.

    Fit on the mixtures and losses of small proxy models; the artifact then ranks any mixtures and holds the best one.
    """

    title = "RegMix: Data Mixture as Regression for Language Model Pre-training"
    paper = "arXiv:2407.01492"
    version = 1
    Params = Params
    scope = "pool"
    reads = (
        InputField("mixture", "struct", "Domain -> weight; else one field a domain, named by `domains`.", False),
        InputField("weights", "tensor", "Instead: the weights (D,) in the order of `domains`.", False),
        InputField("losses", "struct", "Target -> value, where it was measured: compared with the prediction.", False),
        InputField("loss", "float64", "The value of the only target, where it was measured.", False),
    )
    fit_reads = reads
    columns = (
        Column("score", "The predicted target; its negative where lower is better.", "float64"),
        Column("predicted", "The predicted target, in its own unit.", "float64", direction="none"),
        Column("extrapolation", "How far a weight is outside those of the proxy runs.", "float64", direction="lower"),
    )
    fitted = "required"
    stages = ("fit", "curve", "search", "refits")
    cost = "One regressor a target, below a second for 512 runs; 100,000 simulated mixtures in about a second."
    reproduced = (
        "On the published tables: Spearman 0.990 on 256 other 1M runs, 0.961 on the 64 1B runs (Pile-CC loss); "
        "optimum 0.892 Pile-CC."
    )

    def declared_columns(self) -> tuple[Column, ...]:
        if self.artifact is None:
            return self.columns
        text = "The prediction of target {}."
        targets = [
            Column(f"predicted:{name}", text.format(name), "float64", direction="none") for name in self._fit.targets
        ]
        return (*self.columns, *targets)

    @classmethod
    def example(cls) -> Example:
        """Forty small runs over three domains, where books lower the loss."""
        rng = np.random.default_rng(0)
        weights = np.round(rng.dirichlet([1.0, 1.0, 1.0], 40), 3)
        runs = tuple(
            Item(
                f"run-{row}",
                fields={"mixture": _mixture(each / each.sum()), "loss": float(4 - each[0] + 0.2 * each[1])},
            )
            for row, each in enumerate(weights)
        )
        tried = ((0.8, 0.1, 0.1), (0.3, 0.3, 0.4), (0.05, 0.9, 0.05))
        items = tuple(Item(f"mix-{row}", fields={"mixture": _mixture(each)}) for row, each in enumerate(tried))
        params = {"prior": {"books": 0.2, "code": 0.3, "web": 0.5}, "n_simulate": 1000, "top_k": 16, "min_leaf": 4,
                  "learning_rate": 0.1, "rounds": 50, "bootstrap": 2, "curve_points": 1}  # fmt: skip
        return Example(params=params, items=items, ordered=True, examples=runs)

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        fit = self._fit
        reader = Reader(fit.domains, fit.targets, self.params.sum_tolerance, self.params.normalise)
        self._check_params(fit)
        mixtures = np.array([reader.mixture(item, f"items[{row}]") for row, item in enumerate(items)])
        mixtures = mixtures.reshape(len(items), len(fit.domains))
        measured = np.array([reader.measured(item, f"items[{row}]") for row, item in enumerate(items)])
        predicted = fit.predict(mixtures)
        target, beyond = fit.combined(predicted), fit.extrapolation(mixtures)
        columns = {"score": -fit.sign * target, "predicted": target, "extrapolation": beyond}
        columns |= {f"predicted:{name}": predicted[:, place] for place, name in enumerate(fit.targets)}
        flags = tuple(
            Flag(int(row), "extrapolates", f"a weight is {beyond[row]:.3g} outside those of the proxy runs")
            for row in np.flatnonzero(beyond > _SLACK)
        )
        assert self.artifact is not None  # the handle refuses to score without one
        checked = self._measured(fit, predicted, measured.reshape(len(items), len(fit.targets)), call)
        found = self.artifact.read_json(_FOUND)
        return Scores(columns, summary=report(fit, found, items.ids, target, beyond, checked), flags=flags)

    @cached_property
    def _fit(self) -> Regressors:
        assert self.artifact is not None
        return Regressors.load(self.artifact)

    def _check_params(self, fit: Regressors) -> None:
        """Parameters that only a fit reads are free, but must not name something else than what was fitted."""
        target = self.params.target
        named = tuple(sorted(target)) if isinstance(target, dict) else (target,)
        if target and named != fit.targets:
            raise InvalidParams("target", f"differs from {', '.join(fit.targets)}, which was fitted: fit again")
        if self.params.domains and self.params.domains != fit.domains:
            raise InvalidParams("domains", f"differ from those fitted: {', '.join(fit.domains)}")

    def _measured(
        self, fit: Regressors, predicted: np.ndarray, measured: np.ndarray, call: Call
    ) -> tuple[np.ndarray, dict[str, Quality]]:
        """The measured target (n,), NaN where there is none, and how well each was predicted."""
        known = np.isfinite(measured).all(1)
        target = np.full(len(measured), np.nan)
        target[known] = fit.combined(measured[known])
        if not known.any():
            return target, {}
        rng = generator(call.seed, "regmix", "measured")
        found = {fit.name: quality(fit.combined(predicted[known]), target[known], rng)}
        for place, name in enumerate(fit.targets):
            if name not in found:
                found[name] = quality(predicted[known, place], measured[known, place], rng)
        return target, found

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        """Fit the regressors, measure them, and search the best mixture."""
        given = list(examples)
        if len(given) < LEAST_RUNS:
            raise InvalidItems("examples", f"are {len(given)} proxy runs, at least {LEAST_RUNS} are needed")
        reader = Reader.of(given[0], self.params)
        prior, bound = self._around(reader.domains)
        runs = reader.runs(given, "examples")
        if len(runs) < LEAST_RUNS:
            raise InvalidItems("examples", f"are {len(runs)} different runs, at least {LEAST_RUNS} are needed")
        parts = _Parts.of(
            runs, None if validation is None else reader.runs(validation, "validation"), self.params, call
        )
        check_learnable(parts.runs, reader.targets, self.params)
        yield from self._regress(reader, parts, out)
        fit = Regressors.load(out)
        found: dict[str, Any] = {"warnings": _warnings(fit, runs, self.params), "runs": len(parts.runs)}
        found |= self._quality(fit, parts, call)
        found["curve"] = yield from self._curve(fit, parts, call)
        if prior is not None:
            best = yield from self._search(fit, prior, bound, out, call)
            spread = yield from self._refits(fit, parts, prior, bound, call)
            found["optimum"] = _optimum(fit, best, prior, bound, spread)
        out.write_json(_FOUND, found)
        out.notes.update(domains=list(fit.domains), targets=list(fit.targets), quality=found["quality"])

    def _around(self, domains: tuple[str, ...]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The prior (D,) as given and the caps (D,), in the order of the domains."""
        prior, caps = self.params.prior, self.params.upper_bounds()
        for field, names in (("prior", prior or {}), ("caps", self.params.caps),
                             ("available_tokens", self.params.available_tokens)):  # fmt: skip
            if strange := sorted(set(names) - set(domains)):
                raise InvalidParams(f"{field}.{strange[0]}", f"is no domain; known are {', '.join(domains)}")
        if prior is None:
            return None, None
        if missing := [name for name in domains if name not in prior]:
            raise InvalidParams(f"prior.{missing[0]}", "is missing: give the share of every domain")
        if not caps:
            return np.array([prior[name] for name in domains]), None
        bound = np.array([min(caps.get(name, 1.0), 1.0 if prior[name] else 0.0) for name in domains])
        if bound.sum() < 1:
            raise InvalidParams("caps", f"allow {bound.sum():.3g} of a mixture in all: they must reach 1")
        return np.array([prior[name] for name in domains]), bound

    def _regress(self, reader: Reader, parts: _Parts, out: ArtifactWriter) -> Iterator[Progress]:
        if out.done("fit"):
            return
        models = []
        for place in range(len(reader.targets)):
            models.append(fit_one(parts.runs, parts.held, place, self.params))
            yield Progress("fit", place + 1, len(reader.targets))
        Regressors.of(reader.domains, reader.targets, parts.runs, self.params).with_models(models).save(out)
        out.finish("fit")

    def _quality(self, fit: Regressors, parts: _Parts, call: Call) -> dict[str, Any]:
        """Of every target on the runs kept out, or else on those that stopped the fit."""
        where = parts.test or parts.held
        rng = generator(call.seed, "regmix", "quality")
        predicted = fit.predict(where.mixtures)
        rows = {
            name: asdict(quality(predicted[:, place], where.losses[:, place], rng))
            for place, name in enumerate(fit.targets)
        }
        rows.setdefault(fit.name, asdict(quality(fit.combined(predicted), fit.combined(where.losses), rng)))
        return {"quality": rows, "measured_on": "held-out" if parts.test else "validation"}

    def _curve(self, fit: Regressors, parts: _Parts, call: Call) -> Generator[Progress, None, list[dict[str, Any]]]:
        """Rank correlation against the number of runs: halves, quarters … of them, then all."""
        where = parts.test or parts.held
        measured = fit.combined(where.losses)
        order = generator(call.seed, "regmix", "curve").permutation(len(parts.runs))
        least = 2 * self.params.min_leaf if self.params.regressor == "gbdt" else LEAST_RUNS
        sizes = [len(order) >> step for step in range(self.params.curve_points, -1, -1)]
        sizes = [size for size in sizes if size >= least]
        rows = []
        for step, size in enumerate(sizes):
            call.check()
            models = fit.models
            if size < len(order):
                models = tuple(fit_all(parts.runs.rows(np.sort(order[:size])), parts.held, self.params))
            rng = generator(call.seed, "regmix", "curve", size)
            found = quality(fit.with_models(models).target(where.mixtures), measured, rng)
            rows.append({"runs": size, "spearman": found.spearman, "low": found.low, "high": found.high})
            yield Progress("curve", step + 1, len(sizes))
        return rows

    def _search(
        self, fit: Regressors, prior: np.ndarray, bound: np.ndarray | None, out: ArtifactWriter, call: Call
    ) -> Generator[Progress, None, Best]:
        p = self.params
        best: Best | None = None
        blocks = simulated(prior, p.strength, p.n_simulate, call.seed)
        for best in search(blocks, _objective(fit), p.top_k, bound):
            call.check()
            yield Progress("search", best.drawn, p.n_simulate)
        assert best is not None
        enough(best, p.top_k)
        out.write_json(_OPTIMUM, dict(zip(fit.domains, best.mean.tolist(), strict=True)))
        out.write_array(_TOP, np.column_stack([best.mixtures, fit.sign * best.objective]))
        return best

    def _refits(
        self, fit: Regressors, parts: _Parts, prior: np.ndarray, bound: np.ndarray | None, call: Call
    ) -> Generator[Progress, None, np.ndarray]:
        """The answers (B, D) of regressors fitted on resampled runs, from a part of the simulated mixtures."""
        p = self.params
        blocks = [
            block
            for _, block in zip(
                range(_REFIT_BLOCKS), simulated(prior, p.strength, p.n_simulate, call.seed), strict=False
            )
        ]
        k = max(1, round(p.top_k * sum(map(len, blocks)) / p.n_simulate))
        means = []
        for step in range(p.bootstrap):
            call.check()
            rows = generator(call.seed, "regmix", "refit", step).integers(len(parts.runs), size=len(parts.runs))
            again = fit.with_models(fit_all(parts.runs.rows(np.sort(rows)), parts.held, p))
            best = deque(search(blocks, _objective(again), k, bound), maxlen=1).pop()
            if len(best.mixtures):
                means.append(best.mean)
            yield Progress("refits", step + 1, p.bootstrap)
        return np.array(means).reshape(len(means), len(prior))


class _Parts:
    """The runs that are fitted on, those that stop the fit, and those kept out of everything."""

    def __init__(self, runs: Runs, held: Runs, test: Runs | None) -> None:
        self.runs, self.held, self.test = runs, held, test

    @classmethod
    def of(cls, runs: Runs, validation: Runs | None, params: Params, call: Call) -> _Parts:
        """Whether a run is kept out depends on (seed, its id): the order of the file does not matter."""
        order = np.argsort([uniform(call.seed, "regmix", "split", each) for each in runs.ids], kind="stable")
        n_test = int(params.test_share * len(runs))
        test, rest = np.sort(order[:n_test]), order[n_test:]
        n_held = 0 if validation is not None else max(1, round(params.validation_share * len(runs)))
        if len(rest) - n_held < LEAST_RUNS // 2:
            raise InvalidParams(
                "validation_share",
                f"and test_share leave {len(rest) - n_held} of {len(runs)} runs to fit on: lower them",
            )
        held = runs.rows(np.sort(rest[:n_held])) if validation is None else validation
        # Fewer than LEAST_RUNS say nothing about a rank correlation: then all but the validation are fitted on.
        if n_test < LEAST_RUNS:
            return cls(runs.rows(np.sort(np.concatenate([test, rest[n_held:]]))), held, None)
        return cls(runs.rows(np.sort(rest[n_held:])), held, runs.rows(test))


def _warnings(fit: Regressors, runs: Runs, params: Params) -> list[str]:
    warnings = []
    for place, name in enumerate(fit.targets):
        if params.sign == "min" and (runs.losses[:, place] < 0).any():
            warnings.append(f"{name} is negative in some runs: if it is no loss, set sign to max.")
    if params.regressor == "linear":
        warnings.append("A linear regressor has its optimum in a corner: all weight on one domain.")
    return warnings


def _optimum(
    fit: Regressors, best: Best, prior: np.ndarray, bound: np.ndarray | None, refits: np.ndarray
) -> dict[str, Any]:
    """The answer a domain, and what is predicted for it."""
    mean, share = best.mean, prior / prior.sum()
    mixtures = np.stack([mean, share])
    predicted = fit.target(mixtures)
    rows: dict[str, Mapping[str, float | None]] = {}
    for place, name in enumerate(fit.domains):
        row: dict[str, float | None] = {"weight": float(mean[place]), "prior": float(share[place])}
        if len(refits):
            row |= {"low": float(refits[:, place].min()), "high": float(refits[:, place].max())}
        if bound is not None:
            row["cap"] = float(bound[place])
        rows[name] = row
    return {
        "domains": rows,
        "predicted": float(predicted[0]),
        "predicted_prior": float(predicted[1]),
        "mean_of_best": float(fit.sign * best.objective.mean()),
        "best": float(fit.sign * best.objective[0]),
        "kept": len(best.mixtures),
        "simulated": best.drawn,
        "allowed": best.allowed,
        "refits": len(refits),
        "extrapolation": float(fit.extrapolation(mixtures)[0]),
    }


def _objective(fit: Regressors) -> Objective:
    return lambda mixtures: fit.sign * fit.target(mixtures)


def _mixture(weights: Iterable[float]) -> dict[str, float]:
    return dict(zip(("books", "code", "web"), map(float, weights), strict=True))
