"""Rankers for the tests of `fullrank`: a decoder that says what it is told, and the longest text first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

import pickaxe
from pickaxe import Chunk, Column, Item, Items, Method, Prompt, Ranked, Ranking, Scores
from pickaxe.hooks import hookimpl


class Says(Method[pickaxe.Params]):
    """A decoder that writes `text`, whatever it is asked."""

    text: ClassVar[str] = ""
    asked: ClassVar[list[Prompt]] = []

    @hookimpl
    def decode(self, prompts: Sequence[Prompt]) -> Iterator[Chunk]:
        self.asked.extend(prompts)
        for row in range(len(prompts)):
            yield Chunk(prompt=row, text=self.text, token_ids=(1, 2), finish_reason="stop")


class Longest(Method[pickaxe.Params]):
    """A scorer: the longer the text, the better."""

    columns = (Column("length", "Characters."),)
    seen: ClassVar[list[Items]] = []

    @hookimpl
    def score(self, items: Items) -> Scores:
        self.seen.append(items)
        return Scores({"length": np.array([float(len(item.text or "")) for item in items])})


class LongestFirst(Method[pickaxe.Params]):
    """The same as a reranker, which keeps the best two of a window."""

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int) -> Ranking:
        order = sorted(range(len(candidates)), key=lambda row: -len(candidates[row].text or ""))[:2]
        ranked = tuple(Ranked(row, candidates[row].id, 1.0) for row in order)
        return Ranking(ranked, cut="keeps two", usage={"looks": 1})


def texts(lengths: Sequence[int]) -> list[Item]:
    return [Item(f"c{row}", "x" * length) for row, length in enumerate(lengths)]
