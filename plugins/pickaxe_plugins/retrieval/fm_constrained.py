"""Decoding nothing but substrings of given texts, with any language model (arXiv:2204.10628)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pickaxe import Artifact, Call, Chunk, Example, InputField, Item, Method, Progress, Prompt, Sampling
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import InvalidItems, Unmet
from pickaxe.hooks import hookimpl
from pickaxe.index import check_model, record_model
from pickaxe.lm import Generation, LMParams, read_prompts
from pickaxe.lm.processors import only
from pickaxe_plugins.retrieval._token_index import TokenIndex
from pickaxe_plugins.retrieval.seal import Seal, TokenizerOf

if TYPE_CHECKING:
    from pickaxe.lm import LM

BATCH = 1024
"""Texts from one sign of progress to the next."""
MOST = 4096
"""Ranges of outputs that are remembered."""


class Params(LMParams):
    """Parameters of `fm-constrained`."""

    temperature: float = Field(0.0, ge=0, allow_inf_nan=False, description="Where the request has none; 0 is greedy.")
    max_tokens: int = Field(32, ge=1, description="Most tokens of a sample, where the request has no limit.")
    start: Literal["anywhere", "text"] = Field("anywhere", description="Where in a text an output begins.")
    end: Literal["anywhere", "text"] = Field(
        "text", description="Where an output may end before its last token: at the end of a text, or anywhere."
    )
    index: str = Field("", description="Index of `seal` to decode from: its path; empty: the texts given to fit.")


class FmConstrained(Method[Params]):
    """Make a language model say nothing but what stands in your texts, word for word.

    The texts lie in an FM-index; at every step only tokens may follow with which the output still occurs in it.
    """

    title = "Autoregressive Search Engines: Generating Substrings as Document Identifiers"
    paper = "arXiv:2204.10628"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "The prompt, where it has no messages.", False),)
    fit_reads = (InputField("text", "text", "A text whose substrings may be said."),)
    fitted = "optional"
    stages = ("index",)
    cost = "One reading of the prompt and a step per token; what may follow takes microseconds, a millisecond at first."
    reproduced = "The allowed continuations of a suffix-array reference; every output occurs in the texts."

    @classmethod
    def example(cls) -> Example:
        """Three texts and two prompts for the small model that is shipped."""
        return Example(
            params={"model": "draft", "precision": "fp32", "max_tokens": 8},
            examples=(
                Item("rain", "The rain in Spain stays mainly in the plain."),
                Item("tea", "Green tea is brewed at about 80 degrees, black tea with boiling water."),
                Item("moon", "The Moon turns once on its axis for every orbit around the Earth."),
            ),
            prompts=(Prompt("How is tea brewed?"), Prompt("Tell me of the sky.", sampling=Sampling(n=2, seed=1))),
        )

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        lm = self.host.lm(self.params.model, self.params.precision)
        end = _end(lm)
        documents: list[np.ndarray] = []
        for item in examples:
            call.check()
            if text := (item.text or "").strip():
                documents.append(np.array([*lm.tokenizer.encode(f" {text}"), end]))
            if len(documents) % BATCH == 0:
                yield Progress("index", len(documents))
        if not documents:
            raise InvalidItems("examples", "are none, or empty: give at least one text to decode from")
        index = TokenIndex.build(documents)
        index.save(out)
        record_model(out, TokenizerOf(lm), self.params.model, role="tokenizer")
        out.notes |= {"texts": len(documents), "tokens": len(index), "end": end}
        yield Progress("index", len(documents), len(documents))

    @cached_property
    def _index(self) -> TokenIndex:
        artifact, name = self.artifact, self.params.index
        if name:
            artifact = Artifact.open(self.host.artifact_path(name))
            artifact.check_method("seal", Seal.version, "index")
        if artifact is None:
            raise Unmet("there is nothing to decode from: call fit(texts), or name an index of seal as index=…")
        lm = self.host.lm(self.params.model, self.params.precision)
        check_model(artifact, TokenizerOf(lm), self.params.model, role="tokenizer")
        return TokenIndex.open(artifact)

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        if not prompts:
            return
        lm, index, params = self.host.lm(self.params.model, self.params.precision), self._index, self.params
        ends = list(lm.tokenizer.eos_ids)
        requests = read_prompts(prompts, lm, params, call.seed, "fm-constrained")
        counts: dict[tuple[int, int], int] = {}
        generations = [
            Generation(
                request.ids,
                request.sampling,
                (FollowIndex(index, _end(lm), ends, params.start == "text", params.end == "anywhere"),),
            )
            for request in requests
        ]
        with closing(lm.generate_all(generations, call)) as steps:
            for place, step in steps:
                choice = place, step.sample
                counts[choice] = counts.get(choice, 0) + 1
                spent = {"prompt_tokens": len(requests[place].ids), "completion_tokens": counts[choice]}
                yield Chunk(
                    requests[place].row,
                    step.sample,
                    step.text,
                    (step.token_id,),
                    (min(step.logprob, 0.0),),
                    finish_reason=step.finish_reason,
                    usage={name: float(value) for name, value in spent.items()} if step.finish_reason else {},
                )


class FollowIndex:
    """A logits processor that keeps outputs inside an index; it serves any number of outputs in any order.

    The token that closes texts may be said where a text ends; `anywhere`, all tokens that `ends` names may be said
    after the first.  Outputs never go on beyond the end of a text.
    """

    def __init__(
        self, index: TokenIndex, end: int, ends: Sequence[int], at_start: bool = False, anywhere: bool = False
    ) -> None:
        self._index, self._end, self._anywhere = index, end, anywhere
        self._ends = np.array(sorted({end, *ends}), np.int64)
        self._start = [end] if at_start else []
        low, high = index.ranges([self._start])
        self._ranges: dict[tuple[int, ...], tuple[int, int]] = {(): (int(low[0]), int(high[0]))}

    def allowed(self, generated: Sequence[int]) -> np.ndarray:
        """The tokens that may follow, rising; the closing token alone where nothing else can."""
        said = tuple(generated)
        low, high = self._range(said)
        tokens, _, _ = self._index.following(np.array([low]), np.array([high]))
        if not said:
            tokens = tokens[tokens != self._end]
        if not len(tokens):
            return np.array([self._end])
        return np.union1d(tokens, self._ends) if self._anywhere and said else tokens

    def __call__(self, generated: Sequence[int], logits: np.ndarray) -> np.ndarray:
        return only(self.allowed(generated), logits)

    def _range(self, said: tuple[int, ...]) -> tuple[int, int]:
        """Of what was said: from what was said a token ago where that is remembered, else from the beginning."""
        if said not in self._ranges:
            if said[:-1] in self._ranges:
                before = self._ranges[said[:-1]]
                low, high = self._index.index.extend([before[0]], [before[1]], [said[-1]])
            else:
                low, high = self._index.ranges([[*self._start, *said]])
            if len(self._ranges) >= MOST:
                self._ranges = {(): self._ranges[()]}
            self._ranges[said] = int(low[0]), int(high[0])
        return self._ranges[said]


def _end(lm: LM) -> int:
    if not lm.tokenizer.eos_ids:
        raise Unmet(f"model {lm.name!r} has no token that ends a text, which must close texts")
    return lm.tokenizer.eos_ids[0]
