"""A language model as the one who replies: by the text it writes, or by the log-probabilities of the labels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from pickaxe import Call, Sampling
from pickaxe.errors import InvalidParams
from pickaxe_plugins.decoding.batchprompt.asking import Question, Reply, bounded, tokens_of_an_answer
from pickaxe_plugins.decoding.batchprompt.task import Task, answer
from pickaxe_plugins.decoding.batchprompt.voting import Vote, parse

if TYPE_CHECKING:
    from pickaxe.lm import KV, LM, Step

_BEGINNINGS = 4
"""How many beginnings of prompts, one for each size of a batch, keep their keys and values."""


class _Reader:
    """Prompts as token ids, with what they begin with read once."""

    def __init__(self, lm: LM, task: Task, context: int | None) -> None:
        self.lm, self.task = lm, task
        self.room: int | None = min(lm.context_length, context or lm.context_length)
        self.answer_tokens = tokens_of_an_answer(task, lambda text: len(lm.tokenizer.encode(text)))
        self._known: OrderedDict[int, tuple[list[int], KV]] = OrderedDict()

    def tokens(self, texts: Sequence[str]) -> int:
        return len(self.ids(texts))

    def cut(self, text: str, tokens: int) -> str:
        return self.lm.tokenizer.decode(self.lm.tokenizer.encode(text)[:tokens]).rstrip("\ufffd")

    def ids(self, texts: Sequence[str]) -> list[int]:
        return self.lm.tokenizer.encode_chat(self.task.messages(texts))

    def beginning(self, ids: list[int], n: int, call: Call) -> tuple[int, KV | None]:
        """How many of these ids begin every prompt about n items (instruction, examples), and their cache."""
        if n not in self._known:
            shared = _common_start([self.ids([word] * n) for word in ("one", "two")])
            _, cache = self.lm.forward(np.array([shared]), logits_at="none", call=call)
            self._known[n] = shared, cache
            if len(self._known) > _BEGINNINGS:
                self._known.popitem(last=False)
        self._known.move_to_end(n)
        shared, cache = self._known[n]
        return (len(shared), cache) if ids[: len(shared)] == shared else (0, None)


class ModelText(_Reader):
    """A language model that writes its answers."""

    def __init__(self, lm: LM, task: Task, sampling: Sampling, seed: int, context: int | None) -> None:
        super().__init__(lm, task, context)
        self._sampling, self._seed = sampling, seed
        self.varies = sampling.temperature != 0

    def ask(self, questions: Sequence[Question], call: Call) -> list[Reply]:
        from pickaxe.lm import Generation

        asked = [self.ids(question.texts) for question in questions]
        known: list[int] = []
        requests: list[Generation] = []
        for question, ids in zip(questions, asked, strict=True):
            count, past = self.beginning(ids, len(question.texts), call)
            known.append(count)
            requests.append(Generation(ids[count:], self._drawn(question, len(ids)), past=past))
        written: list[list[Step]] = [[] for _ in questions]
        with closing(self.lm.generate_all(requests, call)) as steps:
            for number, step in steps:
                written[number].append(step)
        return [
            Reply(parse("".join(step.text for step in steps), len(question.texts)), len(ids), len(steps), count)
            for steps, question, ids, count in zip(written, questions, asked, known, strict=True)
        ]

    def _drawn(self, question: Question, prompt: int) -> Sampling:
        limit, room = bounded(self._sampling, self.answer_tokens, len(question.texts)), self.room or prompt
        return replace(self._sampling, max_tokens=max(1, min(limit, room - prompt)), seed=question.seed(self._seed))


class ModelLogits(_Reader):
    """A language model whose answers are written for it, up to the label: the likeliest label goes in.

    It is sure where the likeliest label leads by `margin` nats.
    """

    varies = False

    def __init__(self, lm: LM, task: Task, margin: float, context: int | None) -> None:
        super().__init__(lm, task, context)
        self._margin = margin
        self._pieces: dict[tuple[int, bool], tuple[list[int], list[int]]] = {}

    def ask(self, questions: Sequence[Question], call: Call) -> list[Reply]:
        return [self._reply(question, call) for question in questions]

    def _reply(self, question: Question, call: Call) -> Reply:
        ids = self.ids(question.texts)
        known, cache = self.beginning(ids, len(question.texts), call)
        unread, written = ids[known:], 0
        votes: list[Vote | None] = []
        sure = False
        for place in range(len(question.texts)):
            forced, labels = self._piece(place, sure)
            logits, cache = self.lm.prefill(unread + forced, call, cache)
            label, lead = _best(logits[labels])
            sure = lead >= self._margin
            votes.append(Vote(label, sure))
            unread = [labels[label]]
            written += len(forced) + 1
        return Reply(votes, len(ids), written, known)

    def _piece(self, place: int, sure: bool) -> tuple[list[int], list[int]]:
        """What is written between the label before (marked as sure or not) and this place's, and each label's id."""
        if (place, sure) not in self._pieces:
            before = "" if place == 0 else f"]{_mark(sure) if self.task.marks else ''}\n"
            options = [
                self.lm.tokenizer.encode(before + answer(place, number).removesuffix("]"))
                for number in range(len(self.task.labels))
            ]
            shared = _common_start(options)
            following = [ids[len(shared)] for ids in options if len(ids) > len(shared)]
            if len(set(following)) < len(options):
                raise InvalidParams(
                    "mode",
                    f"logits compares one token per label, and this model's tokenizer writes {len(options)} class "
                    "numbers with more: use fewer labels, or mode text",
                )
            self._pieces[place, sure] = shared, following
        return self._pieces[place, sure]


def _mark(sure: bool) -> str:
    return answer(0, 0, sure).removeprefix(answer(0, 0))


def _common_start(sequences: Sequence[list[int]]) -> list[int]:
    columns = zip(*sequences, strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def _best(logits: np.ndarray) -> tuple[int, float]:
    """Place of the highest, the first of equal ones, and its lead over the second."""
    best = int(np.argmax(logits))
    return best, float(logits[best] - np.delete(logits, best).max())
