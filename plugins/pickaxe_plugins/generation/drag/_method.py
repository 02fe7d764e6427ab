"""The decoder `drag`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field

from pickaxe import Artifact, Call, Chunk, Example, InputField, Item, Method, MethodRef, Progress, Prompt, Sampling
from pickaxe.answers import contains_answer, exact_match
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import ArtifactMismatch, InvalidItems, Unmet
from pickaxe.hooks import hookimpl
from pickaxe.lm import LMParams
from pickaxe_plugins.generation.drag._desk import Desk
from pickaxe_plugins.generation.drag._dialogue import Dialogue, Question
from pickaxe_plugins.generation.drag._prompt import FOLLOW_UP, Demonstration, Passage, one_line, passage
from pickaxe_plugins.generation.drag._store import DOCUMENTS, Library, Store, write_documents

TRACED_TOGETHER = 16
"""Questions between two reports of progress when traces are made."""


class Params(LMParams):
    """Parameters of `drag`."""

    k: int = Field(10, ge=0, le=10_000, description="Documents of the question, of a demonstration and of a search.")
    m: int = Field(4, ge=0, le=10_000, description="Demonstrations before the question, from the artifact.")
    n: int = Field(1, ge=1, le=100, description="Iterations: 1 is DRAG; above, IterDRAG with at most n model calls.")
    max_doc_tokens: int = Field(1024, ge=1, description="Whitespace tokens after which documents are cut off.")
    budget: int | None = Field(None, ge=1, description="Most input tokens of a question, all its model calls together.")
    retriever: MethodRef | None = Field(None, description="Who finds documents: a retriever with its index.")
    decoder: MethodRef | None = Field(None, description="Who writes; null: the model, whose keys and values are kept.")
    auto: bool = Field(False, description="Let `allocation` choose k, m and n for each question by the budget.")
    allocation: MethodRef | None = Field(None, description="A scorer `rag-allocation` with its artifact, for auto.")
    task: str = Field("all", min_length=1, description="What `allocation` calls this task.")
    instruction: str | None = Field(None, description="What stands before everything; null: a sentence of our own.")
    reuse: bool = Field(True, description="Keep keys and values between calls; else read each prompt from its start.")
    right: Literal["contains", "exact"] = Field(
        "contains", description="Fit: when an answer is right: it has the right one's words in a row, or just them."
    )
    kept: int = Field(256, ge=1, description="Fit: most demonstrations that are kept.")
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False, description="Where the request has none; 0 is greedy.")
    max_tokens: int = Field(64, ge=1, description="Most tokens of the answer and of each step towards it.")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Params:
        if self.auto and (self.allocation is None or self.budget is None):
            raise ValueError("auto needs allocation and budget")
        return self


class Drag(Method[Params]):
    """Answer questions from retrieved documents and demonstrations, in one step (DRAG) or several (IterDRAG).

    The usage counts the effective context length, i.e. the input tokens of all model calls of a question.  `fit`
    makes demonstrations from questions with answers; for IterDRAG it keeps the traces that end in the right one.
    """

    title = "Inference Scaling for Long-Context Retrieval Augmented Generation"
    paper = "arXiv:2410.04343"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "The question, where the prompt has no messages.", False),)
    fit_reads = (
        InputField("text", "text", "The question."),
        InputField("answer", "text", "Its right answer."),
        InputField("context", "texts", "Its documents, best first, instead of those that the retriever finds.", False),
    )
    fitted = "optional"
    stages = ("documents", "retrieve", "trace")
    constraints = frozenset({"allowed"})
    cost = "One model call per iteration, of whose prompt only the new end is read; one search per follow-up question."
    reproduced = (
        "SmolLM2-135M on 60 synthetic two-hop questions: the gold answer gains 14.8 nat from 5 documents, 5.6 more "
        "from 2 demonstrations; kept keys and values save 4.3 times the reading at n = 5."
    )

    @classmethod
    def example(cls) -> Example:
        """Questions that bring their documents, for the small model that is shipped."""
        facts = ("Ada was born in Riga.", "Riga is a port.", "Bo was born in Kyiv.", "Kyiv is a capital.")
        context = tuple(Item(str(row), text) for row, text in enumerate(facts))
        shown = (("Cy", "Oslo"), ("Di", "Bern"))
        return Example(
            params={"model": "draft", "k": 2, "m": 1, "max_tokens": 8},
            examples=tuple(
                Item(
                    name,
                    f"Where was {name} born?",
                    {"answer": town, "context": (f"{name} was born in {town}.", f"{town} is a town.")},
                )
                for name, town in shown
            ),
            prompts=(
                Prompt("Where was Ada born?", context=context[:2]),
                Prompt("Where was Bo born?", context=context[2:], sampling=Sampling(max_tokens=4)),
            ),
        )

    # ------------------------------------------------------------ decode

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        if not prompts:
            return
        store = self._demonstrations()
        desk = Desk.open(self.params, self.host, self._library(self._kept_documents), store)
        questions = self._questions(prompts, desk.library, store, call)
        admitted = desk.admitted(questions, call)
        for dialogue in desk.answered(admitted, call):
            yield _chunk(dialogue)
        for question in questions[len(admitted) :]:
            yield Chunk(question.row, question.choice, finish_reason="abstain")

    def _questions(
        self, prompts: Sequence[Prompt], library: Library | None, store: Store | None, call: Call
    ) -> list[Question]:
        """The choices of each prompt, with their passages."""
        asked = [_asked(prompt, row) for row, prompt in enumerate(prompts)]
        params = self.params
        searching = [row for row, prompt in enumerate(prompts) if params.k and not prompt.context]
        if searching and library is None:
            raise Unmet(
                f"prompts[{searching[0]}] has no context and there is no retriever: name one with its index, give "
                "context, or set k=0",
                metadata={"prompt": searching[0]},
            )
        queries = [Item(str(row), asked[row][0], prompts[row].fields) for row in searching]
        found = dict(zip(searching, library.find(queries, params.k, call), strict=True)) if library else {}
        for row, prompt in enumerate(prompts):
            found.setdefault(row, tuple(passage(item, params.max_doc_tokens) for item in prompt.context))
            if store is not None and (params.m or params.auto) and len(prompt.context) > store.k:
                raise InvalidItems(
                    f"prompts[{row}].context",
                    f"holds {len(prompt.context)} documents, demonstrations have {store.k} and must have as many: fit "
                    f"with k={len(prompt.context)}, give fewer, or set m=0",
                )
        return [
            Question(row, choice, prompt, *asked[row], self._sampling(prompt.sampling), found[row])
            for row, prompt in enumerate(prompts)
            for choice in range(prompt.sampling.n)
        ]

    def _sampling(self, given: Sampling) -> Sampling:
        """The request's sampling with the parameters where it is silent."""
        params = self.params
        return replace(
            given,
            max_tokens=params.max_tokens if given.max_tokens is None else given.max_tokens,
            temperature=params.temperature if given.temperature is None else given.temperature,
            top_p=params.top_p if given.top_p is None else given.top_p,
            top_k=params.top_k if given.top_k is None else given.top_k,
        )

    def _demonstrations(self) -> Store | None:
        """The artifact's; None when none are wanted.  Raises where the artifact lacks what the parameters want."""
        params, artifact = self.params, self.artifact
        if artifact is None:
            if params.m or params.auto:
                raise Unmet("demonstrations are made by fit(examples): fit first, or set m=0")
            return None
        store = self._store
        wanted = {"k": (params.k, store.k), "max_doc_tokens": (params.max_doc_tokens, self._made["max_doc_tokens"])}
        for name, (want, have) in wanted.items():
            if (params.m or params.auto) and want > have:
                raise ArtifactMismatch(
                    f"the demonstrations were made with {name}={have}, less than {want}: fit with {name}={want}, or "
                    f"ask for {have}",
                    metadata={"parameter": name, "found": have, "wanted": want},
                )
        if params.m and params.n > 1 and not params.auto and not store.steps:
            raise ArtifactMismatch(
                "the demonstrations have no steps, since they were made with n=1: fit with n > 1, or set m=0",
                metadata={"parameter": "n", "found": 1, "wanted": params.n},
            )
        return store

    @cached_property
    def _store(self) -> Store:
        assert self.artifact is not None
        return Store.read(self.artifact, self.params.max_doc_tokens)

    @property
    def _made(self) -> Mapping[str, Any]:
        """The parameters of the fit."""
        assert self.artifact is not None
        made: Mapping[str, Any] = self.artifact.manifest["params"]
        return made

    @property
    def _kept_documents(self) -> Path | None:
        artifact: Artifact | None = self.artifact
        return artifact.file(DOCUMENTS) if artifact is not None and artifact.has(DOCUMENTS) else None

    def _library(self, kept: Path | None) -> Library | None:
        params = self.params
        if params.retriever is None or not params.k:
            return None
        return Library.of(self.host.retriever(params.retriever), kept, params.max_doc_tokens)

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], unlabelled: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        params = self.params
        if unlabelled is not None:
            count = write_documents(unlabelled, out, call)
            out.notes["documents"] = count
            yield Progress("documents", count, count)
        library = self._library(None if unlabelled is None else out.file(DOCUMENTS))
        made = self._retrieved(list(examples), library, call)
        yield Progress("retrieve", len(made), len(made))
        if params.n == 1:
            kept = made[: params.kept]
        else:
            kept = yield from self._traced(made, library, call)
        Store(params.k, params.n > 1, tuple(kept)).write(out)
        out.notes |= {"examples": len(made), "demonstrations": len(kept), "seed": call.seed}

    def _retrieved(self, examples: list[Item], library: Library | None, call: Call) -> list[Demonstration]:
        """The examples with their passages, still without steps."""
        if not examples:
            raise InvalidItems("examples", "are none: demonstrations are made of questions with answers")
        params = self.params
        searching = [row for row, item in enumerate(examples) if params.k and item.get("context") is None]
        if searching and library is None:
            raise InvalidItems(
                f"examples[{searching[0]}].fields.context",
                "is missing, and there is no retriever: name one with its index, give context, or set k=0",
            )
        found: dict[int, tuple[Passage, ...]] = {}
        if library is not None:
            hits = library.find([examples[row] for row in searching], params.k, call)
            found = dict(zip(searching, hits, strict=True))
        made = []
        for row, item in enumerate(examples):
            given: Any = item.get("context") or ()
            own = tuple(passage(Item(str(place), text), params.max_doc_tokens) for place, text in enumerate(given))
            question, answer = one_line(item.text or ""), one_line(str(item.get("answer")))
            made.append(Demonstration(item.id, question, answer, found.get(row, own)[: params.k]))
        return made

    def _traced(
        self, made: Sequence[Demonstration], library: Library | None, call: Call
    ) -> Generator[Progress, None, list[Demonstration]]:
        """Run IterDRAG without demonstrations on every question and keep the traces that end in the right answer."""
        params = self.params
        desk = Desk.open(params.model_copy(update={"m": 0, "auto": False}), self.host, library, None)
        kept: list[Demonstration] = []
        for start in range(0, len(made), TRACED_TOGETHER):
            block = made[start : start + TRACED_TOGETHER]
            questions = [
                Question(row, 0, Prompt(each.question), each.question, (), self._sampling(Sampling()), each.passages)
                for row, each in enumerate(block, start)
            ]
            for dialogue in desk.answered(questions, call):
                each = made[dialogue.question.row]
                assert dialogue.answer is not None
                if (contains_answer if params.right == "contains" else exact_match)(dialogue.answer.text, each.answer):
                    kept.append(replace(each, trace=tuple((step.prefix, step.text) for step in dialogue.steps)))
            yield Progress("trace", start + len(block), len(made), {"kept": len(kept)})
            if len(kept) >= params.kept:
                break
        if not kept:
            raise InvalidItems(
                "examples",
                f"gave no demonstration: none of {len(made)} traces ended in the right answer; give more or easier "
                "questions, more documents (k), or a stronger model",
            )
        return kept[: params.kept]


def _asked(prompt: Prompt, row: int) -> tuple[str, tuple[str, ...]]:
    """The question on one line, and the turns before it as lines."""
    if prompt.messages:
        *before, last = prompt.messages
        return one_line(last.content), tuple(f"{turn.role}: {one_line(turn.content)}\n" for turn in before)
    if prompt.text is None:
        raise InvalidItems(f"prompts[{row}]", "has neither text nor messages")
    return one_line(prompt.text), ()


def _chunk(dialogue: Dialogue) -> Chunk:
    """The whole answer with its trace."""
    question, made, answer = dialogue.question, dialogue.plan, dialogue.answer
    assert answer is not None
    theta = made.theta
    record = {
        "mode": "IterDRAG" if dialogue.iterative else "DRAG",
        "k": theta.k,
        "m": theta.m,
        "n": theta.n,
        "answer": answer.text,
        "documents": [each.id for each in question.passages[: theta.k]],
        "steps": [
            {"prefix": step.prefix, "text": step.text, "documents": list(step.documents)} for step in dialogue.steps
        ],
        "calls": [
            {"input_tokens": each.input_tokens, "output_tokens": each.output_tokens, "response": each.response}
            for each in dialogue.calls
        ],
        "effective_context_length": dialogue.effective_context_length,
        "dropped": {
            "documents": made.dropped_documents,
            "demonstrations": made.dropped_demonstrations,
            "later_documents": dialogue.lost_documents,
            "because": made.because,
        },
        "missing_demonstrations": made.missing_demonstrations,
    }
    usage = {
        "effective_context_length": dialogue.effective_context_length,
        "model_calls": len(dialogue.calls),
        "iterations": dialogue.iterations,
        "sub_queries": sum(step.prefix == FOLLOW_UP for step in dialogue.steps),
        "prefilled_tokens": dialogue.prefilled_tokens,
        "output_tokens": sum(each.output_tokens for each in dialogue.calls),
        "completion_tokens": len(answer.token_ids),
        **{f"call_{number}_input_tokens": each.input_tokens for number, each in enumerate(dialogue.calls, 1)},
    }
    return Chunk(
        question.row, question.choice, answer.text, answer.token_ids, answer.logprobs, record,
        answer.finish_reason or "stop", usage,
    )  # fmt: skip
