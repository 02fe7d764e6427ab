"""The decoder `ape`: contexts read apart, attended to together with a temperature and a scale (arXiv 2502.05431)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Annotated, Literal

from pydantic import Field

from pickaxe import Call, Chunk, Example, InputField, Item, Method, Progress, Prompt
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import Unmet
from pickaxe.hooks import hookimpl
from pickaxe.lm import LM, LMParams
from pickaxe_plugins.decoding.ape._answer import in_order, over_contexts
from pickaxe_plugins.decoding.ape._contexts import Held, Shelf
from pickaxe_plugins.decoding.ape._request import Asked, read_asked
from pickaxe_plugins.decoding.ape._search import SETTINGS, search

TEMPERATURE = SCALE = 0.9


class Params(LMParams):
    """Parameters of `ape`."""

    temperature_context: float | None = Field(
        None, gt=0, le=2, description="T, divides the scores of context tokens; none: the artifact's, else 0.9."
    )
    scale: float | None = Field(
        None, gt=0, le=2, description="S, multiplies the contexts' log-sum-exp; none: the artifact's, else 0.9."
    )
    mode: Literal["parallel", "sequential"] = Field(
        "parallel", description="Read contexts apart, or as one text in order (slower, the model's usual way)."
    )
    separator: str = Field("\n\n", description="Text put after every context.")
    cache: bool = Field(True, description="Keep what was read of contexts for later requests.")
    cache_mib: int = Field(1024, ge=1, description="Most MiB kept; what was used longest ago goes first.")
    max_context_tokens: int | None = Field(
        None, ge=1, description="Most tokens of a context, the rest is cut off; none: what the model's window leaves."
    )
    context_batch: int = Field(8, ge=1, le=256, description="Contexts read together; changes speed, not results.")
    objective: Literal["likelihood", "exact_match"] = Field(
        "likelihood", description="What fit maximises: log-likelihood of the answer per token, or equal greedy answers."
    )
    grid: tuple[Annotated[float, Field(gt=0, le=2)], ...] = Field(
        tuple(round(0.1 * step, 1) for step in range(1, 11)),
        min_length=1,
        description="Values of T, and then of S, that fit tries.",
    )


class Ape(Method[Params]):
    """Read contexts apart and in parallel, keep them for reuse, and answer over all of them.

    Every context is read after a shared prefix at the same positions, so what was read of it does not depend on
    the other contexts or their order.  The query and the answer attend to all of them with temperature T and
    scale S.
    """

    title = "APE: Faster and Longer Context-Augmented Generation via Adaptive Parallel Encoding"
    paper = "arXiv:2502.05431"
    version = 1
    Params = Params
    scope = "item"
    reads = (
        InputField("text", "text", "The query, where it has no messages.", False),
        InputField("prefix", "text", "What comes before all contexts, where the query is text.", False),
        InputField("warm_only", "bool", "Only read and keep the contexts.", False),
    )
    fit_reads = (
        InputField("text", "text", "The query."),
        InputField("contexts", "texts", "Its contexts."),
        InputField("answer", "text", "The right answer."),
        InputField("prefix", "text", "What comes before all contexts.", False),
    )
    fitted = "optional"
    stages = ("temperature", "scale")
    constraints = frozenset({"allowed"})
    cost = "Reading every context once, with a kept one nothing but the query; memory for all of their tokens."
    reproduced = (
        "The official attention in golden cases; on 60 made-up questions the log-likelihood is -0.60 with fitted "
        "T and S, -0.72 in order and -1.00 without a shared prefix."
    )

    @classmethod
    def example(cls) -> Example:
        """Two questions over short passages for the small model that is shipped."""
        passages = (Item("sky", "The sky over the harbour was green."), Item("sea", "The sea was warm that day."))
        return Example(
            params={"model": "draft", "max_tokens": 6, "cache": False, "grid": [0.5, 1.0]},
            prompts=(Prompt("The sky was", context=passages), Prompt("One and one is")),
            examples=(
                Item("1", "The sky was", {"contexts": tuple(str(each.text) for each in passages), "answer": " green"}),
            ),
        )

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        if not prompts:
            return
        lm = self.host.lm(self.params.model, self.params.precision)
        asked = read_asked(prompts, lm, self.params, call.seed)
        shelf = self._shelf(lm, call, must_keep=any(each.warm_only for each in asked))
        left = math.inf if call.budget is None else call.budget
        for each in asked:
            if each.warm_only:
                yield from self._warm(each, shelf, call)
                continue
            for choice in range(int(min(each.sampling.n, left)), each.sampling.n):
                yield Chunk(each.row, choice, finish_reason="abstain")
            if count := int(min(each.sampling.n, left)):
                yield from self._answer(each, count, lm, shelf, call)
            left -= count

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        lm = self.host.lm(self.params.model, self.params.precision)
        yield from search(lm, self.params, examples, validation, out, call)

    @property
    def settings(self) -> tuple[float, float]:
        """T and S in use."""
        fitted: Mapping[str, float] = self.artifact.read_json(SETTINGS) if self.artifact else {}
        temperature, scale = self.params.temperature_context, self.params.scale
        return (
            fitted.get("temperature_context", TEMPERATURE) if temperature is None else temperature,
            fitted.get("scale", SCALE) if scale is None else scale,
        )

    def _shelf(self, lm: LM, call: Call, must_keep: bool) -> Shelf:
        if not self.params.cache:
            if must_keep:
                raise Unmet("warm_only keeps contexts for later requests, which cache=false forbids")
            return Shelf(lm, None)
        try:
            folder = self.host.state(call.tenant).path / "contexts"
        except Unmet:
            if must_keep:
                raise
            folder = None  # within this call contexts are still read only once
        return Shelf(lm, folder, self.params.cache_mib * 2**20)

    # ------------------------------------------------------------ warming

    def _warm(self, asked: Asked, shelf: Shelf, call: Call) -> Iterator[Chunk]:
        begin = time.perf_counter()
        held = shelf.read(asked.prefix, asked.contexts, self.params.context_batch, call)
        for place, ids, key, reused in zip(asked.places, asked.contexts, held.keys, held.reused, strict=True):
            item = asked.prompt.context[place]
            yield Chunk(asked.row, record={"id": item.id, "key": key, "tokens": len(ids), "reused": reused})
        usage = _usage(asked, held, 0, time.perf_counter() - begin)
        yield Chunk(asked.row, record={"contexts": len(held.keys)}, finish_reason="stop", usage=usage)

    # ------------------------------------------------------------ answering

    def _answer(self, asked: Asked, count: int, lm: LM, shelf: Shelf, call: Call) -> Iterator[Chunk]:
        begin = time.perf_counter()
        held, ready, tokens = None, 0.0, dict.fromkeys(range(count), 0)
        if self.params.mode == "parallel" and asked.contexts:
            held = shelf.read(asked.prefix, asked.contexts, self.params.context_batch, call)
            steps = over_contexts(lm, asked, held, self.settings, count, call)
        else:
            steps = in_order(lm, asked, count, call)
        with closing(steps):
            for step in steps:
                ready = ready or time.perf_counter() - begin
                tokens[step.sample] += 1
                yield Chunk(
                    asked.row,
                    step.sample,
                    step.text,
                    (step.token_id,),
                    (min(step.logprob, 0.0),),
                    finish_reason=step.finish_reason,
                    usage=_usage(asked, held, tokens[step.sample], ready) if step.finish_reason else {},
                )


def _usage(asked: Asked, held: Held | None, tokens: int, seconds: float) -> dict[str, float]:
    prompt = len(asked.prefix) + len(asked.query) if asked.contexts else len(asked.whole)
    reused = zip(asked.contexts, held.reused, strict=True) if held else ()
    return {
        "prompt_tokens": prompt,
        "context_tokens": sum(map(len, asked.contexts)),
        "cached_context_tokens": sum(len(ids) for ids, known in reused if known),
        "completion_tokens": tokens,
        "prefill_ms": 1000 * seconds,
    }
