"""Generative retrieval with the choices of the scaling study (arXiv:2305.11841)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np

from pickaxe import Artifact, Call, Example, Hit, InputField, Item, Items, Method, Progress, SearchResults
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import ArtifactMismatch, DoesNotFit, InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe.index import Documents, DocumentWriter, batched, check_params
from pickaxe_plugins.retrieval.dsi import _beams
from pickaxe_plugins.retrieval.dsi._identifiers import Clusters, Identifiers
from pickaxe_plugins.retrieval.dsi._params import Params
from pickaxe_plugins.retrieval.dsi._reader import Model, Reading
from pickaxe_plugins.retrieval.dsi._trie import Trie

ROWS = 2048
"""Hypotheses that are read together, of as many queries as have room."""
BATCH = 256
SHOWN = 5


class Dsi(Method[Params]):
    """Train a small language model that says the identifiers of the documents that answer a query.

    There are no vectors and no inverted index: the model is the index, and search is beam search over a trie of
    identifiers.  Four kinds of identifiers, four sources of training pairs, PAWA, consistency and the constraint can
    be chosen, so that the study can be repeated on one's own documents.
    """

    title = "How Does Generative Retrieval Scale to Millions of Passages?"
    paper = "arXiv:2305.11841"
    version = 1
    Params = Params
    reads = (
        InputField("text", "text", "The document, or the question.", required=False),
        InputField("title", "text", "The document's title; kept for what comes after the search.", required=False),
    )
    fit_reads = (
        InputField("text", "text", "A document, or with `relevant` a query.", required=False),
        InputField("relevant", "texts", "Ids of the documents that answer it.", required=False),
        InputField("synthetic", "texts", "Synthetic queries of a document.", required=False),
        InputField("title", "text", "Title of a document, for templates of synthetic queries.", required=False),
    )
    fitted = "required"
    stages = ("identify", "synthesize", "train")
    cost = "Fit: minutes for hundreds of documents; search: one model call per identifier token."
    reproduced = "XQuAD-en, 240 passages: Hits@10 0.380 from questions, 0.133 from the passages' beginnings (one seed)."

    @classmethod
    def example(cls) -> Example:
        documents = (
            Item("rain", "The rain in Spain stays mainly in the plain."),
            Item("tea", "Green tea is brewed at about 80 degrees. Black tea takes boiling water."),
            Item("moon", "The Moon turns once on its axis for every orbit around the Earth."),
        )
        asked = (
            Item("q-rain", "Where does it rain?", {"relevant": ["rain"]}),
            Item("q-tea", "When is water too hot for tea?", {"relevant": ["tea"]}),
        )
        return Example(
            params={
                "k": 16, "c": 2, "m_queries": 2, "extend": True, "beam": 200, "vocab": 300, "span_len": 24,
                "network": {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1},
                "recipe": {"epochs": 2, "batch": 4, "warmup": 1, "checkpoint": 1},
            },
            examples=(*documents, *asked),
            validation=(Item("v", "How often does the Moon turn?", {"relevant": ["moon"]}),),
            documents=documents,
            queries=(Item("q1", "How hot should water for green tea be?"), Item("q2", "Where does the rain stay?")),
        )  # fmt: skip

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        unlabelled: Iterable[Item] | None,
        out: ArtifactWriter,
        init_from: Artifact | None,
        call: Call,
    ) -> Iterator[Progress]:
        from pickaxe_plugins.retrieval.dsi._fitting import Fit

        yield from Fit(self.params, self.host, out, call, init_from).run(examples, validation, unlabelled)

    # ------------------------------------------------------------ index

    @hookimpl
    def index(self, documents: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        """Documents of the fit, all or some: those that are left out can no longer be said."""
        from pickaxe_plugins.retrieval.dsi._fitting import MODEL

        if self.artifact is None:
            raise ArtifactMismatch("dsi needs an artifact: its model is the index, so call fit(examples) first")
        check_params(self.artifact, self.params, ("ids", "span_len"))
        known = Identifiers.open(self.artifact)
        rows = {name: row for row, name in enumerate(known.ids)}
        ids: list[str] = []
        fresh: list[Item] = []
        with DocumentWriter(out, ("title",)) as table:
            for group in batched(documents, BATCH):
                call.check()
                for document in group:
                    table.add(document)
                    ids.append(document.id)
                    if document.id not in rows:
                        fresh.append(document)
                yield Progress("index", len(table))
        if fresh:
            known = self._extended(known, fresh, out, call)
            rows = {name: row for row, name in enumerate(known.ids)}
        codes = tuple(known.codes[rows[name]] for name in ids)
        mine = Identifiers(known.kind, known.base, tuple(ids), codes, known.vocabulary)
        mine.save(out)
        Trie.build([mine.encode(row) for row in range(len(mine))]).save(out)
        for name in MODEL:
            out.file(name).write_bytes(self.artifact.file(name).read_bytes())
        out.notes |= {"identifier_tokens": mine.longest, "unlearned_documents": len(fresh)}

    def _extended(self, known: Identifiers, fresh: list[Item], out: ArtifactWriter, call: Call) -> Identifiers:
        """With documents that fit did not see; raises `InvalidItems` unless they may come in unlearned."""
        from pickaxe_plugins.retrieval.dsi._fitting import encoded

        assert self.artifact is not None
        names = [item.id for item in fresh]
        if not self.params.extend or known.kind == "atomic":
            shown = ", ".join(map(repr, names[:SHOWN])) + (" …" if len(names) > SHOWN else "")
            raise InvalidItems(
                "documents",
                f"hold {len(names)} that the fit did not see: {shown}; the index needs a refit: fit(init_from=…) goes "
                "on from this one" + ("" if known.kind == "atomic" else ", extend=true places them unlearned"),
            )
        vectors = None
        if known.kind in ("semantic", "semantic2d"):
            vectors = encoded(self.host, self.params, fresh, call, out, self.artifact)
        return known.extended(names, Clusters.open(self.artifact), vectors)

    # ------------------------------------------------------------ search

    @cached_property
    def _opened(self) -> tuple[Documents, Trie, Model]:
        from pickaxe_plugins.retrieval.dsi._fitting import read_heads

        assert self.artifact is not None  # the handle sees to it
        check_params(self.artifact, self.params, ("ids", "span_len"))
        lm = self.host.lm_at(self.artifact.path, "fp32")
        model = Model(lm, read_heads(self.artifact), self.params.span_len)
        return Documents(self.artifact), Trie.open(self.artifact), model

    @hookimpl
    def search(self, queries: Items, k: int, call: Call) -> SearchResults:
        documents, trie, model = self._opened
        assert self.artifact is not None
        params, longest = self.params, int(self.artifact.notes["identifier_tokens"])
        if k > params.beam:
            raise InvalidParams("k", f"is {k}, more than the beam of {params.beam}: search with a wider beam")
        width = min(params.beam, len(documents)) if params.constrained else params.beam
        asked = [(row, text) for row, text in enumerate(queries.texts()) if text.strip()]
        groups = list(batched(asked, max(1, ROWS // width)))
        if call.budget is not None and len(groups) * longest > call.budget:
            raise DoesNotFit(
                f"{len(asked)} queries take up to {len(groups) * longest} model calls, the budget is {call.budget}: "
                "use a narrower beam or fewer queries",
                metadata={"calls": len(groups) * longest, "budget": call.budget},
            )
        results: list[tuple[Hit, ...]] = [()] * len(queries)
        usage = {"index_documents": float(len(documents)), "model_calls": 0.0, "model_tokens": 0.0, "lost": 0.0}
        for group in groups:
            reading = Reading(model, model.prompts([text for _, text in group]), call)
            found = _beams.search(trie, reading, width, longest, params.constrained, call)
            for (row, _), each in zip(group, found, strict=True):
                results[row] = _hits(documents, each, k)
                usage["lost"] += each.lost
            usage["model_calls"] += reading.calls
            usage["model_tokens"] += reading.tokens
        return SearchResults(tuple(results), usage)


def _hits(documents: Documents, found: _beams.Found, k: int) -> tuple[Hit, ...]:
    """The `k` likeliest, equal ones in the order of their ids."""
    names = np.array([documents.ids[row] for row in found.rows.tolist()])
    order = np.lexsort((names, -found.logprobs))[:k].tolist()
    return tuple(Hit(str(names[place]), float(found.logprobs[place])) for place in order)
