"""One mechanism on one pool: how often each item is used, and why the others are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

import pickaxe
from pickaxe_plugins.selection.selector import _diversity, _minhash, _rules
from pickaxe_plugins.selection.selector import _mechanisms as by

_RANKED = (_rules.Quantile, _rules.TopK, _rules.TopFraction, _rules.PerGroup, _rules.GumbelTopK, _rules.Resample)


@dataclass(frozen=True)
class Pool:
    """The items that a stage decides about: those with everything that it needs."""

    features: Mapping[str, np.ndarray]
    values: np.ndarray
    """The utility in its own units; NaN where the stage has none."""
    priority: np.ndarray
    """The same with the better end up; 0 where the stage has none."""
    seed: int
    name: str
    base: np.ndarray | None = None
    """What a fitted quantile is taken of."""

    def __len__(self) -> int:
        return len(self.values)


def apply(rule: _rules.Rule, pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """(counts, reasons): a reason stands for every item, whether it is dropped or not."""
    if isinstance(rule, (_rules.Threshold, _rules.Conditions)):
        kept, why = _bounded(rule, pool)
        told = pool.features.get("reason") if isinstance(rule, _rules.Threshold) else None
        return kept, why if told is None else np.where(told == "", why, told)
    counts, reason = _chosen(rule, pool)
    if isinstance(rule, _RANKED):
        counts = np.where(pool.priority > -np.inf, counts, 0)  # a scorer's way of saying never
    return counts, np.full(len(pool), reason, object)


def _bounded(rule: _rules.Threshold | _rules.Conditions, pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(rule, _rules.Threshold):
        why = np.full(len(pool), "above", object)
        why[pool.values < (-np.inf if rule.at_least is None else rule.at_least)] = "below"
        return by.threshold(pool.values, rule.at_least, rule.at_most), why
    values = pool.features["values"]
    met = np.stack(
        [by.threshold(values[:, row], each.at_least, each.at_most) for row, each in enumerate(rule.conditions)], axis=1
    )
    if rule.kind == "any_of":
        return np.asarray(met.any(axis=1)), np.full(len(pool), "no_condition", object)
    first = np.argmin(met, axis=1)
    names = np.array([each.utility.column or each.utility.name for each in rule.conditions], object)
    return np.asarray(met.all(axis=1)), names[first]


def _chosen(rule: _rules.Rule, pool: Pool) -> tuple[np.ndarray, str]:
    scores, features = pool.priority, pool.features
    match rule:
        case _rules.Pareto():
            return by.pareto(pool.values, features["uniform"], rule.alpha), "not_drawn"
        case _rules.Quantile():
            return by.at_quantile(scores, rule.q, pool.base), "below_quantile"
        case _rules.TopK():
            return by.top_k(scores, rule.k), "not_in_top_k"
        case _rules.TopFraction():
            sizes = features["values"][:, -1] if rule.by == "tokens" else features.get("size")
            return by.top_fraction(scores, rule.fraction, sizes), "not_in_top_fraction"
        case _rules.PerGroup():
            return by.per_group(scores, features["group"].astype(str), rule.fraction), "not_in_top_fraction"
        case _rules.GumbelTopK():
            return by.gumbel_top_k(scores, rule.k, by.gumbel(features["uniform"]), rule.tau), "not_drawn"
        case _rules.Resample():
            drawn = pickaxe.generator(pool.seed, "resample", pool.name)
            return by.resample(scores, rule.n, drawn, rule.tau), "not_drawn"
        case _rules.Epochs():
            counts = by.epochs(
                scores,
                features["group"].astype(str),
                rule.total,
                weights=rule.weights,
                temperature=rule.temperature,
                cap=rule.max_epochs,
            )
            return counts, "over_share"
    return _distinct(rule, pool)


def _distinct(rule: _rules.Rule, pool: Pool) -> tuple[np.ndarray, str]:
    scores, features = pool.priority, pool.features
    match rule:
        case _rules.ExactDedup():
            _, groups = np.unique(features["hash"], axis=0, return_inverse=True)
            return _minhash.first_of(groups.ravel(), scores), "duplicate"
        case _rules.MinHashDedup():
            groups = _minhash.clusters(features["bands"], features.get("signature"), rule.verify or 0.0)
            return _minhash.first_of(groups, scores), "near_duplicate"
        case _rules.SemanticDedup():
            kept = _diversity.semantic_duplicates(features["vector"], scores, rule.epsilon, rule.clusters, pool.seed)
            return kept, "semantic_duplicate"
        case _rules.Diverse(max_similarity=None):
            return _diversity.farthest_first(features["vector"], scores, rule.k), "over_budget"
        case _rules.Diverse():
            limit = rule.max_similarity
            assert limit is not None
            return _diversity.below_similarity(features["vector"], scores, rule.k, limit), "too_similar_or_over_budget"
    raise AssertionError(f"no mechanism {rule.kind!r}")
