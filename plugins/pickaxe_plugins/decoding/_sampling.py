"""Finished samples out of a stream of steps, in the order of their numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pickaxe.data import FinishReason

if TYPE_CHECKING:
    from pickaxe.lm import Step


@dataclass
class Sample:
    """One continuation; `logprobs` are the model's own, natural."""

    index: int
    pieces: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason = ""
    answer: str = ""
    score: float = math.nan
    passed: bool | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def likelihood(self) -> float:
        """Geometric mean of the tokens' probabilities: in [0, 1], so that votes can add it up."""
        return math.exp(sum(self.logprobs) / len(self.logprobs))

    def add(self, step: Step) -> None:
        self.pieces.append(step.text)
        self.token_ids.append(step.token_id)
        self.logprobs.append(step.logprob)
        self.finish_reason = step.finish_reason


class InOrder:
    """Samples as they are whole, lowest number first, whatever order they end in.

    Handing them out in order makes every decision about stopping independent of how many run together.
    """

    def __init__(self) -> None:
        self.tokens = 0
        """Tokens drawn so far, those of unfinished samples too."""
        self.begun = 0
        """Samples begun so far."""
        self._growing: dict[int, Sample] = {}
        self._following = 0

    def push(self, step: Step) -> Iterator[Sample]:
        """Take a step; what is whole with it."""
        self.tokens += 1
        if step.sample not in self._growing:
            self._growing[step.sample] = Sample(step.sample)
            self.begun += 1
        self._growing[step.sample].add(step)
        while self._following in self._growing and self._growing[self._following].finish_reason:
            yield self._growing.pop(self._following)
            self._following += 1
