"""Cutting texts where one sentence does not go on from the one before: SAGE's segmentation (arXiv:2503.01713)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Call, Column, Example, Flag, InputField, Item, Items, Method, Progress, Scores, Segment
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import InvalidItems
from pickaxe.hooks import hookimpl
from pickaxe.index import check_model, record_model
from pickaxe_plugins.retrieval._sage_network import Features, Network, Pair, cosine_scores, train, training_pairs
from pickaxe_plugins.retrieval.sage_segment._chunks import Chunk, Cutting, chunks, split
from pickaxe_plugins.retrieval.sage_segment._sentences import Breaks, Span
from pickaxe_plugins.train.settings import Recipe


class Params(pickaxe.Params):
    """Parameters of `sage-segment`."""

    ss: float = Field(
        0.55, ge=0, le=1.01, description="Scores below it cut; 0: paragraphs and caps alone do; 1.01: every sentence."
    )
    coarse_tokens: int = Field(400, ge=1, description="Longer paragraphs are cut at a sentence's end, whatever scores.")
    min_chars: int = Field(0, ge=0, description="Shorter chunks join the neighbour that they go with better; 0: none.")
    max_tokens: int = Field(0, ge=0, description="Longer chunks are cut at their lowest score; 0: no limit.")
    breaks: Breaks = Field("line", description="What ends a paragraph: a line break, or a blank line.")
    encoder: str = Field("encoder", min_length=1, description="Sentence encoder: alias, name or path.")
    hidden: int = Field(256, ge=1, description="fit: units of the network.")
    features: Features = Field(
        "augmented", description="fit: what it reads of two sentences: both, difference and product, or both alone."
    )
    recipe: Recipe = Field(
        Recipe(epochs=5, batch=64, rate=1e-3, warmup=20, decay=10.0, checkpoint=500),
        description="fit: how it is trained.",
    )

    @property
    def cutting(self) -> Cutting:
        return Cutting(self.ss, self.coarse_tokens, self.min_chars, self.max_tokens)


class SageSegment(Method[Params]):
    """Cut texts into chunks where a sentence does not go on from the one before.

    A small network reads the embeddings of two neighbouring sentences and says how likely they share a chunk; `fit`
    learns it from texts with paragraphs.  Without an artifact the cosine of the two stands in for it.
    """

    title = "SAGE: A Framework of Precise Retrieval for RAG"
    paper = "arXiv:2503.01713"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "The text to cut."),)
    fit_reads = (
        InputField("text", "text", "One or more paragraphs."),
        InputField("group", "text", "The article that they belong to; without it each text is its own.", False),
    )
    columns = (
        Column("n_chunks", "Chunks of the text.", "int64"),
        Column("min_score", "Lowest score of two neighbouring sentences.", direction="none", nullable=True),
        Column("n_sentences", "Sentences of the text.", "int64", direction="none"),
        Column("forced", "Chunks that end where the text goes on: at a paragraph or cap.", "int64", direction="none"),
    )
    fitted = "optional"
    stages = ("embed", "train")
    cost = "One encoder call per sentence; the network is three matrix products over all sentences."
    reproduced = (
        "XQuAD-en, 36 articles against 12: AUC 0.72 and 0.75 with difference and product, 0.50 and 0.55 without; "
        "the plain cosine has 0.79."
    )

    @classmethod
    def example(cls) -> Example:
        tea = "Green tea is brewed at 80 degrees. Hotter water makes it bitter. Black tea wants boiling water."
        moon = "The Moon turns once per orbit. So we always see one side of it. The other side has few plains."
        return Example(
            params={"hidden": 8, "recipe": {"epochs": 2, "batch": 4, "warmup": 1}},
            items=(
                Item(
                    "two topics", "Green tea is brewed at 80 degrees. Black tea wants boiling water. The Moon is far."
                ),
                Item("one line", "The Moon turns once per orbit."),
            ),
            examples=(Item("1", tea, {"group": "all"}), Item("2", f"{moon}\nIt rains in Spain. Mainly in the plain.")),
        )

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        texts = items.texts()
        cut = [split(text, self.params.breaks) for text in texts]
        sentences = [text[start:end] for text, (spans, _) in zip(texts, cut, strict=True) for start, end in spans]
        tokens = self._tokens(sentences)
        embeddings = self._embedded(sentences, call)
        rows, segments = [], []
        flags: list[Flag] = []
        at = 0
        for row, (spans, begins) in enumerate(cut):
            call.check()
            here = slice(at, at + len(spans))
            at += len(spans)
            scores = self._scores(embeddings[here])
            sizes = [end - start for start, end in spans]
            found = chunks(scores, begins, tokens[here], sizes, self.params.cutting)
            flags += self._flags(row, tokens[here])
            segments.append(tuple(_segment(chunk, spans) for chunk in found))
            forced = sum(chunk.goes_on >= self.params.ss for chunk in found[:-1])
            rows.append((len(found), scores.min() if len(scores) else np.nan, len(spans), forced))
        columns = zip(*rows, strict=True) if rows else [()] * len(self.columns)
        return Scores(
            {
                each.name: np.array(values, np.float32 if each.dtype == "float32" else np.int64)
                for each, values in zip(self.columns, columns, strict=True)
            },
            flags=tuple(flags),
            segments=tuple(segments),
        )

    def _tokens(self, sentences: Sequence[str]) -> list[int]:
        tokenizer = self.host.encoder(self.params.encoder).tokenizer
        return [len(row) for row in tokenizer.encode_batch(list(sentences))]

    def _embedded(self, sentences: Sequence[str], call: Call) -> np.ndarray:
        """Unit vectors (n, H), each sentence read once."""
        return self.host.encoder(self.params.encoder).encode(list(sentences), call)

    @cached_property
    def _network(self) -> Network | None:
        if self.artifact is None:
            return None
        check_model(self.artifact, self.host.encoder(self.params.encoder), self.params.encoder)
        return Network.read(self.artifact)

    def _scores(self, embeddings: np.ndarray) -> np.ndarray:
        if not np.isfinite(embeddings).all():
            raise InvalidItems("items", "have sentences whose embedding is not finite: is the encoder's file whole?")
        return cosine_scores(embeddings) if self._network is None else self._network.neighbours(embeddings)

    def _flags(self, row: int, tokens: Sequence[int]) -> Iterator[Flag]:
        most = self.params.max_tokens
        if most and (long := sum(size > most for size in tokens)):
            yield Flag(row, "long_sentence", f"{long} sentences have more than max_tokens={most} and stay whole")

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        params = self.params
        learned = self._pairs(examples, "examples", call)
        held = None if validation is None else self._pairs(validation, "validation", call)
        yield Progress("embed", len(learned[0]), len(learned[0]))
        encoder = self.host.encoder(params.encoder)
        record_model(out, encoder, params.encoder)
        network = yield from train(*learned, params.hidden, params.features, params.recipe, out, call.seed, held)
        network.write(out)
        labels = [label for _, _, label in learned[1]]
        out.notes |= {"sentences": len(learned[0]), "pairs": len(labels), "together": sum(labels), "seed": call.seed}

    def _pairs(self, items: Iterable[Item], where: str, call: Call) -> tuple[np.ndarray, list[Pair]]:
        """Embeddings of all sentences, and the pairs to learn from."""
        texts: list[str] = []
        articles: dict[tuple[str, str], list[list[int]]] = {}
        for number, item in enumerate(items):
            group = item.get("group")
            key = ("text", str(number)) if group is None else ("group", str(group))
            spans, begins = split(item.text or "", self.params.breaks)
            for first, last in pairwise([*begins, len(spans)]):
                articles.setdefault(key, []).append([len(texts) + each for each in range(first, last)])
            texts += [(item.text or "")[start:end] for start, end in spans]
        pairs = training_pairs(list(articles.values()), call.seed)
        if len({label for _, _, label in pairs}) < 2:
            raise InvalidItems(
                where, "need two sentences in one paragraph, and another paragraph: there are too few to learn from"
            )
        return self._embedded(texts, call), pairs


def _segment(chunk: Chunk, spans: Sequence[Span]) -> Segment:
    return Segment(spans[chunk.first][0], spans[chunk.last - 1][1], chunk.goes_on)
