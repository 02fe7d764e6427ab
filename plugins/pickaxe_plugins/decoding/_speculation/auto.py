"""Choosing how much to draft from what calls take and what is accepted, plain decoding included."""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from pickaxe_plugins.decoding._speculation.rounds import Plan, Round

FORGET = 0.99
"""Weight that a measured acceptance keeps with each one after it: some 100 trials count."""
RECENT = 15
"""Times of each kind that are remembered; their median counts."""
LOOK = 16
"""After so many rounds of plain decoding one round drafts, to see whether it pays by now."""
PLAIN = 64
"""After so many rounds of drafting one round does not, to see what that takes by now."""
FIRST = 3
"""Rounds of either kind to begin with."""
DOUBT = 2.0
"""Weight of what is believed of a node's time before any was measured."""
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


class _Median:
    """Of the last values."""

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._values = deque(values, maxlen=RECENT)
        self.value = 0.0
        self.count = 0

    def add(self, value: float) -> None:
        self._values.append(value)
        self.value, self.count = statistics.median(self._values), self.count + 1


@dataclass
class Auto:
    """Plans each round for the most tokens a second, with at most `count` drafts of `length` tokens.

    Learns the time of a target call by its number of nodes, of a draft's level and of the rest per token, and how
    often one of k drafts is accepted.  Times are medians, in units of what a call takes just now (`_level`): those
    measured while the machine was busy can be compared with those measured while it was not.  Safe to share
    between threads.
    """

    count: int
    length: int
    _level: _Median = field(default_factory=_Median)
    """Seconds of a unit."""
    _reading: dict[int, _Median] = field(default_factory=dict)
    _drafting: _Median = field(default_factory=_Median)
    _rest: _Median = field(default_factory=_Median)
    _accepted: dict[int, _Mean] = field(default_factory=lambda: {1: _Mean(0.5, 4.0)})
    _plain: int = 0
    """Rounds of plain decoding in a row; negative: rounds of drafting."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self) -> Plan:
        """The plan of the highest expected rate; the first rounds measure plain decoding and one draft."""
        with self._lock:
            plain = self._reading[1].count if 1 in self._reading else 0
            drafted = self._drafting.count
            if -self._plain >= PLAIN or (plain < FIRST and plain <= drafted):
                return Plan(1, 0)
            if self._plain >= LOOK or drafted < FIRST:
                return Plan(1, 1)
            best = max(self._candidates(), key=self._speed)
            if best.length == 0 or best.count > 1:
                return best
            step = self._drafting.value + self._slope()
            least = min(1.0, step * self._speed(best) / max(self._acceptance(1), 1e-3))
            return Plan(1, self.length, least=least)

    def learn(self, done: Round) -> None:
        """Take in what a round took and what it gave."""
        with self._lock:
            if done.plan.length:
                self._plain = min(self._plain, 0) - 1
            else:
                self._plain = max(self._plain, 0) + 1
            known = self._reading.setdefault(done.nodes, _Median())
            self._level.add(done.reading / (known.value if known.count else self._nodes(done.nodes)))
            unit = self._level.value
            known.add(done.reading / unit)
            self._rest.add((done.seconds - done.reading - done.drafting) / max(1, len(done.trials)) / unit)
            if done.levels:
                self._drafting.add(done.drafting / done.levels / unit)
            for trial in done.trials:
                if trial.drafts:
                    prior = self._acceptance(trial.drafts)
                    self._accepted.setdefault(trial.drafts, _Mean(prior, 4.0)).add(float(trial.accepted))

    def rate(self, plan: Plan) -> float:
        """Expected tokens a second."""
        return self._speed(plan) / self._level.value

    def _speed(self, plan: Plan) -> float:
        """Expected tokens a unit of time."""
        tokens, reached = 1.0, 1.0
        for depth in range(plan.length):
            reached *= self._acceptance(plan.count if depth == 0 else 1)
            tokens += reached
        nodes = 1 + plan.count * plan.length
        return tokens / (self._nodes(nodes) + plan.length * self._drafting.value + tokens * self._rest.value)

    def _candidates(self) -> list[Plan]:
        counts = [count for count in (1, 2, 3, 4, 6, 8, 12, 16, 32, 64) if count <= self.count]
        lengths = [length for length in (1, 2, 3, 4, 6, 8, 12, 16, 32) if length <= self.length]
        return [Plan(1, 0), *(Plan(count, length) for count in counts for length in lengths)]

    def _acceptance(self, count: int) -> float:
        if count in self._accepted:
            return self._accepted[count].value
        return 1 - (1 - self._accepted[1].value) ** (count**SPREAD)

    def _nodes(self, nodes: int) -> float:
        """Time of a target call: as measured, or from the nearest number of nodes that was."""
        measured = [each for each, times in self._reading.items() if times.count]
        if not measured:
            return 1.0
        near = min(measured, key=lambda each: abs(each - nodes))
        return max(self._reading[near].value + (nodes - near) * self._slope(), 1e-9)

    def _slope(self) -> float:
        """Time that one more node adds: a line through what was measured, which begins as an eighth of a unit."""
        measured = {nodes: times for nodes, times in self._reading.items() if times.count}
        weights = {nodes: min(times.count, RECENT) for nodes, times in measured.items()}
        total = sum(weights.values())
        middle = sum(weights[each] * each for each in measured) / total
        height = sum(weights[each] * times.value for each, times in measured.items()) / total
        rise = sum(weights[each] * (each - middle) * (times.value - height) for each, times in measured.items())
        run = sum(weights[each] * (each - middle) ** 2 for each in measured)
        return max((rise + DOUBT / 8) / (run + DOUBT), 0.01)
