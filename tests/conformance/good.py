"""Small methods without a fault, one per role: the kit must find nothing in them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import (
    Artifact,
    ArtifactWriter,
    Call,
    Chunk,
    Column,
    Example,
    Hit,
    InputField,
    Item,
    Items,
    Message,
    Method,
    Progress,
    Prompt,
    Ranked,
    Ranking,
    Scores,
    SearchResults,
    hookimpl,
)

WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")
TEXTS = InputField("text", "text", "What is read.")


class Params(pickaxe.Params):
    weight: float = Field(1.0, ge=0, le=10, description="What every score is multiplied with.")
    mode: Literal["plain", "lower"] = Field("plain", description="Whether texts are lowered first.")
    limit: int | None = Field(None, ge=1, description="How many characters are read; all by default.")


class Base(Method[Params]):
    title = "A method to test the kit with"
    paper = "own work"
    Params = Params
    cost = "One pass."

    def words(self, text: str | None) -> list[str]:
        read = (text or "")[: self.params.limit]
        return (read.lower() if self.params.mode == "lower" else read).split()


class GoodScorer(Base):
    """Counts words, less those that were seen in fit."""

    scope = "item"
    reads = (TEXTS, InputField("bonus", "float64", "Added to the score.", required=False))
    fit_reads = (TEXTS,)
    columns = (Column("score", "Words counted."), Column("length", "Characters.", "int64", direction="none"))
    fitted = "optional"
    stages = ("count", "write")

    @classmethod
    def example(cls) -> Example:
        return Example(
            items=(Item("a", "one two three", {"bonus": 1.0, "unread": 5}), Item("b", "one two"), Item("c", "and")),
            ordered=True,
            examples=(Item("e", "known words"), Item("f", "and known"), Item("g", "and more")),
        )

    def known(self) -> set[str]:
        return set(self.artifact.read_json("words.json")) if self.artifact else set()

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        known, scores = self.known(), np.zeros(len(items), np.float32)
        for row, item in enumerate(items):
            call.check()
            bonus = item.get("bonus") or 0.0
            scores[row] = self.params.weight * (sum(word not in known for word in self.words(item.text)) + bonus)
        lengths = np.array([len(text) for text in items.texts()], np.int64)
        return Scores({"score": scores, "length": lengths})

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter) -> Iterator[Progress]:
        if not out.done("count"):
            words: set[str] = set()
            for row, item in enumerate(examples):
                words.update(self.words(item.text))
                yield Progress("count", row + 1)
            out.write_json("words.json", sorted(words))
            out.finish("count")
        yield Progress("write", 1, 1)

    @hookimpl
    def merge(self, artifacts: Sequence[Artifact], out: ArtifactWriter) -> Iterator[Progress]:
        out.write_json("words.json", sorted({word for part in artifacts for word in part.read_json("words.json")}))
        yield Progress("write", 1, 1)


class GoodGroupScorer(Base):
    """The length of a text against the mean of its group."""

    scope = "group"
    reads = (TEXTS, InputField("group", "text", "What belongs together."))
    columns = (Column("score", "Characters above the mean."),)

    @classmethod
    def example(cls) -> Example:
        rows = (("x", "long text"), ("y", "a text"), ("x", "short"), ("y", "longer text"))
        return Example(items=tuple(Item(str(row), text, {"group": key}) for row, (key, text) in enumerate(rows)))

    @hookimpl
    def score(self, items: Items) -> Scores:
        lengths = np.array([len(text) for text in items.texts()], np.float64)
        groups = items.column("group")
        means = np.array([lengths[groups == key].mean() for key in groups])
        return Scores({"score": (lengths - means).astype(np.float32)})


class GoodRetriever(Base):
    """Finds documents that share words with the query."""

    fitted = "optional"
    stages = ("count",)
    fit_reads = (TEXTS,)

    @classmethod
    def example(cls) -> Example:
        documents = tuple(Item(f"d{row}", " ".join(WORDS[row : row + 3])) for row in range(4))
        return Example(
            documents=documents,
            queries=(Item("q", "gamma delta"), Item("r", "alpha")),
            examples=(Item("s", "the"), Item("t", "a")),
        )

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter) -> Iterator[Progress]:
        out.write_json("stop.json", sorted({word for item in examples for word in self.words(item.text)}))
        yield Progress("count", 1, 1)

    @hookimpl
    def index(self, documents: Iterable[Item], out: ArtifactWriter) -> Iterator[Progress]:
        stop = set(self.artifact.read_json("stop.json")) if self.artifact else set()
        texts = {}
        for row, document in enumerate(documents):
            texts[document.id] = [word for word in self.words(document.text) if word not in stop]
            yield Progress("index", row + 1)
        out.write_json("texts.json", texts)

    @hookimpl
    def search(self, queries: Items, k: int, call: Call) -> SearchResults:
        assert self.artifact is not None
        texts = self.artifact.read_json("texts.json")
        results = []
        for query in queries:
            call.check()
            wanted = set(self.words(query.text))
            hits = [Hit(name, float(len(wanted & set(words)))) for name, words in texts.items() if wanted & set(words)]
            results.append(tuple(sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]))
        return SearchResults(tuple(results), usage={"documents": len(texts)})


class GoodReranker(Base):
    """Longest candidate first."""

    @classmethod
    def example(cls) -> Example:
        texts = ("a b", "a b c", "a", "a b c d")
        return Example(query=Item("q", "a"), candidates=tuple(Item(f"c{row}", text) for row, text in enumerate(texts)))

    @hookimpl
    def rerank(self, candidates: Items, top_n: int, call: Call) -> Ranking:
        scores = np.array([len(text) for text in candidates.texts()], np.float32)
        rows = sorted(range(len(candidates)), key=lambda row: (-scores[row], candidates[row].id))[:top_n]
        return Ranking(tuple(Ranked(row, candidates[row].id, float(scores[row])) for row in rows), scores)


class GoodDecoder(Base):
    """Draws words at random."""

    @classmethod
    def example(cls) -> Example:
        return Example(prompts=(Prompt("once"), Prompt(messages=(Message("user", "upon"),))))

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        for row, prompt in enumerate(prompts):
            for choice in range(prompt.sampling.n):
                yield from self.choice(row, choice, prompt, call)

    def choice(self, row: int, choice: int, prompt: Prompt, call: Call) -> Iterator[Chunk]:
        sampling = prompt.sampling
        seed = call.seed if sampling.seed is None else sampling.seed
        tokens = [int(token) for token in pickaxe.generator(seed, row, choice).integers(len(WORDS), size=6)]
        text, reason = "", "length"
        count = 0
        for count, token in enumerate(tokens[: sampling.max_tokens], 1):  # noqa: B007  the count is used below
            call.check()
            whole = text + WORDS[token]
            ends = [whole.index(stop) for stop in sampling.stop if stop in whole]
            piece = whole[len(text) : max(len(text), min(ends))] if ends else WORDS[token]
            yield Chunk(row, choice, piece, (token,), (-1.5,))
            text = whole
            if ends:
                reason = "stop"
                break
        yield Chunk(row, choice, finish_reason=reason, usage={"completion_tokens": count})


GOOD = (GoodScorer, GoodGroupScorer, GoodRetriever, GoodReranker, GoodDecoder)
