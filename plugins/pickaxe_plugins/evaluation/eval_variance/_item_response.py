"""Questions seen through the models that answered them: difficulty, discrimination, the 2PL model and p-IRT.

P(correct_j | theta) = 1 / (1 + exp(-(a_j theta - b_j))).  Responses are 0 to 1, models x items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LOG_A_STD = 0.5
"""Prior of log a: normal, mean 0."""
_STEPS = 100
_ITEM_STEPS = 2
_CLIP = 1.0
_SMALL = 1e-10


# ---------------------------------------------------------------- item analysis


@dataclass(frozen=True)
class Analysis:
    """Per item: share of models that were right, and correlations of its score with the total over models."""

    difficulty: np.ndarray
    discrimination: np.ndarray
    corrected: np.ndarray
    """The same with the total of the other items."""


def analyse(responses: np.ndarray) -> Analysis:
    """Item analysis of (M, n); correlations are NaN where an item or a total does not vary."""
    models, n = responses.shape
    centred = responses - responses.mean(axis=0)
    total = centred.sum(axis=1)
    varies = np.ptp(responses, axis=0) > 0
    own = np.einsum("mj,mj->j", centred, centred)
    with_total, of_total = total @ centred, float(total @ total)
    rest = of_total - 2 * with_total + own
    tiny = 1e-12 * models * n
    with np.errstate(invalid="ignore", divide="ignore"):
        plain = np.where(varies & (of_total > tiny), with_total / np.sqrt(own * of_total), np.nan)
        corrected = np.where(varies & (rest > tiny), (with_total - own) / np.sqrt(own * np.maximum(rest, 0)), np.nan)
    return Analysis(responses.mean(axis=0), plain, corrected)


def kept(corrected: np.ndarray, drop_quantile: float) -> np.ndarray:
    """Whether each item stays once the floor(drop_quantile n) least discriminating ones are gone.

    NaN counts as -1; of equal ones the first goes first.
    """
    stays = np.ones(len(corrected), bool)
    order = np.argsort(np.where(np.isnan(corrected), -1.0, corrected), kind="stable")
    # A product like 0.07 * 100 = 7.000000000000001 errs upwards or downwards; a whole number is meant.
    stays[order[: int(np.floor(drop_quantile * len(corrected) + 1e-9))]] = False
    return stays


# ---------------------------------------------------------------- 2PL


def chance(theta: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """P(correct), (M, n)."""
    found: np.ndarray = 0.5 * (1 + np.tanh(0.5 * (theta[:, None] * a - b)))
    return found


def ability(responses: np.ndarray, a: np.ndarray, b: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """MAP of theta with a standard normal prior, for each row of responses (M, k) to the items (a, b).

    The log posterior is strictly concave; Newton's steps are limited to 1.
    """
    theta = np.zeros(len(responses)) if start is None else start
    for _ in range(_STEPS):
        p = chance(theta, a, b)
        slope = (responses - p) @ a - theta
        step = np.clip(slope / ((p * (1 - p)) @ a**2 + 1), -_CLIP, _CLIP)
        theta = theta + step
        if np.abs(step).max(initial=0) < _SMALL:
            break
    return theta


@dataclass(frozen=True)
class Estimate:
    """What answers to some of the items say about all of them; arrays over models."""

    theta: np.ndarray
    theta_error: np.ndarray
    p_irt: np.ndarray
    error: np.ndarray
    """Standard error: of theta, and of unseen answers around their chances."""


def estimate(responses: np.ndarray, seen: np.ndarray, a: np.ndarray, b: np.ndarray) -> Estimate:
    """p-IRT: lam mean(seen answers) + (1 - lam) mean(chance of the unseen), lam = share of items seen.

    `responses` is (M, k) and `seen` the k places of their items.
    """
    n = len(a)
    theta = ability(responses, a[seen], b[seen])
    p_seen = chance(theta, a[seen], b[seen])
    error = 1 / np.sqrt((p_seen * (1 - p_seen)) @ a[seen] ** 2 + 1)
    unseen = np.ones(n, bool)
    unseen[seen] = False
    p = chance(theta, a[unseen], b[unseen])
    noise = p * (1 - p)
    value = (responses.sum(axis=1) + p.sum(axis=1)) / n
    return Estimate(theta, error, value, np.sqrt((noise @ a[unseen] * error) ** 2 + noise.sum(axis=1)) / n)


@dataclass(frozen=True)
class Fitted:
    """A 2PL model, and the log posterior per response that it reached."""

    a: np.ndarray
    b: np.ndarray
    theta: np.ndarray
    posterior: float
    change: float
    """Largest change of a log a, b or theta in the last round."""


def fit_2pl(responses: np.ndarray, rounds: int, tolerance: float) -> Iterator[Fitted]:
    """Alternating MAP of theta and (log a, b), one result a round, until nothing moves by `tolerance`.

    Priors: theta and b standard normal, log a normal with standard deviation 0.5.
    """
    models, n = responses.shape
    share = (responses.sum(axis=0) + 0.5) / (models + 1)
    log_a, b = np.zeros(n), -np.log(share / (1 - share))
    theta = ability(responses, np.exp(log_a), b)
    for _ in range(rounds):
        before = np.concatenate([log_a, b, theta])
        log_a, b = _items(responses, theta, log_a, b)
        theta = ability(responses, np.exp(log_a), b, theta)
        change = float(np.abs(np.concatenate([log_a, b, theta]) - before).max())
        yield Fitted(np.exp(log_a), b, theta, _posterior(responses, theta, log_a, b) / responses.size, change)
        if change < tolerance:
            return


def _items(responses: np.ndarray, theta: np.ndarray, log_a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Towards the MAP of (log a, b) of every item given theta: a few limited steps of Fisher scoring.

    Theta moves next, so going all the way would be wasted.
    """
    for _ in range(_ITEM_STEPS):
        a = np.exp(log_a)
        p = chance(theta, a, b)
        missed, weight = responses - p, p * (1 - p)
        slope_a = a * (theta @ missed) - log_a / LOG_A_STD**2
        slope_b = -missed.sum(axis=0) - b
        aa = a**2 * (theta**2 @ weight) + 1 / LOG_A_STD**2
        ab, bb = -a * (theta @ weight), weight.sum(axis=0) + 1
        determinant = aa * bb - ab**2
        step_a = np.clip((bb * slope_a - ab * slope_b) / determinant, -0.5, 0.5)
        step_b = np.clip((aa * slope_b - ab * slope_a) / determinant, -0.5, 0.5)
        log_a, b = log_a + step_a, b + step_b
    return log_a, b


def log_likelihood(responses: np.ndarray, theta: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Sum of log P(response), in nats."""
    logit = theta[:, None] * a - b
    return float((responses * logit - np.logaddexp(0, logit)).sum())


def _posterior(responses: np.ndarray, theta: np.ndarray, log_a: np.ndarray, b: np.ndarray) -> float:
    prior = (theta**2).sum() + (b**2).sum() + (log_a**2).sum() / LOG_A_STD**2
    return log_likelihood(responses, theta, np.exp(log_a), b) - 0.5 * float(prior)
