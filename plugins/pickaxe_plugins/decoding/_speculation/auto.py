"""Choosing how much to draft from what calls take and what is accepted, plain decoding included."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from pickaxe_plugins.decoding._speculation.rounds import Plan, Round

FORGET = 0.97
"""Weight that a measurement keeps with each one after it: some 30 rounds count."""
LOOK = 16
"""After so many rounds of plain decoding one round drafts, to see whether it pays by now."""
SPREAD = 0.3
"""Without a measurement, k drafts miss as often as k^0.3 independent trials of one draft would (choice)."""


@dataclass
class _Mean:
    """A mean that forgets; begins with `value` at that `weight`."""

    value: float = 0.0
    weight: float = 0.0

    def add(self, value: float) -> None:
        self.weight = FORGET * self.weight + 1
        self.value += (value - self.value) / self.weight


@dataclass
class Auto:
    """Plans each round for the most tokens a second, with at most `count` drafts of `length` tokens.

    Learns seconds of a target call by its number of nodes, of a draft's level and of the rest per token, and how
    often one of k drafts is accepted.  Safe to share between threads.
    """

    count: int
    length: int
    _reading: dict[int, _Mean] = field(default_factory=dict)
    _drafting: _Mean = field(default_factory=_Mean)
    _rest: _Mean = field(default_factory=_Mean)
    _accepted: dict[int, _Mean] = field(default_factory=lambda: {1: _Mean(0.5, 4.0)})
    _plain: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self) -> Plan:
        """The plan of the highest expected rate; the first rounds measure plain decoding and one draft."""
        with self._lock:
            if not self._reading:
                return Plan(1, 0)
            if not self._drafting.weight or self._plain >= LOOK:
                return Plan(1, 1)
            best = max(self._candidates(), key=self.rate)
            if best.length == 0 or best.count > 1:
                return best
            step = self._drafting.value + self._slope()
            least = min(1.0, step * self.rate(best) / max(self._acceptance(1), 1e-3))
            return Plan(1, self.length, least=least)

    def learn(self, done: Round) -> None:
        """Take in what a round took and what it gave."""
        with self._lock:
            self._plain = self._plain + 1 if done.plan.length == 0 else 0
            self._reading.setdefault(done.nodes, _Mean()).add(done.reading)
            self._rest.add((done.seconds - done.reading - done.drafting) / max(1, len(done.trials)))
            if done.levels:
                self._drafting.add(done.drafting / done.levels)
            for trial in done.trials:
                if trial.drafts:
                    prior = self._acceptance(trial.drafts)
                    self._accepted.setdefault(trial.drafts, _Mean(prior, 4.0)).add(float(trial.accepted))

    def rate(self, plan: Plan) -> float:
        """Expected tokens a second."""
        tokens, reached = 1.0, 1.0
        for depth in range(plan.length):
            reached *= self._acceptance(plan.count if depth == 0 else 1)
            tokens += reached
        nodes = 1 + plan.count * plan.length
        return tokens / (self._seconds(nodes) + plan.length * self._drafting.value + tokens * self._rest.value)

    def _candidates(self) -> list[Plan]:
        counts = [count for count in (1, 2, 3, 4, 6, 8, 12, 16, 32, 64) if count <= self.count]
        lengths = [length for length in (1, 2, 3, 4, 6, 8, 12, 16, 32) if length <= self.length]
        return [Plan(1, 0), *(Plan(count, length) for count in counts for length in lengths)]

    def _acceptance(self, count: int) -> float:
        if count in self._accepted:
            return self._accepted[count].value
        return 1 - (1 - self._accepted[1].value) ** (count**SPREAD)

    def _seconds(self, nodes: int) -> float:
        """Of a target call: as measured, or from the nearest number of nodes that was."""
        if nodes in self._reading:
            return self._reading[nodes].value
        near = min(self._reading, key=lambda each: abs(each - nodes))
        return max(self._reading[near].value + (nodes - near) * self._slope(), 1e-9)

    def _slope(self) -> float:
        """Seconds that one more node adds; an eighth of the smallest call before two sizes were measured."""
        low, high = min(self._reading), max(self._reading)
        first = self._reading[low].value
        if low == high:
            return first / 8
        return max((self._reading[high].value - first) / (high - low), first / 100)
