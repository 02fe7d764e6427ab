"""The law L(N, D) = E + A / N^alpha + B / D^beta: values, optima, and its robust fit from many starts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

STARTS = tuple(
    itertools.product(
        range(0, 26, 5),
        range(0, 26, 5),
        (-1.0, -0.5, 0.0, 0.5, 1.0),
        (0.0, 0.5, 1.0, 1.5, 2.0),
        (0.0, 0.5, 1.0, 1.5, 2.0),
    )
)
"""(log A, log B, log E, alpha, beta): 4,500 starts, the grid of the Chinchilla procedure."""
_ROUNDS = ((6, 300), (20, 30), (200, 10))
"""(steps, starts that go on after them): poor starts are left behind early."""


@dataclass(frozen=True)
class ParamLaw:
    """Constants of the law; `N` average active parameters, `D` tokens, loss in nats."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, params: np.ndarray | float, tokens: np.ndarray | float) -> np.ndarray:
        n, d = np.asarray(params, np.float64), np.asarray(tokens, np.float64)
        return self.E + self.A * n**-self.alpha + self.B * d**-self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """The (average parameters, tokens) of least loss with 6 N D = flops."""
        ratio = self.alpha * self.A / (self.beta * self.B) * (flops / 6) ** self.beta
        params = ratio ** (1 / (self.alpha + self.beta))
        return params, flops / (6 * params)

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


CHINCHILLA = ParamLaw(1.69, 406.4, 410.7, 0.34, 0.28)
"""Published by Hoffmann et al. (arXiv 2203.15556) for dense models."""


@dataclass(frozen=True)
class Fit:
    """A fitted law and the Huber objective that it reached."""

    law: ParamLaw
    objective: float


def fit(
    params: np.ndarray,
    tokens: np.ndarray,
    loss: np.ndarray,
    delta: float,
    check: Callable[[], None] = lambda: None,
) -> Fit:
    """The law of least Huber loss of log(predicted / measured), over (n,) runs.

    Searches log A, log B, log E, alpha and beta from 4,500 starts at once, by the Levenberg-Marquardt method with
    reweighting.
    """
    problem = _Problem.of(params, tokens, loss, delta)
    theta, w = problem.centred(np.array(STARTS, np.float64)), np.ones((1, len(loss)))
    for steps, kept in _ROUNDS:
        theta, objective = problem.descend(theta, w, steps, check)
        best = np.argsort(objective, kind="stable")[:kept]
        theta, objective = theta[best], objective[best]
    return Fit(problem.law(theta[0]), float(objective[0]))


def refit(
    law: ParamLaw,
    params: np.ndarray,
    tokens: np.ndarray,
    loss: np.ndarray,
    delta: float,
    weights: np.ndarray,
    check: Callable[[], None] = lambda: None,
) -> list[ParamLaw]:
    """The laws of a bootstrap or of cross-validation, one for each row of weights (C, n), started from `law`."""
    problem = _Problem.of(params, tokens, loss, delta)
    start = np.array([[np.log(law.A), np.log(law.B), np.log(law.E), law.alpha, law.beta]])
    theta, _ = problem.descend(np.repeat(problem.centred(start), len(weights), axis=0), weights, _ROUNDS[-1][0], check)
    return [problem.law(row) for row in theta]


@dataclass(frozen=True)
class _Problem:
    log_n: np.ndarray
    log_d: np.ndarray
    log_l: np.ndarray
    delta: float
    middle: np.ndarray
    """What was taken from log N and log D: with centred sizes A and alpha are nearly independent."""

    @classmethod
    def of(cls, params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, delta: float) -> _Problem:
        log_n, log_d = np.log(params), np.log(tokens)
        middle = np.array([log_n.mean(), log_d.mean()])
        return cls(log_n - middle[0], log_d - middle[1], np.log(loss), delta, middle)

    def centred(self, theta: np.ndarray) -> np.ndarray:
        moved = theta.copy()
        moved[:, :2] -= moved[:, 3:] * self.middle
        return moved

    def law(self, theta: np.ndarray) -> ParamLaw:
        a, b = theta[:2] + theta[3:] * self.middle
        return ParamLaw(*(float(value) for value in (np.exp(theta[2]), np.exp(a), np.exp(b), theta[3], theta[4])))

    def descend(
        self, theta: np.ndarray, w: np.ndarray, steps: int, check: Callable[[], None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Damped steps of every start (S, 5) with its weights (S or 1, n), taken where they lower the objective."""
        damping = np.full(len(theta), 1e-3)
        residual, shares = self._residual(theta)
        objective = self._objective(residual, w)
        for _ in range(steps):
            check()
            slope, curvature = self._normal(residual, shares, w)
            scale = np.einsum("sii->si", curvature) + 1e-12
            curvature = curvature + (damping[:, None] * scale)[:, :, None] * np.eye(5)
            moved = theta - np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
            moved = np.clip(moved, -200, 200)
            new_residual, new_shares = self._residual(moved)
            value = self._objective(new_residual, w)
            better = value < objective
            gained = objective - value > 1e-14 * objective
            theta = np.where(better[:, None], moved, theta)
            residual = np.where(better[:, None], new_residual, residual)
            shares = np.where(better[:, None, None], new_shares, shares)
            objective = np.where(better, value, objective)
            damping = np.clip(np.where(better, damping / 4, damping * 4), 1e-12, 1e12)
            if not (gained | (damping < 1e6)).any():
                break
        return theta, objective

    def _residual(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log predicted - log measured (S, n), and the shares of the three terms (S, 3, n)."""
        a, b, e, alpha, beta = (theta[:, column, None] for column in range(5))
        terms = np.stack(
            [a - alpha * self.log_n, b - beta * self.log_d, np.broadcast_to(e, (len(theta), len(self.log_l)))], axis=1
        )
        top = terms.max(1)
        shares = np.exp(terms - top[:, None])
        total = shares.sum(1)
        return top + np.log(total) - self.log_l, shares / total[:, None]

    def _objective(self, residual: np.ndarray, w: np.ndarray) -> np.ndarray:
        size = np.abs(residual)
        huber = np.where(size <= self.delta, 0.5 * size**2, self.delta * (size - 0.5 * self.delta))
        return (huber * w).sum(1)

    def _normal(self, residual: np.ndarray, shares: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slope (S, 5) and approximate curvature (S, 5, 5) of the objective."""
        pull = w * np.minimum(1.0, self.delta / np.maximum(np.abs(residual), 1e-300))
        jacobian = np.concatenate(
            [shares, -shares[:, :1] * self.log_n, -shares[:, 1:2] * self.log_d], axis=1
        )  # (S, 5, n)
        weighted = jacobian * pull[:, None]
        return np.einsum("spn,sn->sp", weighted, residual), weighted @ jacobian.transpose(0, 2, 1)
