"""Scorers with one fault each."""

from dataclasses import replace
from typing import Any

import numpy as np
from broken import fails
from good import GoodGroupScorer, GoodScorer

from pickaxe import Column, Example, Scores, hookimpl


@fails("scorer.columns", "scorer.reads", "anyrole.repeatable", "anyrole.threads", "anyrole.input_kept",
       "anyrole.cancel", "scorer.empty_text", "scorer.odd_text", "scorer.long_text", "scorer.duplicate_ids",
       "scorer.no_items")  # fmt: skip
class WrongColumn(GoodGroupScorer):
    """Returns a column that it did not declare, so that no answer of it can be used."""

    scope = "pool"

    @hookimpl
    def score(self, items: Any) -> Scores:
        return Scores({"other": np.zeros(len(items), np.float32)})


@fails("scorer.columns")
class LowerIsBetter(GoodGroupScorer):
    """Has a primary column whose low rows are the ones to pick."""

    columns = (Column("score", "A loss.", direction="lower"),)


@fails("scorer.no_items")
class NeedsItems(GoodGroupScorer):
    """Takes the mean of nothing."""

    @hookimpl
    def score(self, items: Any) -> Scores:
        max(len(text) for text in items.texts())
        return super().score(items)


@fails("scorer.empty_text")
class NeedsText(GoodGroupScorer):
    """Divides by the length of a text."""

    scope = "pool"

    @hookimpl
    def score(self, items: Any) -> Scores:
        return Scores({"score": np.array([1 / len(text) for text in items.texts()], np.float32)})


@fails("scorer.odd_text")
class AsciiOnly(GoodGroupScorer):
    """Cannot encode most texts."""

    @hookimpl
    def score(self, items: Any) -> Scores:
        for text in items.texts():
            text.encode("ascii")
        return super().score(items)


@fails("scorer.long_text")
class ShortOnly(GoodGroupScorer):
    """Fails on long texts."""

    @hookimpl
    def score(self, items: Any) -> Scores:
        if max(map(len, items.texts()), default=0) > 10_000:
            raise MemoryError("too long")
        return super().score(items)


@fails("scorer.duplicate_ids")
class ByIdentity(GoodScorer):
    """Keeps scores by id."""

    @hookimpl
    def score(self, items: Any, call: Any) -> Scores:
        scores = super().score(items, call)
        last = {item.id: value for item, value in zip(items, scores["score"], strict=True)}
        return replace(scores, columns={**scores.columns, "score": np.array([last[item.id] for item in items], "f")})


@fails("scorer.reads")
class SecretField(GoodScorer):
    """Reads a field that it does not declare."""

    @hookimpl
    def score(self, items: Any, call: Any) -> Scores:
        scores = super().score(items, call)
        secret = np.array([item.get("unread") or 0 for item in items], np.float32)
        return replace(scores, columns={**scores.columns, "score": scores["score"] + secret})


@fails("scorer.example_order")
class WrongOrder(GoodScorer):
    """Shows an example whose order is not the one that comes out."""

    @classmethod
    def example(cls) -> Example:
        return replace(super().example(), items=super().example().items[::-1])


@fails("scorer.permutation")
class ByPlace(GoodScorer):
    """Scores an item by where it stands in the call."""

    @hookimpl
    def score(self, items: Any, call: Any) -> Scores:
        scores = super().score(items, call)
        turned = bool(items and items[0].id == "c" and len(items) > 1)
        return replace(scores, columns={**scores.columns, "score": scores["score"] + turned})


@fails("scorer.splitting", "scorer.duplicate_ids")
class PoolInDisguise(GoodScorer):
    """Claims item scope but compares with the whole pool."""

    @hookimpl
    def score(self, items: Any, call: Any) -> Scores:
        scores = super().score(items, call)
        return replace(scores, columns={**scores.columns, "score": scores["score"] - scores["score"].mean()})
