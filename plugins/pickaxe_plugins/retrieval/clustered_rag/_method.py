"""CRAG: summaries of clusters take the place of retrieved texts, so prompts stay short (arXiv:2406.00029)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
from pydantic import Field

from pickaxe import (
    WHOLE_PROMPT,
    Call,
    Chunk,
    Example,
    Hit,
    InputField,
    Item,
    Items,
    Message,
    Method,
    Progress,
    Prompt,
    SearchResults,
)
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import InvalidItems
from pickaxe.hooks import hookimpl
from pickaxe.index import Documents, DocumentWriter, check_model, check_params, record_model
from pickaxe.index.dense import finite
from pickaxe.lm import Generation, LMParams, read_prompts
from pickaxe_plugins.retrieval.clustered_rag._clusters import Clusters, Settings, cluster
from pickaxe_plugins.retrieval.clustered_rag._texts import BETWEEN, Group, Medoid, Offsets, Sentences, Summaries, words

BAKED_IN = ("k", "summariser", "extract", "summary_tokens", "count", "starts", "order", "n_init", "max_iter")
EVERYTHING = "all"
"""Group of documents without one."""


class Params(LMParams):
    """Parameters of `clustered-rag`."""

    k: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        4, description='Clusters of a group; "auto": as many, from 2 to 8, as give the largest silhouette.'
    )
    encoder: str = Field("encoder", min_length=1, description="Sentence encoder: alias, name or path.")
    summariser: Literal["extractive", "lm"] = Field(
        "extractive", description="What speaks for a cluster: texts taken out of it, or the model's summary."
    )
    extract: Literal["medoid", "sentences"] = Field(
        "medoid", description="The text nearest to the centroid, or the sentences nearest to it while there is room."
    )
    summary_tokens: int = Field(120, ge=1, le=100_000, description="Most tokens of a summary.")
    count: Literal["words", "model"] = Field(
        "words", description="Index: tokens are white-space words, or those of the model.  The decoder counts its own."
    )
    hierarchical: bool = Field(True, description="Summarise clusters beyond the model's context in parts.")
    n_init: int = Field(10, ge=1, le=1000, description="Runs of k-means, of which the one of least inertia counts.")
    max_iter: int = Field(300, ge=1, description="Most rounds of a run.")
    order: Literal["size", "index"] = Field(
        "size", description="Order of summaries: largest cluster first, or by their first members."
    )
    starts: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="Texts of each group, by place, that k-means begins at, in place of random ones and of k."
    )
    summary_prompt: str = Field(
        "Summarise these texts in a few short sentences. Keep facts, numbers and opinions.\n\n{texts}",
        description="What asks for a summary.",
    )
    answer_prompt: str = Field(
        "Answer the question from the context.\n\n{context}\n\nQuestion: {question}\nAnswer:",
        description="Decoder: what the model is given.",
    )
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False, description="Where the request has none; 0 is greedy.")
    max_tokens: int = Field(128, ge=1, description="Most tokens of an answer, where the request has no limit.")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Params:
        for name, needed in (("summary_prompt", ("{texts}",)), ("answer_prompt", ("{context}", "{question}"))):
            if any(getattr(self, name).count(part) != 1 for part in needed):
                raise ValueError(f"{name} must hold {' and '.join(needed)}, once")
        if len(set(self.starts)) < len(self.starts):
            raise ValueError("starts names a text twice")
        return self

    @property
    def settings(self) -> Settings:
        return Settings(self.k, self.n_init, self.max_iter, self.order, self.starts)


@dataclass(frozen=True)
class _Set:
    """The clusters of one set of texts, and what speaks for each."""

    clusters: Clusters
    summaries: tuple[str, ...]
    calls: int
    tokens: int
    """Of the model, read and written, for the summaries."""

    @property
    def context(self) -> str:
        return BETWEEN.join(self.summaries)


class ClusteredRag(Method[Params]):
    """Cluster texts and let one summary of each cluster stand for them: prompts that hardly grow with the texts.

    The retriever's hits are clusters, `group/number`, with their summaries as texts; the decoder does the same with
    the context of a prompt and answers from the summaries.
    """

    title = "Clustered Retrieved Augmented Generation (CRAG)"
    paper = "arXiv:2406.00029"
    version = 1
    Params = Params
    scope = "item"
    reads = (
        InputField("text", "text", "The text, or the question.", False),
        InputField("group", "text", "What the text is about: groups are clustered apart.", False),
        InputField("embedding", "tensor", "Its vector, in place of the encoder's.", False),
    )
    cost = "An encoder call per text and a few rounds of k-means, once; with `lm` a summary per cluster; short prompts."
    reproduced = "XQuAD, the questions of 42 articles, extractive, k = 4: 86 % fewer words, at least 78 % in each."

    @classmethod
    def example(cls) -> Example:
        facts = (
            "The battery lasts two days.", "Charging takes an hour.", "The battery drains fast.",
            "The screen is bright.", "The screen shows every colour.", "Delivery was late.",
        )  # fmt: skip
        texts = tuple(Item(str(row), text) for row, text in enumerate(facts))
        return Example(
            params={"model": "draft", "k": 2, "n_init": 2, "max_tokens": 8},
            documents=texts,
            queries=(Item("q1", "Is the battery good?"), Item("q2", "How is the display?")),
            prompts=(Prompt("Is the battery good?", context=texts), Prompt("And the screen?", context=texts[2:5])),
        )

    # ------------------------------------------------------------ the three steps

    def _set(self, name: str, items: Sequence[Item], offsets: Offsets, call: Call) -> _Set:
        vectors = self._vectors(items, call)
        clusters = cluster(vectors, self.params.settings, call.seed, call)
        groups = [
            Group(f"{name}/{number}", tuple(items[row].text or "" for row in clusters.members(number)), centroid)
            for number, centroid in enumerate(clusters.centroids)
        ]
        writer = self._summariser(offsets)
        return _Set(clusters, tuple(writer.summaries(groups, call)), writer.calls, writer.tokens)

    def _vectors(self, items: Sequence[Item], call: Call) -> np.ndarray:
        """(n, d), all finite; equal texts have equal ones."""
        given = [item.get("embedding") for item in items]
        if all(value is not None for value in given):
            rows = [np.asarray(value, np.float64) for value in given]
            shapes = {row.shape for row in rows}
            if len(shapes) > 1 or rows[0].ndim != 1:
                raise InvalidItems("documents.fields.embedding", f"have shapes {sorted(shapes)}, wanted one of (d,)")
            vectors = np.stack(rows)
            finite(vectors, [item.id for item in items], "documents")
            return vectors
        if any(value is not None for value in given):
            row = next(row for row, value in enumerate(given) if value is None)
            raise InvalidItems("documents.fields.embedding", f"is missing, others have one (item {items[row].id!r})")
        texts = {text: row for row, text in enumerate(dict.fromkeys(item.text or "" for item in items))}
        found = self.host.encoder(self.params.encoder).encode(list(texts), call)
        vectors = np.asarray(found, np.float64)[[texts[item.text or ""] for item in items]]
        finite(vectors, [item.id for item in items], "documents")
        return vectors

    def _summariser(self, offsets: Offsets) -> Medoid | Sentences | Summaries:
        params = self.params
        if params.summariser == "lm":
            lm = self.host.lm(params.model, params.precision)
            return Summaries(lm, params.summary_tokens, params.summary_prompt, params.hierarchical)
        if params.extract == "sentences":
            return Sentences(params.summary_tokens, offsets, self.host.encoder(params.encoder))
        return Medoid(params.summary_tokens, offsets)

    def _offsets(self) -> Offsets:
        if self.params.count == "words":
            return words
        return self.host.lm(self.params.model, self.params.precision).tokenizer.offsets

    # ------------------------------------------------------------ retriever

    @hookimpl
    def index(self, documents: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        yield Progress("cluster", 0)
        groups: dict[str, list[Item]] = {}
        for document in documents:
            groups.setdefault(str(document.get("group") or EVERYTHING), []).append(document)
        if not groups:
            raise InvalidItems("documents", "are none: an index needs at least one document")
        if any(item.get("embedding") is None for items in groups.values() for item in items):
            record_model(out, self.host.encoder(self.params.encoder), self.params.encoder)
        offsets, centroids, told = self._offsets(), [], {}
        with DocumentWriter(out, ("group", "members", "tokens")) as table:
            for number, (name, items) in enumerate(groups.items(), 1):
                made = self._set(name, items, offsets, call)
                for each in self._pseudo_documents(name, items, made, offsets):
                    table.add(each)
                centroids.append(made.clusters.centroids)
                told[name] = _told(items, made, offsets)
                yield Progress("cluster", number, len(groups))
        if len({part.shape[1] for part in centroids}) > 1:
            raise InvalidItems("documents.fields.embedding", "have another width in one group than in another")
        out.write_array("centroids.npy", np.concatenate(centroids))
        out.write_json("groups.json", told)
        for key in ("documents", "tokens_documents", "tokens_context", "index_tokens", "model_calls"):
            out.notes[key] = sum(each[key] for each in told.values())
        out.notes["clusters"] = len(table)

    def _pseudo_documents(self, name: str, items: Sequence[Item], made: _Set, offsets: Offsets) -> Iterator[Item]:
        for number, text in enumerate(made.summaries):
            members = [items[row].id for row in made.clusters.members(number)]
            yield Item(f"{name}/{number}", text, {"group": name, "members": members, "tokens": len(offsets(text))})

    @cached_property
    def _opened(self) -> tuple[Documents, list[dict[str, Any]], np.ndarray]:
        """Clusters as documents, their records, and their centroids of length 1."""
        assert self.artifact is not None  # the handle sees to it
        check_params(self.artifact, self.params, BAKED_IN)
        if "models" in self.artifact.notes:
            check_model(self.artifact, self.host.encoder(self.params.encoder), self.params.encoder)
        table = Documents(self.artifact)
        centroids = np.array(self.artifact.read_array("centroids.npy"))
        lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
        return table, [table.record(row) for row in range(len(table))], centroids / np.where(lengths > 0, lengths, 1)

    @hookimpl
    def search(self, queries: Items, k: int, call: Call) -> SearchResults:
        table, records, centroids = self._opened
        assert self.artifact is not None
        told = self.artifact.read_json("groups.json")
        usage = {"index_documents": float(self.artifact.notes["documents"]), "clusters": float(len(table)),
                 "tokens_documents": 0.0, "tokens_context": 0.0}  # fmt: skip
        results = []
        for query in queries:
            call.check()
            (vector,) = self._vectors([query], call)
            if len(vector) != centroids.shape[1]:
                raise InvalidItems(
                    "queries.fields.embedding",
                    f"has width {len(vector)}, the index has {centroids.shape[1]} (item {query.id!r})",
                )
            length = float(np.linalg.norm(vector))
            cosines = centroids @ vector / (length if length > 0 else 1.0)
            wanted = query.get("group")
            rows = [row for row, record in enumerate(records) if wanted in (None, record["group"])]
            found = sorted(rows, key=lambda row: (-cosines[row], row))[:k]
            results.append(tuple(_hit(records[row], float(cosines[row])) for row in found))
            usage["tokens_context"] += sum(records[row]["tokens"] for row in found)
            usage["tokens_documents"] += sum(
                each["tokens_documents"] for name, each in told.items() if wanted in (None, name)
            )
        return SearchResults(tuple(results), usage)

    # ------------------------------------------------------------ decoder

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        if not prompts:
            return
        params = self.params
        lm = self.host.lm(params.model, params.precision)
        for row, prompt in enumerate(prompts):
            if not prompt.context:
                raise InvalidItems(f"prompts[{row}].context", "is empty: give the texts to answer from")
        offsets = lm.tokenizer.offsets
        made: dict[tuple[Any, ...], _Set] = {}
        left = call.budget
        for prompt in prompts:
            key = _key(prompt.context)
            if key not in made:
                made[key] = self._set("context", prompt.context, offsets, call.with_budget(left))
                left = None if left is None else left - made[key].calls
        sets = [made[_key(prompt.context)] for prompt in prompts]
        asked = [self._filled(prompt, each.context) for prompt, each in zip(prompts, sets, strict=True)]
        plain = [self._filled(prompt, BETWEEN.join(item.text or "" for item in prompt.context)) for prompt in prompts]
        requests = read_prompts(asked, lm, params, call.seed, "clustered-rag")
        before = [len(request.ids) for request in read_prompts(plain, lm, params, call.seed, "clustered-rag")]
        for row, each in enumerate(sets):
            record = _reduction(before[row], len(requests[row].ids), each)
            yield Chunk(row, WHOLE_PROMPT, record={**record, "clusters": _members(prompts[row].context, each)})
        counts: Counter[tuple[int, int]] = Counter()
        generations = [Generation(request.ids, request.sampling) for request in requests]
        with closing(lm.generate_all(generations, call)) as steps:
            for row, step in steps:
                counts[row, step.sample] += 1
                spent = {
                    "prompt_tokens": len(requests[row].ids),
                    "prompt_tokens_before": before[row],
                    "index_tokens": sets[row].tokens,
                    "completion_tokens": counts[row, step.sample],
                }
                yield Chunk(
                    row,
                    step.sample,
                    step.text,
                    (step.token_id,),
                    (min(step.logprob, 0.0),),
                    finish_reason=step.finish_reason,
                    usage={name: float(value) for name, value in spent.items()} if step.finish_reason else {},
                )

    def _filled(self, prompt: Prompt, context: str) -> Prompt:
        """The prompt with its question, or the last turn of its chat, between context and instruction."""
        before, _, after = self.params.answer_prompt.replace("{question}", "\0").partition("{context}")

        def fill(question: str) -> str:
            return f"{before.replace(chr(0), question)}{context}{after.replace(chr(0), question)}"

        if prompt.messages:
            *turns, last = prompt.messages
            return replace(prompt, messages=(*turns, Message(last.role, fill(last.content))))
        return replace(prompt, text=None if prompt.text is None else fill(prompt.text))


def _key(context: Sequence[Item]) -> tuple[Any, ...]:
    return tuple(
        (item.id, item.text, None if (own := item.get("embedding")) is None else repr(own)) for item in context
    )


def _hit(record: dict[str, Any], cosine: float) -> Hit:
    columns = {"cosine": cosine, "members": float(len(record["members"])), "tokens": float(record["tokens"])}
    return Hit(record["id"], cosine, columns)


def _members(items: Sequence[Item], made: _Set) -> list[list[str]]:
    return [[items[row].id for row in made.clusters.members(number)] for number in range(len(made.clusters))]


def _reduction(before: int, after: int, made: _Set) -> dict[str, Any]:
    """Tokens saved, and after how many questions the summaries have paid for themselves."""
    saved = before - after
    return {
        "tokens_before": before,
        "tokens_after": after,
        "reduction": saved / before if before else 0.0,
        "index_tokens": made.tokens,
        "break_even": math.ceil(made.tokens / saved) if saved > 0 else None,
    }


def _told(items: Sequence[Item], made: _Set, offsets: Offsets) -> dict[str, Any]:
    """What an index says of a group."""
    before = len(offsets(BETWEEN.join(item.text or "" for item in items)))
    after = len(offsets(made.context))
    reduction = _reduction(before, after, made)
    return {
        "documents": len(items),
        "tokens_documents": before,
        "tokens_context": after,
        "reduction": reduction["reduction"],
        "index_tokens": made.tokens,
        "model_calls": made.calls,
        "break_even": reduction["break_even"],
        "inertia": made.clusters.inertia,
        "objective": list(made.clusters.objective),
        "labels": {item.id: int(label) for item, label in zip(items, made.clusters.labels, strict=True)},
    }
