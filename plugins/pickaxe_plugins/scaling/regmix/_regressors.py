"""From weights to losses: one regressor a target, boosted trees or least squares, and their files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.extras import require
from pickaxe_plugins.scaling.regmix._params import Params
from pickaxe_plugins.scaling.regmix._tables import Runs
from pickaxe_plugins.scaling.regmix._trees import Trees, from_lightgbm, joined, parted

FACTS, NODES, VALUES, LINEAR = "regressors.json", "tree_nodes.npy", "tree_values.npy", "linear.npy"


class Files(Protocol):
    """Where files lie: an artifact, or one being made."""

    def file(self, name: str) -> Path: ...


class Regressor(Protocol):
    """(n, D) float64 -> (n,) float64."""

    def predict(self, x: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Linear:
    """`coefficients` (D + 1,): the intercept, then one a domain."""

    coefficients: np.ndarray

    def predict(self, x: np.ndarray) -> np.ndarray:
        predicted: np.ndarray = self.coefficients[0] + x @ self.coefficients[1:]
        return predicted


def fit_linear(x: np.ndarray, y: np.ndarray) -> Linear:
    """Ordinary least squares; weights add up to about 1, so of all solutions the smallest."""
    return Linear(np.linalg.lstsq(np.column_stack([np.ones(len(x)), x]), y, rcond=None)[0])


def fit_trees(x: np.ndarray, y: np.ndarray, held: tuple[np.ndarray, np.ndarray] | None, params: Params) -> Trees:
    """LightGBM's boosted trees with its own defaults; on `held` (x, y) it stops early."""
    lightgbm = require("lightgbm", extra="regmix")
    settings = {
        "objective": "regression",
        "metric": "l2",
        "learning_rate": params.learning_rate,
        "num_leaves": params.leaves,
        "min_data_in_leaf": params.min_leaf,
        "num_threads": 1,  # a few hundred rows give nothing to share, and sums keep their order
        "deterministic": True,
        "force_col_wise": True,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(x, y)
    watched, stop = [], []
    if held is not None and params.early_stop:
        watched = [data.create_valid(*held)]
        stop = [lightgbm.early_stopping(params.early_stop, verbose=False)]
    booster = lightgbm.train(settings, data, params.rounds, valid_sets=watched, callbacks=stop)
    return from_lightgbm(booster, booster.best_iteration if stop else booster.num_trees())


def fit_all(runs: Runs, held: Runs | None, params: Params) -> list[Regressor]:
    """One regressor a target."""
    return [fit_one(runs, held, target, params) for target in range(runs.losses.shape[1])]


def fit_one(runs: Runs, held: Runs | None, target: int, params: Params) -> Regressor:
    if params.regressor == "linear":
        return fit_linear(runs.mixtures, runs.losses[:, target])
    watched = None if held is None else (held.mixtures, held.losses[:, target])
    return fit_trees(runs.mixtures, runs.losses[:, target], watched, params)


@dataclass(frozen=True)
class Regressors:
    """What was fitted.  `low` and `high` (D,) are the least and greatest weights of the runs it was fitted on.

    `share[t]` is target t's part of what is minimised, `sign` -1 where more is better.
    """

    domains: tuple[str, ...]
    targets: tuple[str, ...]
    share: tuple[float, ...]
    sign: int
    kind: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    models: tuple[Regressor, ...]

    @classmethod
    def of(cls, domains: tuple[str, ...], targets: tuple[str, ...], runs: Runs, params: Params) -> Regressors:
        """Without models yet."""
        weights = params.target if isinstance(params.target, dict) else dict.fromkeys(targets, 1.0)
        total = sum(weights.values())
        return cls(
            domains,
            targets,
            tuple(weights[name] / total for name in targets),
            1 if params.sign == "min" else -1,
            params.regressor,
            tuple(runs.mixtures.min(0).tolist()),
            tuple(runs.mixtures.max(0).tolist()),
            (),
        )

    @property
    def name(self) -> str:
        """What is predicted, in words."""
        parts = [f"{share:.3g} {name}" for name, share in zip(self.targets, self.share, strict=True) if share]
        return " + ".join(parts) if len(parts) > 1 else self.targets[int(np.argmax(self.share))]

    def with_models(self, models: Sequence[Regressor]) -> Regressors:
        return replace(self, models=tuple(models))

    def predict(self, mixtures: np.ndarray) -> np.ndarray:
        """(n, D) -> (n, T)."""
        return np.stack([model.predict(mixtures) for model in self.models], axis=1)

    def combined(self, losses: np.ndarray) -> np.ndarray:
        """(n, T) -> the target (n,)."""
        used = np.flatnonzero(self.share)
        combined: np.ndarray = losses[:, used] @ np.asarray(self.share)[used]
        return combined

    def target(self, mixtures: np.ndarray) -> np.ndarray:
        """The predicted target (n,)."""
        parts = [share * model.predict(mixtures) for model, share in zip(self.models, self.share, strict=True) if share]
        total: np.ndarray = np.sum(parts, axis=0)
        return total

    def extrapolation(self, mixtures: np.ndarray) -> np.ndarray:
        """How far the farthest weight is outside of what the runs had (n,)."""
        beyond = np.maximum(mixtures - np.array(self.high), np.array(self.low) - mixtures)
        return np.maximum(beyond.max(1), 0.0)

    # ------------------------------------------------------------ files

    def save(self, out: Files) -> None:
        facts = {name: value for name, value in asdict(replace(self, models=())).items() if name != "models"}
        if self.kind == "linear":
            _write(out, LINEAR, np.stack([model.coefficients for model in self.models]))  # type: ignore[attr-defined]
        else:
            table, starts = joined([model for model in self.models if isinstance(model, Trees)])
            facts["starts"] = starts.tolist()
            _write(out, NODES, table.nodes)
            _write(out, VALUES, table.values)
        out.file(FACTS).write_text(json.dumps(facts, ensure_ascii=False, sort_keys=True), encoding="utf-8")

    @classmethod
    def load(cls, source: Files) -> Regressors:
        facts: Mapping[str, Any] = json.loads(source.file(FACTS).read_text(encoding="utf-8"))
        models: Sequence[Regressor]
        if facts["kind"] == "linear":
            models = [Linear(row) for row in _read(source, LINEAR)]
        else:
            models = list(parted(Trees(_read(source, NODES), _read(source, VALUES)), facts["starts"]))
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()
        }
        plain.pop("starts", None)
        return cls(models=tuple(models), **plain)


def check_learnable(runs: Runs, targets: Sequence[str], params: Params) -> None:
    """Raise where a regressor could only answer a constant."""
    if not np.ptp(runs.mixtures, axis=0).any():
        raise InvalidItems("examples", "all have the same mixture: nothing to learn")
    for place, name in enumerate(targets):
        if np.ptp(runs.losses[:, place]) == 0:
            raise InvalidItems("examples", f"all have the same {name!r} ({runs.losses[0, place]:g}): nothing to learn")
    if params.regressor == "gbdt" and len(runs) < 2 * params.min_leaf:
        raise InvalidParams(
            "min_leaf",
            f"is {params.min_leaf}, which leaves no split among the {len(runs)} runs to fit on: lower it to at most "
            f"{len(runs) // 2}, give more runs, or set regressor to linear",
        )


def _write(out: Files, name: str, array: np.ndarray) -> None:
    np.save(out.file(name), np.ascontiguousarray(array), allow_pickle=False)


def _read(source: Files, name: str) -> np.ndarray:
    array: np.ndarray = np.load(source.file(name), allow_pickle=False)
    return array
