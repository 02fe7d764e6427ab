"""Two phases of training on a mix of domains: weights, tokens, epochs, and what a domain was worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pickaxe.errors import InvalidItems, InvalidParams

_SUM = 1e-6
"""How far from 1 the shares of the groups may add up."""


@dataclass(frozen=True)
class Domains:
    """What there is to train on.  `base` (D,) adds up to 1, `tokens` (D,) are available."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    base: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(
        cls, names: Sequence[str], groups: Sequence[str], base: Sequence[float], tokens: Sequence[float], where: str
    ) -> Domains:
        """Checked, with base weights scaled to add up to 1; raises `InvalidItems` naming the domain."""
        weights, available = np.array(base, float), np.array(tokens, float)
        for what, values in (("base_weight", weights), ("available_tokens", available)):
            bad = np.flatnonzero(~np.isfinite(values) | (values < 0))
            if len(bad):
                raise InvalidItems(
                    f"{where}[{bad[0]}].fields.{what}",
                    f"is {values[bad[0]]:g}, wanted a finite number that is not negative (domain {names[bad[0]]!r})",
                )
        if not weights.sum() > 0:
            raise InvalidItems(where, "have base weights that add up to 0: give one domain a weight")
        empty = np.flatnonzero((available == 0) & (weights > 0))
        if len(empty):
            raise InvalidItems(
                f"{where}[{empty[0]}].fields.available_tokens",
                f"is 0, yet domain {names[empty[0]]!r} has base weight {weights[empty[0]]:g}: set that to 0",
            )
        return cls(tuple(names), tuple(groups), weights / weights.sum(), available)


def final_mix(domains: Domains, group_share: Mapping[str, float]) -> np.ndarray:
    """Weights (D,) of the last phase: each group takes its share, within it base proportions stay.

    A group without a share keeps its base share; without any the base mix stays.  Raises `InvalidParams`.
    """
    base = dict.fromkeys(domains.groups, 0.0)
    for group, weight in zip(domains.groups, domains.base, strict=True):
        base[group] += float(weight)
    for group, share in group_share.items():
        if group not in base:
            raise InvalidParams(f"group_share.{group}", f"is no group; known are {', '.join(sorted(base))}")
        if share > 0 and not base[group]:
            raise InvalidParams(f"group_share.{group}", "is above 0, but the group has no base weight to be raised")
    total = sum(group_share.get(group, share) for group, share in base.items())
    if abs(total - 1) > _SUM:
        kept = sorted(set(base) - set(group_share))
        hint = f", with the base shares of {', '.join(kept)}" if kept and group_share else ""
        raise InvalidParams("group_share", f"adds up to {total:.6g}{hint}, not to 1")
    factor = {group: group_share.get(group, share) / share if share else 0.0 for group, share in base.items()}
    if not group_share:
        return domains.base
    raised = domains.base * np.array([factor[group] for group in domains.groups])
    mix: np.ndarray = raised / raised.sum()
    return mix


def without(mix: np.ndarray, removed: int) -> np.ndarray:
    """The mix with weight 0 for one domain and the others scaled up; NaN when nothing is left."""
    rest = mix.copy()
    rest[removed] = 0.0
    total = rest.sum()
    return rest / total if total > 0 else np.full(len(mix), np.nan)


@dataclass(frozen=True)
class Plan:
    """The book-keeping of both phases, (D,) each."""

    final: np.ndarray
    tokens_seen: np.ndarray
    epochs: np.ndarray
    effective: np.ndarray
    factor: np.ndarray
    switch: int

    @classmethod
    def of(cls, domains: Domains, final: np.ndarray, total_tokens: float, delta: float) -> Plan:
        """Training on `total_tokens`, the last share `delta` of them on the final mix.

        `epochs` is NaN for a domain without tokens, `factor` for one without base weight.
        """
        effective = (1 - delta) * domains.base + delta * final
        seen = total_tokens * effective
        blank = np.full(len(seen), np.nan)
        return cls(
            final,
            seen,
            np.divide(seen, domains.tokens, out=blank.copy(), where=domains.tokens > 0),
            effective,
            np.divide(final, domains.base, out=blank, where=domains.base > 0),
            round((1 - delta) * total_tokens),
        )


def utilities(full: np.ndarray, left_out: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """What each domain is worth to each benchmark (D, B): positive where leaving it out made things worse.

    `full` (B,) was measured with every domain upsampled, `left_out` (D, B) without one; `sign` (B,) is -1 where lower
    values are better.
    """
    worth: np.ndarray = sign * (full - left_out)
    return worth


def noise_limit(sigma: np.ndarray) -> np.ndarray:
    """The least difference of two runs that stands out from seeds: two sigma of a difference."""
    limit: np.ndarray = 2 * np.sqrt(2) * sigma
    return limit
