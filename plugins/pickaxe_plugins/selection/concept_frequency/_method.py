"""How often a training set shows each concept, and what accuracy follows from that (arXiv:2404.04125)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import (
    Artifact,
    ArtifactWriter,
    Call,
    Column,
    Example,
    Flag,
    InputField,
    Item,
    Items,
    Method,
    Progress,
    Scores,
    hookimpl,
)
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe_plugins.selection._entries import checked_list, read_list
from pickaxe_plugins.selection.concept_frequency import _postings
from pickaxe_plugins.selection.concept_frequency import _report as report
from pickaxe_plugins.selection.concept_frequency._log_linear import log_linear
from pickaxe_plugins.selection.concept_frequency._nouns import Rules, Tagger
from pickaxe_plugins.selection.concept_frequency._search import Counts, Documents, Search, tags_of

_CONCEPTS, _STEP = "concepts.json", 10_000


class Params(pickaxe.Params):
    items: Literal["concepts", "documents"] = Field(
        "concepts", description="What is scored: concepts, whose text is their name, or documents by their concepts."
    )
    concepts: tuple[str, ...] = Field(
        (), description="The concepts of documents and of tag_probabilities, in this order.  None: lemmas of the index."
    )
    concepts_file: str = Field("", description="Instead: a text file of one concept a line or a .json list.")
    threshold: float = Field(0.7, ge=0, le=1, description="An image shows a concept above this probability.")
    search: Literal["lemmatized", "lowercased"] = Field(
        "lemmatized", description="How words of concepts are looked up."
    )
    unknown_words: Literal["skip", "empty"] = Field(
        "skip", description="skip: words that no text has are left out of a concept; empty: it has no hits then."
    )
    pos: Literal["noun", "all"] = Field("noun", description="Words of texts that count: nouns and names, or all.")
    lemma_overrides: dict[str, str] = Field({}, description="Lemmas of single lower-case words instead of the rules'.")
    min_images: int = Field(
        10, ge=1, description="Without concepts: lemmas in at least so many documents are the concepts of documents."
    )
    num_bins: int = Field(12, ge=4, le=1000, description="Bins of the law over the logarithm of the frequency.")
    drop_first: int = Field(1, ge=0, description="First bins that the law leaves out.")
    drop_last: int = Field(1, ge=0, description="Last bins that the law leaves out.")
    primary: Literal["neg_log_frequency", "log_frequency"] = Field(
        "neg_log_frequency", description="First column for concepts: the rarest or the most frequent ones first."
    )
    rarity: Literal["mean", "max"] = Field("mean", description="How a document's concepts become its rarity.")
    long_tail: int = Field(290, ge=1, le=100_000, description="So many of the least frequent concepts are reported.")
    examples: int = Field(0, ge=0, le=100, description="Ids of documents in the column examples; 0: no such column.")


class ConceptFrequency(Method[Params]):
    """How often a training set shows each concept, and what accuracy follows from that.

    The frequency of a concept is the number of captions with all of its words and, where images are tagged, an image
    of it.  Accuracies of concepts, where given, are fitted by a line over the logarithm of the frequency.
    """

    title = (
        'No "Zero-Shot" Without Exponential Data: Pretraining Concept Frequency Determines Multimodal Model Performance'
    )
    paper = "arXiv:2404.04125"
    version = 1
    Params = Params
    tagger: ClassVar[Tagger] = Rules()
    """Subclasses may put another one here; texts that come with `lemmas` need none."""
    scope = "pool"
    reads = (
        InputField("text", "text", "Name of the concept, or the document.", False),
        InputField("lemmas", "texts", "Documents: lemmas of its nouns, instead of the text.", False),
        InputField("tag_probabilities", "tensor", "Documents: one probability for each of the concepts.", False),
        InputField("accuracy", "float64", "Concepts: accuracy of a model on it, 0 to 100.", False),
        InputField("count", "float64", "Concepts: its frequency, where it was counted elsewhere.", False),
    )
    fit_reads = reads[:3]
    fitted = "optional"
    stages = ("read", "write")
    cost = (
        "fit: one pass, 4 bytes of memory for each noun of a text.  Concepts: binary search in memory-mapped lists, "
        "under a millisecond each for a million captions."
    )
    reproduced = (
        "The authors' bins and correlations on their table of 4,469 concepts (r 0.923 to 0.986 over ten models), "
        "search and misalignment of the golden cases."
    )

    @classmethod
    def example(cls) -> Example:
        texts = (
            "A dog in the park.",
            "Two dogs and a cat.",
            "A dog runs on the beach.",
            "The cat sleeps.",
            "A quokka!",
        )
        documents = tuple(Item(f"caption-{row}", text) for row, text in enumerate(texts))
        items = tuple(Item(name, name) for name in ("unicorn", "cats", "dog"))
        return Example({}, items, True, documents)

    def declared_columns(self) -> tuple[Column, ...]:
        if self.params.items == "documents":
            return report.DOCUMENT_COLUMNS
        first = Column(self.params.primary, f"{self._sign:+} · log10 of the frequency, at least 1", "float64")
        listed = Column("examples", "JSON list of ids of documents that show it", "str", direction="none")
        return (first, *report.CONCEPT_COLUMNS, *([listed] if self.params.examples else []))

    @property
    def _sign(self) -> int:
        return -1 if self.params.primary == "neg_log_frequency" else 1

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        concepts = self._concepts()
        builder = _postings.Builder(len(concepts))
        tagged = 0
        for row, item in enumerate(examples):
            tags = tags_of(item, len(concepts), f"examples[{row}]")
            builder.add(item.id, self._lemmas(item, f"examples[{row}]"), tags, self.params.threshold)
            tagged += tags is not None
            if builder.documents % _STEP == 0:
                call.check()
                yield Progress("read", builder.documents, metrics={"tagged": tagged})
        if not builder.documents:
            raise InvalidItems("examples", "are empty: give the captions or texts of the training set")
        yield Progress("read", builder.documents, builder.documents, {"tagged": tagged})
        builder.write(out)
        out.write_json(_CONCEPTS, concepts)
        out.notes.update(self._settings(), threshold=self.params.threshold, documents=builder.documents, tagged=tagged)
        yield Progress("write", 1, 1)

    @hookimpl
    def merge(self, artifacts: Sequence[Artifact], out: ArtifactWriter) -> Iterator[Progress]:
        if not artifacts:
            raise InvalidItems("artifacts", "are none: name at least one")
        notes, concepts = artifacts[0].notes, artifacts[0].read_json(_CONCEPTS)
        for part in artifacts:
            differ = [
                name for name in ("tagger", "pos", "lemma_overrides", "threshold") if part.notes[name] != notes[name]
            ]
            if part.read_json(_CONCEPTS) != concepts:
                differ.append("concepts")
            if differ:
                raise ArtifactMismatch(
                    f"{str(part.path)!r} was made with other {', '.join(differ)} than {str(artifacts[0].path)!r}",
                    metadata={"artifact": part.path},
                )
        _postings.merge(artifacts, out)
        out.write_json(_CONCEPTS, concepts)
        out.notes.update(notes)
        out.notes.update({name: sum(part.notes[name] for part in artifacts) for name in ("documents", "tagged")})
        yield Progress("write", 1, 1)

    def _settings(self) -> dict[str, Any]:
        """What the lemmas of the index depend on."""
        chosen = self.params.model_dump(mode="json", include={"pos", "lemma_overrides"})
        return {"tagger": self.tagger.name, **chosen}

    def _concepts(self) -> list[str]:
        params = self.params
        if params.concepts and params.concepts_file:
            raise InvalidParams("concepts_file", "was given beside concepts: give one of them")
        if params.concepts_file:
            given = read_list(params.concepts_file, self.host, "concepts_file")
            return list(checked_list(given, "concepts_file"))
        return list(checked_list(params.concepts, "concepts")) if params.concepts else []

    def _lemmas(self, item: Item, place: str) -> set[str]:
        given = item.get("lemmas")
        if given is not None:
            return set(given)  # type: ignore[arg-type]  # the handle checked the kind
        if item.text is None:
            raise InvalidItems(f"{place}.text", f"is missing, and so is lemmas (item {item.id!r})")
        overrides = self.params.lemma_overrides
        found = self.tagger.lemmas(item.text, self.params.pos == "noun")
        return {overrides.get(lemma, lemma) for lemma in found}

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        return (
            self._score_documents(items, call) if self.params.items == "documents" else self._score_names(items, call)
        )

    def _score_names(self, items: Items, call: Call) -> Scores:
        params = self.params
        counts, accuracy = Counts(len(items)), report.accuracies(items)
        for row, item in enumerate(items):
            if row % 1000 == 0:
                call.check()
            counts.add(row, item, self._search, params.examples)
        known = ~np.isnan(accuracy)
        law = None
        if known.any():
            law = log_linear(
                counts.frequency[known], accuracy[known], params.num_bins, params.drop_first, params.drop_last
            )
        predicted = np.full(len(items), np.nan) if law is None else law.predict(counts.frequency)
        log10 = np.log10(np.maximum(counts.frequency, 1.0))
        columns = {params.primary: self._sign * log10 + 0.0, **counts.columns(), "log10_frequency": log10}
        columns["predicted_accuracy"] = predicted
        if params.examples:
            columns["examples"] = np.array(counts.examples, np.str_)
        summary = report.of_concepts(items, counts.frequency, accuracy, law, params.long_tail) if len(items) else {}
        flags = [
            Flag(row, "no-tags", "not among the tagged concepts: texts alone were counted") for row in counts.untagged
        ]
        return Scores(columns, summary=summary, flags=tuple(flags))

    def _score_documents(self, items: Items, call: Call) -> Scores:
        if self._search is None:
            raise ArtifactMismatch("documents need an index: call fit(examples), or name one made earlier")
        concepts = self._concepts() or self._search.frequent(self.params.min_images)
        documents = Documents(concepts, self._search, self.params.rarity)
        for row, item in enumerate(items):
            if row % 1000 == 0:
                call.check()
            tags = tags_of(item, len(concepts), f"items[{row}]")
            shown = None if tags is None else set(np.flatnonzero(tags > self.params.threshold).tolist())
            documents.add(self._lemmas(item, f"items[{row}]"), shown)
        columns = documents.columns()
        return Scores(columns, summary=report.of_documents(columns, documents.shown) if len(items) else {})

    @cached_property
    def _search(self) -> Search | None:
        artifact, params = self.artifact, self.params
        if artifact is None:
            return None
        settings = self._settings()
        if any(artifact.notes[name] != value for name, value in settings.items()):
            raise ArtifactMismatch(
                f"the index was made with other settings than {settings}: fit again",
                metadata={"artifact": artifact.path},
            )
        if artifact.notes["tagged"] and params.threshold < artifact.notes["threshold"]:
            raise ArtifactMismatch(
                f"the index keeps probabilities above {artifact.notes['threshold']}: fit again for {params.threshold}",
                metadata={"artifact": artifact.path},
            )
        tagged = artifact.read_json(_CONCEPTS) if artifact.notes["tagged"] else []
        return Search(_postings.Index(artifact), tagged, params.threshold, self._lemma, params.unknown_words == "skip")

    def _lemma(self, word: str) -> str:
        if self.params.search == "lowercased":
            return word
        return self.params.lemma_overrides.get(word) or self.tagger.lemma(word)
