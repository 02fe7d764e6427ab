"""Methods for the service's tests: honest ones, slow ones and broken ones."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pydantic

from pickaxe import (
    Artifact,
    ArtifactWriter,
    Call,
    Chunk,
    Column,
    Flag,
    Groups,
    Hit,
    Item,
    Items,
    Method,
    Params,
    Progress,
    Prompt,
    Ranked,
    Ranking,
    Scores,
    SearchResults,
    Segment,
    Span,
    hookimpl,
)


class Gate:
    """Holds methods back until the test opens it, and notes what happened."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._event = threading.Event()
        self.entered = threading.Event()
        self.steps = 0
        self.closed = threading.Event()
        self.runs: list[int] = []
        self.calls: list[Call] = []

    def open(self) -> None:
        self._event.set()

    def wait(self) -> None:
        self.entered.set()
        assert self._event.wait(60), "the test never opened the gate"


GATE = Gate()


class Length(Method[Params]):
    """Length of the text; waits at the gate for the text "wait", fails for the text "bad"."""

    scope = "item"
    columns = (Column("length", "Characters.", unit="characters"),)

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        GATE.runs.append(len(items))
        GATE.calls.append(call)
        texts = items.texts()
        if "wait" in texts:
            GATE.wait()
        if "bad" in texts:
            raise ValueError("a bad text")
        return Scores({"length": np.array([len(text) for text in texts], np.float32)})


class Reporting(Method[Params]):
    """A report on the whole call."""

    scope = "pool"
    columns = (Column("length", "Characters."),)

    @hookimpl
    def score(self, items: Items) -> Scores:
        texts = items.texts()
        if "wait" in texts:
            GATE.wait()
        lengths = np.array([len(text) for text in texts], np.float32)
        return Scores({"length": lengths}, summary={"total": float(lengths.sum())})


class Typed(Method[Params]):
    """Every kind of column, groups, summary, flags and segments."""

    scope = "group"
    columns = (
        Column("f32", "A float32.", nullable=True),
        Column("f64", "A float64.", "float64", "s", "lower"),
        Column("i64", "An int64.", "int64", direction="none"),
        Column("flag", "A bool.", "bool"),
        Column("label", "A str.", "str", nullable=True),
    )

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        n = len(items)
        return Scores(
            {
                "f32": np.linspace(np.nan if n else 0, 1, n, dtype=np.float32),
                "f64": np.full(n, 0.1),
                "i64": np.arange(n) + 2**60,
                "flag": np.arange(n) % 2 == 0,
                "label": np.array([f"é{row}" for row in range(n)], np.str_),
            },
            groups=Groups(("a", "b"), {"low": np.array([0.5, 1], np.float32)}, (Column("low", "Low end."),)),
            summary={"seed": call.seed, "curve": [1, 2.5, None], "nested": {"empty": {}}},
            flags=tuple(Flag(row, "SHORT", "too short") for row in range(min(n, 1))),
            segments=tuple((Segment(0, 1, 0.1), Segment(1, 2, -1.5)) for _ in range(n)),
        )


class Stuck(Method[Params]):
    """Hangs, deaf to deadlines and cancelling."""

    columns = (Column("never", "Never."),)

    @hookimpl
    def score(self, items: Items) -> Scores:
        GATE.wait()
        return Scores({"never": np.zeros(len(items), np.float32)})


class BrokenParams(Params):
    how: str = pydantic.Field(default="raise", description="What it does wrong.")


class Broken(Method[BrokenParams]):
    """Does wrong whatever it is told."""

    Params = BrokenParams
    scope = "item"
    columns = (Column("value", "A value."),)

    @hookimpl
    def score(self, items: Items) -> Any:
        match self.params.how:
            case "raise":
                raise RuntimeError("secret internals")
            case "none":
                return None
            case "columns":
                return Scores({"other": np.zeros(len(items))})
            case "rows":
                return Scores({"value": np.zeros(len(items) + 1, np.float32)})
            case "nan":
                return Scores({"value": np.full(len(items), np.nan, np.float32)})
            case "number":
                return Scores({"value": np.zeros(len(items), np.float32)}, summary={"big": {"number": 2**60}})
            case "surrogate":
                return Scores({"value": np.zeros(len(items), np.float32)}, summary={"text": "\ud800"})
            case "stop":
                raise StopIteration
        sys.exit(3)


class Find(Method[Params]):
    """Finds documents by shared words."""

    @hookimpl
    def index(self, documents: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        rows = []
        for row, item in enumerate(documents, 1):
            rows.append([item.id, item.text])
            yield Progress("read", row)
        out.write_json("documents.json", rows)

    @hookimpl
    def search(self, queries: Items, k: int, call: Call) -> SearchResults:
        assert self.artifact is not None
        documents = self.artifact.read_json("documents.json")
        found = []
        for query in queries.texts():
            words = set(query.split())
            hits = [
                Hit(name, float(len(words & set(text.split()))), {"exact": 0.1}, (Span(0, len(text)),))
                for name, text in documents
            ]
            found.append(tuple(sorted(hits, key=lambda hit: -hit.score)[:k]))
        return SearchResults(tuple(found), {"model_calls": float(call.budget or 0)})


class Order(Method[Params]):
    """Orders by length, and cuts the empty ones."""

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int, call: Call) -> Ranking:
        lengths = [len(text) for text in candidates.texts()]
        order = [row for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]) if lengths[row]]
        ranked = tuple(Ranked(row, candidates[row].id, float(lengths[row])) for row in order[:top_n])
        scores = np.array(lengths, np.float32)
        return Ranking(
            ranked, scores, "" if len(ranked) == top_n else "empty texts", {"calls": 2.0}, {"seed": call.seed}
        )


class WordsParams(Params):
    pause: float = pydantic.Field(default=0.0, ge=0, description="Seconds between words.")
    times: int = pydantic.Field(default=1, ge=1, description="How often a word is said at a time.")


class Words(Method[WordsParams]):
    """Says the prompt's words one by one; the word "forever" is said without end, at "bad" it fails."""

    Params = WordsParams

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        GATE.calls.append(call)
        try:
            yield from self._chunks(prompts)
        finally:
            GATE.closed.set()

    def _chunks(self, prompts: Sequence[Prompt]) -> Iterator[Chunk]:
        for row, prompt in enumerate(prompts):
            for word in (prompt.text or "").split():
                if word == "bad":
                    raise RuntimeError("a bad word")
                if word == "hang":
                    GATE.wait()
                while True:
                    GATE.steps += 1
                    yield Chunk(row, 0, (word + " ") * self.params.times, (7, 2**31 + 1), (-0.1, -1 / 3))
                    time.sleep(self.params.pause)
                    if word != "forever":
                        break
            yield Chunk(row, 0, finish_reason="stop", usage={"target_calls": 2.0})
            yield Chunk(row, -1, record={"best": 0, "why": {"votes": [1, 2.5]}})


class Mean(Method[Params]):
    """Distance to the mean length of the examples."""

    scope = "item"
    columns = (Column("distance", "Characters from the mean."),)
    fitted = "required"
    stages = ("measure",)

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        out: ArtifactWriter,
        init_from: Artifact | None,
    ) -> Iterator[Progress]:
        lengths = [len(item.text or "") for item in examples]
        yield Progress("measure", len(lengths), len(lengths), {"mean": float(np.mean(lengths))})
        out.write_json("mean.json", float(np.mean(lengths)))

    @hookimpl
    def score(self, items: Items) -> Scores:
        assert self.artifact is not None
        mean = self.artifact.read_json("mean.json")
        return Scores({"distance": np.array([-abs(len(text) - mean) for text in items.texts()], np.float32)})


class JobParams(Params):
    do: str = pydantic.Field(default="succeed", description="What the job's process does; see job_script.py.")


class Job(Method[JobParams]):
    """Fitted by job_script.py."""

    Params = JobParams
    scope = "item"
    columns = (Column("value", "The number of examples."),)
    fitted = "required"

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter) -> Iterator[Progress]:
        yield Progress("never")

    @hookimpl
    def score(self, items: Items) -> Scores:
        assert self.artifact is not None
        return Scores({"value": np.full(len(items), self.artifact.read_json("count.json"), np.float32)})


METHODS: dict[str, tuple[type[Method[Any]], str]] = {
    "t-length": (Length, "scorer"),
    "t-reporting": (Reporting, "scorer"),
    "t-typed": (Typed, "scorer"),
    "t-stuck": (Stuck, "scorer"),
    "t-broken": (Broken, "scorer"),
    "t-mean": (Mean, "scorer"),
    "t-job": (Job, "scorer"),
    "t-find": (Find, "retriever"),
    "t-order": (Order, "reranker"),
    "t-words": (Words, "decoder"),
}
