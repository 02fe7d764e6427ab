"""The course of one question: what is asked of the model and of the retriever, step by step.

A dialogue is a generator of asks.  Who answers them (an engine that keeps keys and values, or any decoder) is
another module's business, and so is whether questions take turns or go side by side.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from pickaxe import Item, Prompt, Sampling
from pickaxe.data import FinishReason
from pickaxe_plugins.generation.drag._plan import Limits, Plan, fitting
from pickaxe_plugins.generation.drag._prompt import (
    FINAL,
    FOLLOW_UP,
    INTERMEDIATE,
    PREFIXES,
    Context,
    Passage,
    in_prompt,
)

if TYPE_CHECKING:
    from pickaxe.lm import KV


@dataclass(frozen=True)
class Question:
    """One choice of one prompt, with the passages of its first block, best first."""

    row: int
    choice: int
    prompt: Prompt
    text: str
    history: tuple[str, ...]
    """Earlier turns of the conversation, as lines."""
    sampling: Sampling
    passages: tuple[Passage, ...]
    iterations: int | None = None
    """The most it may take, where the call has a budget of model calls."""

    def query(self, text: str) -> Item:
        """What the retriever gets: the prompt's fields may hold filters."""
        return Item(f"{self.row}", text, self.prompt.fields)


@dataclass(frozen=True)
class Search:
    """Documents for a query."""

    query: str


@dataclass(frozen=True)
class Choose:
    """Which of these texts the model would rather go on with."""

    options: tuple[str, ...]


@dataclass(frozen=True)
class Write:
    """The rest of the line, of which the context holds the prefix; `step` numbers the lines of a dialogue."""

    prefix: str
    final: bool
    step: int


@dataclass(frozen=True)
class Written:
    """What the model wrote."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason


Ask: TypeAlias = Search | Choose | Write


@dataclass
class ModelCall:
    """One call of the model: tokens of its whole prompt, tokens it made, and what it said."""

    input_tokens: int
    output_tokens: int = 0
    response: str = ""


@dataclass
class Step:
    """A line of the trace, with the documents that a follow-up question brought."""

    prefix: str
    text: str
    documents: tuple[str, ...] = ()


@dataclass(eq=False)
class Dialogue:
    """One question on its way to an answer.  `resends`: every ask is a call of its own with the whole prompt."""

    question: Question
    plan: Plan
    limits: Limits
    context: Context
    shared: int
    """Tokens of the context that other questions begin with too: instruction and demonstrations."""
    resends: bool
    iterative: bool
    calls: list[ModelCall] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    iterations: int = 1
    fresh: bool = True
    """The next ask begins a call: text from elsewhere was put into the prompt."""
    lost_documents: int = 0
    """Found for follow-up questions, but without room."""
    answer: Written | None = None
    kv: KV | None = None
    """Keys and values of what an engine has read of the context."""
    prefilled_tokens: int = 0
    """Prompt tokens that an engine read."""

    def __post_init__(self) -> None:
        self._seen = {each.text for each in self.question.passages[: self.plan.theta.k]}

    @property
    def effective_context_length(self) -> int:
        return sum(each.input_tokens for each in self.calls)

    def run(self) -> Generator[Ask, Any, None]:
        """Asks in their order; each is sent its answer."""
        if not self.iterative:
            self.answer = yield Write("", True, 0)
            return
        options: tuple[str, ...] = PREFIXES
        while self.answer is None:
            prefix = (yield Choose(options)) if self._may_go_on() else FINAL
            text = yield from self._line(prefix)
            options = (FOLLOW_UP, FINAL)
            if prefix == FOLLOW_UP and (room := self._room()) >= 0:
                found = (yield Search(text)) if self.plan.theta.k and text else ()
                self._add(found, room)
                self.iterations += 1
                self.fresh = True
                yield from self._line(INTERMEDIATE)

    def _line(self, prefix: str) -> Generator[Ask, Any, str]:
        final = prefix == FINAL
        self.context.append(prefix)
        written: Written = yield Write(prefix, final, len(self.steps))
        self.steps.append(Step(prefix, written.text))
        if final:
            self.answer = written
        else:
            self.context.append(f" {written.text}\n")
        return written.text

    # ------------------------------------------------------------ limits

    def _may_go_on(self) -> bool:
        """Whether another follow-up question leaves room for its answer and the final one."""
        line, length = self.limits.line, len(self.context)
        ahead = [length, length + line] if self.resends else []
        return (
            self.iterations < self.plan.theta.n
            and sum(ahead) + self._still_to_send(length + line) <= self._left()
            and length + 4 * line <= self.limits.window
        )

    def _room(self) -> int:
        """Tokens that documents for the follow-up question may take; negative when it has to go unanswered."""
        length = len(self.context)
        room = self._left() - self._still_to_send(length)
        room = room / 2 if self.resends and room > 0 else room  # both calls carry the documents
        return int(min(room, self.limits.window - length - 2 * self.limits.line))

    def _still_to_send(self, length: int) -> int:
        """Input tokens of the calls after a follow-up question, when the context then has this length."""
        return 2 * length + 3 * self.limits.line if self.resends else length

    def _left(self) -> float:
        return float("inf") if self.limits.budget is None else self.limits.budget - self.effective_context_length

    def _add(self, found: Sequence[Passage], room: int) -> None:
        """Put the documents that are new, and fit, into the prompt."""
        new = [each for each in found[: self.plan.theta.k] if each.text not in self._seen]
        kept = new[: fitting([self.context.size(each.line) for each in new], room)]
        self.lost_documents += len(new) - len(kept)
        self._seen |= {each.text for each in kept}
        self.steps[-1].documents = tuple(each.id for each in kept)
        self.context.append(*in_prompt(kept))
