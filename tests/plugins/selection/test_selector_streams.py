"""Pipelines in parts: a stream gives what the whole gives, and fits make stages item-wise."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from selector_runs import Place, Q, Shout, pool, stage

import pickaxe
from pickaxe import Call, Item, catalog
from pickaxe.errors import InvalidItems, InvalidParams, Unmet


@pytest.fixture(autouse=True)
def _methods() -> Iterator[None]:
    with catalog.register(Shout, "t-shout", "scorer"), catalog.register(Place, "t-place", "scorer"):
        yield


LONG = [
    stage("loud", "threshold", "t-shout", at_least=4, edit=True),
    stage("low", "pareto", Q, alpha=1.0),
    stage("exact", "exact_dedup", Q),
    stage("near", "minhash_dedup"),
    stage("mid", "top_fraction", Q, fraction=0.8, by="characters"),
    stage("again", "threshold", Q, at_most=0.95),
    stage("draw", "gumbel_top_k", Q, k=40, on_missing="keep"),
    stage("groups", "epochs", Q, group="g", total=50, max_epochs=2),
]


def corpus(n: int) -> list[Item]:
    rng = np.random.default_rng(4)
    words = [f"word{row}" for row in range(20)]
    items = []
    for row in range(n):
        text = " ".join(rng.choice(words, rng.integers(0, 4)))
        fields: Mapping[str, Any] = {"q": float(rng.random()), "g": str(row % 3)} if row % 17 else {"g": "x"}
        items.append(Item(f"d{row}", text, fields))
    return items


@pytest.mark.parametrize("size", [1, 7, 300])
def test_parts_of_a_stream_give_what_the_whole_gives(size: int) -> None:
    items, call = corpus(300), Call(seed=3)
    handle = pickaxe.scorer("selector", stages=LONG, by="g")
    whole = handle.score(items, seed=3)
    method = handle.opened.method
    parts = [(start, method.look(items[start : start + size], call)) for start in range(0, 300, size)]
    rows = np.concatenate([start + part.rows for start, part in parts])
    filled = [part.features for _, part in parts if len(part.rows)]
    features = {name: np.concatenate([part[name] for part in filled]) for name in filled[0]}
    passed = method.settle(features, len(rows), 3)
    counts = np.zeros(300, np.int64)
    counts[rows] = passed.counts
    assert counts.tolist() == whole["count"].tolist()
    assert counts.sum() > 30
    assert passed.dropped_by.tolist() == whole["dropped_by"][rows].tolist()
    kept = [item for item, count in zip(items, counts, strict=True) if count]
    assert method.edited(kept, call) == [text for text in whole["text"].tolist() if text]
    told = method.funnel()
    for _, part in parts:
        told.merge(type(told).from_json(json.loads(json.dumps(part.funnel.to_json()))))
    for stage_ in (-2, 0, 1):
        assert told.dropped(stage_) == (whole["dropped_by"] == stage_).sum()
    assert {row["group"] for row in whole.summary["Groups"]} == {"0", "1", "2", "x"}


def test_a_fit_makes_quantiles_item_wise() -> None:
    items = pool(*np.linspace(0, 1, 101))
    stages = [
        stage("upper", "quantile", Q, q=0.5),
        stage("sum", "quantile", combine={"terms": [{"column": "q"}], "normalise": "z"}, q=0.5),
    ]
    handle = pickaxe.scorer("selector", stages=stages)
    assert handle.opened.method.runner.leading == 0
    fitted = handle.fit(items)
    assert fitted.opened.method.runner.leading == 2
    assert fitted.score(items)["keep"].sum() == handle.score(items)["keep"].sum() == 26
    assert fitted.score(items[90:])["keep"].sum() == 11
    assert handle.score(items[90:])["keep"].sum() == 3
    assert fitted.artifact is not None
    assert fitted.artifact.notes["axes"]["upper"]["goal"] == "distribution matching"
    with pytest.raises(InvalidItems, match="read only once"):
        handle.fit(iter(items))
    with pytest.raises(InvalidItems, match="empty"):
        handle.fit([])
    with pytest.raises(InvalidParams, match="nothing to fit"):
        pickaxe.scorer("selector", stages=[stage("best", "top_k", Q, k=1)]).fit(items)


def test_fits_of_shards_add_up() -> None:
    items = pool(*np.random.default_rng(0).random(200))
    one = pickaxe.scorer("selector", stages=[stage("upper", "quantile", Q, q=0.9)])
    parts = [one.fit(items[:50]), one.fit(items[50:])]
    merged = one.merge([part.artifact.path for part in parts if part.artifact])
    whole = one.fit(items)
    assert merged.score(items)["keep"].tolist() == whole.score(items)["keep"].tolist()
    two = pickaxe.scorer("selector", stages=[stage("a", "quantile", Q, q=0.1), stage("b", "quantile", Q, q=0.1)]).fit(
        items
    )
    assert two.artifact is not None
    with pytest.raises(Unmet, match="one fitted stage"):
        two.merge([two.artifact.path])
