"""One short text for each cluster of texts: the member in its middle, its best sentences, or a model's summary."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pickaxe import Call, Message, Prompt, Sampling
from pickaxe.errors import DoesNotFit, InvalidParams, Unmet
from pickaxe.lm import Generation, prompt_ids

if TYPE_CHECKING:
    from pickaxe.encoder import Encoder
    from pickaxe.lm import LM

_WORD = re.compile(r"\S+")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*\s*")
BETWEEN = "\n"
"""What parts texts, and summaries."""

Offsets = Callable[[str], Sequence[tuple[int, int]]]
"""Where the tokens of a text begin and end."""


def words(text: str) -> list[tuple[int, int]]:
    """White-space words as tokens."""
    return [found.span() for found in _WORD.finditer(text)]


def cut(text: str, most: int, offsets: Offsets) -> str:
    """The first tokens of a text, at most so many."""
    places = offsets(text)
    while len(places) > most:
        text = text[: places[most - 1][1]]
        before, places = len(places), offsets(text)
        if len(places) >= before:  # cutting made as many tokens of it: take one less
            most -= 1
    return text


@dataclass(frozen=True)
class Group:
    """A cluster's texts, nearest to its centroid first."""

    name: str
    texts: tuple[str, ...]
    centroid: np.ndarray


@dataclass(frozen=True)
class Medoid:
    """The member nearest to the centroid."""

    most: int
    offsets: Offsets
    tokens: int = 0
    calls: int = 0

    def summaries(self, groups: Sequence[Group], call: Call) -> list[str]:
        return [cut(group.texts[0], self.most, self.offsets) for group in groups]


@dataclass(frozen=True)
class Sentences:
    """The sentences nearest to the centroid, as many as there is room for, in the order of their texts."""

    most: int
    offsets: Offsets
    encoder: Encoder
    tokens: int = 0
    calls: int = 0

    def summaries(self, groups: Sequence[Group], call: Call) -> list[str]:
        return [self._summary(group, call) for group in groups]

    def _summary(self, group: Group, call: Call) -> str:
        if len(group.centroid) != self.encoder.width:
            raise InvalidParams(
                "extract",
                f"compares sentences of width {self.encoder.width} with embeddings of {len(group.centroid)}: leave the "
                "embeddings out, or use extract=medoid",
            )
        every = [found.strip() for text in group.texts for found in _SENTENCE.findall(text)]
        every = list(dict.fromkeys(each for each in every if each))
        if not every:
            return ""
        near = np.argsort(-(self.encoder.encode(every, call) @ group.centroid), kind="stable")
        chosen: list[int] = []
        for row in near.tolist():
            if len(self.offsets(" ".join(every[each] for each in sorted([*chosen, row])))) <= self.most:
                chosen.append(row)
        if not chosen:
            return cut(every[near[0]], self.most, self.offsets)
        return " ".join(every[row] for row in sorted(chosen))


@dataclass
class Summaries:
    """What a language model says of the texts; clusters beyond its context in parts, then of the parts."""

    lm: LM
    most: int
    prompt: str
    hierarchical: bool
    tokens: int = 0
    """Read and written so far."""
    calls: int = 0
    _room: int = field(init=False)

    def __post_init__(self) -> None:
        self._room = self.lm.context_length - self.most - len(self._ids(""))
        if self._room < 2 * (self.most + 2):
            raise InvalidParams("summary_tokens", f"leaves no room for texts in a context of {self.lm.context_length}")

    def summaries(self, groups: Sequence[Group], call: Call) -> list[str]:
        parts = [self._parts(group) for group in groups]
        said = iter(self._said([BETWEEN.join(part) for each in parts for part in each], call))
        found = [[next(said) for _ in each] for each in parts]
        again = [row for row, each in enumerate(found) if len(each) > 1]
        if again:
            deeper = [Group(groups[row].name, tuple(found[row]), groups[row].centroid) for row in again]
            for row, text in zip(again, self.summaries(deeper, call), strict=True):
                found[row] = [text]
        return [
            each[0] or cut(group.texts[0], self.most, self._offsets) for each, group in zip(found, groups, strict=True)
        ]

    def _parts(self, group: Group) -> list[list[str]]:
        """The texts in runs that fit the context."""
        parts: list[list[str]] = [[]]
        used = 0
        for text in group.texts:
            text = cut(text, self._room - 2, self._offsets)
            size = len(self._offsets(text)) + 2
            if parts[-1] and used + size > self._room:
                parts.append([])
                used = 0
            parts[-1].append(text)
            used += size
        if len(parts) > 1 and not self.hierarchical:
            raise DoesNotFit(
                f"cluster {group.name!r} of {len(group.texts)} texts is longer than the context of {self.lm.name!r} "
                f"({self.lm.context_length} tokens): use hierarchical=true or more clusters",
                metadata={"cluster": group.name, "context": self.lm.context_length},
            )
        return parts

    def _said(self, texts: Sequence[str], call: Call) -> list[str]:
        if call.budget is not None and self.calls + len(texts) > call.budget:
            raise DoesNotFit(
                f"summaries take {self.calls + len(texts)} model calls and more, the budget is {call.budget}",
                metadata={"calls": self.calls + len(texts), "budget": call.budget},
            )
        self.calls += len(texts)
        sampling = Sampling(max_tokens=self.most, temperature=0.0, seed=0)
        ids = [self._ids(text) for text in texts]
        said = [""] * len(texts)
        for place, step in self.lm.generate_all([Generation(each, sampling) for each in ids], call):
            said[place] += step.text
            self.tokens += 1
        self.tokens += sum(map(len, ids))
        return [text.strip() for text in said]

    def _ids(self, text: str) -> list[int]:
        return asked_ids(self.prompt.replace("{texts}", text), self.lm)

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        return self.lm.tokenizer.offsets(text)


def asked_ids(text: str, lm: LM) -> list[int]:
    """Token ids of one turn of a chat, or of the text itself for a model without a template."""
    try:
        return prompt_ids(Prompt(messages=(Message("user", text),)), 0, lm)
    except Unmet:
        return prompt_ids(Prompt(text), 0, lm)
