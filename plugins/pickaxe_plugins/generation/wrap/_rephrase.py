"""Requests to the rephraser, one for each rephrase of a passage, and what it wrote for them."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pickaxe
from pickaxe import WHOLE_PROMPT, Call, Chunk, Prompt, Sampling
from pickaxe.data import FinishReason
from pickaxe.lm import Generation, LMParams, read_prompts
from pickaxe_plugins.generation.wrap._chunks import Passage
from pickaxe_plugins.generation.wrap._styles import Style, messages

if TYPE_CHECKING:
    from pickaxe.handle import DecoderHandle
    from pickaxe.lm import LM, Step

SLACK = 1.5
SHORTEST = 64
"""Output limit: `SLACK` tokens per token of the passage, at least `SHORTEST`."""


@dataclass(frozen=True, slots=True)
class Request:
    """Rephrase number `sample` of passage number `place` of document `row`, in a style."""

    row: int
    choice: int
    place: int
    passage: Passage
    style: Style
    sample: int

    def prompt(self, system: str, sampling: Sampling, seed: int) -> Prompt:
        """What the rephraser is asked, with random numbers of its own."""
        own = pickaxe.generator(seed, "wrap", self.style.name, self.passage.text, self.place, self.sample)
        keyed = replace(sampling, seed=int(own.integers(2**63)))
        return Prompt(messages=messages(self.style, system, self.passage.text), sampling=keyed)


def requests(row: int, document: Sequence[Passage], styles: Sequence[Style], draw: bool, seed: int) -> list[Request]:
    """The rephrases of one document by passage, style and sample; with `draw` one style a passage, by weight."""
    found: list[Request] = []
    for place, passage in enumerate(document):
        for style in [_drawn(place, passage, styles, seed)] if draw else styles:
            for sample in range(style.n):
                found.append(Request(row, len(found), place, passage, style, sample))
    return found


def _drawn(place: int, passage: Passage, styles: Sequence[Style], seed: int) -> Style:
    weights = [style.weight for style in styles]
    own = pickaxe.generator(seed, "wrap", "style", passage.text, place)
    return styles[int(own.choice(len(styles), p=[weight / sum(weights) for weight in weights]))]


def output_limit(passage_tokens: int, most: int) -> int:
    """Most tokens of a rephrase."""
    return min(most, max(SHORTEST, math.ceil(SLACK * passage_tokens)))


def guessed_tokens(text: str) -> int:
    """For whoever counts words and has no tokenizer at hand: a token has some three bytes."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 3)


@dataclass
class Written:
    """What the rephraser answered to one request; `usage` is of the whole request."""

    text: str = ""
    finish_reason: FinishReason = ""
    usage: Mapping[str, float] = field(default_factory=dict)


def write_by_model(lm: LM, prompts: Sequence[Prompt], params: LMParams, call: Call) -> Generator[Written, None, None]:
    """The answers of a language model, decoded together, in order and as early as they are known.

    Prompts beyond the call's budget are abstained from.
    """
    allowed = len(prompts) if call.budget is None else min(call.budget, len(prompts))
    asked = read_prompts(prompts[:allowed], lm, params, call.seed, "wrap")
    steps: list[list[Step]] = [[] for _ in asked]
    following = 0
    with closing(lm.generate_all([Generation(each.ids, each.sampling) for each in asked], call)) as running:
        for number, step in running:
            steps[number].append(step)
            while following < len(asked) and steps[following] and steps[following][-1].finish_reason:
                yield _joined(steps[following], len(asked[following].ids))
                steps[following] = []
                following += 1
    for _ in prompts[allowed:]:
        yield Written(finish_reason="abstain")


def _joined(steps: Sequence[Step], prompt_tokens: int) -> Written:
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(steps)}
    return Written("".join(step.text for step in steps), steps[-1].finish_reason, usage)


def write_by_decoder(decoder: DecoderHandle, prompts: Sequence[Prompt], call: Call) -> Generator[Written, None, None]:
    """The answers of any decoder to one call with all prompts, in their order and as early as they are known.

    Of a decoder that draws several samples it is the one that its record selects, else the first.
    """
    answers = [_Answer() for _ in prompts]
    following = 0
    with closing(decoder.decode(prompts, call=call)) as chunks:  # type: ignore[type-var]
        for chunk in chunks:
            answers[chunk.prompt].add(chunk)
            while following < len(answers) and answers[following].whole:
                yield answers[following].written()
                following += 1
    for answer in answers[following:]:
        yield answer.written()


class _Answer:
    """The chunks of one prompt."""

    def __init__(self) -> None:
        self._told = False
        self._chosen = 0
        self._pieces: list[str] = []
        self._reasons: dict[int, FinishReason] = {}
        self._usages: dict[int, Mapping[str, float]] = {}
        self._selected: str | None = None

    @property
    def whole(self) -> bool:
        """Known to be complete: by a record about the whole prompt, which not all decoders give."""
        return self._told and bool(self._reasons)

    def add(self, chunk: Chunk) -> None:
        if chunk.usage:
            self._usages[chunk.choice] = chunk.usage
        if chunk.choice == WHOLE_PROMPT:
            self._told = True
            record = chunk.record or {}
            if isinstance(record.get("text"), str):
                self._selected = record["text"]
                self._chosen = record["selected"] if record.get("selected") in self._reasons else 0
            return
        if chunk.choice == 0:
            self._pieces.append(chunk.text)
        if chunk.finish_reason:
            self._reasons[chunk.choice] = chunk.finish_reason

    def written(self) -> Written:
        text = "".join(self._pieces) if self._selected is None else self._selected
        reason = self._reasons.get(self._chosen, next(iter(self._reasons.values())))
        return Written(text, reason, self._usage())

    def _usage(self) -> Mapping[str, float]:
        """Of the whole prompt where the decoder says it, else the sum over its choices."""
        return self._usages.get(WHOLE_PROMPT) or summed(self._usages.values())


def summed(usages: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Counters added up by name."""
    total: dict[str, float] = {}
    for usage in usages:
        for name, value in usage.items():
            total[name] = total.get(name, 0) + value
    return total
