"""The allocation law of RAG inference scaling (arXiv:2410.04343): sigma^-1(P) = (a + b i)^T log(theta + eps) + c.

theta = (documents k, demonstrations m, iterations n), i = (i_doc, i_shot, 0), * elementwise, natural logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from pickaxe.errors import InvalidItems
from pickaxe.extras import require

Vector = tuple[float, float, float]
SigmaKind = Literal["published", "refit", "linear"]

ROUNDS = 10
"""Turns of least squares and refitting sigma."""
MARGIN = 0.001
"""How far inside sigma's range P is clipped before the inverse is taken."""


@dataclass(frozen=True)
class Sigma:
    """height / (1 + exp(-slope (x - centre))) + floor: from the linear prediction to P; the paper's by default."""

    height: float = 3.30
    slope: float = 1.81
    centre: float = -0.46
    floor: float = -2.18

    def __call__(self, x: np.ndarray | float) -> np.ndarray:
        return self.height / (1 + np.exp(-self.slope * (np.asarray(x, np.float64) - self.centre))) + self.floor

    def inverse(self, p: np.ndarray | float) -> np.ndarray:
        """x with sigma(x) = P; P at or beyond the ends of the range is first moved inside by `MARGIN`."""
        low, high = self.floor + MARGIN, self.floor + self.height - MARGIN
        inside = np.clip(np.asarray(p, np.float64), low, high)
        return np.asarray(self.centre - np.log(self.height / (inside - self.floor) - 1) / self.slope)


@dataclass(frozen=True)
class Law:
    """Coefficients of the law; `sigma` None is the identity."""

    a: Vector
    b: Vector
    c: float
    sigma: Sigma | None = Sigma()
    epsilon: float = 0.01

    def linear(self, theta: np.ndarray, i: np.ndarray) -> np.ndarray:
        """(rows,) from theta (rows, 3) and i (rows, 2): i_doc and i_shot."""
        weights = np.asarray(self.a) + np.asarray(self.b) * np.pad(i, ((0, 0), (0, 1)))
        return np.asarray((weights * np.log(theta + self.epsilon)).sum(axis=1) + self.c)

    def value(self, linear: np.ndarray) -> np.ndarray:
        """P on the standardised scale."""
        return linear if self.sigma is None else self.sigma(linear)

    def target(self, p: np.ndarray) -> np.ndarray:
        """What the linear prediction should be for this P."""
        return p if self.sigma is None else self.sigma.inverse(p)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Law:
        sigma = stored["sigma"]
        a, b = (tuple(stored[name]) for name in "ab")
        return cls(a, b, stored["c"], None if sigma is None else Sigma(**sigma), stored["epsilon"])


PUBLISHED = Law((0.325, 0.101, 0.177), (-0.067, -0.008, 0.0), -0.730)
"""Gemini 1.5 Flash (Table 5 of the paper)."""

TERMS = ("1", "log(k)", "log(m)", "log(n)", "i_doc*log(k)", "i_shot*log(m)")


# ---------------------------------------------------------------- fit


def fit_law(
    theta: np.ndarray,
    i: np.ndarray,
    p: np.ndarray,
    *,
    sigma: SigmaKind = "published",
    interactions: bool = True,
    epsilon: float = 0.01,
) -> tuple[Law, dict[str, float]]:
    """The law by ordinary least squares, and how well it fits: `fit_quality` and `r2_without_b`.

    theta (rows, 3), i (rows, 2), P (rows,) standardised.  Without `interactions` b is 0.  Raises `InvalidItems`
    naming the column that the rows leave undetermined.
    """
    design = _design(theta, i, epsilon)[:, : len(TERMS) if interactions else 4]
    _check_rank(design, TERMS[: design.shape[1]])
    law = Law((0.0,) * 3, (0.0,) * 3, 0.0, None if sigma == "linear" else Sigma(), epsilon)
    law = _least_squares(law, design, p)
    if sigma == "refit":
        law = _with_own_sigma(law, design, theta, i, p)
    quality = fit_quality(law, theta, i, p)
    plain = _least_squares(law, design[:, :4], p)
    return law, quality | {"r2_without_b": fit_quality(plain, theta, i, p)["r2"]}


def fit_quality(law: Law, theta: np.ndarray, i: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """R^2 on the scale of the regression (`r2`) and of P (`r2_on_p`), and the mean squared error of P (`mse`)."""
    linear, target = law.linear(theta, i), law.target(p)
    value = law.value(linear)
    return {
        "r2": _r2(target, linear),
        "r2_on_p": _r2(p, value),
        "mse": float(((value - p) ** 2).mean()),
    }


def _r2(wanted: np.ndarray, found: np.ndarray) -> float:
    spread = float(((wanted - wanted.mean()) ** 2).sum())
    return 1 - float(((found - wanted) ** 2).sum()) / spread if spread else float("nan")


def _design(theta: np.ndarray, i: np.ndarray, epsilon: float) -> np.ndarray:
    logs = np.log(theta + epsilon)
    return np.column_stack([np.ones(len(theta)), logs, i * logs[:, :2]])


def _check_rank(design: np.ndarray, names: Sequence[str]) -> None:
    rows = len(np.unique(design, axis=0))
    if rows < len(names):
        raise InvalidItems(
            "examples",
            f"hold {rows} different configurations; the {len(names)} columns {', '.join(names)} need as many: "
            "measure more, or fit with interactions=false (4 columns)",
        )
    scaled = design / np.maximum(np.abs(design).max(axis=0), 1e-12)
    for column, name in enumerate(names):
        if np.linalg.matrix_rank(scaled[:, : column + 1], tol=1e-8 * len(design)) <= column:
            constant = bool(np.ptp(design[:, column]) == 0)
            raise InvalidItems(
                "examples",
                f"leave the column {name} undetermined: it "
                + ("is constant" if constant else f"depends on {', '.join(names[:column])}")
                + "; vary it (i_doc and i_shot differ between tasks, not within one), or fit with interactions=false",
                metadata={"column": name},
            )


def _least_squares(law: Law, design: np.ndarray, p: np.ndarray) -> Law:
    found = np.linalg.lstsq(design, law.target(p), rcond=None)[0].tolist()
    c, a1, a2, a3, b1, b2 = found + [0.0] * (len(TERMS) - len(found))
    return replace(law, a=(a1, a2, a3), b=(b1, b2, 0.0), c=c)


def _with_own_sigma(law: Law, design: np.ndarray, theta: np.ndarray, i: np.ndarray, p: np.ndarray) -> Law:
    """Sigma's four constants and the coefficients by turns; the round with the least error of P is kept."""
    optimize = require("scipy.optimize", "scaling")
    rounds = [law]
    for _ in range(ROUNDS):
        linear = law.linear(theta, i)
        assert law.sigma is not None
        start = np.array([law.sigma.height, law.sigma.slope, law.sigma.centre, law.sigma.floor])
        found = optimize.least_squares(
            lambda x, linear=linear: Sigma(*x)(linear) - p,
            start,
            bounds=([4 * MARGIN, 1e-3, -np.inf, -np.inf], np.inf),
        )
        law = _least_squares(replace(law, sigma=Sigma(*map(float, found.x))), design, p)
        rounds.append(law)
    return min(rounds, key=lambda each: fit_quality(each, theta, i, p)["mse"])


# ---------------------------------------------------------------- cost and choice


def effective_length(theta: np.ndarray, document: Any, question: Any, instruction: Any) -> np.ndarray:
    """Input tokens of all calls of one question, (rows,): what the configurations theta (rows, 3) cost.

    One call reads instruction + (m + 1)(k document + question); call j of n reads j k further documents.
    """
    k, m, n = np.asarray(theta, np.float64).T
    first = instruction + (m + 1) * (k * document + question)
    return np.asarray(n * first + n * (n - 1) / 2 * k * document)


def allocate(values: np.ndarray, lengths: np.ndarray, budget: float) -> int | None:
    """The row of the highest value (rows,) among those no longer than the budget; the first of equals.

    None when no row fits.
    """
    fitting = np.flatnonzero(lengths <= budget)
    return int(fitting[np.argmax(values[fitting])]) if len(fitting) else None


def budgeted_optimum(metric: np.ndarray, lengths: np.ndarray, budgets: Sequence[float]) -> np.ndarray:
    """P*(L) for each budget: the highest mean metric of a configuration whose every question fits; NaN if none.

    `metric` and `lengths` are (configurations, questions).
    """
    means, longest = metric.mean(axis=1), lengths.max(axis=1)
    within = longest <= np.asarray(budgets, np.float64)[:, None]
    best = np.where(within, means, -np.inf).max(axis=1)
    return np.where(within.any(axis=1), best, np.nan)


def per_decade(lengths: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """(slope, intercept, Pearson's r) of values against log10 of the lengths: gain per tenfold context."""
    x = np.log10(np.asarray(lengths, np.float64))
    slope, intercept = np.polyfit(x, values, 1)
    return float(slope), float(intercept), float(np.corrcoef(x, values)[0, 1])
