"""One fit: identifiers, what is learned from, the training, and the files."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pickaxe import Artifact, ArtifactWriter, Call, Item, Progress
from pickaxe.errors import ArtifactCorrupt
from pickaxe.extras import require
from pickaxe.index import check_model, check_params, record_model
from pickaxe.lm.weights import Architecture, open_checkpoint
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.retrieval.dsi import _clustering, _sources, _training
from pickaxe_plugins.retrieval.dsi._identifiers import Clusters, Identifiers, by_row
from pickaxe_plugins.retrieval.dsi._params import Params
from pickaxe_plugins.retrieval.dsi._sources import Corpus
from pickaxe_plugins.retrieval.dsi._trie import Trie
from pickaxe_plugins.train import llama, vocabulary

if TYPE_CHECKING:
    from pickaxe.host import Host

HEADS = "heads.safetensors"
MODEL = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", HEADS)
"""What search needs of a fit."""
KEPT = ("ids", "k", "c", "encoder", "span_len", "pawa", "network", "vocab")
"""Parameters that a fit which starts from another cannot change."""
SHOWN = 20


@dataclass(frozen=True)
class Fit:
    params: Params
    host: Host
    out: ArtifactWriter
    call: Call
    before: Artifact | None
    """The fit to start from."""

    def run(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, unlabelled: Iterable[Item] | None
    ) -> Generator[Progress]:
        params, out, seed = self.params, self.out, self.call.seed
        known = None
        if self.before is not None:
            self.before.check_method("dsi", 1, "fit")
            check_params(self.before, params, KEPT)
            known = Identifiers.open(self.before)
        corpus = _sources.read(examples, validation, unlabelled, known.ids if known else ())
        identifiers, clusters = yield from self._identify(corpus, known)
        asked = yield from self._ask(corpus)
        rows = {name: row for row, name in enumerate(identifiers.ids)}
        own = [rows[item.id] for item in corpus.documents]
        tokenizer = self._tokenizer(corpus, asked)
        learned = _sources.pairs(corpus, own, asked, params, tokenizer, seed)
        form = _training.architecture(params, tokenizer.vocab_size, identifiers)
        weights = _training.initial(form, identifiers, params.pawa, seed)
        if self.before is not None:
            form, weights = _taken_over(self.before, form, weights)
        start = tokenizer.vocab_size
        exam = self._exam(corpus, form, identifiers, tokenizer)
        batches = _training.Batches.of(learned, identifiers, start)
        weights = yield from _training.train(form, weights, batches, params, exam, out, seed)
        llama.save(weights["lm"], form, out.path)
        require("safetensors.numpy", extra="cpu").save_file(weights["head"], str(out.file(HEADS)))
        identifiers.save(out)
        clusters.save(out)
        uncovered = [item.id for item, row in zip(corpus.documents, own, strict=True) if row not in set(learned.rows)]
        out.notes |= {
            "documents": len(identifiers),
            "pairs": len(learned),
            "uncovered_documents": len(uncovered),
            "uncovered_ids": uncovered[:SHOWN],
            "identifier_tokens": identifiers.longest,
            "seed": seed,
        } | ({"validation_mrr@10": exam.mrr(weights)} if exam else {})

    # ------------------------------------------------------------ identifiers

    def _identify(
        self, corpus: Corpus, known: Identifiers | None
    ) -> Generator[Progress, None, tuple[Identifiers, Clusters]]:
        params = self.params
        fresh = [item for item in corpus.documents if known is None or item.id not in set(known.ids)]
        ids = [item.id for item in fresh]
        yield Progress("identify", 0, len(corpus.documents))
        clusters = Clusters({}, {})
        vectors = None
        if params.ids in ("semantic", "semantic2d"):
            vectors = self._vectors(fresh)
        if known is not None and self.before is not None:
            clusters = Clusters.open(self.before)
            found = known.extended(ids, clusters, vectors)
        elif vectors is None:
            found = by_row(params.ids, ids)
        else:
            found, clusters = _clustering.semantic(
                params.ids, ids, vectors, params.k, params.c, self.call.seed, self.call
            )
        yield Progress("identify", len(corpus.documents), len(corpus.documents))
        return found, clusters

    def _vectors(self, documents: list[Item]) -> np.ndarray:
        return encoded(self.host, self.params, documents, self.call, self.out, self.before)

    # ------------------------------------------------------------ what is learned

    def _ask(self, corpus: Corpus) -> Generator[Progress, None, list[list[str]]]:
        """Synthetic queries of each document, which the artifact keeps for those who want to read them."""
        if "d2q" not in self.params.sources:
            return [[] for _ in corpus.documents]
        file = self.out.file("synthetic.json")
        if self.out.done("synthesize"):
            found: list[list[str]] = json.loads(file.read_text(encoding="utf-8"))
            return found
        asked: list[list[str]] = []
        for queries in _sources.synthetic(corpus.documents, self.params, self.host, self.call):
            asked.append(queries)
            yield Progress("synthesize", len(asked), len(corpus.documents))
        self.out.write_json(file.name, asked)
        self.out.finish("synthesize")
        return asked

    def _tokenizer(self, corpus: Corpus, asked: list[list[str]]) -> Tokenizer:
        if self.before is not None:
            tokenizer = Tokenizer.open(self.before.path)
            tokenizer.save(self.out.path)
            return tokenizer
        texts = [item.text or "" for item in corpus.documents] + [query.text for query in corpus.labeled]
        texts += [text for queries in asked for text in queries]
        return vocabulary.learn(texts, self.params.vocab, self.out.path)

    def _exam(
        self, corpus: Corpus, form: Architecture, identifiers: Identifiers, tokenizer: Tokenizer
    ) -> _training.Exam | None:
        if not corpus.validation:
            return None
        rows = tokenizer.encode_batch([query.text for query in corpus.validation])
        prompts = [np.array([*row[: self.params.span_len], tokenizer.vocab_size], np.int32) for row in rows]
        trie = Trie.build([identifiers.encode(row) for row in range(len(identifiers))])
        relevant = [frozenset(query.rows) for query in corpus.validation]
        return _training.Exam(form, prompts, relevant, trie, identifiers.longest, self.call)


def encoded(
    host: Host, params: Params, documents: list[Item], call: Call, out: ArtifactWriter, before: Artifact | None
) -> np.ndarray:
    """(n, d) float32 vectors of documents, by the encoder that the clusters of `before` were made with."""
    encoder = host.encoder(params.encoder)
    if before is not None:
        check_model(before, encoder, params.encoder)
    record_model(out, encoder, params.encoder)
    return np.asarray(encoder.encode([item.text or "" for item in documents], call), np.float32)


def read_heads(artifact: Artifact) -> dict[str, np.ndarray]:
    """The head, and what adapts it where there is PAWA."""
    found: dict[str, np.ndarray] = require("safetensors.numpy", extra="cpu").load_file(str(artifact.file(HEADS)))
    if "head" not in found:
        raise ArtifactCorrupt(f"{HEADS} of {str(artifact.path)!r} has no head", metadata={"artifact": artifact.path})
    return found


def _taken_over(
    before: Artifact, form: Architecture, fresh: _training.Weights
) -> tuple[Architecture, _training.Weights]:
    """The weights of an earlier fit, and new rows for atomic identifiers that have joined; its context too."""
    checkpoint = open_checkpoint(before.path)
    head = read_heads(before)
    joined = fresh["head"]["head"][len(head["head"]) :]
    head["head"] = np.concatenate([head["head"], joined])
    return checkpoint.architecture, {"lm": llama.load(checkpoint.architecture, checkpoint.tensors), "head": head}
