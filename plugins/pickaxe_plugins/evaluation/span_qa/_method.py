"""Questions with the exact places of their answers, written by a model for your corpus (arXiv 2502.15854)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Call, Chunk, Completion, Example, InputField, Method, MethodRef, Prompt
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe_plugins.evaluation.span_qa._question import Locate, Rejected, Written, asked, read, schema

if TYPE_CHECKING:
    from pickaxe.handle import DecoderHandle

SHOWN = 20
"""Most earlier questions of a corpus that the model is shown."""


class Params(pickaxe.Params):
    """Parameters of `span-qa`."""

    decoder: MethodRef = Field(
        MethodRef(name="repeated-sampling", params={"max_tokens": 512}, artifact=""),
        description="What writes the questions.",
    )
    locate: Locate = Field(
        "tags", description="How the model names spans: by numbers of tagged pieces, or by exact quotes."
    )
    window: int = Field(4000, ge=1, description="Characters of the corpus that the model sees.")
    piece: int = Field(100, ge=1, description="Most characters of a tagged piece.")
    attempts: int = Field(5, ge=1, description="Answers that are asked for, for one question, until one is kept.")
    constrained: bool = Field(
        False, description="Bind the model to JSON of the right shape; the decoder must keep a json_schema."
    )
    encoder: str | None = Field("encoder", description="Sentence encoder of the two filters; none: no filters.")
    least_similarity: float = Field(
        0.36, ge=-1, le=1, description="Least cosine of the question with each of its references."
    )
    most_similarity: float = Field(
        0.78, ge=-1, le=1, description="Greatest cosine of the question with an earlier one of the corpus."
    )


@dataclass
class _Writing:
    """One corpus and the questions kept for it so far."""

    row: int
    prompt: Prompt
    seed: int
    choice: int = 0
    attempt: int = 0
    rejected: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    start: int = 0
    drawn: float = 0.0

    @property
    def text(self) -> str:
        return self.prompt.text or ""

    @property
    def corpus(self) -> str:
        return str(self.prompt.fields.get("corpus") or "corpus")

    def next(self) -> None:
        self.choice, self.attempt, self.rejected, self.drawn = self.choice + 1, 0, [], 0.0


class SpanQa(Method[Params]):
    """Questions with the exact places of their answers, written by a model for your corpus.

    A prompt's text is a corpus; each of its n choices becomes one question.  Records are lines for `token-iou`.
    """

    title = (
        "Enhancing Domain-Specific Retrieval-Augmented Generation: "
        "Synthetic Data Generation and Evaluation using Reasoning Models"
    )
    paper = "arXiv:2502.15854"
    version = 1
    Params = Params
    scope = "item"
    reads = (
        InputField("text", "text", "The corpus."),
        InputField("corpus", "text", 'Its name in records; "corpus" unless given.', False),
    )
    cost = "One to `attempts` model calls a question, each reading a window of the corpus; two encoder calls."
    reproduced = "The published tags; question quality was not measured: a small model writes poor questions."

    @classmethod
    def example(cls) -> Example:
        """Two short corpora for the small model that is shipped, which seldom manages: it may abstain."""
        decoder = {"name": "repeated-sampling", "params": {"model": "draft", "max_tokens": 24}}
        return Example(
            {"decoder": decoder, "encoder": None, "attempts": 2},
            prompts=(
                Prompt("The ferry leaves at nine. It has two decks. Tickets cost four coins."),
                Prompt("Green tea is brewed at 80 degrees. Black tea wants boiling water."),
            ),
        )

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        """One choice at a time, as later questions know the earlier ones; all corpora together."""
        decoder = self._decoder()
        waiting = [self._writing(row, prompt, call) for row, prompt in enumerate(prompts)]
        left = call.budget
        while waiting:
            call.check()
            now = waiting if left is None else waiting[:left]
            for each in waiting[len(now) :]:
                yield from _given_up(each)
            if left is not None:
                left -= len(now)
            waiting = now
            answers = self._answers(now, decoder, call)
            for each, answer in zip(now, answers, strict=True):
                if (chunk := self._judged(each, answer, call)) is not None:
                    yield chunk
                    each.next()
            waiting = [each for each in waiting if each.choice < each.prompt.sampling.n]

    # ------------------------------------------------------------ parts

    def _decoder(self) -> DecoderHandle:
        decoder = self.host.decoder(self.params.decoder)
        if self.params.constrained and "json_schema" not in decoder.opened.method.constraints:
            raise InvalidParams("constrained", f"{decoder.name!r} keeps to no json_schema: set it to false")
        return decoder

    def _writing(self, row: int, prompt: Prompt, call: Call) -> _Writing:
        if prompt.messages or prompt.context:
            raise InvalidItems(f"prompts[{row}]", "has messages or context: give the corpus as text")
        if not (prompt.text or "").strip():
            raise InvalidItems(f"prompts[{row}].text", "is empty: give the corpus that questions are wanted for")
        return _Writing(row, prompt, call.seed if prompt.sampling.seed is None else prompt.sampling.seed)

    def _answers(self, writing: Sequence[_Writing], decoder: DecoderHandle, call: Call) -> list[Completion]:
        """One answer of the model for each corpus, about a window drawn for this attempt."""
        given = []
        for each in writing:
            draw = pickaxe.generator(each.seed, "span-qa", each.corpus, each.text, each.choice, each.attempt)
            each.start = int(draw.integers(max(0, len(each.text) - self.params.window) + 1))
            earlier = each.questions
            if len(earlier) > SHOWN:
                earlier = [earlier[at] for at in np.sort(draw.choice(len(earlier), SHOWN, replace=False)).tolist()]
            sampling = replace(each.prompt.sampling, n=1, seed=int(draw.integers(2**63)))
            messages = asked(self._window(each), self.params.piece, self.params.locate, earlier)
            shape = schema(self.params.locate) if self.params.constrained else None
            given.append(Prompt(messages=messages, sampling=sampling, json_schema=shape))
        found = {each.prompt: each for each in decoder.complete(given, call=call) if each.choice == 0}
        return [found[place] for place in range(len(given))]

    def _window(self, each: _Writing) -> str:
        return each.text[each.start : each.start + self.params.window]

    def _judged(self, each: _Writing, answer: Completion, call: Call) -> Chunk | None:
        """The question as a chunk; None where it is rejected and may be tried again."""
        each.attempt += 1
        each.drawn += len(answer.token_ids)
        try:
            written = read(answer.text, self._window(each), self.params.piece, self.params.locate)
            self._filter(each, written, call)
        except Rejected as error:
            each.rejected.append(str(error))
            return _abstained(each, "attempts") if each.attempt == self.params.attempts else None
        each.questions.append(written.question)
        spans = [[start + each.start, end + each.start] for start, end in written.references]
        record = {
            "text": written.question,
            "corpus": each.corpus,
            "references": spans,
            "contents": [each.text[start:end] for start, end in spans],
            "rejected": each.rejected,
        }
        return Chunk(each.row, each.choice, written.question, (), (), record, "stop", _usage(each))

    def _filter(self, each: _Writing, written: Written, call: Call) -> None:
        """Raise `Rejected` for a question far from its references, or near an earlier question."""
        if self.params.encoder is None:
            return
        window = self._window(each)
        others = [window[start:end] for start, end in written.references] + each.questions
        cosines = self.host.encoder(self.params.encoder).similarity([written.question], others, call).ravel()
        near, earlier = cosines[: len(written.references)], cosines[len(written.references) :]
        if near.min() < self.params.least_similarity:
            raise Rejected(f"the question is far from a reference: cosine {near.min():.2f}")
        if len(earlier) and earlier.max() > self.params.most_similarity:
            raise Rejected(f"the question is near an earlier one: cosine {earlier.max():.2f}")


def _usage(each: _Writing) -> dict[str, float]:
    return {"model_calls": each.attempt, "drawn_tokens": each.drawn}


def _abstained(each: _Writing, stopped: str) -> Chunk:
    record = {"corpus": each.corpus, "stopped": stopped, "rejected": each.rejected}
    return Chunk(each.row, each.choice, "", (), (), record, "abstain", _usage(each))


def _given_up(each: _Writing) -> Iterator[Chunk]:
    """What is left of a prompt when the budget of model calls is spent."""
    while each.choice < each.prompt.sampling.n:
        yield _abstained(each, "budget")
        each.next()
