"""interp-extrap: what must hold of splits and averages, evaluate, errors, report."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import (
    ArtifactWriter,
    Example,
    Hit,
    InputField,
    Item,
    Items,
    Method,
    Progress,
    Scores,
    SearchResults,
    catalog,
)
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe.report import explained
from pickaxe_plugins.evaluation.interp_extrap import Data, evaluate
from pickaxe_plugins.evaluation.interp_extrap import _similarity as similarity


def vectors(n: int, seed: int, width: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.eye(width)[rng.integers(0, width, n)] + rng.normal(0, 0.4, (n, width))


def queries(rows: np.ndarray, name: str = "q", **more: Any) -> list[Item]:
    return [Item(f"{name}{at}", fields={"embedding": row, **more}) for at, row in enumerate(rows)]


TRAIN, TEST = vectors(90, 1), vectors(24, 2)


def fitted(train: np.ndarray = TRAIN, test: np.ndarray = TEST, **params: Any) -> Any:
    handle = pickaxe.scorer("interp-extrap", **{"bootstrap": 100, "k": 4, "n_init": 2, **params})
    return handle.fit(queries(train, "t"), validation=queries(test))


def array(handle: Any, name: str) -> np.ndarray:
    return np.array(handle.artifact.read_array(f"{name}.npy"))


def results(metric: np.ndarray, system: str = "dense") -> list[Item]:
    return [
        Item(f"{fold} {query}", fields={"fold": fold, "query": f"q{query}", "system": system, "metric": float(value)})
        for (fold, query), value in np.ndenumerate(metric)
    ]


def group(scores: Scores, name: str) -> np.ndarray:
    assert scores.groups is not None
    return scores.groups.columns[name]


# ---------------------------------------------------------------- splits


def test_every_test_query_extrapolates_once() -> None:
    handle = fitted()
    side, training = array(handle, "side"), array(handle, "training")
    assert (side.sum(axis=0) == 1).all()
    assert ((~training).sum(axis=0) == 1).all()
    unit_train, unit_test = similarity.unit(TRAIN), similarity.unit(TEST)
    expected = [(unit_test @ unit_train[rows].T).max(axis=1) for rows in training]
    np.testing.assert_allclose(array(handle, "nearest"), expected)


@pytest.mark.parametrize("sampling", ["ascending", "random_dissimilar"])
@pytest.mark.parametrize("n", [1, 3, 8])
def test_restrain_sets_are_disjoint_and_of_one_size(sampling: str, n: int) -> None:
    near, far = array(fitted(protocol="restrain", n_per_query=n, extrapolation_sampling=sampling), "training")
    assert not (near & far).any()
    assert near.sum() == far.sum() > 0


def test_restrain_without_balance_keeps_the_larger_interpolation_set() -> None:
    near, far = array(fitted(protocol="restrain", n_per_query=20, balance_size=False), "training")
    assert near.sum() + far.sum() == len(TRAIN)
    assert near.sum() > far.sum()


def test_restrain_sets_are_nested() -> None:
    (near, far), (wide, beyond) = (array(fitted(protocol="restrain", n_per_query=n), "training") for n in (1, 2))
    assert (wide | ~near).all()
    assert (beyond | wide | ~far).all()


def test_interpolation_is_nearer_than_all_and_all_than_extrapolation() -> None:
    about = fitted(protocol="restrain", n_per_query=1).artifact.read_json("about.json")
    start = "mean highest similarity of "
    assert about[f"{start}the interpolation set"] > about[f"{start}all"] > about[f"{start}the extrapolation set"]


def test_neighbours_are_those_of_a_sort_also_in_blocks_and_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "_BLOCK", 200)
    train, test = np.round(3 * TRAIN), np.round(3 * TEST)
    found = similarity.neighbours(train, test, 5, pickaxe.Call())
    near = np.zeros(len(train), bool)
    for row in test:
        near[np.argsort(-(train @ row), kind="stable")[:5]] = True
    np.testing.assert_array_equal(found.near, near)
    np.testing.assert_allclose(found.similarity, (train @ test.T).max(axis=1))


def test_order_scale_and_rotation_change_nothing() -> None:
    rng = np.random.default_rng(5)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    metric, centroids = rng.random((4, len(TEST))), np.eye(4)
    order, shuffled = rng.permutation(len(TEST)), rng.permutation(len(TRAIN))
    one = fitted(centroids=centroids.tolist()).score(results(metric))
    items = results(metric)
    turned = fitted(3 * TRAIN @ turn, TEST @ turn, centroids=(centroids @ turn).tolist()).score(items)
    handle = pickaxe.scorer("interp-extrap", centroids=centroids.tolist(), bootstrap=100)
    again = handle.fit(
        [queries(TRAIN, "t")[row] for row in shuffled], validation=[queries(TEST)[row] for row in order]
    ).score(items)
    for other in (turned, again):
        for name in ("extrapolation", "nearest_train_similarity", "side"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(group(one, "interpolation"), group(other, "interpolation"))


def test_an_untrained_system_extrapolates_as_it_scores() -> None:
    metric = np.random.default_rng(0).random(len(TEST))
    scores = fitted().score(results(np.tile(metric, (4, 1))))
    assert group(scores, "pooled")[0] == pytest.approx(metric.mean(), rel=1e-12)


def test_slices_are_not_called_extrapolation() -> None:
    handle = fitted(protocol="slice")
    scores = handle.score(results(np.random.default_rng(0).random((1, len(TEST)))))
    assert list(scores.columns) == ["far", "nearest_train_similarity", "side"]
    far = scores["side"] == 1
    assert scores["nearest_train_similarity"][far].max() <= scores["nearest_train_similarity"][~far].min()
    assert any("nothing is extrapolated" in line for line in explained(scores.summary)[0])


# ---------------------------------------------------------------- averages, report


def test_gap_interval_answer_and_figures() -> None:
    handle = fitted()
    side = array(handle, "side")
    rng = np.random.default_rng(3)
    dense = 0.6 - 0.3 * side + rng.normal(0, 0.02, side.shape)
    sparse = 0.5 + rng.normal(0, 0.02, side.shape)
    scores = handle.score([*results(dense), *results(sparse, "sparse")])
    assert scores.groups is not None
    assert scores.groups.keys == ("dense", "sparse")
    np.testing.assert_allclose(group(scores, "gap"), [0.3, 0], atol=0.02)
    assert group(scores, "gap_low")[0] <= group(scores, "gap")[0] <= group(scores, "gap_high")[0]
    np.testing.assert_allclose(group(scores, "relative_gap"), group(scores, "gap") / group(scores, "interpolation"))
    answer, figures = explained(scores.summary)
    assert answer[0].startswith("sparse does best in extrapolation")
    assert "while dense does best in interpolation" in answer[0]
    assert figures[0].series[1].x == tuple(group(scores, "extrapolation"))
    assert figures[1].series[0].low == tuple(group(scores, "gap_low"))


def test_empty_parts_and_missing_queries_are_flagged() -> None:
    test = np.eye(4)[[0, 0, 1, 2]]
    handle = fitted(test=test, centroids=np.eye(4).tolist())
    items = [item for item in results(np.full((4, 4), 0.5)) if (item.get("fold"), item.get("query")) != (1, "q0")]
    scores = handle.score(items)
    assert [flag.reason for flag in scores.flags] == ["empty-part", "missing-queries"]
    assert group(scores, "extrapolation")[0] == 0.5


def test_overlap_and_files_of_the_parts() -> None:
    train = [
        Item(f"t{n}", fields={"embedding": row, "relevant": {f"p{n}": 1}, "labels": {"entity": f"e{n % 7}"}})
        for n, row in enumerate(TRAIN)
    ]
    judged = [{f"p{5 * n}": 2, "p1": n % 2} for n in range(len(TEST))]
    test = [
        Item(f"q{n}", fields={"embedding": row, "relevant": judged[n], "labels": {"entity": f"e{n}"}})
        for n, row in enumerate(TEST)
    ]
    handle = pickaxe.scorer("interp-extrap", k=4, n_init=1).fit(train, validation=test)
    about = handle.artifact.read_json("about.json")
    assert about["label overlap of 1 or more"] == 21 / 24  # p0, p5 ... p85, and p1 of the odd ones
    assert about["label overlap of 2 or more"] == 9 / 24
    assert about["overlap of entity"] == 7 / 24
    lines = handle.artifact.file("fold-0.extrapolation.test.qrels.txt").read_text().splitlines()
    chosen = np.flatnonzero(array(handle, "side")[0] == 1)
    assert lines == [line for n in chosen for line in (f"q{n} 0 p{5 * n} 2", f"q{n} 0 p1 {n % 2}")]


# ---------------------------------------------------------------- evaluate


class ByWord(Method[pickaxe.Params]):
    """Finds documents that a training query of the same text named."""

    title, paper, fitted, stages = "Look up", "none", "required", ("learn",)
    reads = fit_reads = (InputField("text", "text", "Text."),)

    @hookimpl
    def fit(self, examples: Any, unlabelled: Any, out: ArtifactWriter) -> Iterator[Progress]:
        out.write_json("known.json", sorted({item.text for item in examples} & {item.text for item in unlabelled}))
        yield Progress("learn", 1, 1)

    @hookimpl
    def index(self, documents: Items, out: ArtifactWriter) -> Iterator[Progress]:
        assert self.artifact is not None
        known = set(self.artifact.read_json("known.json"))
        out.write_json("found.json", {item.text: item.id for item in documents if item.text in known})
        yield Progress("index", 1, 1)

    @hookimpl
    def search(self, queries: Items, k: int) -> SearchResults:
        assert self.artifact is not None
        found = self.artifact.read_json("found.json")
        return SearchResults(tuple((Hit(found[q.text], 1.0),) if q.text in found else () for q in queries))

    @classmethod
    def example(cls) -> Example:
        return Example()


def test_evaluate_trains_every_fold_and_resumes(tmp_path: Path) -> None:
    words = [f"w{n % 12}" for n in range(90)]
    train = [Item(f"t{n}", word, {"embedding": np.eye(4)[n % 4]}) for n, word in enumerate(words)]
    test = [Item(f"q{n}", f"w{n}", {"embedding": np.eye(4)[n % 4]}) for n in range(12)]
    documents = [Item(f"d{n}", f"w{n}") for n in range(12)]
    data = Data(documents, train, test, {f"q{n}": {f"d{n}": 1} for n in range(12)})
    handle = pickaxe.scorer("interp-extrap", centroids=np.eye(4).tolist(), bootstrap=0)
    handle = handle.fit(train, validation=test, out=tmp_path / "splits")
    with catalog.register(ByWord, "by-word", "retriever"):
        items = evaluate("by-word", data, tmp_path / "splits", tmp_path / "runs")
        stamps = [path.stat().st_mtime_ns for path in sorted((tmp_path / "runs").iterdir())]
        assert evaluate("by-word", data, tmp_path / "splits", tmp_path / "runs") == items
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "runs").iterdir())] == stamps
    assert len(stamps) == 4
    scores = handle.score(items)
    assert (group(scores, "interpolation")[0], group(scores, "extrapolation")[0]) == (1, 0)
    with pytest.raises(InvalidItems, match="lacks 89 queries"):
        evaluate("by-word", Data(documents, train[:1], test, {}), tmp_path / "splits", tmp_path / "runs")


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda items: [*items, items[0]], "repeats fold 0"),
        (lambda items: items[24:], "lack fold 0"),
        (lambda items: [Item("x", fields={**items[0].fields, "metric": float("nan")}), *items[1:]], "item 'x'"),
        (lambda items: [Item("x", fields={**items[0].fields, "fold": 9}), *items[1:]], "folds are 0 to 3"),
        (lambda items: [Item("x", fields={**items[0].fields, "query": "?"}), *items[1:]], "no test query"),
    ],
)
def test_wrong_results(change: Any, match: str) -> None:
    with pytest.raises(InvalidItems, match=match):
        fitted(n_init=1).score(change(results(np.full((4, len(TEST)), 0.5))))


@pytest.mark.parametrize(
    ("train", "test", "params", "match"),
    [
        (TRAIN[:3], TEST, {}, "fewer than the k=4 buckets"),
        (np.eye(4)[[0, 0, 0]], TEST, {"centroids": np.eye(4).tolist()}, "all lie in bucket 0"),
        (TRAIN, TEST[:, :3], {}, "embeddings of 3 numbers"),
        (TRAIN, TEST[:0], {}, "validation: is empty"),
        (TRAIN, TEST, {"protocol": "restrain", "n_per_query": 90}, "lower n_per_query"),
        (TRAIN * np.nan, TEST, {}, "finite numbers"),
    ],
)
def test_queries_that_cannot_be_split(train: np.ndarray, test: np.ndarray, params: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidItems, match=match):
        fitted(train, test, **params)


def test_further_errors() -> None:
    with pytest.raises(InvalidParams, match="4 numbers each"):
        fitted(centroids=[[1.0], [2.0]])
    with pytest.raises(InvalidParams, match="two or more"):
        fitted(centroids=[[1.0, 0, 0, 0]])
    with pytest.raises(InvalidParams):
        pickaxe.scorer("interp-extrap", k=1)
    with pytest.raises(InvalidItems, match="there twice"):
        pickaxe.scorer("interp-extrap").fit([*queries(TRAIN), *queries(TRAIN)], validation=queries(TEST, "v"))
    with pytest.raises(InvalidItems, match="whole grade"):
        pickaxe.scorer("interp-extrap").fit(queries(TRAIN, relevant={"p": 0.5}), validation=queries(TEST, "v"))
    with pytest.raises(InvalidItems, match="and so is embedding"):
        pickaxe.scorer("interp-extrap").fit([Item("a")], validation=queries(TEST))
    buckets = fitted(n_init=1)
    other = pickaxe.scorer("interp-extrap", protocol="slice", artifact=buckets.artifact.path)
    with pytest.raises(ArtifactMismatch, match="protocol=resttest, not slice"):
        other.score(results(np.full((1, len(TEST)), 0.5)))
