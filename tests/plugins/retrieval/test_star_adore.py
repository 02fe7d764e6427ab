"""`star-adore`: losses, what a fit learns and leaves alone, resuming, growing, and bad input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Call, Item
from pickaxe.artifact import Artifact
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams, MethodFailed
from pickaxe_plugins.retrieval.star_adore._losses import adore_losses, lists, pair_masks, star_loss
from pickaxe_plugins.retrieval.star_adore._train import Others, finite
from pickaxe_plugins.train import bert, bert_files, vocabulary

QUICK = {"epochs": 2, "batch": 4}
HEAD = {"base": None, "head_scale": 5.0, "star": QUICK, "adore": QUICK}


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def corpus(n: int = 30, width: int = 6) -> list[Item]:
    return [Item(f"d{row}", None, {"embedding": vector}) for row, vector in enumerate(drawn(1, n, width))]


def asked(n: int = 12, width: int = 6) -> list[Item]:
    """Each query is a turned and noisy copy of its document: a head can learn the turn."""
    turn = np.linalg.qr(drawn(2, width, width))[0]
    vectors = drawn(1, 30, width)[:n] @ turn + 0.1 * drawn(3, n, width)
    return [Item(f"q{row}", None, {"embedding": vector, "relevant": [f"d{row}"]}) for row, vector in enumerate(vectors)]


def found(handle: Any, queries: list[Item], k: int = 5) -> list[list[str]]:
    return [[hit.id for hit in hits] for hits in handle.search(queries, k)]


# ------------------------------------------------------------ losses


@pytest.fixture
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def star_case(seed: int, size: int = 5) -> tuple[Any, ...]:
    vectors = drawn(seed, 3, size, 4)
    relevant = [{row, (row + seed) % 3 + 10} for row in range(size)]
    masks = pair_masks(list(range(size)), [10 + row % 3 for row in range(size)], relevant)
    return (*vectors, *masks)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(5)))
def test_star_does_not_hang_on_the_order_of_the_batch(seed: int, order: list[int]) -> None:
    queries, positives, hard, in_batch, against = star_case(seed)
    moved = star_loss(
        queries[order], positives[order], hard[order], in_batch[np.ix_(order, order)], against[np.ix_(order, order)]
    )
    assert float(moved) == pytest.approx(float(star_loss(queries, positives, hard, in_batch, against)), rel=1e-5)


def test_masked_pairs_have_no_influence(double: None) -> None:
    queries, positives, hard = drawn(0, 3, 3, 4)
    in_batch, against = pair_masks([0, 1, 2], [5, 6, 7], [{0}, {1, 5, 6, 7}, {2, 5}])
    assert against.tolist() == [[1, 1, 1], [0, 0, 0], [0, 1, 1]]
    before = star_loss(queries, positives, hard, in_batch, against)
    # The first hard negative counts for the first query alone, so it may move freely across from that.
    away = np.linalg.svd(queries[:1])[2][1] * 100
    hard[0] += away
    assert float(star_loss(queries, positives, hard, in_batch, against)) == pytest.approx(float(before), rel=1e-12)
    slope = jax.grad(lambda each: star_loss(queries, positives, each, in_batch, against * 0))(hard)
    assert not np.asarray(slope).any()


def test_star_without_hard_negatives_is_the_mean_over_the_batch(double: None) -> None:
    queries, positives, hard, in_batch, against = star_case(3)
    alone = float(star_loss(queries, positives, hard, in_batch, np.zeros_like(against)))
    scores = queries @ positives.T
    losses = np.log1p(np.exp(scores - scores.diagonal()[:, None]))
    assert alone == pytest.approx(losses[in_batch > 0].mean(), rel=1e-12)
    with pytest.raises(ValueError, match="no pair"):
        pair_masks([0, 0], [-1, 1], [{0, 1}, {0, 1}])


def test_losses_are_stable() -> None:
    queries, documents = np.array([[1e4]]), np.array([[1.0], [-1.0], [0.5]])
    for sign in (1, -1):
        value = star_loss(queries, sign * documents[:1], sign * documents[1:2], np.zeros((1, 1)), np.ones((1, 1)))
        assert np.isfinite(float(value))
        positives = np.array([[0]])
        seen = lists(sign * queries, documents, positives, 3)
        assert np.isfinite(np.asarray(adore_losses(sign * queries, documents, positives, seen))).all()


def test_adore_leaves_pairs_beyond_the_cut_and_is_zero_for_what_is_right(double: None) -> None:
    documents = np.diag([1.0, 0.9, 0.8, 0.7])
    queries, positives = np.array([[1.0, 1.0, 1.0, 1.0]]), np.array([[2]])
    seen = lists(queries, documents, positives, 4)
    assert np.asarray(seen.ids).tolist() == [[0, 1, 2, 3]]

    def loss(vectors: Any, cut: int | None) -> Any:
        return adore_losses(vectors, documents, positives, seen, cut).sum()

    assert np.asarray(jax.grad(loss)(queries, 2))[0, 3] == 0  # ranks 3 and 4 are both beyond it
    assert np.asarray(jax.grad(loss)(queries, None))[0, 3] != 0
    sure = np.array([[0.0, 0.0, 1e3, 0.0]])
    assert float(adore_losses(sure, documents, positives, lists(sure, documents, positives, 4))[0]) < 1e-30
    # Nothing but relevant documents in the list: no pair, and no NaN.
    every = np.array([[0, 1, 2, 3]])
    assert float(adore_losses(queries, documents, every, lists(queries, documents, every, 4))[0]) == 0


@pytest.mark.parametrize("cut", [None, 3])
def test_gradients_are_those_of_central_differences(cut: int | None, double: None) -> None:
    queries, documents = drawn(5, 2, 4), drawn(6, 12, 4)
    positives = np.array([[3, 7], [1, -1]])
    seen = lists(queries, documents, positives, 5)

    def adore(vectors: Any) -> Any:
        return adore_losses(vectors, documents, positives, seen, cut).sum()

    def star(vectors: Any) -> Any:
        return star_loss(vectors, documents[:2], documents[2:4], 1 - np.eye(2), np.ones((2, 2)))

    for loss in (adore, star):
        slope = np.asarray(jax.grad(loss)(queries))
        for place in np.ndindex(*queries.shape):
            step = np.zeros_like(queries)
            step[place] = 1e-5
            assert slope[place] == pytest.approx(float(loss(queries + step) - loss(queries - step)) / 2e-5, abs=1e-6)


# ------------------------------------------------------------ fit


def test_adore_learns_the_head_and_leaves_the_documents(tmp_path: Path) -> None:
    params = {**HEAD, "adore": {"epochs": 60, "batch": 4, "rate": 0.2, "decay": 0.0}}
    plain = pickaxe.retriever("star-adore", **params).index(corpus())
    fitted = pickaxe.retriever("star-adore", **params).fit(asked(), unlabelled=corpus(), out=tmp_path / "fit")
    index = fitted.index(corpus())
    right = [[f"d{row}"] for row in range(12)]

    def share(handle: Any) -> float:
        return float(np.mean([a == b for a, b in zip(found(handle, asked(), 1), right, strict=True)]))

    assert share(index) >= share(plain) + 0.3
    vectors = [each.artifact.file("vectors.npy").read_bytes() for each in (plain, index)]
    assert vectors[0] == vectors[1]
    assert set(Artifact.open(tmp_path / "fit").manifest["files"]) == {"query-head.npy"}
    notes = fitted.artifact.notes
    assert (notes["queries"], notes["skipped_queries"], notes["documents"]) == (12, 0, 30)


def test_what_adore_retrieves_is_what_a_search_finds() -> None:
    fitted = pickaxe.retriever("star-adore", **HEAD).fit(asked(), unlabelled=corpus())
    head = np.load(fitted.artifact.file("query-head.npy"))
    queries = np.stack([item.fields["embedding"] for item in asked()]).astype(np.float32)
    documents = np.stack([item.fields["embedding"] for item in corpus()]).astype(np.float32)
    seen = lists(queries @ head.T, documents, np.full((12, 1), -1), 8)
    assert found(fitted.index(corpus()), asked(), 8) == [[f"d{row}" for row in rows] for rows in seen.ids.tolist()]


@pytest.mark.parametrize("stage", ["warmup", "star", "star+adore"])
def test_every_stage_reports_and_goes_on_from_another(stage: str, tmp_path: Path) -> None:
    steps: list[pickaxe.Progress] = []
    handle = pickaxe.retriever("star-adore", **HEAD, stage=stage)
    handle.fit(asked(), unlabelled=corpus(), validation=asked(), out=tmp_path / "one", progress=steps.append)
    assert list(dict.fromkeys(step.stage for step in steps)) == stage.split("+")
    assert {"loss", "validation"} <= steps[-1].metrics.keys()
    assert ("mrr@10" in steps[-1].metrics) == ("adore" in stage)
    after = pickaxe.retriever("star-adore", **HEAD).fit(asked(), unlabelled=corpus(), init_from=tmp_path / "one")
    heads = [np.load(path / "query-head.npy") for path in (tmp_path / "one", after.artifact.path)]
    assert np.abs(heads[0] - heads[1]).max() > 0


def test_bm25_negatives_and_passages_in_place_of_documents() -> None:
    passages = ["rain in Spain", "green tea and rain", "the Moon in rain"]
    examples = [Item(f"q{row}", text[:9], {"positive": text}) for row, text in enumerate(passages)]
    handle = pickaxe.retriever("star-adore", stage="warmup", warmup_negatives="bm25", star=QUICK)
    index = handle.fit(examples).index(passages)
    assert found(index, [Item("q", "green tea")], 1) == [["1"]]


def test_a_fit_that_was_interrupted_ends_the_same(tmp_path: Path) -> None:
    handle = pickaxe.retriever("star-adore", **HEAD, stage="star+adore", checkpoint=2)
    whole = handle.fit(asked(), unlabelled=corpus(), out=tmp_path / "whole")
    for stop in (3, 7, 11):
        running = handle.fitting(asked(), tmp_path / f"{stop}", unlabelled=corpus())
        for _ in range(stop):
            next(running)
        running.close()  # type: ignore[attr-defined]  # a generator
        again = handle.fit(asked(), unlabelled=corpus(), out=tmp_path / f"{stop}")
        assert again.artifact.digest == whole.artifact.digest


def test_a_whole_encoder(tmp_path: Path) -> None:
    texts = [
        f"{home} of the {animal}" for animal, home in zip(["fox", "bee", "bird"], ["den", "hive", "nest"], strict=True)
    ]
    folder = tmp_path / "encoder"
    folder.mkdir()
    tokenizer = vocabulary.learn_words(texts, 100, folder)
    config = bert.Config(layers=1, width=16, heads=2, mlp=32, vocab=tokenizer.vocab_size, positions=16)
    bert_files.save(folder, config, bert.initial(config, 0, scale=0.3))
    documents = [Item(f"d{row}", text) for row, text in enumerate(texts)]
    examples = [Item(f"q{row}", text.split()[-1], {"relevant": [f"d{row}"]}) for row, text in enumerate(texts)]
    params: dict[str, Any] = {
        "base": str(folder), "head_only": False, "query_len": 8, "doc_len": 16, "dropout": 0.0,
        "star": {"epochs": 30, "batch": 3, "rate": 0.01}, "adore": {"epochs": 3, "batch": 2},
    }  # fmt: skip
    star = pickaxe.retriever("star-adore", **params, stage="star").fit(
        examples, unlabelled=documents, out=tmp_path / "star"
    )
    assert not star.artifact.has("document.onnx")
    index = star.index(documents)
    assert found(index, examples, 1) == [["d0"], ["d1"], ["d2"]]
    adore = pickaxe.retriever("star-adore", **params).fit(examples, unlabelled=documents, init_from=tmp_path / "star")
    after = adore.index(documents)
    assert after.artifact.file("vectors.npy").read_bytes() == index.artifact.file("vectors.npy").read_bytes()
    assert adore.artifact.has("query.onnx")
    assert adore.artifact.has("document.onnx")
    grown = after.add([Item("new", "den")])
    assert len(grown.search(examples, 10)[0]) == 4
    with pytest.raises(InvalidItems, match="head_only only"):
        star.index(corpus())
    with pytest.raises(InvalidParams, match="head_only"):
        pickaxe.retriever("star-adore").fit(examples, unlabelled=documents, init_from=tmp_path / "star")


# ------------------------------------------------------------ bad input


def test_queries_without_documents() -> None:
    handle = pickaxe.retriever("star-adore", **HEAD)
    lone = Item("lone", None, {"embedding": np.ones(6)})
    assert handle.fit([*asked(), lone], unlabelled=corpus()).artifact.notes["skipped_queries"] == 1
    with pytest.raises(InvalidItems, match="1 queries without a relevant document"):
        handle.fit([lone], unlabelled=corpus())
    with pytest.raises(InvalidItems, match=r"examples\[0\].fields.relevant: names no document \(item 'x'\)"):
        handle.fit([Item("x", None, {"embedding": np.ones(6), "relevant": ["gone"]})], unlabelled=corpus())
    with pytest.raises(InvalidItems, match="no wrong document"):
        handle.fit(asked(1), unlabelled=corpus(1))
    with pytest.raises(InvalidItems, match="0 queries"):
        handle.fit([], unlabelled=corpus())
    with pytest.raises(InvalidItems, match="used before"):
        handle.fit(asked(), unlabelled=[*corpus(), *corpus()])


def test_bad_vectors() -> None:
    handle = pickaxe.retriever("star-adore", **HEAD)
    for bad in (np.full(6, np.nan), np.ones(5), np.ones((6, 1))):
        with pytest.raises(InvalidItems, match="6 finite numbers"):
            handle.index([*corpus(), Item("bad", None, {"embedding": bad})])
    with pytest.raises(InvalidItems, match="since there is no base"):
        handle.index([Item("text", "only a text")])
    with pytest.raises(InvalidItems, match="width 4, documents of 6"):
        handle.fit(asked(width=4), unlabelled=corpus())
    index = handle.fit(asked(), unlabelled=corpus()).index(corpus())
    with pytest.raises(ArtifactMismatch, match="width 5, the head reads 6"):
        index.search([Item("q", None, {"embedding": np.ones(5)})])
    assert len(index.search(asked(1), 1000)[0]) == 30
    grown = index.add([Item("new", None, {"embedding": np.ones(6)})], remove=["d0"])
    assert len(grown.search(asked(1), 1000)[0]) == 30


def test_a_loss_that_is_not_finite_names_the_step() -> None:
    def run() -> Iterator[pickaxe.Progress]:
        yield pickaxe.Progress("adore", 1, 3, {"loss": 1.0})
        yield pickaxe.Progress("adore", 2, 3, {"loss": float("nan")})

    with pytest.raises(MethodFailed, match="nan at step 2"):
        list(finite(run()))  # type: ignore[arg-type]  # a generator


@given(st.integers(1, 12), st.sets(st.integers(0, 11)))
def test_others_are_all_but_the_relevant(count: int, relevant: set[int]) -> None:
    known = {row for row in relevant if row < count}
    assert list(Others(count, tuple(known))) == [row for row in range(count) if row not in known]


def test_metatool(tmp_path: Path) -> None:
    """ADORE beats random negatives by a point and static ones clearly (LSA vectors, a linear head)."""
    from benchmarks._metatool import halves, items, mrr10

    tools, questions = items()
    learned, tested = halves(questions, 0)
    bare = [Item(tool.id, None, tool.fields) for tool in tools]
    recipe = {"epochs": 10, "batch": 32}
    common: dict[str, Any] = {"base": None, "head_scale": 10, "hard_topk": 30, "neg_topk": 30, "star": recipe}
    reached = {
        stage: mrr10(
            pickaxe.retriever("star-adore", **common, stage=stage, adore={**recipe, "rate": 0.01}).fit(
                learned, unlabelled=bare, seed=0, call=Call(timeout=60)
            ),
            bare,
            tested,
        )
        for stage in ("adore", "warmup", "star")
    }
    assert reached["adore"] >= reached["warmup"] + 0.01
    assert reached["adore"] > reached["star"]
