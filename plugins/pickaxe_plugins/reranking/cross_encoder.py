"""Pairs of query and passage read together by a small BERT (arXiv:1901.04085), which `fit` trains for a collection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Artifact, Call, Example, InputField, Item, Items, Method, Progress, Ranked, Ranking
from pickaxe.artifact import ArtifactWriter
from pickaxe.encoder.graph import read_config
from pickaxe.errors import InvalidItems
from pickaxe.hooks import hookimpl

if TYPE_CHECKING:
    from pickaxe.cross_encoder import CrossEncoder
    from pickaxe_plugins.reranking._pair_training import Query


class Params(pickaxe.Params):
    model: str = Field(
        "cross-encoder", min_length=1, description="Cross-encoder: alias, name or path.  A fitted artifact goes first."
    )
    precision: Literal["fp32", "int8"] = Field(
        "fp32", description="Of its products, on a CPU: as the model is, or in 8 bits, in about half the time."
    )
    base: str = Field("encoder", min_length=1, description="fit: the BERT that training begins with.")
    layers: int | None = Field(None, ge=1, description="fit: keep only its first layers; null: all.")
    max_tokens: int = Field(256, ge=16, description="fit: longer pairs are cut; so they are when it reranks.")
    negatives: int = Field(7, ge=1, description="fit: other passages that each query's right one is compared with.")
    freeze_words: bool = Field(True, description="fit: the word embeddings stay as they are.")
    epochs: int = Field(2, ge=1, description="fit: how often each query is used.")
    batch: int = Field(8, ge=1, description="fit: queries of one step.")
    rate: float = Field(5e-5, gt=0, description="fit: highest learning rate.")
    warmup: float = Field(0.1, ge=0, le=1, description="fit: share of the steps until the highest rate.")
    decay: float = Field(0.01, ge=0, description="fit: weight decay of matrices.")
    dropout: float = Field(0.1, ge=0, lt=1, description="fit: share of activations dropped.")
    clip: float = Field(1.0, gt=0, description="fit: largest norm of a gradient.")
    checkpoint: int = Field(200, ge=1, description="fit: steps between the points at which an interrupted fit resumes.")


class CrossEncoderReranker(Method[Params]):
    """Passages by what a cross-encoder says of each together with the query.

    Without an artifact it uses a shipped model of six small layers.  `fit` trains one from queries, their right
    passages and, where given, passages that look right and are not.
    """

    title = "Passage Re-ranking with BERT"
    paper = "arXiv:1901.04085"
    version = 1
    Params = Params
    reads = (
        InputField("text", "text", "The query, or the passage."),
        InputField("title", "text", "The passage's title, read before its text.", required=False),
    )
    fit_reads = (
        InputField("text", "text", "The query."),
        InputField("positive", "text", "A passage that answers it."),
        InputField("negatives", "texts", "Passages that do not, best those that look as if.", required=False),
    )
    fitted = "optional"
    stages = ("train",)
    cost = "One model call per passage, in batches sorted by length; fit: 8 passages per query and epoch by default."
    reproduced = "See the page: the shipped model against its first stages on collections that it was not trained on."

    @classmethod
    def example(cls) -> Example:
        passages = (
            Item("rain", "The rain in Spain stays mainly in the plain."),
            Item("tea", "Green tea is brewed at about 80 degrees, black tea with boiling water."),
            Item("moon", "The Moon turns once on its axis for every orbit around the Earth."),
        )
        asked = ("Does it rain in the hills?", "When is water too hot for tea?", "Why do we see one side of the Moon?")
        return Example(
            params={"layers": 1, "epochs": 1, "batch": 2, "max_tokens": 32, "negatives": 2},
            examples=tuple(
                Item(f"q{row}", question, {"positive": passages[row].text or ""}) for row, question in enumerate(asked)
            ),
            query=Item("q", "How hot should water for green tea be?"),
            candidates=passages,
        )

    @cached_property
    def _model(self) -> CrossEncoder:
        if self.artifact is None:
            return self.host.cross_encoder(self.params.model, self.params.precision)
        return self.host.cross_encoder_at(self.artifact.path, self.params.precision)

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int, call: Call) -> Ranking:
        texts = [passage(item) for item in candidates]
        scores = self._model.score([(query.text or "", text) for text in texts], call)
        if scores.ndim == 2:  # a classifier: the logit of "relevant", which comes last, against the others
            scores = scores[:, -1] - np.logaddexp.reduce(scores[:, :-1], axis=1)
        order = np.argsort(-scores, kind="stable")[:top_n]
        ranked = tuple(Ranked(int(row), candidates[row].id, float(scores[row])) for row in order)
        return Ranking(ranked, scores.astype(np.float32), usage={"model_calls": float(len(texts))})

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        out: ArtifactWriter,
        init_from: Artifact | None,
        call: Call,
    ) -> Iterator[Progress]:
        from pickaxe_plugins.reranking import _pair_training as training

        learned, checked = _read(examples), _read(validation or ())
        if len({query.positive for query in learned}) < 2:
            raise InvalidItems("examples", f"are {len(learned)} queries of one passage at most; at least 2 are needed")
        start = self.host.model_path(self.params.base) if init_from is None else init_from.path
        shared = read_config(start).get("words_from")
        words = None if shared is None else self.host.model_path(shared)
        yield from training.train(learned, checked, start, words, self.params, out, call)


def passage(item: Item) -> str:
    """What the model reads of a candidate."""
    title = item.get("title")
    return f"{title}. {item.text or ''}" if title else item.text or ""


def _read(items: Iterable[Item]) -> list[Query]:
    from pickaxe_plugins.reranking._pair_training import Query

    found = []
    for item in items:
        negatives = item.get("negatives") or ()
        assert isinstance(negatives, (list, tuple))  # the declared field is of that type
        found.append(Query(item.id, item.text or "", str(item.get("positive")), tuple(negatives)))
    return found
