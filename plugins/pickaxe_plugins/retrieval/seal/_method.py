"""SEAL: a language model says n-grams that the documents hold, and these find the documents (arXiv:2204.10628)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import Artifact, Call, Example, Hit, InputField, Item, Items, Method, Progress, SearchResults, Span
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import DoesNotFit, InvalidItems, Unmet
from pickaxe.hooks import hookimpl
from pickaxe.index import Documents, DocumentWriter, batched, check_model, check_params, record_model
from pickaxe_plugins.retrieval._token_index import TokenIndex
from pickaxe_plugins.retrieval.seal._keys import Beams, query_spans
from pickaxe_plugins.retrieval.seal._score import Key, Scorer, Settings, Weighed
from pickaxe_plugins.train.settings import Recipe

if TYPE_CHECKING:
    from pickaxe.lm import LM

BATCH = 1024
"""Documents that are tokenised in one go."""
BAKED_IN = ("use_titles",)
DELIMITER = " @@"
"""What closes a title."""


class Params(pickaxe.Params):
    model: str = Field("lm", min_length=1, description="Causal language model: alias, name or path.")
    precision: Literal["auto", "fp32", "fp16", "int8", "int4"] = Field("auto", description="Of its weights.")
    generate: bool = Field(True, description="Let the model say keys; without, keys are the query's own words alone.")
    beam: int = Field(15, ge=1, le=200, description="Hypotheses of the beam search.")
    steps: int = Field(10, ge=1, le=64, description="Tokens of the longest key from a text.")
    title_steps: int = Field(15, ge=1, le=64, description="Tokens of the longest title.")
    use_titles: bool = Field(True, description="Index titles, and let the model say titles too.")
    partial_titles: bool = Field(False, description="Titles that are not complete are keys too.")
    query_keys: bool = Field(True, description="Spans of one to three words of the query are keys.")
    query_logprob: float | None = Field(
        None, lt=0, description="log P of every key from the query, in place of the model's; null: the model says."
    )
    unigrams: int = Field(5000, ge=0, description="Single tokens that count where no key covers them; 0: none.")
    unigram_keys: bool = Field(True, description="The best single tokens are keys too, as many as there are others.")
    alpha: float = Field(2.0, gt=0, description="Power of a key's weight.")
    beta: float = Field(0.8, ge=0, le=1, description="How much a key loses whose tokens others have already.")
    smoothing: float = Field(5.0, ge=0, description="Added to counts.")
    length_penalty: float = Field(0.0, ge=0, lt=1, description="log P of a key of n tokens times (1 - this)^(n - 1).")
    max_hits: int = Field(1500, ge=1, description="Keys that occur more often find no documents of their own.")
    fully_score: int = Field(1500, ge=1, description="Documents that get the full score.")
    allow_overlaps: bool = Field(False, description="Keys may share tokens of a document.")
    single_key: float = Field(0.0, ge=0, le=1, description="Share of the best key's weight in the score.")
    scoring: Literal["lm", "lm_fm", "intersective"] = Field(
        "intersective", description="All keys of a document; or its best one by log odds, or by the model alone."
    )
    body_prompt: str = Field("Question: {query}\nPassage:", description="What a text's keys are said after.")
    title_prompt: str = Field("Question: {query}\nTitle:", description="What titles are said after.")
    passage_prompt: str = Field("Excerpt: {query}\n", description="Fit: put before passages that have no query.")
    language: Literal["pt", "en"] | None = Field("en", description="Fit: no target starts with its stop words.")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Fit: share of the loss against even chances.")
    recipe: Recipe = Field(
        Recipe(epochs=1, batch=8, rate=3e-5, warmup=500, clip=0.1, checkpoint=500),
        description="Fit: how it is trained.",
    )

    @pydantic.field_validator("body_prompt", "title_prompt", "passage_prompt")
    @classmethod
    def _has_query(cls, prompt: str) -> str:
        if prompt.count("{query}") != 1 or prompt.replace("{query}", "").count("{"):
            raise ValueError("must hold {query} once, and no other brace")
        return prompt

    @property
    def settings(self) -> Settings:
        return Settings(**{name: getattr(self, name) for name in Settings.__dataclass_fields__})


class Seal(Method[Params]):
    """Find documents by n-grams that a language model says for the query and that the documents hold.

    Decoding is kept to an FM-index of the documents; a key weighs by how much likelier the query makes it than its
    count does, and a document scores by all keys that it holds.  Spans are the keys' places, the heaviest first.
    """

    title = "Autoregressive Search Engines: Generating Substrings as Document Identifiers"
    paper = "arXiv:2204.10628"
    version = 1
    Params = Params
    reads = (
        InputField("text", "text", "The document, or the question."),
        InputField("title", "text", "The document's title, which is a key too.", required=False),
    )
    fit_reads = (
        InputField("text", "text", "The question."),
        InputField("gold", "text", "The passage that answers it."),
        InputField("title", "text", "Its title.", required=False),
    )
    fitted = "optional"
    stages = ("train",)
    cost = "Two beam searches per query: steps + title_steps model calls of `beam` rows; scoring takes milliseconds."
    reproduced = "Index queries, weights and scores of the authors' code; its model was not trained again."

    @classmethod
    def example(cls) -> Example:
        documents = (
            Item("rain", "The rain in Spain stays mainly in the plain.", {"title": "Rain"}),
            Item("tea", "Green tea is brewed at about 80 degrees, black tea with boiling water.", {"title": "Tea"}),
            Item("moon", "The Moon turns once on its axis for every orbit around the Earth.", {"title": "Moon"}),
        )
        return Example(
            params={
                "model": "draft", "precision": "fp32", "smoothing": 0.0, "query_logprob": -1.0,
                "beam": 3, "steps": 3, "title_steps": 3,
                "recipe": {"epochs": 1, "batch": 16, "rate": 1e-4, "warmup": 1},
            },
            documents=documents,
            examples=(Item("q", "Where does the rain stay?", {"gold": documents[0].text or "", "title": "Rain"}),),
            queries=(Item("q1", "How hot should water for green tea be?"), Item("q2", "Where does the rain stay?")),
        )  # fmt: skip

    # ------------------------------------------------------------ index

    @hookimpl
    def index(self, documents: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        params, lm = self.params, self._lm
        record_model(out, TokenizerOf(lm), params.model, role="tokenizer")
        end = self._end(lm)
        kind = np.uint16 if lm.tokenizer.vocab_size <= 2**16 else np.uint32
        parts: list[np.ndarray] = []
        lengths: list[int] = []
        with DocumentWriter(out, ("title",)) as table:
            for group in batched(documents, BATCH):
                call.check()
                for document in group:
                    table.add(document)
                rows = lm.tokenizer.encode_batch([self._string(document) for document in group])
                parts.append(np.array([token for row in rows for token in (*row, end)], kind))
                lengths += [len(row) + 1 for row in rows]
                yield Progress("index", len(table))
        tokens = np.concatenate(parts)
        if int(tokens.max()) >= lm.vocab_size:
            raise InvalidItems("documents", f"hold token {tokens.max()}; model {params.model!r} has {lm.vocab_size}")
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        TokenIndex.of(tokens, starts).save(out)
        out.notes |= {"tokens": len(tokens), "end": end}
        if self.artifact is not None:
            _copy_model(self.artifact, out)

    def _string(self, document: Item) -> str:
        """The document as it is indexed: title, delimiter, text, each after a blank; nothing for an empty one."""
        title, text = self._title(document), document.text or ""
        return (f" {title}{DELIMITER}" if title else "") + (f" {text}" if text.strip() else "")

    def _title(self, document: Item) -> str:
        return str(document.get("title") or "").strip() if self.params.use_titles else ""

    # ------------------------------------------------------------ models

    @cached_property
    def _lm(self) -> LM:
        """The fitted model where there is one."""
        if self.artifact is not None and self.artifact.has("model.safetensors"):
            return self.host.lm_at(self.artifact.path, self.params.precision)
        return self.host.lm(self.params.model, self.params.precision)

    @staticmethod
    def _end(lm: LM) -> int:
        if not lm.tokenizer.eos_ids:
            raise Unmet(f"model {lm.name!r} has no token that ends a text, which must close documents")
        return lm.tokenizer.eos_ids[0]

    @cached_property
    def _opened(self) -> tuple[Documents, TokenIndex]:
        assert self.artifact is not None  # the handle sees to it
        check_params(self.artifact, self.params, BAKED_IN)
        check_model(self.artifact, TokenizerOf(self._lm), self.params.model, role="tokenizer")
        return Documents(self.artifact), TokenIndex.open(self.artifact)

    # ------------------------------------------------------------ search

    @hookimpl
    def search(self, queries: Items, k: int, call: Call) -> SearchResults:
        documents, index = self._opened
        self._check_budget(len(queries), call)
        lm = self._lm
        beams = Beams(lm, index, self.params.beam, sorted(lm.tokenizer.special_ids | {self._end(lm)}))
        scorer = Scorer(index, self.params.settings, self._end(lm))
        keys = 0
        results: list[tuple[Hit, ...]] = []
        for text in queries.texts():
            call.check()
            if not text.strip():
                results.append(())
                continue
            weighed = self._weighed(text, beams, call)
            keys += len(weighed.keys)
            found = scorer.best(weighed, k)
            results.append(tuple(self._hit(documents, scorer, weighed, row, score) for row, score in found))
        spent = {"model_calls": beams.calls, "model_tokens": beams.tokens, "keys": keys}
        usage = {name: float(value) for name, value in spent.items()}
        return SearchResults(tuple(results), {"index_documents": float(len(documents)), **usage})

    def _check_budget(self, queries: int, call: Call) -> None:
        """Raise `DoesNotFit` when the most that the queries can take is more than the call may spend."""
        params = self.params
        said = params.steps + params.use_titles * params.title_steps if params.generate else int(params.unigrams > 0)
        calls = queries * (said + (params.query_keys and params.query_logprob is None))
        if call.budget is not None and calls > call.budget:
            raise DoesNotFit(
                f"{queries} queries take up to {calls} model calls, the budget is {call.budget}: lower steps and "
                "title_steps, or use generate=false",
                metadata={"calls": calls, "budget": call.budget},
            )

    def _weighed(self, query: str, beams: Beams, call: Call) -> Weighed:
        """All keys of one query with their weights."""
        params, lm, index = self.params, beams.lm, beams.index
        prompt = self._prompt(params.body_prompt, query)
        logprobs: dict[Key, float] = {}
        first: np.ndarray | None = None
        if params.generate:
            logprobs, first = beams.keys(prompt, params.steps, call)
            if params.use_titles:
                ending = lm.tokenizer.encode(DELIMITER)
                titles, _ = beams.keys(
                    self._prompt(params.title_prompt, query), params.title_steps, call,
                    start=[self._end(lm)], ending=ending, partial=params.partial_titles,
                )  # fmt: skip
                logprobs |= titles
        elif params.unigrams:
            first = beams.first(prompt, call)
        if params.query_keys:
            rows = lm.tokenizer.encode_batch([f" {span}" for span in query_spans(query)])
            own = [key for key in dict.fromkeys(map(tuple, rows)) if key]
            here = [key for key, count in zip(own, index.counts(own).tolist(), strict=True) if count]
            if params.query_logprob is None:
                logprobs |= beams.score(prompt, [key for key in here if key not in logprobs], call)
            else:
                logprobs |= dict.fromkeys(here, params.query_logprob)
        special = sorted(lm.tokenizer.special_ids)
        return Weighed.of(index, logprobs, first, params.settings, special, lm.vocab_size)

    def _prompt(self, template: str, query: str) -> list[int]:
        return self._lm.tokenizer.encode(template.format(query=query.strip()), add_special=True)

    def _hit(self, documents: Documents, scorer: Scorer, weighed: Weighed, row: int, score: float) -> Hit:
        """With the places of its keys in the text, those that added most first."""
        document = documents.item(row)
        text, string = document.text or "", self._string(document)
        places = self._lm.tokenizer.offsets(string)
        before = len(string) - len(text)
        spans: dict[Span, None] = {}
        title = best = 0.0
        taken = scorer.explain(weighed, row)
        for match in sorted(taken, key=lambda match: -match.gain):
            start, end = places[max(match.start, 0)][0], places[match.end - 1][1] - before
            best = max(best, match.gain)
            if start + 1 < before:  # the blank before the text belongs to its first token
                title += match.gain
            start = max(start - before, 0)
            start += len(text[start:end]) - len(text[start:end].lstrip())
            if start < end:
                spans[Span(start, end)] = None
        columns = {"keys": float(len({match.key for match in taken})), "best_key": best, "title": title}
        return Hit(document.id, score, columns, tuple(spans))

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], unlabelled: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        from pickaxe_plugins.retrieval.seal._train import Training

        yield from Training(self.params, self.host, out, call).run(examples, unlabelled)


class TokenizerOf:
    """A model known by its tokenizer: any model that shares it can search."""

    def __init__(self, lm: LM) -> None:
        self.digest = lm.tokenizer.digest


def _copy_model(artifact: Artifact, out: ArtifactWriter) -> None:
    """A fitted model goes into the index."""
    for name in sorted(artifact.manifest["files"]):
        if name.endswith(".safetensors") or name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            out.file(name).write_bytes(artifact.file(name).read_bytes())
