"""Votes on items: what an answer says, when an item is closed, who wins (arXiv 2309.00384)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_ANSWER = re.compile(
    r"(?<![0-9])([0-9]{1,6})\s*:\s*\[\s*(?:class|label)\s*([0-9]{1,6})\s*\]\s*(\[\s*(not\s+)?confident\s*\])?",
    re.IGNORECASE,
)
TIE = 1e-9
"""Sums of votes that are closer are equal."""


@dataclass(frozen=True, slots=True)
class Vote:
    """A label's number, and whether the model was sure of it."""

    label: int
    confident: bool


@dataclass(frozen=True)
class Rules:
    """When an item is closed and what a vote counts."""

    rounds: int
    early_stop: bool = True
    require_confident: bool = True
    weight_confident: float = 1.0
    weight_unsure: float = 0.2

    def weight(self, vote: Vote) -> float:
        return self.weight_confident if vote.confident else self.weight_unsure

    def settled(self, votes: Sequence[Vote | None]) -> bool:
        """Whether the last two votes are equal, and both confident where that is required."""
        if not self.early_stop or len(votes) < 2:
            return False
        before, last = votes[-2:]
        if before is None or last is None or before.label != last.label:
            return False
        return not self.require_confident or (before.confident and last.confident)


@dataclass
class Standing:
    """One item: a vote or None for every prompt it was in, and its place in each of them."""

    votes: list[Vote | None] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    closed: bool = False

    def cast(self, vote: Vote | None, place: int, rules: Rules) -> None:
        """The answer of one more prompt; None when it had none for this item."""
        self.votes.append(vote)
        self.places.append(place)
        self.closed = rules.settled(self.votes)


def parse(text: str, n: int) -> list[Vote | None]:
    """The answer for each of n items, by the index that it names; the last one counts, other indices do not."""
    found: list[Vote | None] = [None] * n
    for match in _ANSWER.finditer(text):
        index, label = int(match[1]), int(match[2])
        if index < n:
            found[index] = Vote(label, match[3] is not None and match[4] is None)
    return found


def winner(votes: Iterable[Vote | None], rules: Rules) -> tuple[int | None, float]:
    """The label of the greatest weight, of equal ones the one voted first, and its share of all weight.

    (None, 0) without a vote; the share is 0 too when no vote weighs anything.
    """
    sums: dict[int, float] = {}
    for vote in votes:
        if vote is not None:
            sums[vote.label] = sums.get(vote.label, 0.0) + rules.weight(vote)
    if not sums:
        return None, 0.0
    most, total = max(sums.values()), sum(sums.values())
    label = next(label for label, weight in sums.items() if weight >= most - TIE)
    return label, sums[label] / total if total > 0 else 0.0
