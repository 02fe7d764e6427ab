"""Where dialogues are prepared and led: the model, the library, the demonstrations and the plan for each question."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pickaxe import Call, Host
from pickaxe_plugins.generation import rag_allocation
from pickaxe_plugins.generation.drag._dialogue import Ask, Dialogue, Question, Search
from pickaxe_plugins.generation.drag._plan import Block, Lengths, Limits, Theta, plan
from pickaxe_plugins.generation.drag._prompt import (
    ANSWER,
    FINAL,
    INSTRUCTION,
    PREFIXES,
    STEPS_INSTRUCTION,
    Context,
    Demonstration,
    Tokens,
    in_prompt,
)
from pickaxe_plugins.generation.drag._store import Library, Store
from pickaxe_plugins.generation.drag._writers import ByReference, Engine, Writer

if TYPE_CHECKING:
    from pickaxe.handle import ScorerHandle
    from pickaxe.lm import LM
    from pickaxe_plugins.generation.drag._method import Params

Running = Generator[Ask, Any, None]


@dataclass(frozen=True)
class Desk:
    """Everything that the questions of one call share."""

    params: Params
    lm: LM
    tokens: Tokens
    writer: Writer
    library: Library | None
    demonstrations: tuple[Demonstration, ...]
    steps: bool
    """Whether the demonstrations have steps."""
    allocation: ScorerHandle | None

    @classmethod
    def open(cls, params: Params, host: Host, library: Library | None, store: Store | None) -> Desk:
        lm = host.lm(params.model, params.precision)
        writer: Writer = (
            Engine(lm, params.reuse) if params.decoder is None else ByReference(host.decoder(params.decoder), lm)
        )
        allocation = None
        if params.auto and params.allocation is not None:
            allocation = host.scorer(params.allocation, budget=params.budget)
        demonstrations, steps = (store.demonstrations, store.steps) if store is not None else ((), False)
        return cls(params, lm, Tokens(lm.tokenizer), writer, library, demonstrations, steps, allocation)

    # ------------------------------------------------------------ leading

    def admitted(self, questions: Sequence[Question], call: Call) -> list[Question]:
        """Those that the call's budget of model calls has room for, each with the iterations that it may take."""
        if call.budget is None:
            return list(questions)
        left, found = call.budget, []
        for question in questions:
            iterations = next((n for n in range(self._most_iterations, 0, -1) if self._most_calls(n) <= left), 0)
            if not iterations:
                break
            left -= self._most_calls(iterations)
            found.append(replace(question, iterations=iterations))
        return found

    def _most_calls(self, iterations: int) -> int:
        """Model calls that so many iterations may take; by reference, each choice and each line is one."""
        return 3 * iterations if self.writer.resends and iterations > 1 else iterations

    @property
    def _most_iterations(self) -> int:
        return max(rag_allocation.ITERATIONS) if self.params.auto else self.params.n

    def answered(self, questions: Sequence[Question], call: Call) -> Iterator[Dialogue]:
        """The finished dialogues in the questions' order.

        A decoder gets what all of them ask at a time in one call; the engine, which keeps keys and values, leads
        one after the other.
        """
        groups = [questions] if self.writer.resends else [[question] for question in questions]
        for group in groups:
            dialogues = [self.prepared(question, call) for question in group]
            self._lead(dialogues, call)
            yield from dialogues

    def _lead(self, dialogues: Sequence[Dialogue], call: Call) -> None:
        running: list[tuple[Dialogue, Running, Ask]] = []
        for dialogue in dialogues:
            course = dialogue.run()
            running.append((dialogue, course, next(course)))
        while running:
            call.check()
            answers = self._answers([(dialogue, ask) for dialogue, _, ask in running], call)
            going = []
            for (dialogue, course, _), answer in zip(running, answers, strict=True):
                try:
                    going.append((dialogue, course, course.send(answer)))
                except StopIteration:
                    dialogue.kv = None
            running = going

    def _answers(self, asks: Sequence[tuple[Dialogue, Ask]], call: Call) -> list[Any]:
        """One answer per ask: searches together, and all that the model has to do together."""
        answers: list[Any] = [()] * len(asks)
        searches = [(row, dialogue, ask) for row, (dialogue, ask) in enumerate(asks) if isinstance(ask, Search)]
        if searches and self.library is not None:
            k = max(dialogue.plan.theta.k for _, dialogue, _ in searches)
            queries = [dialogue.question.query(ask.query) for _, dialogue, ask in searches]
            for (row, _, _), found in zip(searches, self.library.find(queries, k, call), strict=True):
                answers[row] = found
        others = [(row, dialogue, ask) for row, (dialogue, ask) in enumerate(asks) if not isinstance(ask, Search)]
        said = self.writer.answer([(dialogue, ask) for _, dialogue, ask in others], call) if others else []
        for (row, _, _), answer in zip(others, said, strict=True):
            answers[row] = answer
        return answers

    # ------------------------------------------------------------ preparing

    def prepared(self, question: Question, call: Call) -> Dialogue:
        """The dialogue before its first ask, with all that fits in its context."""
        wanted = self._theta(question, call)
        iterative = wanted.n > 1
        limits = Limits(self.params.budget, self.lm.context_length, self._line(question, iterative))
        capped = replace(wanted, n=min(wanted.n, question.iterations or wanted.n))
        made = plan(capped, self._lengths(question, iterative), limits)
        theta, context = made.theta, Context(self.tokens)
        context.append(self._instruction(iterative))
        for each in self.demonstrations[: theta.m]:
            context.append(*in_prompt(each.passages[: theta.k]), *each.label(iterative))
        shared = len(context)
        context.append(*question.history, *in_prompt(question.passages[: theta.k]), *_asking(question, iterative))
        return Dialogue(question, made, limits, context, shared, self.writer.resends, iterative)

    def _theta(self, question: Question, call: Call) -> Theta:
        """The configuration for this question: the parameters' or, with auto, the best that the budget allows."""
        params = self.params
        k = len(question.prompt.context) or params.k
        if self.allocation is None:
            return Theta(k, params.m, params.n)
        lengths = [self._lengths(question, iterative) for iterative in ((False, True) if self.steps else (False,))]
        blocks = [block for each in lengths for block in (each.question, *each.demonstrations)]
        grid = rag_allocation.configurations(
            [k] if question.prompt.context else [each for each in rag_allocation.DOCUMENTS if each <= k],
            [each for each in rag_allocation.DEMONSTRATIONS if each <= len(self.demonstrations)],
            rag_allocation.ITERATIONS if self.steps else (1,),
            task=params.task,
            instruction_tokens=max(each.instruction for each in lengths),
            doc_tokens=max((tokens for block in blocks for tokens in block.documents), default=0),
            qa_tokens=max(block.rest for block in blocks),
        )
        best = self.allocation.score(grid, call=call).summary["best"][params.task]
        return Theta(best["k"], best["m"], best["n"])

    def _lengths(self, question: Question, iterative: bool) -> Lengths:
        rest = self.tokens.count([*question.history, *_asking(question, iterative)])
        if iterative and self.writer.resends:
            rest += self.tokens.count([FINAL])  # a forced prefix is part of the prompt
        return Lengths(
            len(self.tokens(self._instruction(iterative))),
            tuple(
                Block(
                    tuple(len(self.tokens(passage.line)) for passage in each.passages),
                    self.tokens.count(each.label(iterative)),
                )
                for each in self.demonstrations
            ),
            Block(tuple(len(self.tokens(passage.line)) for passage in question.passages), rest),
        )

    def _instruction(self, iterative: bool) -> str:
        text = self.params.instruction
        if text is None:
            text = STEPS_INSTRUCTION if iterative else INSTRUCTION
        return f"{text}\n\n"

    def _line(self, question: Question, iterative: bool) -> int:
        """Most tokens of one step: its prefix, what is written, and the space and line break around that."""
        most = question.sampling.max_tokens
        assert most is not None
        return most + (max(len(self.tokens(prefix)) for prefix in PREFIXES) + 2 if iterative else 0)


def _asking(question: Question, iterative: bool) -> list[str]:
    return [f"Question: {question.text}\n", *([] if iterative else [ANSWER])]
