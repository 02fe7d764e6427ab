"""`dsi`: what a fit learns and says, that scores are log-probabilities, growth and removal, and bad input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Call, Item
from pickaxe.errors import ArtifactMismatch, DoesNotFit, InvalidItems, InvalidParams
from pickaxe.lm.weights import open_checkpoint
from pickaxe_plugins.retrieval.dsi import _beams
from pickaxe_plugins.retrieval.dsi._identifiers import Identifiers
from pickaxe_plugins.retrieval.dsi._reader import Model, Reading
from pickaxe_plugins.retrieval.dsi._training import Plain
from pickaxe_plugins.train import llama

NETWORK = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1}
QUICK = {"epochs": 2, "batch": 8, "warmup": 1}
SMALL: dict[str, Any] = {
    "network": NETWORK,
    "vocab": 300,
    "span_len": 24,
    "m_queries": 2,
    "k": 3,
    "c": 3,
    "recipe": QUICK,
}
ANIMALS = ["fox", "bee", "bird", "bear", "mole", "dog", "cat", "horse", "whale", "ant", "owl", "frog"]
HOMES = ["den", "hive", "nest", "cave", "burrow", "kennel", "basket", "stable", "sea", "hill", "barn", "pond"]


def corpus() -> list[Item]:
    return [Item(animal, f"A {animal} sleeps in its {home}. Every {animal} likes the {home} much.")
            for animal, home in zip(ANIMALS, HOMES, strict=True)]  # fmt: skip


def asked(count: int = 6) -> list[Item]:
    return [Item(f"q-{animal}", f"where does a {animal} sleep", {"relevant": [animal]}) for animal in ANIMALS[:count]]


def fitted(**params: Any) -> Any:
    return pickaxe.retriever("dsi", **{**SMALL, **params}).fit([*corpus(), *asked()])


def ranked(handle: Any, queries: Sequence[Any], k: int = 12) -> list[list[tuple[str, float]]]:
    return [[(hit.id, hit.score) for hit in hits] for hits in handle.search(queries, k)]


def inside(handle: Any) -> tuple[Identifiers, Any, Model]:
    """The identifiers of an opened index, its trie and its model."""
    return Identifiers.open(handle.artifact), *handle.opened.method._opened[1:]


@pytest.fixture(scope="module")
def semantic() -> Any:
    return fitted(ids="semantic2d", pawa=True, k=6)


@pytest.fixture(scope="module")
def index(semantic: Any) -> Any:
    return semantic.index(corpus())


@pytest.fixture(scope="module")
def begun() -> Any:
    """Fitted on eight of the documents."""
    handle = pickaxe.retriever("dsi", **SMALL, ids="atomic")
    return handle.fit([*corpus()[:8], *asked()], validation=asked(2))


@pytest.fixture(scope="module")
def atomic(begun: Any) -> Any:
    """The same, gone on with on all of them."""
    handle = pickaxe.retriever("dsi", **SMALL, ids="atomic")
    return handle.fit(corpus(), init_from=begun.artifact.path).index(corpus())


# ------------------------------------------------------------ search


def test_results_are_the_exhaustive_ranking_with_teacher_forced_scores(index: Any, atomic: Any) -> None:
    for handle in (index, atomic):
        identifiers, _, model = inside(handle)
        for query in ("where does a cat sleep", "pond", "日本語"):
            sequences = [identifiers.encode(row) for row in range(len(identifiers))]
            exact = model.score(model.prompts([query])[0], sequences, Call())
            order = sorted(range(len(exact)), key=lambda row: -exact[row])
            [hits] = ranked(handle, [query])
            assert [name for name, _ in hits] == [identifiers.ids[row] for row in order]
            np.testing.assert_allclose([score for _, score in hits], exact[order], atol=1e-4)


def test_probabilities_are_those_of_one_distribution(index: Any, atomic: Any) -> None:
    for handle, whole in ((index, False), (atomic, True)):
        [hits] = ranked(handle, ["where does a whale sleep"])
        total = sum(np.exp(score) for _, score in hits)
        assert all(score <= 0 for _, score in hits)
        assert total == pytest.approx(1, abs=1e-6) if whole else 0 < total < 1


def test_a_narrow_beam_finds_scores_no_better_than_the_whole(index: Any) -> None:
    queries = [item.text or "" for item in asked()]
    whole = ranked(index, queries)
    for beam in (1, 2, 5):
        narrow = pickaxe.retriever("dsi", artifact=str(index.artifact.path), beam=beam)
        for hits, every in zip(ranked(narrow, queries, 1), whole, strict=True):
            assert hits[0][1] <= every[0][1] + 1e-6
            assert hits[0][1] == pytest.approx(dict(every)[hits[0][0]], abs=1e-4)


def test_cached_and_uncached_decoding_agree(index: Any, semantic: Any) -> None:
    _, trie, model = inside(index)
    prompts = model.prompts(["where does a bee sleep", "hill", "every horse likes the stable much"])
    form = model.lm.network.architecture
    tensors = open_checkpoint(semantic.artifact.path).tensors
    weights = {"lm": llama.load(form, tensors), "head": model.head}
    rows = [np.array(each, np.int32) for each in prompts]
    both = [
        _beams.search(trie, stepper, 12, 8, True, Call())
        for stepper in (Reading(model, prompts), Plain(form, weights, rows, 5, 8))
    ]
    for cached, plain in zip(*both, strict=True):
        one, other = np.argsort(cached.rows), np.argsort(plain.rows)
        np.testing.assert_array_equal(cached.rows[one], plain.rows[other])
        np.testing.assert_allclose(cached.logprobs[one], plain.logprobs[other], atol=1e-4)


def test_the_order_of_a_batch_does_not_matter(index: Any) -> None:
    queries = ["pond", "", "where does an owl sleep at night in the cold winter", "bear"]
    forward, back = ranked(index, queries), ranked(index, queries[::-1])[::-1]
    assert [[name for name, _ in hits] for hits in forward] == [[name for name, _ in hits] for hits in back]
    assert forward[1] == []
    for one, other in zip(forward, back, strict=True):
        np.testing.assert_allclose([score for _, score in one], [score for _, score in other], atol=1e-4)


def test_without_the_constraint_only_documents_are_returned(index: Any) -> None:
    free = pickaxe.retriever("dsi", artifact=str(index.artifact.path), constrained=False, beam=20)
    found = free.search(["where does a dog sleep"], 12)
    known = dict(ranked(index, ["where does a dog sleep"])[0])
    assert found.usage["lost"] > 0
    for hit in found[0]:
        assert hit.score == pytest.approx(known[hit.id], abs=1e-4)


def test_limits_of_a_search(index: Any) -> None:
    narrow = pickaxe.retriever("dsi", artifact=str(index.artifact.path), beam=3)
    with pytest.raises(InvalidParams, match="beam"):
        narrow.search(["pond"], 4)
    with pytest.raises(DoesNotFit, match="budget"):
        index.search(["pond"], 3, budget=1)
    assert len(index.search(["pond " * 50_000], 3)[0]) == 3
    with pytest.raises(ArtifactMismatch, match="span_len"):
        pickaxe.retriever("dsi", artifact=str(index.artifact.path), span_len=8).search(["pond"], 1)


# ------------------------------------------------------------ learning


def test_it_learns_its_training_queries() -> None:
    recipe = {"epochs": 60, "batch": 6, "rate": 3e-3, "warmup": 5}
    handle: Any = fitted(sources=["labeled"], recipe=recipe, ids="semantic", dropout=0.0)
    assert handle.artifact.notes["uncovered_documents"] == 6
    assert handle.artifact.notes["uncovered_ids"] == ANIMALS[6:]
    found = handle.index(corpus()).search(asked(), 1)
    assert [hits[0].id for hits in found] == ANIMALS[:6]


def test_a_fit_goes_on_with_new_documents(begun: Any, atomic: Any) -> None:
    assert 0 <= begun.artifact.notes["validation_mrr@10"] <= 1
    with pytest.raises(InvalidItems, match="needs a refit"):
        begun.index(corpus())
    assert Identifiers.open(atomic.artifact).ids == tuple(ANIMALS)
    assert len(ranked(atomic, ["pond"])[0]) == 12
    other = pickaxe.retriever("dsi", **{**SMALL, "vocab": 301}, ids="atomic")
    with pytest.raises(ArtifactMismatch, match="vocab"):
        other.fit(corpus(), init_from=begun.artifact.path)


def test_documents_leave_without_training_and_join_unlearned(semantic: Any, index: Any) -> None:
    whole = dict(ranked(index, ["pond"])[0])
    fewer = semantic.index(corpus()[3:])
    left = dict(ranked(fewer, ["pond"])[0])
    assert set(left) == set(ANIMALS[3:])
    for name, score in left.items():
        assert score == pytest.approx(whole[name], abs=1e-4)
    fresh = [Item("toad", "A toad sleeps in its pond."), Item("toad again", "A toad sleeps in its pond.")]
    with pytest.raises(InvalidItems, match=r"'toad', 'toad again'.*needs a refit.*extend=true"):
        semantic.index([*corpus(), *fresh])
    open_ = pickaxe.retriever("dsi", artifact=str(semantic.artifact.path), extend=True, beam=100)
    grown = open_.index([*corpus(), *fresh])
    assert grown.artifact.notes["unlearned_documents"] == 2
    found = dict(ranked(grown, ["pond"], 14)[0])
    assert len(found) == 14
    for name, score in whole.items():
        assert found[name] == pytest.approx(score, abs=1e-4)


def test_identifiers_are_seeded_and_kept(index: Any, semantic: Any) -> None:
    again = Identifiers.open(semantic.artifact)
    assert Identifiers.open(index.artifact) == again
    assert again.kind == "semantic2d"
    assert len({again.encode(row) for row in range(12)}) == 12


# ------------------------------------------------------------ bad input


def test_bad_examples() -> None:
    quick = pickaxe.retriever("dsi", **SMALL, ids="naive")
    with pytest.raises(InvalidItems, match=r"missing documents: \['unicorn'\]"):
        quick.fit([*corpus(), Item("q", "where?", {"relevant": ["fox", "unicorn"]})])
    with pytest.raises(InvalidItems, match="documents"):
        quick.fit([])
    with pytest.raises(InvalidItems, match="'fox' twice"):
        quick.fit([*corpus(), corpus()[0]])
    with pytest.raises(InvalidItems, match="nothing to learn"):
        quick.fit([Item("empty", ""), Item("blank", "  ")])
    with pytest.raises(ArtifactMismatch, match="fit"):
        quick.index(corpus())


def test_one_document() -> None:
    only = pickaxe.retriever("dsi", **SMALL, ids="naive", sources=["firstp"]).fit(corpus()[:1]).index(corpus()[:1])
    assert [name for name, _ in ranked(only, ["anything"])[0]] == ["fox"]


@pytest.mark.parametrize(
    "params",
    [{"c": 0}, {"k": 1}, {"beam": 0}, {"sources": []}, {"sources": ["d2q", "d2q"]}, {"ids": "atomic", "pawa": True},
     {"consistency": 0.15, "dropout": 0.0}, {"ids": "other"}, {"consistency": float("nan")}, {"prompt": "no text"}],
)  # fmt: skip
def test_bad_parameters(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        pickaxe.retriever("dsi", **params)
