"""Rounds of questions about batches of items until every item is closed (arXiv 2309.00384)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from pickaxe import Call
from pickaxe.errors import DoesNotFit
from pickaxe.randomness import generator
from pickaxe_plugins.decoding.batchprompt.asking import Asker, Question, Reply
from pickaxe_plugins.decoding.batchprompt.voting import Rules, Standing, Vote

Permute = Callable[[tuple[int, ...], int, int], Sequence[int]]
"""(number of the batch, round, n) → an order of its n items."""


@dataclass(frozen=True)
class Spent:
    """What one call took."""

    round: int
    items: int
    reply: Reply
    refused: bool


@dataclass(eq=False)
class Batch:
    """Items, by row, that are asked about together.  `number` is the batch's, then those of the halves it is in."""

    number: tuple[int, ...]
    rows: Sequence[int]
    round: int = 0
    attempts: int = 0
    spent: list[Spent] = field(default_factory=list)


def permutation(seed: int) -> Permute:
    """The given order in round 0, then a uniform one that depends on the seed, the batch and the round only."""

    def permute(number: tuple[int, ...], round_: int, n: int) -> Sequence[int]:
        if round_ == 0:
            return range(n)
        order: list[int] = generator(seed, "batchprompt", "order", *number, round_).permutation(n).tolist()
        return order

    return permute


@dataclass(frozen=True)
class Window:
    """How much goes into one prompt."""

    items: int
    tokens: int | None = None
    """Most tokens of an answer."""
    cut: bool = False
    """Whether an item that is too long alone loses its end; else it is an error."""


def plan(texts: Sequence[str], asker: Asker, window: Window) -> tuple[list[str], list[list[int]], list[int]]:
    """Texts as they are asked about, rows of each batch in order, and the tokens of each single prompt.

    A batch holds as many items as may be and as prompt and answers leave room for.  Raises `DoesNotFit` for an
    item that is too long alone.
    """
    bare = asker.tokens([""])
    frame = max(1, asker.tokens([""] * window.items) - bare) / max(1, window.items - 1)
    room = math.inf if asker.room is None else asker.room - bare
    largest = window.items
    if window.tokens is not None:
        largest = max(1, min(largest, window.tokens // asker.answer_tokens))
    kept, single, batches = list(texts), [], list[list[int]]()
    used = math.inf
    for row, text in enumerate(texts):
        own = asker.tokens([text]) - bare + asker.answer_tokens
        if own > room:
            if not window.cut or room <= asker.answer_tokens:
                raise DoesNotFit(
                    f"item {row} takes {own + bare} tokens with instruction and answer, the model has {asker.room}: "
                    "shorten it, or let too_long=cut do that",
                    metadata={"item": row, "tokens": own + bare, "context": asker.room},
                )
            kept[row] = _cut(text, asker, int(room) - asker.answer_tokens)
            own = asker.tokens([kept[row]]) - bare + asker.answer_tokens
        single.append(own + bare - asker.answer_tokens)
        if not batches or len(batches[-1]) == largest or used + own + frame > room:
            batches.append([])
            used = 0
        batches[-1].append(row)
        used += own + frame
    return kept, batches, single


def _cut(text: str, asker: Asker, tokens: int) -> str:
    """The longest beginning that stays within so many tokens beyond those of the bare prompt."""
    bare, wanted = asker.tokens([""]), tokens
    while (over := asker.tokens([short := asker.cut(text, wanted)]) - bare - tokens) > 0 and wanted > 0:
        wanted = max(0, wanted - over)
    return short


class Poll:
    """Asks about batches, up to `parallel` of them in one go, and keeps the standing of every item.

    A refused question is put once more where that may help, up to `retry` times; then the batch is split in two.
    """

    def __init__(
        self,
        texts: Sequence[str],
        asker: Asker,
        rules: Rules,
        permute: Permute,
        *,
        labels: int,
        retry: int = 1,
        parallel: int = 8,
        budget: int | None = None,
    ) -> None:
        self.standings = [Standing() for _ in texts]
        self.exhausted = False
        """Whether the budget ended a batch before its time."""
        self._texts, self._asker, self._rules, self._permute = texts, asker, rules, permute
        self._labels, self._parallel = labels, parallel
        self._retry = retry if asker.varies else 0
        self._left = math.inf if budget is None else budget

    def run(self, batches: Sequence[Sequence[int]], call: Call) -> Iterator[Batch]:
        """Every batch, and every part of one that was split, once it is through."""
        waiting = deque(Batch((number,), rows) for number, rows in enumerate(batches))
        active: list[Batch] = []
        while waiting or active:
            call.check()
            while waiting and len(active) < self._parallel:
                active.append(waiting.popleft())
            asked = active[: int(min(self._left, len(active)))]
            self._left -= len(asked)
            orders = [self._order(batch) for batch in asked]
            questions = [self._question(*pair) for pair in zip(asked, orders, strict=True)]
            replies = self._asker.ask(questions, call) if questions else []
            ended, active = active[len(asked) :] if self._left <= 0 else [], []
            self.exhausted |= bool(ended)
            for batch, order, reply in zip(asked, orders, replies, strict=True):
                following = self._follow(batch, order, reply)
                active += following
                if batch not in following:
                    ended.append(batch)
            yield from ended

    def _order(self, batch: Batch) -> list[int]:
        """The open items in this round's order."""
        order = self._permute(batch.number, batch.round, len(batch.rows))
        return [batch.rows[place] for place in order if not self.standings[batch.rows[place]].closed]

    def _question(self, batch: Batch, order: Sequence[int]) -> Question:
        return Question(tuple(self._texts[row] for row in order), (*batch.number, -1 - batch.round, batch.attempts))

    def _follow(self, batch: Batch, order: Sequence[int], reply: Reply) -> list[Batch]:
        """Take the reply; what has to be asked about next."""
        votes = [self._known(vote) for vote in reply.votes]
        refused = reply.abstained or not any(votes)
        batch.spent.append(Spent(batch.round, len(order), reply, refused))
        if refused:
            batch.attempts += 1
            if batch.attempts <= self._retry:
                return [batch]
            if len(order) > 1:
                return [batch, self._split(batch, order)]
        for place, (row, vote) in enumerate(zip(order, votes, strict=True)):
            self.standings[row].cast(vote, place, self._rules)
        batch.round, batch.attempts = batch.round + 1, 0
        still_open = batch.round < self._rules.rounds and any(not self.standings[row].closed for row in order)
        return [batch] if still_open else []

    def _split(self, batch: Batch, order: Sequence[int]) -> Batch:
        """Take the second half of the open items off the batch."""
        half = sorted(order)[len(order) // 2 :]
        other = Batch((*batch.number, 1), half, batch.round)
        batch.rows = [row for row in batch.rows if row not in half]
        batch.number, batch.attempts = (*batch.number, 0), 0
        return other

    def _known(self, vote: Vote | None) -> Vote | None:
        """None for the number of a label that there is not."""
        return vote if vote is not None and vote.label < self._labels else None


def totals(batches: Sequence[Batch], rounds: int | None = None) -> dict[str, float]:
    """Calls and tokens of the batches, of their first rounds only where a number is given."""
    spent = [each for batch in batches for each in batch.spent if rounds is None or each.round < rounds]
    return {
        "calls": len(spent),
        "refused_calls": sum(each.refused for each in spent),
        "input_tokens": sum(each.reply.input_tokens for each in spent),
        "cached_tokens": sum(each.reply.cached_tokens for each in spent),
        "output_tokens": sum(each.reply.output_tokens for each in spent),
        "item_prompts": sum(each.items for each in spent),
    }


def paper_totals(batches: Sequence[Batch], rounds: int, instruction: Callable[[int], int]) -> dict[str, float]:
    """As the published post-processing counts: every batch takes all rounds, and its instruction is paid once."""
    tokens = 0
    for batch in batches:
        own = [each.reply.input_tokens - instruction(each.items) for each in batch.spent]
        tokens += sum(own) + (instruction(batch.spent[0].items) if batch.spent else 0)
    return {"calls_like_paper": len(batches) * rounds, "input_tokens_like_paper": tokens}


def accuracy_by_place(standings: Sequence[Standing], truth: Sequence[int | None]) -> list[dict[str, float]]:
    """For every place in a prompt: how many labelled items stood there, got an answer, and a right one."""
    width = max((place + 1 for each in standings for place in each.places), default=0)
    counts = np.zeros((width, 3), np.int64)
    for standing, label in zip(standings, truth, strict=True):
        if label is not None:
            for vote, place in zip(standing.votes, standing.places, strict=True):
                counts[place] += (1, vote is not None, vote is not None and vote.label == label)
    return [{"place": place, "asked": int(a), "answered": int(b), "right": int(c)}
            for place, (a, b, c) in enumerate(counts)]  # fmt: skip
