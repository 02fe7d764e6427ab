"""Repeated sampling: many samples of one prompt, checked or voted on (arXiv 2407.21787)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pydantic
from pydantic import Field

from pickaxe import WHOLE_PROMPT, Call, Chunk, Example, InputField, Item, Method, MethodRef, Prompt, Sampling
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe.lm import Generation, Grammar, LMParams, Request, Step, TokenTrie, read_prompts
from pickaxe_plugins.decoding._answers import Extract, canonical, extract, same
from pickaxe_plugins.decoding._cost import Prices
from pickaxe_plugins.decoding._sampling import InOrder, Sample
from pickaxe_plugins.decoding._selection import best_of_n, majority, weighted_majority

if TYPE_CHECKING:
    from pickaxe.handle import ScorerHandle
    from pickaxe.lm import LM

Select = Literal["majority", "best_of_n", "weighted"]
Stopped = Literal["n", "first", "cost", "budget"]


class Params(LMParams):
    """Parameters of `repeated-sampling`."""

    n: int = Field(1, ge=1, le=10_000, description="Samples per prompt; a request for more than one wins.")
    temperature: float = Field(0.6, ge=0, allow_inf_nan=False, description="Where the request has none; 0 is greedy.")
    top_p: float = Field(0.95, gt=0, le=1, description="Share of probability drawn from, where the request has none.")
    batch: int = Field(16, ge=1, le=1024, description="Samples decoded together; changes speed, not results.")
    extract: Extract = Field("text", description="How the answer is taken out of a sample.")
    pattern: str = Field("", max_length=500, description="Regular expression of extract=regex; its first group.")
    select: Select = Field("majority", description="What selects a sample when no verifier passed one.")
    verifier: Literal["reference"] | MethodRef | None = Field(
        None, description="What passes a sample: a scorer, or the answer's equality with the field reference."
    )
    threshold: float = Field(0.5, description="Least score of the verifier's primary column that passes.")
    stop_at_first: bool = Field(False, description="End at the first sample that the verifier passes.")
    rater: MethodRef | None = Field(
        None, description="Scorer for best_of_n and weighted; else the verifier's score, else the likelihood."
    )
    usd_per_m_input: float = Field(0, ge=0, description="Dollars per million prompt tokens.")
    usd_per_m_output: float = Field(0, ge=0, description="Dollars per million output tokens.")
    shared_prompt: bool = Field(True, description="Whether a prompt is paid once, not with every sample.")
    max_cost: float | None = Field(None, gt=0, description="Dollars per prompt after which no sample is taken up.")

    @property
    def may_end_early(self) -> bool:
        """Whether what a sample says or costs can end its prompt's run."""
        return self.stop_at_first or self.max_cost is not None

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Params:
        if (self.extract == "regex") != bool(self.pattern):
            raise ValueError("extract=regex and pattern go together")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern is no regular expression: {error}") from None
        if self.stop_at_first and self.verifier is None:
            raise ValueError("stop_at_first needs a verifier")
        if self.max_cost is not None and not (self.usd_per_m_input or self.usd_per_m_output):
            raise ValueError("max_cost needs usd_per_m_input or usd_per_m_output")
        return self


class RepeatedSampling(Method[Params]):
    """Draw many samples of a prompt and return the one that a verifier passes or a vote selects.

    Every sample is a choice of its own with its answer and judgement; a record about the whole prompt names the
    selected one.  Sample i depends on the seed, the prompt and i only.
    """

    title = "Large Language Monkeys: Scaling Inference Compute with Repeated Sampling"
    paper = "arXiv:2407.21787"
    version = 1
    Params = Params
    scope = "item"
    reads = (
        InputField("text", "text", "The prompt, where it has no messages.", False),
        InputField("reference", "text", "The right answer, for verifier=reference.", False),
    )
    constraints = frozenset({"allowed", "json_schema", "regex"})
    cost = "One reading of the prompt, then its samples decoded in batches on copies of its keys and values."
    reproduced = (
        "SmolLM2-135M on 100 two-digit additions: coverage 0.095 at 1 and 0.59 at 64 samples (T = 0.6), while the "
        "majority vote stays at 0.18."
    )

    @classmethod
    def example(cls) -> Example:
        """Two short prompts for the small model that is shipped."""
        return Example(
            params={"model": "draft", "max_tokens": 8, "n": 3},
            prompts=(Prompt("One and one is"), Prompt("The sky is", sampling=Sampling(n=2))),
        )

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        if not prompts:
            return
        lm = self.host.lm(self.params.model, self.params.precision)
        judge = _Judge(
            self.params, self._scorer(self.params.verifier, "verifier"), self._scorer(self.params.rater, "rater")
        )
        judge.check(prompts)
        asked = read_prompts(prompts, lm, self.params, call.seed, "repeated-sampling")
        asked = [self._with_count(request) for request in asked]
        left = math.inf if call.budget is None else call.budget
        if self.params.may_end_early or left < sum(request.sampling.n for request in asked):
            for request in asked:
                run = _Run(self.params, judge, request, int(min(request.sampling.n, left)), call)
                yield from run.alone(lm)
                left -= len(run.samples)
        else:
            yield from _together([_Run(self.params, judge, request, request.sampling.n, call) for request in asked], lm)

    def _with_count(self, request: Request) -> Request:
        """A request for one sample leaves the number to the parameter."""
        sampling = request.sampling
        return replace(request, sampling=replace(sampling, n=sampling.n if sampling.n > 1 else self.params.n))

    def _scorer(self, ref: Literal["reference"] | MethodRef | None, field_name: str) -> ScorerHandle | None:
        if ref is None or isinstance(ref, str):
            return None
        scorer = self.host.scorer(ref)
        if scorer.opened.method.scope != "item":
            raise InvalidParams(
                field_name,
                f"{ref.name!r} scores a {scorer.opened.method.scope} as a whole; name a scorer of item scope",
            )
        return scorer


@dataclass(frozen=True)
class _Judge:
    """Takes answers out of samples, scores and passes them."""

    params: Params
    verifier: ScorerHandle | None
    rater: ScorerHandle | None

    @property
    def by_reference(self) -> bool:
        return self.params.verifier == "reference"

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise unless every prompt has what judging needs."""
        for row, prompt in enumerate(prompts):
            if self.by_reference and not isinstance(prompt.fields.get("reference"), str):
                raise InvalidItems(
                    f"prompts[{row}].fields.reference", "is missing: verifier=reference compares with it"
                )

    def judge(self, samples: Sequence[Sample], request: Request, call: Call) -> None:
        """Fill in answer, score and verdict."""
        for each in samples:
            each.answer = extract(each.text, self.params.extract, self.params.pattern)
            each.score = each.likelihood
        if self.verifier is not None:
            for each, score in zip(samples, self._scores(self.verifier, samples, request, call), strict=True):
                each.score, each.passed = score, score >= self.params.threshold
        elif self.by_reference:
            for each in samples:
                each.passed = same(each.answer, str(request.prompt.fields["reference"]))
        if self.rater is not None:
            for each, score in zip(samples, self._scores(self.rater, samples, request, call), strict=True):
                each.score = score

    def _scores(self, scorer: ScorerHandle, samples: Sequence[Sample], request: Request, call: Call) -> list[float]:
        prompt = request.prompt
        asked = prompt.text if prompt.text is not None else prompt.messages[-1].content
        items = [
            Item(f"{request.row}/{each.index}", each.text, {**prompt.fields, "prompt": asked, "answer": each.answer})
            for each in samples
        ]
        found: list[float] = scorer.score(items, call=call).primary.astype(np.float64).tolist()
        return found

    def select(self, samples: Sequence[Sample]) -> tuple[int, str]:
        """Place of the selected sample, and the rule that selected it."""
        for place, each in enumerate(samples):
            if each.passed:
                return place, "verifier"
        answers = [canonical(each.answer) for each in samples]
        scores = np.array([each.score for each in samples])
        match self.params.select:
            case "majority":
                place = majority(answers)
            case "best_of_n":
                place = best_of_n(np.where(np.isnan(scores), -np.inf, scores).tolist())
            case "weighted":
                place = weighted_majority(answers, np.nan_to_num(scores).tolist())
        return place, self.params.select


@dataclass
class _Run:
    """The samples of one prompt, handed out one by one, and what is said about them at the end."""

    params: Params
    judge: _Judge
    request: Request
    allowed: int
    call: Call
    samples: list[Sample] = field(default_factory=list)
    stopped: Stopped = "n"
    source: InOrder = field(default_factory=InOrder)
    _unjudged: list[Sample] = field(default_factory=list)

    def alone(self, lm: LM) -> Iterator[Chunk]:
        """All chunks, without other prompts beside it: it may end at any sample."""
        if self.allowed < self.request.sampling.n:
            self.stopped = "budget"
        if not self.allowed:
            yield Chunk(self.request.row, 0, finish_reason="abstain")
        else:
            with closing(lm.generate_all([self.generation(lm)], self.call)) as steps:
                for _, step in steps:
                    yield from self.take(step)
                    if self.ended:
                        break
        yield self.last()

    def take(self, step: Step) -> Iterator[Chunk]:
        """Chunks of the samples that are whole, and judged, with this step."""
        size = 1 if self.params.may_end_early else self.params.batch
        for sample in self.source.push(step):
            self._unjudged.append(sample)
            if len(self._unjudged) == size or len(self.samples) + len(self._unjudged) == self.allowed:
                block, self._unjudged = self._unjudged, []
                self.judge.judge(block, self.request, self.call)
                for each in block:
                    self.samples.append(each)
                    yield self._chunk(each)
                    if self._enough(each):
                        return

    @property
    def ended(self) -> bool:
        """No further sample is wanted."""
        return self.stopped in ("first", "cost") or len(self.samples) == self.allowed

    def last(self) -> Chunk:
        """The record about all samples."""
        return Chunk(self.request.row, WHOLE_PROMPT, record=self._record(), usage=self._usage())

    def generation(self, lm: LM) -> Generation:
        """What the model is asked for."""
        request = self.request
        sampling = replace(request.sampling, n=self.allowed)
        trie = TokenTrie.of_texts(request.prompt.allowed, lm.tokenizer) if request.prompt.allowed else None
        grammar = Grammar.of_prompt(request.prompt, lm.tokenizer)
        return Generation(request.ids, sampling, allowed=trie, batch=self.params.batch, grammar=grammar)

    def _enough(self, sample: Sample) -> bool:
        if self.params.stop_at_first and sample.passed:
            self.stopped = "first"
        elif self.params.max_cost is not None and self._usd() >= self.params.max_cost:
            self.stopped = "cost"
        return self.stopped in ("first", "cost")

    def _usd(self) -> float:
        prices = Prices(len(self.request.ids), 1, self.params.usd_per_m_input, self.params.usd_per_m_output)
        outputs = sum(len(each.token_ids) for each in self.samples)
        prompts = 1 if self.params.shared_prompt else len(self.samples)
        return prompts * prices.shared(0) + outputs * self.params.usd_per_m_output / 1e6

    def _chunk(self, sample: Sample) -> Chunk:
        return Chunk(
            self.request.row,
            sample.index,
            sample.text,
            tuple(sample.token_ids),
            tuple(min(value, 0.0) for value in sample.logprobs),
            {"answer": sample.answer, "score": sample.score, "passed": sample.passed},
            sample.finish_reason,
            {"completion_tokens": len(sample.token_ids)},
        )

    def _record(self) -> Mapping[str, Any]:
        """Which sample was selected and why, and all answers, scores and verdicts by sample."""
        record: dict[str, Any] = {
            "selected": None,
            "answer": None,
            "text": None,
            "rule": None,
            "n": len(self.samples),
            "asked": self.request.sampling.n,
            "stopped": self.stopped,
            "answers": [each.answer for each in self.samples],
            "scores": [each.score for each in self.samples],
            "passed": [each.passed for each in self.samples],
            "output_tokens": [len(each.token_ids) for each in self.samples],
            "prompt_tokens": len(self.request.ids),
            "usd": self._usd(),
        }
        if self.samples:
            place, rule = self.judge.select(self.samples)
            chosen = self.samples[place]
            record |= {"selected": chosen.index, "answer": chosen.answer, "text": chosen.text, "rule": rule}
        return record

    def _usage(self) -> dict[str, float]:
        n, prompt = len(self.samples), len(self.request.ids)
        tokens = sum(len(each.token_ids) for each in self.samples)
        drawn, begun = self.source.tokens, self.source.begun
        return {
            "samples": n,
            "prompt_tokens": prompt if begun else 0,
            "completion_tokens": tokens,
            "discarded_tokens": drawn - tokens,
            "target_calls": 1 + drawn - begun if begun else 0,
            "prefix_tokens_shared": max(0, begun - 1) * prompt,
            "verifier_calls": n if self.params.verifier is not None else 0,
        }


def _together(runs: Sequence[_Run], lm: LM) -> Iterator[Chunk]:
    """The chunks of all prompts, in their order, while their samples are decoded side by side."""
    ready: list[list[Chunk]] = [[] for _ in runs]
    current = 0
    with closing(lm.generate_all([run.generation(lm) for run in runs], runs[0].call)) as steps:
        for number, step in steps:
            ready[number] += runs[number].take(step)
            if runs[number].ended:
                ready[number].append(runs[number].last())
            while current < len(runs):
                yield from ready[current]
                ready[current] = []
                if not runs[current].ended:
                    break
                current += 1
