"""Questions about several items, replies to them, and any decoder as the one who replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from pickaxe import Call, Completion, Prompt, Sampling
from pickaxe.randomness import generator
from pickaxe_plugins.decoding.batchprompt.task import Task, answer
from pickaxe_plugins.decoding.batchprompt.voting import Vote, parse

if TYPE_CHECKING:
    from pickaxe.handle import DecoderHandle

CHATTER_TOKENS = 64
"""Tokens that an answer to a batch may spend on other words."""
_ANSWER_TOKENS = 12
_LARGEST = 255


@dataclass(frozen=True)
class Question:
    """One prompt: its items' texts in the order in which it shows them, and what its random numbers go by."""

    texts: tuple[str, ...]
    key: tuple[int, ...] = ()

    def seed(self, seed: int) -> int:
        return int(generator(seed, "batchprompt", "draw", *self.key).integers(2**63))


@dataclass(frozen=True)
class Reply:
    """A vote or None for each item, by its place; tokens of the prompt, of the answer, and not read again."""

    votes: Sequence[Vote | None]
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    abstained: bool = False


class Asker(Protocol):
    """What a poll needs of its model."""

    room: int | None
    """Tokens of prompt and answer together; None: no limit is known."""
    answer_tokens: int
    """Tokens that the answer for one item takes."""
    varies: bool
    """Whether asking the same again may be answered differently."""

    def tokens(self, texts: Sequence[str]) -> int:
        """Tokens of the prompt about these items."""

    def cut(self, text: str, tokens: int) -> str:
        """The beginning of an item's text."""

    def ask(self, questions: Sequence[Question], call: Call) -> list[Reply]:
        """The replies to all of them, in their order."""


def tokens_of_an_answer(task: Task, count: Callable[[str], int]) -> int:
    """The longest line that answers for one item."""
    line = answer(_LARGEST, len(task.labels) - 1, False if task.marks else None)
    return max(_ANSWER_TOKENS, count(line + "\n"))


def bounded(sampling: Sampling, answer_tokens: int, n: int) -> int:
    """Most tokens of the answer for n items."""
    wanted = answer_tokens * n + CHATTER_TOKENS
    return wanted if sampling.max_tokens is None else min(sampling.max_tokens, wanted)


class OtherDecoder:
    """Any decoder.  Its tokens are unknown: three bytes count as one where it does not say."""

    varies = True

    def __init__(self, decoder: DecoderHandle, task: Task, sampling: Sampling, seed: int, context: int | None) -> None:
        self._decoder, self._task, self._sampling, self._seed = decoder, task, sampling, seed
        self.room = context
        self.answer_tokens = tokens_of_an_answer(task, _guess)

    def tokens(self, texts: Sequence[str]) -> int:
        return sum(_guess(turn.content) for turn in self._task.messages(texts))

    def cut(self, text: str, tokens: int) -> str:
        return text.encode("utf-8", "replace")[: 3 * tokens].decode("utf-8", "ignore")

    def ask(self, questions: Sequence[Question], call: Call) -> list[Reply]:
        parts: list[list[Completion]] = [[] for _ in questions]
        for each in self._decoder.complete([self._prompt(question) for question in questions], call=call):
            parts[each.prompt].append(each)
        return [self._reply(question, found) for question, found in zip(questions, parts, strict=True)]

    def _prompt(self, question: Question) -> Prompt:
        limit = bounded(self._sampling, self.answer_tokens, len(question.texts))
        sampling = replace(self._sampling, max_tokens=limit, seed=question.seed(self._seed))
        return Prompt(messages=self._task.messages(question.texts), sampling=sampling)

    def _reply(self, question: Question, found: Sequence[Completion]) -> Reply:
        first = next(each for each in found if each.choice == 0)
        said = [each.usage["prompt_tokens"] for each in found if "prompt_tokens" in each.usage]
        return Reply(
            parse(first.text, len(question.texts)),
            int(said[0]) if said else self.tokens(question.texts),
            len(first.token_ids) or _guess(first.text),
            abstained=first.finish_reason == "abstain",
        )


def _guess(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // 3)
