"""Small scorers, and short ways to write stages and pools, for the tests of `selector`."""

from typing import Any, ClassVar

import numpy as np

import pickaxe
from pickaxe import Call, Column, Item, Items, Method, Scores, hookimpl


class Shout(Method[pickaxe.Params]):
    """Upper case, how long it was, and a reason where it was too short."""

    scope = "item"
    columns = (
        Column("length", "characters", "float64"),
        Column("text", "louder", "str", direction="none"),
        Column("reason", "why", "str", direction="none", nullable=True),
        Column("burden", "less is better", "float64", direction="lower"),
    )

    seen: ClassVar[list[str]] = []

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        texts = items.texts()
        self.seen.extend(texts)
        lengths = np.array([float(len(text)) for text in texts])
        reasons = ["short" if length < 4 else "" for length in lengths]
        louder = [text.upper() for text in texts]
        return Scores({"length": lengths, "text": np.array(louder), "reason": np.array(reasons), "burden": lengths})


class Place(Method[pickaxe.Params]):
    """The share of the pool before each item, so that its pool can be told from its scores."""

    scope = "pool"
    columns = (Column("place", "share of the pool", "float64"),)

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        return Scores({"place": np.arange(len(items)) / max(1, len(items))})


def stage(name: str, kind: str, utility: Any = None, **given: Any) -> dict[str, Any]:
    outer = {key: given.pop(key) for key in ("combine", "on_missing", "edit") if key in given}
    return {"name": name, "utility": utility, "mechanism": {"kind": kind, **given}, **outer}


def pool(*qualities: float | None, text: str = "some text") -> list[Item]:
    return [
        Item(f"d{row}", f"{text} {row}", {} if quality is None else {"q": quality})
        for row, quality in enumerate(qualities)
    ]


def run(stages: list[dict[str, Any]], items: list[Item], **given: Any) -> Scores:
    return pickaxe.scorer("selector", stages=stages, **given).score(items)


Q = {"column": "q"}
