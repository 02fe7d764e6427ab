"""Answer with the first attempt that a verifier passes, or abstain (arXiv 2411.17501)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic
from pydantic import Field

from pickaxe import (
    WHOLE_PROMPT,
    ArtifactWriter,
    Call,
    Chunk,
    Completion,
    Example,
    InputField,
    Item,
    Method,
    MethodRef,
    Progress,
    Prompt,
    completions,
)
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe.randomness import generator
from pickaxe_plugins.decoding._limits import FITTED, LimitParams, fit_limits
from pickaxe_plugins.decoding._runs import RUN_FIELDS

if TYPE_CHECKING:
    from pickaxe.handle import ScorerHandle

_SHARING = "repeated-sampling"
"""The decoder whose attempts share one reading of the prompt."""
_OURS = ("n", "stop_at_first", "threshold", "verifier")
"""Its parameters that are decided here."""
_STOPPED = {"first": "pass", "n": "attempts"}


class Params(LimitParams):
    """Parameters of `resample-until-pass`; those about values and limits are for `fit`."""

    verifier: MethodRef = Field(description="Scorer of item scope that passes an attempt.")
    threshold: float = Field(0.5, description="Least score of the verifier's primary column that passes.")
    decoder: MethodRef = Field(MethodRef.model_validate(_SHARING), description="What draws the attempts.")
    attempts: int | None = Field(
        None, ge=1, le=10_000, description="Most attempts per prompt; none: the best number that `fit` found."
    )
    group: str = Field("", description="Group of the fitted run whose best number holds; empty: the only one.")
    abstain_text: str = Field("", description="Text of the answer where no attempt passes.")

    @pydantic.model_validator(mode="after")
    def _decided_here(self) -> Params:
        if self.decoder.name == _SHARING and (given := sorted(set(_OURS) & set(self.decoder.params))):
            raise ValueError(f"decoder.params holds {', '.join(given)}, which this method decides: leave them out")
        return self


class ResampleUntilPass(Method[Params]):
    """Draw attempts until a verifier passes one, at most K of them, and abstain where none passes.

    K is given, or what `fit` found best on a judged run: with a verifier that errs, more attempts can do harm.
    """

    title = "Inference Scaling fLaws: The Limits of LLM Resampling with Imperfect Verifiers"
    paper = "arXiv:2411.17501"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "The prompt, where it has no messages.", False),)
    fit_reads = RUN_FIELDS
    fitted = "optional"
    stages = ("fit",)
    constraints = frozenset({"allowed", "json_schema", "regex"})
    cost = "The attempts up to the first pass and a verifier call for each; the default decoder reads a prompt once."
    reproduced = "See resampling-limits: its curves predict what this decoder answers, within sampling error."

    @classmethod
    def example(cls) -> Example:
        """Two prompts for the small model that is shipped, and a run from which two attempts are best."""
        counts = (("easy", 9, 9), ("fair", 6, 5), ("hard", 1, 0))
        tasks = tuple(Item(name, fields={"n": 10, "v": v, "g": g, "u": g}) for name, v, g in counts)
        return Example(
            params={
                "verifier": {"name": "min-k-prob", "params": {"model": "draft"}},
                "threshold": -1000.0,
                "decoder": {"name": _SHARING, "params": {"model": "draft", "max_tokens": 8}},
            },
            examples=tasks,
            prompts=(Prompt("One and one is"), Prompt("The sky is")),
        )

    # ------------------------------------------------------------ hooks

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        if not prompts:
            return
        for row, prompt in enumerate(prompts):
            if prompt.sampling.n > 1:
                raise InvalidItems(f"prompts[{row}].sampling.n", "must be 1: a prompt gets one answer or none")
        allowed = self._allowed()
        draw = self._sharing if self.params.decoder.name == _SHARING else self._separate
        for each in draw(prompts, allowed, call) if allowed else map(_Tried, range(len(prompts))):
            yield each.chunk(allowed, self.params.abstain_text)

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        """Find the best number of attempts, the limits and the verifier's rates on a judged run."""
        yield from fit_limits(examples, self.params, out, call)

    # ------------------------------------------------------------ parts

    def _allowed(self) -> int:
        """Most attempts per prompt: 0 where the fitted run says that trying gains nothing."""
        if self.params.attempts is not None:
            return self.params.attempts
        if self.artifact is None:
            raise InvalidParams("attempts", "is not given: give it, or an artifact of fit on a judged run")
        groups = self.artifact.read_json(FITTED)
        name = self.params.group or next(iter(groups))
        if name not in groups or (len(groups) > 1 and not self.params.group):
            raise InvalidParams("group", f"is {self.params.group!r}; fitted groups are {', '.join(groups)}")
        return int(groups[name]["k_best"])

    def _verifier(self) -> ScorerHandle:
        scorer = self.host.scorer(self.params.verifier)
        if (scope := scorer.opened.method.scope) != "item":
            raise InvalidParams("verifier", f"{scorer.name!r} scores a {scope} as a whole; name a scorer of item scope")
        return scorer

    def _sharing(self, prompts: Sequence[Prompt], allowed: int, call: Call) -> Iterator[_Tried]:
        """Attempts of the default decoder, which verifies them itself and stops at the first pass.

        Unless its parameters say otherwise they are drawn one by one, so that none is drawn in vain.
        """
        ref = self.params.decoder
        decoder = self.host.decoder(
            ref,
            n=1,
            batch=ref.params.get("batch", 1),
            stop_at_first=True,
            threshold=self.params.threshold,
            verifier=self.params.verifier.model_dump(),
        )
        asked = [replace(prompt, sampling=replace(prompt.sampling, n=allowed)) for prompt in prompts]
        parts: list[list[Chunk]] = [[] for _ in prompts]
        with closing(decoder.decode(asked, call=call)) as chunks:  # type: ignore[type-var]
            for chunk in chunks:
                parts[chunk.prompt].append(chunk)
                if chunk.choice == WHOLE_PROMPT:
                    yield _Tried.of_run(chunk.prompt, parts[chunk.prompt])
                    parts[chunk.prompt].clear()

    def _separate(self, prompts: Sequence[Prompt], allowed: int, call: Call) -> Iterator[_Tried]:
        """Attempts of any decoder: in each round one for every prompt that has none that passed."""
        decoder, verifier = self.host.decoder(self.params.decoder), self._verifier()
        left = len(prompts) * allowed if call.budget is None else call.budget
        waiting = [_Tried(row) for row in range(len(prompts))]
        for attempt in range(allowed):
            drawn, rest = waiting[:left], waiting[left:]
            if not drawn:
                break
            left -= len(drawn)
            asked = [_seeded(prompts[each.row], attempt, call.seed) for each in drawn]
            found = decoder.complete(asked, call=call)
            for place, each in enumerate(drawn):
                each.add([part for part in found if part.prompt == place])
            self._verify(drawn, prompts, verifier, call)
            yield from (each for each in drawn if each.passed)
            waiting = [*(each for each in drawn if not each.passed), *rest]
        for each in waiting:
            each.stopped = "attempts" if len(each.attempts) == allowed else "budget"
            yield each

    def _verify(self, tried: Sequence[_Tried], prompts: Sequence[Prompt], verifier: ScorerHandle, call: Call) -> None:
        """Judge the latest attempts; those that abstained have nothing to be judged."""
        answered = [each for each in tried if each.attempts[-1].finish_reason != "abstain"]
        items = [
            Item(
                f"{each.row}/{len(each.attempts) - 1}",
                text := each.attempts[-1].text,
                {**prompts[each.row].fields, "prompt": _asked(prompts[each.row]), "answer": text.strip()},
            )
            for each in answered
        ]
        scores = verifier.score(items, call=call).primary.astype(np.float64).tolist()
        for each, score in zip(answered, scores, strict=True):
            each.scores[-1] = score
            each.verified += 1
            if score >= self.params.threshold:
                each.stopped = "pass"


@dataclass
class _Tried:
    """The attempts at one prompt so far."""

    row: int
    attempts: list[Completion] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    stopped: str = "attempts"
    verified: int = 0
    used: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of_run(cls, row: int, chunks: Sequence[Chunk]) -> _Tried:
        """From what the default decoder says about a prompt."""
        whole, *samples = completions(chunks)
        record = whole.records[0]
        tried = cls(row, [each for each in samples if each.finish_reason != "abstain"], list(record["scores"]))
        stopped = str(record["stopped"])
        tried.stopped = _STOPPED.get(stopped, stopped)
        tried.used.update(whole.usage)
        tried.verified = int(tried.used.pop("verifier_calls", 0))
        del tried.used["samples"]
        return tried

    @property
    def passed(self) -> bool:
        return self.stopped == "pass"

    def add(self, found: Sequence[Completion]) -> None:
        """One attempt with what it used: as said of the whole prompt, or else of its choices."""
        whole = [each for each in found if each.choice == WHOLE_PROMPT]
        self.attempts.append(next(each for each in found if each.choice != WHOLE_PROMPT))
        self.scores.append(None)
        for each in whole or found:
            self.used.update(each.usage)

    def chunk(self, allowed: int, abstain_text: str) -> Chunk:
        """The answer, or the abstention."""
        record: dict[str, Any] = {
            "passed": self.passed,
            "attempts": len(self.attempts),
            "allowed": allowed,
            "stopped": self.stopped,
            "scores": self.scores,
            "texts": [each.text for each in self.attempts],
        }
        used = dict(self.used)
        usage = {
            "attempts": len(self.attempts),
            "verifier_calls": self.verified,
            "drawn_tokens": used.pop("completion_tokens", 0),
            **used,
        }
        if not self.passed:
            return Chunk(self.row, 0, abstain_text, record=record, finish_reason="abstain", usage=usage)
        answer = self.attempts[-1]
        return Chunk(
            self.row,
            0,
            answer.text,
            answer.token_ids,
            answer.logprobs,
            record,
            answer.finish_reason,
            {**usage, "completion_tokens": len(answer.token_ids)},
        )


def _seeded(prompt: Prompt, attempt: int, seed: int) -> Prompt:
    """The prompt with a seed of its own for this attempt."""
    given = prompt.sampling.seed
    said = json.dumps([prompt.text, [[each.role, each.content] for each in prompt.messages]])
    own = generator(seed if given is None else given, "resample-until-pass", said, attempt)
    return replace(prompt, sampling=replace(prompt.sampling, seed=int(own.integers(2**63))))


def _asked(prompt: Prompt) -> str:
    if prompt.text is not None:
        return prompt.text
    return prompt.messages[-1].content if prompt.messages else ""
