"""What `resampling-limits` tells: the answer in words, and its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe_plugins.decoding._limits import Measured
from pickaxe_plugins.decoding._resampling import Curves, Stakes, false_positives_by_attempt

_MOST = 6
"""Groups or plans of one figure."""
_POINTS = 100


def told_runs(groups: Sequence[Measured], comparison: Mapping[str, Any], stakes: Stakes) -> dict[str, Any]:
    """The entries `answer` and `figures` of the summary of runs."""
    answer = [sentence for each in groups[:_MOST] for sentence in _answer(each, stakes)]
    return explain([*answer, *_matches(comparison)], _figures(groups[:_MOST], stakes))


def told_plans(plans: Mapping[str, tuple[Curves, np.ndarray, int]]) -> dict[str, Any]:
    """The same of plans: name → its curves, its reward by attempts and the best number of them."""
    first = dict(islice(plans.items(), _MOST))
    answer = [
        f"{name}: {_stop(k)}, for an expected reward of {number(float(reward[k - 1]) if k else 0.0, 3)}."
        for name, (_, reward, k) in first.items()
    ]
    return explain(answer, [_rewards({name: (reward, k) for name, (_, reward, k) in first.items()})])


def _stop(k: int) -> str:
    return f"stop after {k} attempt{'' if k == 1 else 's'}" if k else "do not try: no number of attempts gains anything"


def _answer(group: Measured, stakes: Stakes) -> Iterator[str]:
    limits, name = group.limits, group.run.group
    reward = f"; the expected reward is then {number(group.max_reward, 3)}" if group.k_best else ""
    yield f"{name}: where a wrong answer is worth {number(stakes.wrong)}, {_stop(group.k_best)}{reward}."
    low, high = number(limits.limit_worst, 3), number(limits.limit_best, 3)
    between = f"at most {low}" if low == high else f"between {low} and {high}, as unsolved tasks may turn out"
    yield (
        f"{name}: a single sample is right for {number(limits.single, 3)} of the tasks, and endless attempts for "
        f"{between}."
    )
    if group.dropped:
        yield f"{name}: {group.dropped} tasks are left out, of which the verifier rejects a correct sample."


def _matches(comparison: Mapping[str, Any]) -> Iterator[str]:
    groups = comparison["groups"]
    for name, found in islice(groups.items(), _MOST):
        reference = comparison["reference"]
        if name == reference:
            continue
        if found["cannot_match"]:
            yield f"{name} cannot match a single sample of {reference}, whatever the number of attempts."
        elif found["attempts_to_match"] is not None:
            yield f"{name} matches a single sample of {reference} with {found['attempts_to_match']} attempts."
        else:
            yield f"{name} does not match a single sample of {reference} within the attempts considered."


# ---------------------------------------------------------------- figures


def _figures(groups: Sequence[Measured], stakes: Stakes) -> Iterator[Figure]:
    names = [each.run.group for each in groups]
    rows = range(len(names))
    yield Figure(
        "What endless attempts reach",
        Axis("share of tasks answered right"),
        Axis("group", categories=names),
        (
            Series("one sample", "points", [each.limits.single for each in groups], rows),
            Series(
                "endless attempts",
                "points",
                [(each.limits.limit_worst + each.limits.limit_best) / 2 for each in groups],
                rows,
                [each.limits.limit_worst for each in groups],
                [each.limits.limit_best for each in groups],
            ),
        ),
        "The interval reaches from unsolved tasks counted as wrong to unsolved tasks counted as right.",
    )
    yield _rewards({each.run.group: (each.curves.reward(stakes), each.k_best) for each in groups})
    yield Figure(
        "Wrong answers by the attempt that passes first",
        Axis("attempt", scale="log"),
        Axis("share that is wrong"),
        [_wrong(each) for each in groups],
        "One point per bin of attempts 1, 2 to 3, 4 to 7 …, at its first attempt.",
    )


def _rewards(rewards: Mapping[str, tuple[np.ndarray, int]]) -> Figure:
    series = []
    for name, (reward, _) in rewards.items():
        k = _some(len(reward))
        series.append(Series(name, "line", k, reward[k - 1]))
    found = [(k, float(reward[k - 1])) for reward, k in rewards.values() if k]
    if found:
        series.append(Series("best number of attempts", "points", *zip(*found, strict=True)))
    return Figure("Expected reward by number of attempts", Axis("attempts", scale="log"), Axis("reward"), series)


def _wrong(group: Measured) -> Series:
    bins = false_positives_by_attempt(group.curves)
    return Series(
        group.run.group, "line", [each["from"] for each in bins], [each["false_positive_rate"] for each in bins]
    )


def _some(n: int) -> np.ndarray:
    """Up to `_POINTS` of 1 … n, even in their logarithm."""
    return np.unique(np.geomspace(1, n, _POINTS).round().astype(np.int64))
