"""The decoder `prepack`: prompts of unlike lengths share rows while they are read (arXiv 2404.09529)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pydantic
from pydantic import Field

from pickaxe import Call, Chunk, Example, InputField, Method, Prompt
from pickaxe.hooks import hookimpl
from pickaxe.lm import Generation, LMParams, Request, TokenTrie, read_prompts
from pickaxe.lm.packing import EXACT_PROMPTS, Emit, Packer, Prefilled, prefill_packed
from pickaxe_plugins.decoding.prepack._plan import Mode

if TYPE_CHECKING:
    from pickaxe.lm import LM


class Params(LMParams):
    """Parameters of `prepack`."""

    mode: Mode = Field("default", description="Count prompts without their last token, or (official) with it.")
    row_capacity: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Slots of a row; none: of the longest prompt, but at most 128 on a CPU and 512 on a GPU.",
    )
    packer: Packer = Field("least_loaded", description="How prompts are put into rows; exact takes 32 at a time.")
    emit: Emit = Field(
        "last_token", description="Read last tokens on top of packed rows, or (packed) take logits in the rows."
    )
    max_batch: int = Field(64, ge=1, le=1024, description="Most prompts that are packed and decoded together.")
    max_rows: int | None = Field(None, ge=1, description="Most rows of one run of the model; none: no limit.")
    max_slots: int | None = Field(None, ge=1, description="Most slots of one run, at least one row; none: 8192.")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Params:
        if self.mode == "official" and self.emit == "packed":
            raise ValueError("mode=official holds back last tokens: it goes with emit=last_token")
        return self


class Prepack(Method[Params]):
    """Read many prompts of unlike lengths in few shared rows, then decode them together.

    Prompts in a row do not see each other and begin at position 0 each; what comes out is what reading and
    decoding every prompt alone gives.
    """

    title = "Prepacking: A Simple Method for Fast Prefilling and Increased Throughput in Large Language Models"
    paper = "arXiv:2404.09529"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "The prompt, where it has no messages.", False),)
    constraints = frozenset({"allowed"})
    cost = "One reading of all prompts' tokens with little padding; attention over whole rows."
    reproduced = (
        "Equal to reading each prompt alone; 64 prompts take 4 to 5 times less processor time than padded ones, and "
        "no less than one by one."
    )

    @classmethod
    def example(cls) -> Example:
        """Prompts of unlike lengths for the small model that is shipped."""
        return Example(
            params={"model": "draft", "max_tokens": 6},
            prompts=(Prompt("The sky over the harbour of Lindau was green, and"), Prompt("One and"), Prompt("A")),
        )

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        if not prompts:
            return
        lm = self.host.lm(self.params.model, self.params.precision)
        left = math.inf if call.budget is None else call.budget
        asked: list[Request] = []
        for request in read_prompts(prompts, lm, self.params, call.seed, "prepack"):
            allowed = int(min(request.sampling.n, left))
            if reason := _too_long(request, lm):
                yield from _abstained(request, range(request.sampling.n), reason)
                continue
            left -= allowed
            yield from _abstained(request, range(allowed, request.sampling.n), "the budget is spent")
            if allowed:
                asked.append(replace(request, sampling=replace(request.sampling, n=allowed)))
        size = min(self.params.max_batch, EXACT_PROMPTS) if self.params.packer == "exact" else self.params.max_batch
        for begin in range(0, len(asked), size):
            yield from self._together(lm, asked[begin : begin + size], call)

    def _together(self, lm: LM, asked: Sequence[Request], call: Call) -> Iterator[Chunk]:
        """Chunks of prompts that are packed and decoded together."""
        begin, params = time.perf_counter(), self.params
        read = prefill_packed(
            lm,
            [request.ids for request in asked],
            call,
            capacity=params.row_capacity,
            packer=params.packer,
            emit=params.emit,
            count_last=params.mode == "official",
            max_rows=params.max_rows,
            max_slots=params.max_slots,
        )
        shared = _usage(read, time.perf_counter() - begin)
        requests = [_generation(lm, request, read, place) for place, request in enumerate(asked)]
        tokens: dict[tuple[int, int], int] = {}
        with closing(lm.generate_all(requests, call)) as steps:
            for place, step in steps:
                key = place, step.sample
                tokens[key] = tokens.get(key, 0) + 1
                usage = {"prompt_tokens": len(asked[place].ids), "completion_tokens": tokens[key], **shared}
                yield Chunk(
                    asked[place].row,
                    step.sample,
                    step.text,
                    (step.token_id,),
                    (min(step.logprob, 0.0),),
                    finish_reason=step.finish_reason,
                    usage=usage if step.finish_reason else {},
                )


def _generation(lm: LM, request: Request, read: Prefilled, place: int) -> Generation:
    trie = TokenTrie.of_texts(request.prompt.allowed, lm.tokenizer) if request.prompt.allowed else None
    return Generation((), request.sampling, allowed=trie, past=read.caches[place], first=read.logits[place])


def _usage(read: Prefilled, seconds: float) -> dict[str, float]:
    """What reading the whole batch took; the same for all of its prompts."""
    return {"batch_runs": read.runs, "batch_slots": read.computed, "prefill_ms": 1000 * seconds}


def _too_long(request: Request, lm: LM) -> str:
    """Why a prompt cannot be answered, which must not keep the others from it."""
    assert request.sampling.max_tokens is not None
    if (need := len(request.ids) + request.sampling.max_tokens) <= lm.context_length:
        return ""
    return (
        f"{len(request.ids)} prompt tokens and {request.sampling.max_tokens} new ones ({need}) exceed the "
        f"{lm.context_length} tokens of model {lm.name!r}: shorten the prompt or lower max_tokens"
    )


def _abstained(request: Request, choices: range, reason: str) -> Iterator[Chunk]:
    for choice in choices:
        yield Chunk(request.row, choice, record={"error": reason}, finish_reason="abstain")
