"""Golden cases of interp-extrap: ReSTrain sets, ReSTTest folds and averages, label overlap, released counts."""

from typing import Any

import numpy as np
import pytest
from golden import FILES, golden, understood

import pickaxe
from pickaxe import Item, metrics
from pickaxe_plugins.evaluation.interp_extrap import label_overlap

GOLDEN = understood(golden("25-interp-extrap"), "paper", "cases", "tolerance", "how")
CASES = understood(GOLDEN["cases"], "restrain", "resttest", "label_overlap", "real_counts")
TOLERANCE = understood(GOLDEN["tolerance"], "rtol", "atol", "sets")


def case(name: str, *inputs: str) -> tuple[dict[str, Any], dict[str, Any]]:
    each = understood(CASES[name], "inputs", "expected", "note")
    return understood(each["inputs"], *inputs), each["expected"]


def queries(vectors: list[list[float]]) -> list[Item]:
    return [Item(str(row), fields={"embedding": np.array(vector)}) for row, vector in enumerate(vectors)]


def fitted(inputs: dict[str, Any], **params: Any) -> Any:
    train, test = queries(inputs["train_query_emb"]), queries(inputs["test_query_emb"])
    return pickaxe.scorer("interp-extrap", bootstrap=0, **params).fit(train, validation=test)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE["rtol"], atol=TOLERANCE["atol"])


def test_restrain() -> None:
    inputs, expected = case("restrain", "train_query_emb", "test_query_emb", "n_per_query", "extrapolation_sampling")
    assert set(expected) == set(map(str, inputs["n_per_query"]))
    for n, each in expected.items():
        understood(each, "interpolation_train", "extrapolation_train", "mean_max_similarity")
        handle = fitted(
            inputs,
            protocol="restrain",
            n_per_query=int(n),
            extrapolation_sampling=inputs["extrapolation_sampling"],
        )
        sets = handle.artifact.read_array("training.npy")
        about = handle.artifact.read_json("about.json")
        for row, name in zip(sets, ("interpolation", "extrapolation"), strict=True):
            assert np.flatnonzero(row).tolist() == each[f"{name}_train"]
            close(about[f"mean highest similarity of the {name} set"], each["mean_max_similarity"][name])


def test_resttest() -> None:
    inputs, expected = case("resttest", "train_query_emb", "test_query_emb", "centroids", "metric_by_fold_and_query")
    understood(
        expected, "train_bucket", "test_bucket", "folds", "per_fold", "mean_over_folds",
        "extrapolation_pooled_over_queries",
    )  # fmt: skip
    handle = fitted(inputs, centroids=inputs["centroids"])
    training, side = (handle.artifact.read_array(name) for name in ("training.npy", "side.npy"))
    assert (~training).argmax(axis=0).tolist() == expected["train_bucket"]
    assert side.argmax(axis=0).tolist() == expected["test_bucket"]
    assert len(expected["folds"]) == len(side)
    for fold in expected["folds"]:
        understood(fold, "held_out_bucket", "train", "interpolation_test", "extrapolation_test")
        row = fold["held_out_bucket"]
        assert np.flatnonzero(training[row]).tolist() == fold["train"]
        assert np.flatnonzero(side[row] == 0).tolist() == fold["interpolation_test"]
        assert np.flatnonzero(side[row] == 1).tolist() == fold["extrapolation_test"]
    items = [
        Item(f"{fold} {query}", fields={"fold": fold, "query": str(query), "metric": value})
        for fold, values in enumerate(inputs["metric_by_fold_and_query"])
        for query, value in enumerate(values)
    ]
    scores = handle.score(items)
    assert scores.groups is not None
    for name in ("interpolation", "extrapolation"):
        close([row[name] for row in scores.summary["Folds"]], expected["per_fold"][name])
        close(scores.groups.columns[name], [expected["mean_over_folds"][name]])
    close(scores.groups.columns["pooled"], [expected["extrapolation_pooled_over_queries"]])


@pytest.mark.parametrize(("least", "name"), [(1, "at_least_one"), (2, "more_than_one")])
def test_label_overlap(least: int, name: str) -> None:
    inputs, expected = case("label_overlap", "train_qrels", "test_qrels")
    understood(
        expected, "overlapped_at_least_one", "share_at_least_one", "overlapped_more_than_one", "share_more_than_one"
    )
    train, test = (
        {query: dict.fromkeys(passages, 1) for query, passages in inputs[side].items()}
        for side in ("train_qrels", "test_qrels")
    )
    found = label_overlap(train, test, least)
    assert found == expected[f"overlapped_{name}"]
    close(len(found) / len(test), expected[f"share_{name}"])


def test_real_counts() -> None:
    inputs, expected = case("real_counts", "files")
    understood(expected, "resttest.dev extrapolation queries per bucket", "restrain.14k")
    folder = FILES / inputs["files"]
    buckets = expected["resttest.dev extrapolation queries per bucket"]
    read = [
        metrics.read_qrels(folder / f"resttest.bucket-{bucket}.extrapolate.dev-qrel.txt")
        for bucket in range(1, len(buckets) + 1)
    ]
    assert [len(each) for each in read] == buckets
    assert len(set().union(*read)) == sum(buckets)
    sets = understood(expected["restrain.14k"], "interpolate", "extrapolate", "common_queries")
    found = {
        part: metrics.read_qrels(folder / f"restrain.14k.{part}.train-qrel.txt")
        for part in ("interpolate", "extrapolate")
    }
    for part, qrels in found.items():
        counts = understood(sets[part], "pairs", "queries")
        assert counts == {"pairs": sum(map(len, qrels.values())), "queries": len(qrels)}
    assert len(set(found["interpolate"]) & set(found["extrapolate"])) == sets["common_queries"]
