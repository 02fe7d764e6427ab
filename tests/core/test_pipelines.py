"""Pipelines: order of hits, texts, one budget for all stages, answers of a decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import pickaxe
from pickaxe import Call, Chunk, Item, Items, Method, Params, Prompt, Ranked, Ranking, catalog, hookimpl
from pickaxe.errors import Cancelled, InvalidItems, InvalidParams, Unmet
from pickaxe.pipelines import texts_of

DOCUMENTS = [
    Item("short", "fish"),
    Item("long", "a fish that is long", {"title": "Long"}),
    Item("longer", "the fish that is longer than the fish"),
    Item("bird", "bird {query}"),
]


class ByLength(Method[Params]):
    """Longest first; a model call per candidate."""

    calls: list[Call] = []

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int, call: Call) -> Ranking:
        ByLength.calls.append(call)
        order = sorted(range(len(candidates)), key=lambda row: -len(candidates[row].text or ""))[:top_n]
        ranked = tuple(Ranked(row, candidates[row].id, float(len(candidates[row].text or ""))) for row in order)
        return Ranking(ranked, usage={"model_calls": len(candidates)})


class Echo(Method[Params]):
    """Says how many documents the prompt has, and the prompt."""

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        for row, prompt in enumerate(prompts):
            yield Chunk(row, 0, f"{len(prompt.context)} {prompt.text}", finish_reason="stop", usage={"model_calls": 1})


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    ByLength.calls.clear()
    with catalog.register(ByLength, "by-length", "reranker"), catalog.register(Echo, "echo", "decoder"):
        yield


@pytest.fixture
def retriever() -> pickaxe.api.RetrieverHandle:
    return pickaxe.retriever("bm25").index(DOCUMENTS)


def ids(found: pickaxe.SearchResults) -> list[list[str]]:
    return [[hit.id for hit in hits] for hits in found]


def test_the_reranker_decides_the_order(retriever: pickaxe.api.RetrieverHandle) -> None:
    found = pickaxe.pipeline(retriever, pickaxe.reranker("by-length"), cut=2).search(["fish", "bird", "none"])
    assert ids(found) == [["longer", "long"], ["bird"], []]
    first = found[0][0]
    assert (first.score, found[0][1].score) == (1, 0.5)
    assert first.columns["rerank"] == len(DOCUMENTS[2].text or "")
    assert first.columns["search"] == first.columns["bm25"]
    assert found.usage == {"index_documents": 4, "rerank_model_calls": 4}


def test_depth_bounds_what_the_reranker_sees(retriever: pickaxe.api.RetrieverHandle) -> None:
    plain = retriever.search(["fish"], 1)
    assert ids(pickaxe.pipeline(retriever, pickaxe.reranker("by-length"), depth=1, cut=1).search(["fish"])) == ids(
        plain
    )
    alone = pickaxe.pipeline(retriever, cut=2).search(["fish"])
    assert alone.results == retriever.search(["fish"], 2).results
    assert len(pickaxe.pipeline(retriever).search(["fish"], 1)[0]) == 1
    for wrong in ({"depth": 0}, {"cut": 0}):
        with pytest.raises(InvalidParams):
            pickaxe.pipeline(retriever, **wrong)


def test_one_budget_for_all_stages(retriever: pickaxe.api.RetrieverHandle) -> None:
    line = pickaxe.pipeline(retriever, pickaxe.reranker("by-length"))
    found = line.search(["fish", "fish", "fish"], budget=5)
    assert [call.budget for call in ByLength.calls] == [5, 2]  # three calls each; the second may overdraw
    assert found.usage["queries_not_reranked"] == 1
    assert ids(found)[2] == ids(retriever.search(["fish"], 10))[0]
    assert found.usage["rerank_model_calls"] == 6


def test_answers(retriever: pickaxe.api.RetrieverHandle) -> None:
    line = pickaxe.pipeline(retriever, pickaxe.reranker("by-length"), pickaxe.decoder("echo"), cut=2)
    answers = line.answer(["fish", "bird", "none"], prompt="{documents} - {query}?", budget=100)
    texts = [each[0].text for each in answers.completions]
    assert texts == [
        "2 [1] the fish that is longer than the fish\n\n[2] a fish that is long - fish?",
        "1 [1] bird {query} - bird?",
        "0  - none?",
    ]
    assert len(answers) == 3
    assert answers.usage == {"index_documents": 4, "rerank_model_calls": 4, "decode_model_calls": 3}
    with pytest.raises(Unmet, match="no decoder"):
        pickaxe.pipeline(retriever).answer(["fish"])


def test_texts(retriever: pickaxe.api.RetrieverHandle, tmp_path: Path) -> None:
    assert texts_of(retriever, ["long"]) == [DOCUMENTS[1]]
    chronicles = pickaxe.retriever("chronicles").index(DOCUMENTS)
    assert [item.text for item in texts_of(chronicles, ["bird", "short"])] == ["bird {query}", "fish"]
    given = pickaxe.pipeline(retriever, pickaxe.reranker("by-length"), documents=DOCUMENTS[:1])
    with pytest.raises(InvalidItems, match="lack 2 that were found"):
        given.search(["fish"])
    assert ids(pickaxe.pipeline(retriever, pickaxe.reranker("by-length"), documents=DOCUMENTS).search(["fish"], 1)) == [
        ["longer"]
    ]
    with pytest.raises(Unmet, match="no texts here"):
        texts_of(pickaxe.retriever("bm25"), ["a"])


def test_a_call_s_parts_end_with_it() -> None:
    whole = Call(budget=9, seed=3)
    part = whole.with_budget(4)
    assert (part.budget, whole.budget, part.seed) == (4, 9, 3)
    interrupted = []
    with part.interruptible(lambda: interrupted.append(1)):
        whole.cancel()
    assert interrupted == [1]
    with pytest.raises(Cancelled):
        part.check()
