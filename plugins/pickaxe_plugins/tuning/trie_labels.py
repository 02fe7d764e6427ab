"""Decoding a list of distinct labels with any language model, along a trie of their tokens (arXiv 2309.12075)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic
from pydantic import Field

from pickaxe import Call, Chunk, Example, InputField, Method, Prompt
from pickaxe.errors import InvalidItems, InvalidParams, Violation
from pickaxe.hooks import hookimpl
from pickaxe.lm import Generation, LMParams, Request, logsumexp, read_prompts
from pickaxe.lm.processors import only
from pickaxe.randomness import generator
from pickaxe_plugins.tuning._label_trie import LabelTrie, Walk

if TYPE_CHECKING:
    from pickaxe.lm import Step
    from pickaxe.tokenizers import Tokenizer


class Params(LMParams):
    """Parameters of `trie-labels`."""

    temperature: float = Field(0.0, ge=0, allow_inf_nan=False, description="Where the request has none; 0 is greedy.")
    labels: tuple[str, ...] = Field(
        (), max_length=1_000_000, description="The labels, for prompts that do not name their own as `allowed`."
    )
    separator: str = Field(
        "; ", min_length=1, max_length=20, description="What stands between two labels: one token, and a blank or none."
    )
    max_labels: int | None = Field(None, ge=1, description="Most labels of an output; null: all.")

    @pydantic.field_validator("separator")
    @classmethod
    def _token_and_blank(cls, separator: str) -> str:
        if not separator.removesuffix(" "):
            raise ValueError("is blank: a mark has to stand between two labels")
        return separator


class TrieLabels(Method[Params]):
    """Make a language model answer with distinct labels of a list and nothing else.

    At every step only tokens may follow that lead to a label which the output does not hold yet.
    """

    title = "Prompt Tuned Embedding Classification for Multi-Label Industry Sector Allocation"
    paper = "arXiv:2309.12075"
    version = 1
    Params = Params
    reads = (InputField("text", "text", "The prompt, where it has no messages.", False),)
    constraints = frozenset({"allowed"})
    cost = "One reading of the prompt and a step per token of the labels; what may follow is found in microseconds."
    reproduced = "The allowed tokens of the authors' trie along six walks; the gain over free decoding was not tried."

    @classmethod
    def example(cls) -> Example:
        """Two prompts for the small model that is shipped, one with labels of its own."""
        labels = ("health care", "health", "software", "heavy industry")
        return Example(
            params={"model": "draft", "labels": labels, "max_labels": 3},
            prompts=(
                Prompt("A hospital that writes its own software. Sectors:"),
                Prompt("A fox in the snow. Colours:", allowed=("red", "white")),
            ),
        )

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        if not prompts:
            return
        lm = self.host.lm(self.params.model, self.params.precision)
        self._check(prompts)
        tries: dict[tuple[str, ...], LabelTrie] = {}
        outputs: list[_Output] = []
        for request in read_prompts(prompts, lm, self.params, call.seed, "trie-labels"):
            labels = request.prompt.allowed or self.params.labels
            if labels not in tries:
                tries[labels] = label_trie(labels, self.params.separator, lm.tokenizer)
            for choice in range(request.sampling.n):
                walk = tries[labels].walk(most=self.params.max_labels)
                outputs.append(_Output(request, choice, labels, self.params.separator, FollowLabels(walk)))
        with closing(lm.generate_all([output.generation() for output in outputs], call)) as steps:
            for number, step in steps:
                yield from outputs[number].add(step)

    def _check(self, prompts: Sequence[Prompt]) -> None:
        found = []
        for row, prompt in enumerate(prompts):
            if prompt.sampling.stop:
                found.append(Violation(f"prompts[{row}].sampling.stop", "cannot be had: labels are the whole output"))
            if not prompt.allowed and not self.params.labels:
                found.append(Violation(f"prompts[{row}].allowed", "is missing: name the labels here or in labels"))
        if found:
            raise InvalidItems(found)


class FollowLabels:
    """The logits processor of one output: it reads every token once."""

    def __init__(self, walk: Walk) -> None:
        self.start = walk
        self.offered: deque[tuple[np.ndarray, np.ndarray]] = deque()
        """For every token drawn, until it is taken: the ids it was drawn from, and their logits as they were."""
        self._walk, self._read = walk, 0

    def __call__(self, generated: Sequence[int], logits: np.ndarray) -> np.ndarray:
        for token in generated[self._read :]:
            self._walk = self._walk.take(token)
        self._read = len(generated)
        ids = self._walk.allowed()
        self.offered.append((ids, logits[ids]))
        return only(ids, logits)


class _Output:
    """One choice on its way out: a chunk for every finished label.

    The last chunk has the reason; where the limit cut a label off, that chunk has its tokens and no text.
    """

    def __init__(
        self, request: Request, choice: int, labels: Sequence[str], separator: str, follow: FollowLabels
    ) -> None:  # fmt: skip
        self._request, self._choice, self._labels, self._separator = request, choice, labels, separator
        self._follow, self._walk = follow, follow.start
        self._steps: list[Step] = []
        self._shares: list[float] = []
        self._tokens = 0

    def generation(self) -> Generation:
        """The one sample of this choice; what the choices of a prompt share is the engine's business."""
        seed = int(generator(self._request.seed, "trie-labels", self._choice).integers(2**63))
        return Generation(self._request.ids, replace(self._request.sampling, n=1, seed=seed), (self._follow,))

    def add(self, step: Step) -> Iterator[Chunk]:
        before = len(self._walk.labels)
        self._walk = self._walk.take(step.token_id)
        self._steps.append(step)
        self._shares.append(_share(*self._follow.offered.popleft(), step.token_id))
        self._tokens += 1
        labels, unclosed = self._walk.labels, self._walk.label
        if step.finish_reason == "length" and unclosed is not None:
            labels = (*labels, unclosed)
        if len(labels) == before and not step.finish_reason:
            return
        record: dict[str, Any] = {"logprobs_allowed": self._shares}
        text = ""
        if len(labels) > before:
            name = self._labels[labels[-1]]
            text = (self._separator if before else "") + name
            record |= {"label": name, "index": labels[-1], "confidence": math.exp(sum(self._shares))}
        last = {"prompt_tokens": len(self._request.ids), "completion_tokens": self._tokens}
        yield Chunk(
            self._request.row,
            self._choice,
            text,
            tuple(each.token_id for each in self._steps),
            tuple(min(each.logprob, 0.0) for each in self._steps),
            record,
            step.finish_reason,
            last if step.finish_reason else {},
        )
        self._steps, self._shares = [], []


def _share(ids: np.ndarray, logits: np.ndarray, token: int) -> float:
    """Log-probability of the token among those offered."""
    values = logits.astype(np.float64)
    return float(values[np.searchsorted(ids, token)] - logsumexp(values))


def label_trie(labels: Sequence[str], separator: str, tokenizer: Tokenizer) -> LabelTrie:
    """The trie of the labels as the tokenizer writes them after the separator, whose blank belongs to the label.

    Raises `InvalidParams` for a separator that is not one token or that melts into a label, and for labels that
    cannot be told apart.
    """
    mark = separator.removesuffix(" ")
    blank = separator[len(mark) :]
    (*others, token) = tokenizer.encode(mark) or [-1, -1]
    if others:
        raise InvalidParams("separator", f"{separator!r} is not one token for this model; try '; '")
    if empty := [row for row, label in enumerate(labels) if not label.strip()]:
        raise InvalidParams(f"labels[{empty[0]}]", "is empty")
    alone = tokenizer.encode_batch([blank + label for label in labels])
    after = tokenizer.encode_batch([mark + blank + label for label in labels])
    for row, (ids, following) in enumerate(zip(alone, after, strict=True)):
        if following != [token, *ids]:
            raise InvalidParams(f"labels[{row}]", f"melts into the separator {separator!r}: choose another separator")
    return LabelTrie(alone, token, tokenizer.eos_ids)
