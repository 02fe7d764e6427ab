"""Faults that any role can have."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
from broken import fails
from good import GoodGroupScorer, GoodScorer
from good import Params as GoodParams
from pydantic import ConfigDict, Field, field_serializer

from pickaxe import Example, Progress, Scores, hookimpl


@fails("anyrole.loads")
class OddScope(GoodGroupScorer):
    """Has a scope that does not exist."""

    scope = "rows"


@fails("anyrole.card")
class NoTitle(GoodGroupScorer):
    """Has no title."""

    title = ""


@fails("anyrole.card")
class NoDocstring(GoodGroupScorer):
    pass


@fails("anyrole.card")
class SilentParameter(GoodGroupScorer):
    """Does not say what a parameter is."""

    class Params(GoodParams):
        silent: int = 3


@fails("anyrole.example")
class NoValidExample(GoodScorer):
    """Forgets to give examples for fit."""

    fitted = "never"

    @classmethod
    def example(cls) -> Example:
        return replace(super().example(), examples=())

    @hookimpl
    def fit(self, out: Any) -> Iterator[Progress]:
        out.write_json("words.json", [])
        yield Progress("count", 1)

    merge = None


@fails("anyrole.constructor")
class BusyConstructor(GoodGroupScorer):
    """Opens a model in its constructor."""

    def __init__(self, params: Any, host: Any, artifact: Any = None) -> None:
        super().__init__(params, host, artifact)
        self.where = host.artifact_path("anything")


@fails("anyrole.defaults", "anyrole.schema_round_trip")
class BadDefault(GoodGroupScorer):
    """Has a default that it would refuse."""

    class Params(GoodParams):
        share: float = Field(2.0, le=1, description="A share.")


@fails("anyrole.schema_round_trip")
class OddSerialiser(GoodGroupScorer):
    """Writes a parameter as it cannot be read."""

    class Params(GoodParams):
        size: int = Field(5, description="A size.")

        @field_serializer("size")
        def _size(self, value: int) -> str:
            return f"{value} bytes"


@fails("anyrole.bounds")
class LooseBound(GoodGroupScorer):
    """Declares a bound in the schema alone."""

    class Params(GoodParams):
        depth: int = Field(3, description="A depth.", json_schema_extra={"minimum": 1})


@fails("anyrole.unknown_parameter")
class AnyParameter(GoodGroupScorer):
    """Ignores parameters that it does not know."""

    class Params(GoodParams):
        model_config = ConfigDict(extra="ignore")


@fails("anyrole.repeatable", "anyrole.threads", "scorer.reads")
class Drifting(GoodGroupScorer):
    """Scores higher with every call."""

    scope = "pool"
    calls = count()

    @hookimpl
    def score(self, items: Any) -> Scores:
        return Scores({"score": np.full(len(items), next(self.calls), np.float32)})


@fails("anyrole.threads")
class SharedScratch(GoodGroupScorer):
    """Keeps what a call works on in the object."""

    scope = "pool"

    @hookimpl
    def score(self, items: Any) -> Scores:
        self.busy = getattr(self, "busy", 0) + 1
        time.sleep(0.02)
        crowd = self.busy
        time.sleep(0.02)
        self.busy -= 1
        return Scores({"score": np.full(len(items), crowd, np.float32)})


@fails("anyrole.processes")
class HashOrder(GoodGroupScorer):
    """Depends on Python's hash of a string."""

    scope = "pool"

    @hookimpl
    def score(self, items: Any) -> Scores:
        return Scores({"score": np.array([hash(text) % 1000 for text in items.texts()], np.float32)})


@fails("anyrole.input_kept")
class Scribbler(GoodGroupScorer):
    """Writes into the items that it was given."""

    @hookimpl
    def score(self, items: Any) -> Scores:
        for item in items:
            item.fields["seen"] = True
        return super().score(items)


@fails("anyrole.cancel")
class DeafScorer(GoodGroupScorer):
    """Does not look whether anybody still waits."""

    scope = "pool"

    @hookimpl
    def score(self, items: Any) -> Scores:
        time.sleep(0.01 * len(items))
        return Scores({"score": np.zeros(len(items), np.float32)})
