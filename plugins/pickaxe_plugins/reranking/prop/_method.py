"""PROP as a reranker: `fit` pre-trains a cross-encoder on documents alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from pickaxe import Artifact, Call, Example, InputField, Item, Items, Method, Progress, Ranked, Ranking
from pickaxe.artifact import ArtifactWriter
from pickaxe.encoder.graph import read_config
from pickaxe.hooks import hookimpl
from pickaxe_plugins.reranking.prop import _statistics
from pickaxe_plugins.reranking.prop._pairs import Sampler
from pickaxe_plugins.reranking.prop._scorer import STEP, LanguageModelParams, enough
from pickaxe_plugins.reranking.prop._statistics import Collector, Statistics
from pickaxe_plugins.reranking.prop._stemmer import stem

if TYPE_CHECKING:
    from pickaxe.cross_encoder import CrossEncoder
    from pickaxe_plugins.reranking.prop._training import Document


class Params(LanguageModelParams):
    base: str = Field("encoder", min_length=1, description="fit: the BERT that training begins with.")
    layers: int | None = Field(None, ge=1, description="fit: keep only its first layers; null: all.")
    max_len: int = Field(512, ge=16, description="fit: longer pairs are cut; so they are when it reranks.")
    long_documents: Literal["cut", "max"] = Field(
        "cut", description="Cut long candidates, or take the highest score of their windows."
    )
    poisson_lambda: float = Field(3.0, ge=0.1, le=100, description="fit: mean number of words, before 0 is redrawn.")
    pairs_per_doc: int = Field(10, ge=1, description="fit: pairs of word sets drawn for a document.")
    used_pairs: int = Field(5, ge=1, description="fit: how many of them an epoch uses.")
    support_size: int = Field(500, ge=1, description="fit: different words that a document's sets are drawn from.")
    subsample_t: float = Field(1e-4, gt=0, description="fit: frequency above which drawn words are passed over.")
    keep_ties: bool = Field(False, description="fit: take the second of equally likely sets, as the official code.")
    skip_short: float = Field(0.8, ge=0, le=1, description="fit: share of documents below 100 tokens left out.")
    mlm_prob: float = Field(0.15, gt=0, lt=1, description="fit: share of the document's words that are masked.")
    max_mlm: int = Field(60, ge=1, description="fit: most words masked in one input.")
    dynamic_masking: bool = Field(True, description="fit: mask other words in every epoch.")
    loss: Literal["softmax_margin", "margin"] = Field(
        "softmax_margin", description="fit: hinge between shares of a softmax (code) or between scores (paper)."
    )
    epochs: int = Field(1, ge=1, description="fit: how often each document is used.")
    batch: int = Field(16, ge=1, description="fit: pairs of one step.")
    rate: float = Field(2e-5, gt=0, description="fit: highest learning rate.")
    warmup: float = Field(0.1, ge=0, le=1, description="fit: share of the steps until the highest rate.")
    decay: float = Field(0.01, ge=0, description="fit: weight decay of matrices.")
    dropout: float = Field(0.1, ge=0, lt=1, description="fit: share of activations dropped.")
    checkpoint: int = Field(200, ge=1, description="fit: steps between the points at which an interrupted fit resumes.")

    @model_validator(mode="after")
    def _enough_pairs(self) -> Params:
        if self.used_pairs > self.pairs_per_doc:
            raise ValueError(f"used_pairs is {self.used_pairs}, of pairs_per_doc {self.pairs_per_doc}")
        return self


class Prop(Method[Params]):
    """Passages by a cross-encoder that was trained on documents alone, to prefer words that represent them.

    `fit` draws pairs of word sets for each document and labels them by the document's language model; no query and no
    judgement is needed.  The result ranks as it is, and is a starting point for `cross-encoder`.
    """

    title = "PROP: Pre-training with Representative Words Prediction for Ad-hoc Retrieval"
    paper = "arXiv:2010.10137"
    version = 1
    Params = Params
    reads = (InputField("text", "text", "The query, or the passage."),)
    fit_reads = (InputField("text", "text", "A document."),)
    fitted = "required"
    stages = ("statistics", "train")
    cost = "One model call per passage; fit: ten inputs of up to 512 tokens per document and epoch."
    reproduced = "The reference case: language models, draws, labels, losses and layout; see the page for the rest."

    @classmethod
    def example(cls) -> Example:
        texts = (
            "The rain in Spain stays mainly in the plain, and rain falls on the hills of Spain.",
            "Green tea is brewed with hot water, black tea with boiling water.",
            "The Moon turns once on its axis for every orbit of the Moon around the Earth.",
        )
        return Example(
            params={
                "layers": 1, "max_len": 32, "min_cf": 0, "skip_short": 0, "batch": 2, "pairs_per_doc": 1,
                "used_pairs": 1, "support_size": 10,
            },
            examples=tuple(Item(str(row), text) for row, text in enumerate(texts)),
            query=Item("q", "hot water for tea"),
            candidates=tuple(Item(name, text) for name, text in zip(("rain", "tea", "moon"), texts, strict=True)),
        )  # fmt: skip

    # ------------------------------------------------------------ rerank

    @cached_property
    def _model(self) -> CrossEncoder:
        assert self.artifact is not None  # the handle sees to it
        return self.host.cross_encoder_at(self.artifact.path)

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int, call: Call) -> Ranking:
        asked = query.text or ""
        windows = [self._windows(asked, item.text or "") for item in candidates]
        found = self._model.score([(asked, window) for each in windows for window in each], call)
        starts = np.cumsum([0, *map(len, windows)])[:-1]
        scores = np.maximum.reduceat(found, starts).astype(np.float32)
        order = np.argsort(-scores, kind="stable")[:top_n]
        ranked = tuple(Ranked(int(row), candidates[row].id, float(scores[row])) for row in order)
        return Ranking(ranked, scores, usage={"model_calls": float(len(found))})

    def _windows(self, query: str, text: str) -> list[str]:
        """The text, or the parts of it that fit beside the query one by one."""
        if self.params.long_documents == "cut":
            return [text]
        tokenizer = self._model.tokenizer
        room = max(16, self._model.max_tokens - 3 - len(tokenizer.encode(query)))
        places = tokenizer.offsets(text)
        if len(places) <= room:
            return [text]
        firsts = range(0, len(places), room)
        return [text[places[first][0] : places[min(first + room, len(places)) - 1][1]] for first in firsts]

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        out: ArtifactWriter,
        init_from: Artifact | None,
        call: Call,
    ) -> Iterator[Progress]:
        from pickaxe_plugins.reranking.prop import _training

        collector = Collector(self.params.stem)
        texts: list[tuple[Item, list[str]]] = []
        for row, item in enumerate(examples, 1):
            texts.append((item, collector.add(item.text or "")))
            if row % STEP == 0:
                call.check()
                yield Progress("statistics", row)
        enough(collector)
        found = collector.finish()
        found.write(out)
        out.notes["skipped_documents"] = collector.skipped
        yield Progress("statistics", len(texts))
        sampler = self.sampler(found, collector.forms())
        documents = list(self._read(texts, sampler, call))
        held = [(item, self._words(item.text or "")) for item in validation or ()]
        start = self.host.model_path(self.params.base) if init_from is None else init_from.path
        shared: Any = read_config(start).get("words_from")
        words = None if shared is None else self.host.model_path(shared)
        yield from _training.train(
            documents, list(self._read(held, sampler, call)), start, words, self.params, out, call
        )

    def sampler(self, found: Statistics, forms: dict[str, dict[str, int]] | None = None) -> Sampler:
        """What draws pairs by these parameters."""
        params = self.params
        return Sampler(
            found,
            found.background(params.background, params.min_cf),
            found.keep(params.subsample_t),
            params.weight(found),
            params.poisson_lambda,
            params.support_size,
            params.keep_ties,
            forms,
        )

    def _words(self, text: str) -> list[str]:
        found = _statistics.words(text)
        return [stem(word) for word in found] if self.params.stem else found

    def _read(self, texts: Iterable[tuple[Item, list[str]]], sampler: Sampler, call: Call) -> Iterator[Document]:
        from pickaxe_plugins.reranking.prop import _training

        for item, words in texts:
            call.check()
            if words:
                counts = sampler.statistics.counts(words)
                yield _training.read(item.id, item.text or "", counts, sampler, self.params.pairs_per_doc, call.seed)
