"""SAGE: answers from as many chunks as it takes, by what the model says of its own answer (arXiv:2503.01713)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pydantic
from pydantic import Field

from pickaxe import Call, Chunk, Completion, Example, InputField, Item, Items, Method, MethodRef, Prompt, Sampling
from pickaxe import generator as keyed
from pickaxe.data import Message
from pickaxe.errors import InvalidItems, Unmet
from pickaxe.hooks import hookimpl
from pickaxe.pipelines import texts_of
from pickaxe_plugins.retrieval._sage_feedback import Rounds, Verdict, cost, parse
from pickaxe_plugins.retrieval._sage_selection import SelectionParams, scored

ANSWER = (
    "Answer the question from the context, in a few words.\n\nContext:\n{documents}\n\nQuestion: {question}\nAnswer:"
)
FEEDBACK = (
    "Context:\n{documents}\n\nQuestion: {question}\nAnswer: {answer}\n\nJudge the answer. Score: a whole number from 1 "
    "(wrong) to 10 (right and complete). Adjustment: -1 if the context holds too much that is not needed, 1 if "
    "something is missing in it. Reply with two lines only:\nScore: <number>\nAdjustment: <number>"
)


class Params(SelectionParams):
    """Parameters of `sage`."""

    retriever: MethodRef | None = Field(None, description="Who finds chunks: a retriever with its index.")
    depth: int = Field(100, ge=1, description="Candidates that the retriever finds: the paper's N.")
    decoder: MethodRef = Field(
        MethodRef(name="repeated-sampling", params={}, artifact=""), description="Who writes the answers."
    )
    judge: MethodRef | None = Field(None, description="Who gives feedback; null: the decoder itself.")
    feedback_threshold: int = Field(9, ge=1, le=10, description="An answer of this score ends the rounds.")
    max_rounds: int = Field(3, ge=1, le=10, description="Most answers to a question; 1: no feedback.")
    document_order: Literal["rank", "document"] = Field(
        "rank", description="Order in the prompt: the best chunk first, or as they came from context or retriever."
    )
    answer_prompt: str = Field(ANSWER, description="Text with {documents} and {question}.")
    feedback_prompt: str = Field(FEEDBACK, description="Text with {documents}, {question} and {answer}.")
    chat: bool = Field(True, description="Ask through the model's chat template; else as plain text.")
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False, description="Of answers, where a request has none.")
    max_tokens: int = Field(64, ge=1, description="Most tokens of an answer, where a request has no limit.")
    feedback_tokens: int = Field(24, ge=1, description="Most tokens of the feedback, which is greedy.")
    input_price: float = Field(1.0, ge=0, allow_inf_nan=False, description="Cost of a token that is read.")
    output_price: float = Field(1.0, ge=0, allow_inf_nan=False, description="Cost of a token that is written.")

    @pydantic.model_validator(mode="after")
    def _prompts(self) -> Params:
        for name, wanted in (("answer_prompt", ("documents", "question")), ("feedback_prompt", _SLOTS)):
            if missing := [each for each in wanted if f"{{{each}}}" not in getattr(self, name)]:
                raise ValueError(f"{name} lacks {{{missing[0]}}}")
        return self


_SLOTS = ("documents", "question", "answer")


class Sage(Method[Params]):
    """Answer from the best chunks, let the model judge the answer, and take more or fewer of them next time.

    Chunks are cut where the reranker's scores fall steeply, after `min_k` at least; feedback moves `min_k` by one.
    The answer with the best score is returned, and the cost counts every call.
    """

    title = "SAGE: A Framework of Precise Retrieval for RAG"
    paper = "arXiv:2503.01713"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "The question, where the prompt has no messages.", False),)
    constraints = frozenset({"allowed", "json_schema", "regex"})
    cost = "One search and one reranking per question; up to `max_rounds` answers with a judgement of each."
    reproduced = "The loop on the traces of the reference; the paper's gains need a model that can judge itself."

    @classmethod
    def example(cls) -> Example:
        """Questions that bring their candidates, for the small model that is shipped."""
        chunks = (
            Item("tea", "Green tea is brewed with water of about 80 degrees."),
            Item("rain", "The rain in Spain stays mainly in the plain."),
            Item("moon", "The Moon turns once on its axis for every orbit."),
        )
        model = {"name": "repeated-sampling", "params": {"model": "draft"}}
        return Example(
            params={"decoder": model, "chat": False, "min_k": 1, "max_tokens": 6, "feedback_tokens": 6},
            prompts=(
                Prompt("How hot should water for green tea be?", context=chunks),
                Prompt("Where does the rain stay?", context=chunks[:2], sampling=Sampling(n=2)),
            ),
        )

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        talks = self._talks(prompts, call)
        left = _Left(call.budget)
        left.spend(sum(talk.usage.get("rerank_model_calls", 0.0) for talk in talks if talk.choice == 0))
        while running := [talk for talk in talks if not talk.rounds.ended and not talk.stopped]:
            call.check()
            for talk in running[left.take(len(running)) :]:
                talk.stopped = "budget"
            self._round([talk for talk in running if not talk.stopped], left, call)
        for talk in talks:
            yield talk.chunk(self.params)

    # ------------------------------------------------------------ what is asked

    def _talks(self, prompts: Sequence[Prompt], call: Call) -> list[_Talk]:
        """The choices of every prompt, with scored candidates."""
        questions = [_asked(prompt, row) for row, prompt in enumerate(prompts)]
        contexts = self._contexts(prompts, questions, call)
        talks = []
        for row, (prompt, question, context) in enumerate(zip(prompts, questions, contexts, strict=True)):
            query = Item(str(row), question, prompt.fields)
            found = scored(self.params, self.host, query, context, call)
            usage = {f"rerank_{name}": float(value) for name, value in found.usage.items()}
            for choice in range(prompt.sampling.n):
                rounds = Rounds(self.params, found.scores, self.params.feedback_threshold, self.params.max_rounds)
                talks.append(_Talk(row, choice, prompt, question, context, rounds, dict(usage)))
        return talks

    def _contexts(self, prompts: Sequence[Prompt], questions: Sequence[str], call: Call) -> list[Items]:
        """The prompts' own candidates, or those that the retriever finds."""
        asking = [row for row, prompt in enumerate(prompts) if not prompt.context]
        contexts = [Items(prompt.context) for prompt in prompts]
        if self.params.retriever is None or not asking:
            return contexts
        retriever = self.host.retriever(self.params.retriever)
        queries = [Item(str(row), questions[row], prompts[row].fields) for row in asking]
        found = retriever.search(queries, self.params.depth, call=call)
        for row, hits in zip(asking, found, strict=True):
            texts = texts_of(retriever, [hit.id for hit in hits])
            contexts[row] = Items(
                replace(item, fields={**item.fields, "score": hit.score}) for item, hit in zip(texts, hits, strict=True)
            )
        return contexts

    # ------------------------------------------------------------ a round

    def _round(self, talks: Sequence[_Talk], left: _Left, call: Call) -> None:
        """An answer to each, and a judgement of each where feedback is on."""
        params = self.params
        if not talks:
            return
        for talk in talks:
            talk.shown = self._documents(talk)
        asked = [self._filled(params.answer_prompt, talk, self._answering(talk, call), True) for talk in talks]
        for talk, completion in zip(talks, self._written(params.decoder, asked, talks, call), strict=True):
            talk.answers.append(completion)
        if params.max_rounds == 1:
            for talk in talks:
                talk.rounds.take(talk.answers[-1].text.strip(), None)
                talk.rounds.ended = "rounds"
            return
        judged = talks[: left.take(len(talks))]
        greedy = Sampling(max_tokens=params.feedback_tokens, temperature=0.0, seed=0)
        asked = [self._filled(params.feedback_prompt, talk, greedy, False) for talk in judged]
        replies = self._written(params.judge or params.decoder, asked, judged, call)
        for talk, reply in zip(judged, replies, strict=True):
            talk.replies.append(reply.text)
            talk.rounds.take(talk.answers[-1].text.strip(), parse(reply.text))
        for talk in talks[len(judged) :]:
            talk.rounds.take(talk.answers[-1].text.strip(), None)
            talk.rounds.ended, talk.stopped = "", "budget"

    def _documents(self, talk: _Talk) -> str:
        rows = talk.rounds.selected()
        if self.params.document_order == "document":
            rows = tuple(sorted(rows))
        return "\n\n".join(f"[{place}] {_shown(talk.context[row])}" for place, row in enumerate(rows, 1))

    def _answering(self, talk: _Talk, call: Call) -> Sampling:
        given, params = talk.prompt.sampling, self.params
        seed = call.seed if given.seed is None else given.seed
        own = keyed(seed, "sage", talk.question, talk.choice, len(talk.answers))
        return replace(
            given,
            n=1,
            max_tokens=params.max_tokens if given.max_tokens is None else given.max_tokens,
            temperature=params.temperature if given.temperature is None else given.temperature,
            seed=int(own.integers(2**63)),
        )

    def _filled(self, template: str, talk: _Talk, sampling: Sampling, answering: bool) -> Prompt:
        """The prompt of an answer, which keeps what binds the output, or of its judgement."""
        values = {"documents": talk.shown, "question": talk.question}
        if not answering:
            values["answer"] = talk.answers[-1].text.strip()
        text = re.sub(r"\{(documents|question|answer)\}", lambda match: values.get(match[1], match[0]), template)
        before = talk.prompt.messages[:-1]
        if self.params.chat:
            content: dict[str, Any] = {"messages": (*before, Message("user", text))}
        else:
            content = {"text": "".join(f"{turn.role}: {turn.content}\n" for turn in before) + text}
        kept = talk.prompt if answering else Prompt()
        return Prompt(
            **content, sampling=sampling, allowed=kept.allowed, json_schema=kept.json_schema, regex=kept.regex
        )

    def _written(
        self, ref: MethodRef, prompts: Sequence[Prompt], talks: Sequence[_Talk], call: Call
    ) -> list[Completion]:
        """What a decoder writes, one each; its tokens are entered."""
        if not prompts:
            return []
        written: dict[int, Completion] = {}
        for each in self.host.decoder(ref).complete(prompts, call=call.with_budget(None)):
            usage = talks[each.prompt].usage
            if "prompt_tokens" in each.usage:
                usage["input_tokens"] = usage.get("input_tokens", 0.0) + each.usage["prompt_tokens"]
            if each.choice == 0:
                written[each.prompt] = each
                usage["output_tokens"] = usage.get("output_tokens", 0.0) + len(each.token_ids)
                usage["model_calls"] = usage.get("model_calls", 0.0) + 1
        if len(written) < len(prompts):
            raise Unmet(f"decoder {ref.name!r} left prompts without a choice 0: name another")
        return [written[place] for place in range(len(prompts))]


@dataclass
class _Talk:
    """One choice of one prompt."""

    row: int
    choice: int
    prompt: Prompt
    question: str
    context: Items
    rounds: Rounds
    usage: dict[str, float]
    answers: list[Completion] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    stopped: str = ""
    shown: str = ""

    def chunk(self, params: Params) -> Chunk:
        """The best answer with all rounds."""
        if not self.answers:
            return Chunk(self.row, self.choice, finish_reason="abstain", usage=self.usage)
        rounds, best = self.rounds, self.rounds.final
        chosen = self.answers[best]
        record = {
            "answer": rounds.done[best].answer,
            "round": best,
            "ended": self.stopped or rounds.ended,
            "documents": [self.context[row].id for row in rounds.done[best].selected],
            "rounds": [
                {
                    "min_k": each.min_k,
                    "selected": [self.context[row].id for row in each.selected],
                    "answer": each.answer,
                    **_told(each.verdict),
                    "feedback": self.replies[number] if number < len(self.replies) else None,
                }
                for number, each in enumerate(rounds.done)
            ],
        }
        spent = {"input_tokens": 0.0, "output_tokens": 0.0, "model_calls": 0.0, **self.usage}
        usage = {
            **spent,
            "rounds": float(len(rounds.done)),
            "completion_tokens": float(len(chosen.token_ids)),
            "cost": cost(spent["input_tokens"], spent["output_tokens"], params.input_price, params.output_price),
        }
        return Chunk(
            self.row, self.choice, chosen.text, chosen.token_ids, chosen.logprobs, record,
            chosen.finish_reason or "stop", usage,
        )  # fmt: skip


@dataclass
class _Left:
    """What is left of a budget of model calls."""

    budget: int | None

    def take(self, wanted: int) -> int:
        """How many of the wanted calls may be made; they are spent."""
        granted = wanted if self.budget is None else min(wanted, self.budget)
        self.spend(granted)
        return granted

    def spend(self, calls: float) -> None:
        if self.budget is not None:
            self.budget = max(0, self.budget - int(calls))


def _told(verdict: Verdict | None) -> dict[str, int | None]:
    if verdict is None:
        return {"score": None, "adjustment": None}
    return {"score": verdict.score, "adjustment": verdict.adjustment}


def _shown(item: Item) -> str:
    title = item.get("title")
    return f"{title}: {item.text or ''}" if isinstance(title, str) and title else item.text or ""


def _asked(prompt: Prompt, row: int) -> str:
    """The question: the last message, or the text."""
    if prompt.messages:
        return prompt.messages[-1].content
    if prompt.text is None:
        raise InvalidItems(f"prompts[{row}]", "has neither text nor messages")
    return prompt.text
