"""How much of a configuration fits: documents are dropped first, then demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pickaxe.errors import DoesNotFit


@dataclass(frozen=True)
class Theta:
    """Documents per block, demonstrations, iterations."""

    k: int
    m: int
    n: int


@dataclass(frozen=True)
class Limits:
    """Tokens that a question may take: `budget` of input over all calls, `window` of one sequence.

    `line` is the most that one step of the model adds.
    """

    budget: int | None
    window: int
    line: int


@dataclass(frozen=True)
class Block:
    """Tokens of one question's part of the prompt: each document, best first, and everything else."""

    documents: tuple[int, ...]
    rest: int

    def tokens(self, k: int) -> int:
        return sum(self.documents[:k]) + self.rest


@dataclass(frozen=True)
class Lengths:
    """Tokens of the instruction, of each demonstration and of the question that is asked."""

    instruction: int
    demonstrations: tuple[Block, ...]
    question: Block

    def documents(self, theta: Theta) -> int:
        """Most documents of a block: a retriever may find fewer than k."""
        return max(len(each.documents[: theta.k]) for each in (self.question, *self.demonstrations))

    def first_call(self, theta: Theta) -> int:
        return (
            self.instruction
            + sum(each.tokens(theta.k) for each in self.demonstrations[: theta.m])
            + self.question.tokens(theta.k)
        )

    def total(self, theta: Theta) -> int:
        """Input tokens of all calls when every iteration brings as many new documents as the first block has."""
        return theta.n * self.first_call(theta) + theta.n * (theta.n - 1) // 2 * self._block(theta)

    def longest(self, theta: Theta) -> int:
        """Input tokens of the last call."""
        return self.first_call(theta) + (theta.n - 1) * self._block(theta)

    def _block(self, theta: Theta) -> int:
        return sum(self.question.documents[: theta.k])


@dataclass(frozen=True)
class Plan:
    """What is shown of the configuration that was wanted, and which limit took the rest away (of each block)."""

    theta: Theta
    dropped_documents: int
    dropped_demonstrations: int
    missing_demonstrations: int
    """Wanted, but not in the store."""
    because: str


def plan(wanted: Theta, lengths: Lengths, limits: Limits) -> Plan:
    """The largest part of the configuration that stays within the limits over all its iterations.

    Where even no document and no demonstration do, a first call that fits is enough: iterations then end when the
    limits are reached.  Raises `DoesNotFit` when the first call does not.
    """
    available = replace(wanted, m=min(wanted.m, len(lengths.demonstrations)))
    smaller = [replace(available, k=k) for k in range(available.k, -1, -1)]
    smaller += [replace(available, k=0, m=m) for m in range(available.m - 1, -1, -1)]
    because = ""
    for theta in smaller:
        if not (reason := _beyond(lengths.total(theta), lengths.longest(theta), limits)):
            break
        because = because or reason
    else:
        first = lengths.first_call(theta)
        if reason := _beyond(first, first, limits):
            tokens, most = (first, limits.budget) if reason == "budget" else (first + limits.line, limits.window)
            raise DoesNotFit(
                f"a question takes {tokens} tokens without documents and demonstrations, the {reason} is {most}: "
                "raise it, or shorten the question, the instruction or max_tokens",
                metadata={"tokens": tokens, reason: most},
            )
    dropped = lengths.documents(available) - lengths.documents(theta)
    return Plan(theta, dropped, available.m - theta.m, wanted.m - available.m, because)


def _beyond(total: int, longest: int, limits: Limits) -> str:
    """Which limit is broken, "" if none is."""
    if limits.budget is not None and total > limits.budget:
        return "budget"
    return "window" if longest + limits.line > limits.window else ""


def fitting(sizes: Sequence[int], room: int) -> int:
    """How many of these, from the first on, fit into the room together."""
    for count, size in enumerate(sizes):
        room -= size
        if room < 0:
            return count
    return len(sizes)
