"""Continuous batching: the samples of all requests on a model are decoded together, a token each per step.

No thread works in the background.  Whoever waits for a token and finds nobody at work leads the next step, for
everybody.  A step either reads a piece of a prompt or decodes one token of every row; the two alternate, so
that a long prompt does not hold up those who are writing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pickaxe.errors import DoesNotFit, InvalidParams
from pickaxe.lm.cache import KV
from pickaxe.lm.generate import Generation, Row, Ticket, check
from pickaxe.lm.network import CHUNK, Network
from pickaxe.lm.outcome import Outcome
from pickaxe.lm.prefix import PrefixCache
from pickaxe.lm.sampling import Draw
from pickaxe.lm.scoring import pad
from pickaxe.lm.turns import POLL, Turns

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.lm.batch import Batch
    from pickaxe.lm.device_batch import DeviceBatch
    from pickaxe.lm.transcript import Step
    from pickaxe.tokenizers import Tokenizer

MIB = 2**20
FIRST_CAPACITY = 4096
"""Most slots per row that the batch begins with; those never written take no memory."""


@dataclass(frozen=True)
class EngineSettings:
    """Bounds of one model's engine.

    `rows`: most samples decoded together.  `cache_bytes`: keys and values of all rows at their longest;
    requests wait for room.  `prefix_bytes`: prompts kept for others that begin alike, 0 for none.  `chunk`,
    `chunk_beside`: most prompt tokens of one step, when nobody and when somebody is decoding.  `ahead`: steps
    per sample that a caller may leave unread before its samples pause.
    """

    rows: int = 32
    cache_bytes: int = 2048 * MIB
    prefix_bytes: int = 256 * MIB
    chunk: int = CHUNK
    chunk_beside: int = 64
    ahead: int = 32

    def __post_init__(self) -> None:
        least = {"rows": 1, "cache_bytes": 1, "prefix_bytes": 0, "chunk": 2, "chunk_beside": 2, "ahead": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InvalidParams(f"engine.{name}", f"is {getattr(self, name)}; must be at least {value}")


class Engine:
    """Serves the requests on one model.  Safe to use from several threads."""

    def __init__(self, name: str, network: Network, tokenizer: Tokenizer, settings: EngineSettings) -> None:
        self.settings = settings
        self.turns = Turns()
        """Taken for every run of the model, by others than the engine too."""
        self.prefixes = PrefixCache(settings.prefix_bytes)
        self._name, self._network, self._tokenizer = name, network, tokenizer
        self._news = threading.Condition()
        self._leading = False
        # The rest belongs to whoever leads, except that anybody may append to `_waiting` under `_news`.
        self._waiting: deque[Ticket] = deque()
        self._reading: deque[Ticket] = deque()
        self._ready: deque[Ticket] = deque()
        self._rows: list[Row] = []
        self._batch: Batch | DeviceBatch | None = None
        self._decoded_last = False
        self._oldest_next = False

    # ------------------------------------------------------------ callers

    def generate(self, requests: Sequence[Generation], call: Call) -> Generator[tuple[int, Step]]:
        """(number of the request, step) as they are drawn; those of one sample in order.

        Requests are checked at once.  Closing the iterator, or the end of the call, frees their places.
        """
        tickets = [self._ticket(request, call) for request in requests]
        return self._steps(tickets, call)

    def _ticket(self, request: Generation, call: Call) -> Ticket:
        draw = Draw.of(request.sampling)
        architecture = self._network.architecture
        limit = check(request, architecture.context, architecture.vocab, self._name)
        prompt = len(request.prompt_ids) + (0 if request.past is None else request.past.width)
        room = self.settings.cache_bytes // self._network.token_bytes - prompt
        if request.sampling.max_tokens is None and room > 0:
            limit = min(limit, room)
        if limit > room:
            raise DoesNotFit(
                f"{prompt} prompt tokens and {limit} new ones need "
                f"{(prompt + limit) * self._network.token_bytes / MIB:.0f} MiB of keys and values, the engine has "
                f"{self.settings.cache_bytes / MIB:.0f} MiB: shorten the prompt, lower max_tokens or raise lm_cache",
                metadata={"prompt_tokens": prompt, "max_tokens": limit, "cache_bytes": self.settings.cache_bytes},
            )
        return Ticket(request, draw, limit, self._tokenizer, call)

    def _steps(self, tickets: Sequence[Ticket], call: Call) -> Generator[tuple[int, Step]]:
        with self._news:
            self._waiting.extend(tickets)
        try:
            going = list(enumerate(tickets))
            while going:
                done = [ticket.finished for _, ticket in going]  # before its steps are taken: none comes after
                for number, ticket in going:
                    while ticket.unread:
                        call.check()
                        yield number, ticket.unread.popleft()
                    if ticket.error is not None:
                        raise ticket.error
                going = [each for each, over in zip(going, done, strict=True) if not over]
                if going:
                    self._await([ticket for _, ticket in going], call)
        finally:
            for ticket in tickets:
                ticket.gone = True
            self._tidy()

    def _await(self, tickets: Sequence[Ticket], call: Call) -> None:
        """Return when one of these has news, having led the steps in between if nobody else did."""
        while True:
            with self._news:
                while self._leading and not _news(tickets):
                    call.check()
                    self._news.wait(POLL)
                if _news(tickets):
                    return
                call.check()
                self._leading = True
            try:
                with self.turns.taken(call):
                    ran = self._step()
            finally:
                self._stop_leading()
            if not ran and not _news(tickets):  # those who have the room have not taken their tokens
                with self._news:
                    self._news.wait(POLL)

    def _tidy(self) -> None:
        """Free what requests that are gone have held, unless somebody is at work, who will do it."""
        with self._news:
            if self._leading:
                return
            self._leading = True
        try:
            self._drop_gone()
        finally:
            self._stop_leading()

    def _stop_leading(self) -> None:
        with self._news:
            self._leading = False
            self._news.notify_all()

    # ------------------------------------------------------------ the leader

    def _step(self) -> bool:
        """One run of the model; whether there was anything to run."""
        try:
            self._drop_gone()
            self._admit()
            going = [not self._paused(row.ticket) for row in self._rows]
            ran = any(going) or bool(self._reading)
            if self._reading and (self._decoded_last or not any(going)):
                self._decoded_last = False
                self._read(self.settings.chunk_beside if any(going) else self.settings.chunk)
            elif any(going):
                self._decoded_last = True
                self._decode(going)
            self._begin_samples()
            return ran
        except Exception as error:  # noqa: BLE001 - those who wait for their tokens raise it
            self._fail(error)
            return True

    def _fail(self, error: Exception) -> None:
        """A run of the model failed: so did everybody who was in it; the engine begins anew."""
        for ticket in (*self._reading, *self._ready, *(row.ticket for row in self._rows)):
            ticket.error = error
        self._rows, self._batch = [], None
        self._reading.clear()
        self._ready.clear()

    def _drop_gone(self) -> None:
        with self._news:
            for queue in (self._waiting, self._reading, self._ready):
                for ticket in [each for each in queue if _over(each)]:
                    queue.remove(ticket)
        for place in reversed(range(len(self._rows))):
            if _over(self._rows[place].ticket):
                self._remove(place)
        if not self._rows and not self._ready:
            self._batch = None

    def _admit(self) -> None:
        """Let in who fits, first come first served: one that does not fit holds up those behind it."""
        taken = sum(row.ticket.length for row in self._rows)
        taken += sum(ticket.length for ticket in (*self._reading, *self._ready))
        slots = self.settings.rows - len(self._rows) - len(self._reading)
        with self._news:
            while self._waiting and slots > 0:
                taken += self._waiting[0].length
                if taken * self._network.token_bytes > self.settings.cache_bytes:
                    return
                ticket = self._waiting.popleft()
                (self._reading if ticket.first is None else self._ready).append(ticket)
                slots -= 1

    def _paused(self, ticket: Ticket) -> bool:
        return len(ticket.unread) >= self.settings.ahead * max(1, ticket.rows)

    def _read(self, budget: int) -> None:
        """A piece of one prompt, with other short ones of like length.

        The oldest one and the shortest one are served in turn, so that short prompts do not wait for long ones
        and few prompts at a time are half read, which costs memory.
        """
        self._oldest_next = not self._oldest_next
        ticket = self._reading[0] if self._oldest_next else min(self._reading, key=lambda each: len(each.rest))
        if ticket.read is None and (known := self.prefixes.longest(ticket.rest)) is not None:
            ticket.read, ticket.rest = known, ticket.rest[known.width :]
        group = [ticket]
        if ticket.read is None and len(ticket.rest) > 1:
            group += self._alike(ticket, budget)
        size = min(budget, max(len(each.rest) for each in group))
        if len(group) == 1 and len(ticket.rest) - size == 1:
            size -= 1  # one token alone goes through another kernel, which rounds differently
        try:
            self._read_piece(group, size)
        except Exception as error:  # noqa: BLE001 - those who wait for their tokens raise it
            for each in group:
                each.error = error
                self._reading.remove(each)

    def _read_piece(self, group: Sequence[Ticket], size: int) -> None:
        """The next `size` tokens of each, in one run."""
        ids, counts = pad([each.rest[:size] for each in group])
        past, group[0].read = group[0].read, None  # held twice, the cache could not grow in place
        if past is None:
            longest = max(len(each.rest) for each in group)
            past = KV.empty(self._network.architecture, len(group), longest, self._network.dtype)
        ends = np.arange(len(group)) * ids.shape[1] + counts - 1
        hidden, read = self._network.read(ids, counts, past, ends)
        for place, each in enumerate(group):
            each.rest = each.rest[size:]
            each.read = read if len(group) == 1 else read.gather([place])
            if not len(each.rest):
                self._reading.remove(each)
                self._finish_reading(each, hidden[place : place + 1])

    def _alike(self, ticket: Ticket, budget: int) -> list[Ticket]:
        """Others whose whole prompts can be read in one run with this one without much padding."""
        found: list[Ticket] = []
        longest = len(ticket.rest)
        for other in self._reading:
            if (len(found) + 2) * max(longest, len(other.rest)) > budget:
                break
            fresh = other is not ticket and other.read is None and len(other.rest) > 1
            alike = fresh and 0.8 * longest <= len(other.rest) <= longest / 0.8
            if alike and not self.prefixes.knows(other.rest):
                found.append(other)
        return found

    def _finish_reading(self, ticket: Ticket, hidden: np.ndarray) -> None:
        assert ticket.read is not None
        ticket.first = Outcome.of(self._network.logits(hidden))
        if ticket.request.past is None:
            self.prefixes.remember(np.asarray(ticket.request.prompt_ids, dtype=np.int64), ticket.read)
        self._ready.append(ticket)

    def _decode(self, going: Sequence[bool]) -> None:
        assert self._batch is not None
        outcome = self._batch.step([row.transcript.generated[-1] for row in self._rows], going)
        moving = [row for row, goes in zip(self._rows, going, strict=True) if goes]
        for place, row in enumerate(moving):
            row.advance(outcome, place)
        for place in reversed(range(len(self._rows))):
            if self._rows[place].over:
                self._remove(place)

    def _remove(self, place: int) -> None:
        """End a row; its ticket is finished with its last one."""
        assert self._batch is not None
        ticket = self._rows[place].ticket
        self._rows[place] = self._rows[self._batch.leave(place)]
        self._rows.pop()
        ticket.rows -= 1
        ticket.finished = ticket.exhausted and not ticket.rows

    def _begin_samples(self) -> None:
        """Give free rows to the requests that have samples left, in turn."""
        taken = sum(row.ticket.length for row in self._rows)
        for _ in range(len(self._ready)):
            ticket = self._ready.popleft()
            while not (ticket.exhausted or ticket.error or self._paused(ticket)) and ticket.rows < ticket.request.batch:
                fits = (taken + ticket.length) * self._network.token_bytes <= self.settings.cache_bytes
                if len(self._rows) >= self.settings.rows or (self._rows and not fits):
                    break
                taken += ticket.length if self._begin(ticket) else 0
            if not ticket.exhausted:
                self._ready.append(ticket)
            else:
                ticket.read = None

    def _begin(self, ticket: Ticket) -> bool:
        """Draw the first token of another sample; whether it goes on and has a row now."""
        assert ticket.first is not None
        assert ticket.read is not None
        row = ticket.begin()
        row.advance(ticket.first, 0)
        if row.over:
            ticket.finished = ticket.exhausted and not ticket.rows
            return False
        if self._batch is None:
            capacity = max(min(ticket.length, FIRST_CAPACITY), ticket.read.width + 1)
            self._batch = self._network.batch(self.settings.rows, capacity)
        self._batch.join(ticket.read)
        self._rows.append(row)
        ticket.rows += 1
        return True


def _news(tickets: Sequence[Ticket]) -> bool:
    return any(ticket.unread or ticket.finished or ticket.error for ticket in tickets)


def _over(ticket: Ticket) -> bool:
    return ticket.gone or ticket.error is not None or ticket.call.over
