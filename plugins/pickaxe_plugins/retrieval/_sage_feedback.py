"""A model's judgement of its own answer, and what follows from it for the next round (arXiv:2503.01713)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from pickaxe_plugins.retrieval._sage_selection import SelectionParams

BEST = 10
"""The highest score of an answer; the lowest is 1."""

_OF_TEN = re.compile(r"\s*(?:/|\bout of\b|\bof\b)\s*10\b", re.IGNORECASE)
_INTEGER = re.compile(r"(?<![\w.])[+\-−]?\d+(?![\w]|\.\d)")


@dataclass(frozen=True)
class Verdict:
    """A quality of 1 to 10, and what the context was: -1 too much of it, 1 too little, 0 not said."""

    score: int
    adjustment: int = 0


def parse(reply: str) -> Verdict | None:
    """The last integer that is -1 or 1 is the adjustment; the last other one of 1 to 10 is the score.

    The 10 of "8/10" is none.  None without a score; an adjustment of 0 where there is none.
    """
    found = [int(each.replace("−", "-")) for each in _INTEGER.findall(_OF_TEN.sub("", reply))]
    turns = [place for place, value in enumerate(found) if value in (-1, 1)]
    scores = [place for place, value in enumerate(found) if 1 <= value <= BEST]
    if not scores:
        return None
    rest = [place for place in scores if place not in turns[-1:]]
    if not turns or not rest:  # a lone 1 is the score
        return Verdict(found[scores[-1]])
    return Verdict(found[rest[-1]], found[turns[-1]])


@dataclass(frozen=True)
class Round:
    """One answer: what it was given (rows, best first) and what was said of it."""

    min_k: int
    selected: tuple[int, ...]
    answer: str
    verdict: Verdict | None


@dataclass
class Rounds:
    """The rounds of one question, over its candidates' scores in their order of arrival."""

    params: SelectionParams
    scores: np.ndarray
    threshold: int
    most: int
    min_k: int = 0
    done: list[Round] = field(default_factory=list)
    ended: str = ""
    """Why no further round follows: threshold, rounds, or feedback that could not be read."""

    def __post_init__(self) -> None:
        self.min_k = self.params.min_k
        self._order = self.params.order(self.scores)

    def selected(self) -> tuple[int, ...]:
        """Rows that go into the next prompt, best first."""
        count = self.params.count(self.scores[self._order], self.min_k)
        return tuple(self._order[:count].tolist())

    def take(self, answer: str, verdict: Verdict | None) -> None:
        """Note an answer to what `selected` gave, and set the next round's `min_k`; `verdict` None: unreadable."""
        self.done.append(Round(self.min_k, self.selected(), answer, verdict))
        if verdict is None:
            self.ended = "feedback"
        elif verdict.score >= self.threshold:
            self.ended = "threshold"
        elif len(self.done) == self.most:
            self.ended = "rounds"
        elif not verdict.adjustment:
            self.ended = "feedback"
        else:
            self.min_k = max(1, self.min_k + verdict.adjustment)

    @property
    def final(self) -> int:
        """The round of the best score, the first of equals; the last one where its feedback could not be read."""
        scored = [number for number, each in enumerate(self.done) if each.verdict is not None]
        if not scored or (self.ended == "feedback" and self.done[-1].verdict is None):
            return len(self.done) - 1
        return max(scored, key=lambda number: _score(self.done[number]))


def _score(each: Round) -> int:
    assert each.verdict is not None
    return each.verdict.score


def cost(input_tokens: float, output_tokens: float, input_price: float, output_price: float) -> float:
    """What the tokens of a question cost, feedback included.  Quality over it is the paper's cost efficiency."""
    return input_tokens * input_price + output_tokens * output_price
