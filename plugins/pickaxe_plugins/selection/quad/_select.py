"""The rounds of `quad`: probe, reward, accept; every decision is written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pickaxe import ArtifactWriter, Progress
from pickaxe_plugins.selection.quad._bandit import Bandit
from pickaxe_plugins.selection.quad._pool import Clusters

PROBES = "probes.json"


@dataclass(frozen=True, slots=True)
class Rules:
    """How rounds are run."""

    alpha: float
    tau: float | str
    arms: int
    probe: int
    batch: int
    rounds: int
    budget: int | None
    compat: bool


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    bandit: Bandit
    picked: np.ndarray
    """(n,) whether each item is selected."""
    influence: np.ndarray
    """(n,) where it was looked at, else NaN."""
    log: list[dict[str, Any]] = field(default_factory=list)
    """One entry a round and cluster."""
    amount: int = 0
    """What the selected items count against the budget."""


class Rounds:
    """Runs the bandit over the pool."""

    def __init__(
        self,
        clusters: Clusters,
        amounts: np.ndarray,
        rules: Rules,
        influence_of: Callable[[Sequence[int]], np.ndarray],
        out: ArtifactWriter,
    ) -> None:
        """`amounts` (n,) is what items count against the budget; `influence_of` says it of rows of the pool."""
        self._clusters, self._amounts, self._rules, self._influence_of, self._out = (
            clusters, amounts, rules, influence_of, out
        )  # fmt: skip
        sizes = np.bincount(clusters.labels, minlength=len(clusters.names))
        self._members = np.argsort(clusters.labels, kind="stable")
        self._starts = np.cumsum([0, *sizes])
        self._known = self._remembered()
        tau = rules.tau if isinstance(rules.tau, float) else 0.0
        bandit = Bandit(sizes, clusters.neighbours, alpha=rules.alpha, tau=tau, arms=rules.arms, batch=rules.batch)
        count = len(clusters.labels)
        self.outcome = Outcome(bandit, np.zeros(count, bool), np.full(count, np.nan))

    def run(self) -> Generator[Progress, None, Outcome]:
        """All rounds; those that an interrupted fit had are gone through again with what it had measured."""
        rules, found, bandit = self._rules, self.outcome, self.outcome.bandit
        while bandit.rounds < rules.rounds and not self.enough:
            chosen = bandit.choose()
            if not len(chosen):
                break
            self._round(chosen)
            metrics = {"accepted": float(found.amount), "clusters": float((bandit.accepted > 0).sum())}
            yield Progress("select", bandit.rounds, rules.rounds, metrics)
        if rules.compat:
            self._first_ones()
        return found

    @property
    def enough(self) -> bool:
        return self._rules.budget is not None and self.outcome.amount >= self._rules.budget

    def _round(self, chosen: np.ndarray) -> None:
        rules, found, bandit = self._rules, self.outcome, self.outcome.bandit
        probes = [self._probe(cluster) for cluster in chosen.tolist()]
        values = self._measured(np.concatenate(probes))
        found.influence[np.concatenate(probes)] = values
        parts = np.split(values, np.cumsum([len(probe) for probe in probes])[:-1])
        means = np.array([part.mean() for part in parts])
        if isinstance(rules.tau, str) and not bandit.rounds:
            bandit.tau = float(np.quantile(values, float(rules.tau.partition(":")[2])))
        batches = [
            self._rows(cluster, int(bandit.taken[cluster]) * rules.batch, rules.batch) for cluster in chosen.tolist()
        ]
        scores = bandit.scores[chosen]
        accepted = bandit.learn(chosen, means)
        for cluster, batch, mean, score, good in zip(chosen, batches, means, scores, accepted, strict=True):
            if good:
                found.picked[batch] = True
                found.amount += int(self._amounts[batch].sum())
            entry = {
                "round": bandit.rounds,
                "cluster": self._clusters.names[cluster],
                "score_before": float(score),
                "influence": float(mean),
                "reward": float(mean - bandit.tau),
                "accepted": bool(good),
                "batch": int(bandit.taken[cluster]) - 1,
            }
            found.log.append(entry)

    def _probe(self, cluster: int) -> np.ndarray:
        """The first documents of the batch at stake; in the authors' code those at taken x probe size."""
        rules, taken = self._rules, int(self.outcome.bandit.taken[cluster])
        if rules.compat:
            return self._rows(cluster, taken * rules.probe, rules.probe)
        return self._rows(cluster, taken * rules.batch, min(rules.probe, rules.batch))

    def _rows(self, cluster: int, start: int, count: int) -> np.ndarray:
        begin, end = self._starts[cluster], self._starts[cluster + 1]
        return self._members[begin:end][start : start + count]

    def _first_ones(self) -> None:
        """As the authors' code: the first accepted x batch documents of each cluster."""
        found = self.outcome
        found.picked[:] = False
        for cluster in np.flatnonzero(found.bandit.accepted).tolist():
            found.picked[self._rows(cluster, 0, int(found.bandit.accepted[cluster]) * self._rules.batch)] = True
        found.amount = int(self._amounts[found.picked].sum())

    # ------------------------------------------------------------ measured influence

    def _measured(self, rows: np.ndarray) -> np.ndarray:
        new = [row for row in rows.tolist() if row not in self._known]
        if new:
            self._known.update(zip(new, self._influence_of(new).tolist(), strict=True))
            self._out.write_json(PROBES, [list(self._known), list(self._known.values())])
            self._out.finish("select")
        return np.array([self._known[row] for row in rows.tolist()])

    def _remembered(self) -> dict[int, float]:
        if not self._out.done("select") or not self._out.file(PROBES).is_file():
            return {}
        rows, values = json.loads(self._out.file(PROBES).read_text(encoding="utf-8"))
        return dict(zip(rows, values, strict=True))
