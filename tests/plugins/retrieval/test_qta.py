"""`qta`: rewriting around a retriever, preferences and DPO training, and bad input."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pickaxe
from pickaxe import Call, Chunk, Item, Method, Prompt, SearchResults, catalog
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams, Unmet
from pickaxe.hooks import hookimpl
from pickaxe_plugins.retrieval.qta import _train as training
from pickaxe_plugins.retrieval.qta._pairs import dpo_loss, key, margins, preference

TOOLS = [
    Item("weather", "weather: the forecast of rain, wind and temperature for a town."),
    Item("mail", "mail: send a letter to one of your contacts."),
    Item("trains", "trains: departures between two stations."),
    Item("movies", "movies: search films by their title or actor."),
]
QUERIES = ["Will it rain in my town?", "Send a letter", "films by an actor"]
SMALL: dict[str, Any] = {"model": "draft", "precision": "fp32", "retriever": "bm25", "chat": False, "few_tools": 2}


class Rewriter(Method[pickaxe.Params]):
    """Says the query with `said` in place of it; "same" is the query itself."""

    said = "same"
    asked: tuple[Prompt, ...] = ()

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        Rewriter.asked = tuple(prompts)
        for row, prompt in enumerate(prompts):
            text = str(prompt.fields["query"]) if Rewriter.said == "same" else Rewriter.said
            yield Chunk(row, 0, text, finish_reason="stop")


@pytest.fixture(autouse=True)
def rewriter() -> Iterator[None]:
    with catalog.register(Rewriter, "said", "decoder"):
        Rewriter.said = "same"
        yield


def ids(found: SearchResults) -> list[list[str]]:
    return [[hit.id for hit in hits] for hits in found]


@pytest.mark.parametrize("retriever", ["bm25", "dense"])
def test_an_identity_rewriter_gives_the_retrievers_own_hits(retriever: str) -> None:
    plain = pickaxe.retriever(retriever).index(TOOLS).search(QUERIES, 3)
    ours = pickaxe.retriever("qta", retriever=retriever, rewriter="said").index(TOOLS).search(QUERIES, 3)
    assert [list(hits) for hits in ours] == [list(hits) for hits in plain]
    assert (ours.usage["model_calls"], ours.usage["queries_not_rewritten"]) == (3, 0)


def test_rewrites_are_searched_and_empty_ones_fall_back() -> None:
    index = pickaxe.retriever("qta", retriever="bm25", rewriter="said", few_tools=2).index(TOOLS)
    Rewriter.said = "trains\n between stations"
    assert ids(index.search(QUERIES, 1)) == [["trains"]] * 3
    (message,) = Rewriter.asked[0].messages
    assert message.content.count("\n- ") == 2
    assert QUERIES[0] in message.content
    Rewriter.said = "  \n"
    found = index.search([*QUERIES, " "], 1)
    assert ids(found)[:3] == [["weather"], ["mail"], ["movies"]]
    assert (found.usage["model_calls"], found.usage["queries_not_rewritten"]) == (3, 4)


def test_fusion_and_budget() -> None:
    index = pickaxe.retriever("qta", retriever="bm25", rewriter="said", fuse=True).index(TOOLS)
    Rewriter.said = "departures between stations"
    (hits,) = index.search(["Send a letter"], 4)
    assert {hit.id for hit in hits} >= {"mail", "trains"}
    assert {name for hit in hits for name in hit.columns} == {"query", "rewrite"}
    plain = pickaxe.retriever("qta", retriever="bm25", rewriter="said").index(TOOLS)
    found = plain.search(["Send a letter", "Send a letter"], 1, budget=1)
    assert ids(found) == [["trains"], ["mail"]]
    assert found.usage["model_calls"] == 1


def test_the_index_moves_and_belongs_to_its_retriever(tmp_path: Path) -> None:
    made = pickaxe.retriever("qta", retriever="bm25", rewriter="said").index(TOOLS, out=tmp_path / "made")
    (tmp_path / "made").rename(tmp_path / "moved")
    moved = pickaxe.retriever("qta", retriever="bm25", rewriter="said", artifact=tmp_path / "moved")
    assert ids(moved.search(QUERIES, 1)) == [["weather"], ["mail"], ["movies"]]
    assert made.params.retriever.name == "bm25"
    with pytest.raises(ArtifactMismatch, match="not 'dense'"):
        pickaxe.retriever("qta", retriever="dense", rewriter="said", artifact=tmp_path / "moved").search(QUERIES, 1)
    other = {"name": "bm25", "params": {"k1": 0.5}}
    with pytest.raises(ArtifactMismatch, match="k1"):
        pickaxe.retriever("qta", retriever=other, rewriter="said", artifact=tmp_path / "moved").search(QUERIES, 1)


def test_one_example_is_enough_and_the_index_stays_as_it_is(tmp_path: Path) -> None:
    plain = pickaxe.retriever("bm25").index(TOOLS, out=tmp_path / "plain")
    assert plain.artifact is not None
    before = plain.artifact.digest
    recipe = {"epochs": 3, "batch": 1, "rate": 5e-3, "warmup": 1}
    qta = pickaxe.retriever("qta", **SMALL, max_new_tokens=12, m=4, rank=2, recipe=recipe)
    query = Item("q", "Will it rain where my train goes?", {"relevant": ("weather", "trains")})
    steps: list[pickaxe.Progress] = []
    fitted = qta.fit([query], unlabelled=TOOLS, out=tmp_path / "fit", progress=steps.append)
    again = pickaxe.retriever("bm25").index(TOOLS, out=tmp_path / "again")
    assert fitted.artifact is not None
    assert again.artifact is not None
    assert again.artifact.digest == before
    pairs = [json.loads(line) for line in fitted.artifact.file("pairs.jsonl").read_text().splitlines()]
    assert fitted.artifact.notes["pairs"] == len(pairs)
    assert pairs
    for pair in pairs:
        assert key(pair["chosen_ranks"], "worst") < key(pair["rejected_ranks"], "worst")
    margins_seen = [step.metrics["margin"] for step in steps if step.stage == "train"]
    assert margins_seen[0] == pytest.approx(0, abs=1e-4)
    assert margins_seen[-1] > 0
    index = fitted.index(TOOLS, out=tmp_path / "index")
    assert len(index.search(QUERIES, 2)) == 3
    assert index.artifact is not None
    assert index.artifact.notes["rewriter"]


def test_training_prefers_the_chosen_also_on_what_it_did_not_see(tmp_path: Path) -> None:
    """Ten pairs of one preference; two more of it are held out (card: the mean margin becomes positive)."""
    from pickaxe.artifact import writing
    from pickaxe.lm.weights import open_checkpoint
    from pickaxe_plugins.train import adapters, llama
    from pickaxe_plugins.train.descent import finished
    from pickaxe_plugins.train.settings import Recipe

    host = pickaxe.Host()
    encode = host.lm("draft", "fp32").tokenizer.encode
    checkpoint = open_checkpoint(host.model_path("draft"))
    frozen = llama.load(checkpoint.architecture, checkpoint.tensors)
    words = ("rain", "mail", "train", "film", "song", "map", "bank", "news", "game", "code", "tea", "moon")
    pairs = [
        training.Pair(
            tuple(encode(f"Request: {word}\nRewrite:")), tuple(encode(f" search the {word} tool")),
            tuple(encode(f" I like {word}")),
        )
        for word in words
    ]  # fmt: skip
    changes = adapters.initial(frozen, training.LAYERS, 2, 0)
    args = (checkpoint.architecture, frozen)
    assert training.mean_margin(args[0], frozen, frozen, pairs[10:], 0.1) == 0
    recipe = Recipe(epochs=3, batch=5, rate=5e-3, warmup=1)
    with writing(tmp_path / "x", kind="fit", method="x", method_version=1, params={}) as out:
        changes = finished(training.train(*args, changes, pairs[:10], 0.1, 2.0, recipe, out, 0))
    merged = adapters.merged(frozen, changes, 2.0)
    assert training.mean_margin(args[0], merged, frozen, pairs[10:], 0.1) > 0.01


@given(st.lists(st.lists(st.integers(1, 30), min_size=2, max_size=2), min_size=1, max_size=6))
def test_preferences_come_from_ranks(ranks: list[list[int]]) -> None:
    for ranking in ("worst", "mean"):
        found = preference(ranks, ranking)  # type: ignore[arg-type]  # one of the two names
        keys = [key(each, ranking) for each in ranks]  # type: ignore[arg-type]  # the same
        assert [keys[place] for place in found.order] == sorted(keys)
        assert (found.chosen is None) == (min(keys) == max(keys))
        if found.chosen is not None and found.rejected is not None:
            assert keys[found.chosen] < keys[found.rejected]


@given(st.lists(st.tuples(*[st.floats(-50, 0)] * 4), min_size=1, max_size=5), st.floats(0.01, 2), st.floats(-5, 5))
def test_dpo_loss(rows: list[tuple[float, ...]], beta: float, shift: float) -> None:
    chosen, rejected, ref_chosen, ref_rejected = np.array(rows).T
    assert dpo_loss(margins(chosen, rejected, chosen, rejected, beta)) == pytest.approx(np.log(2))
    loss = dpo_loss(margins(chosen, rejected, ref_chosen, ref_rejected, beta))
    assert dpo_loss(margins(chosen + 1, rejected, ref_chosen, ref_rejected, beta)) < loss
    moved = margins(chosen + shift, rejected, ref_chosen + shift, ref_rejected, beta)
    assert dpo_loss(moved) == pytest.approx(loss, rel=1e-6, abs=1e-9)


def test_bad_input() -> None:
    for wrong in ({"beta": 0}, {"m": 0}, {"m": 17}, {"few_tools": 51}, {"rounds": 0}, {"temperature": 0}):
        with pytest.raises(InvalidParams, match=next(iter(wrong))):
            pickaxe.retriever("qta", **wrong)
    qta = pickaxe.retriever("qta", **SMALL)
    with pytest.raises(InvalidItems, match="need a query"):
        qta.fit([], unlabelled=TOOLS)
    with pytest.raises(InvalidItems, match="need a query"):
        qta.fit([Item("q", "x", {"relevant": ("mail",)})])
    with pytest.raises(InvalidItems, match="is empty"):
        qta.fit([Item("q", "x", {"relevant": ()})], unlabelled=TOOLS)
    with pytest.raises(InvalidItems, match="'phone', which is no tool"):
        qta.fit([Item("q", "x", {"relevant": ("mail", "phone")})], unlabelled=TOOLS)
    with pytest.raises(Unmet, match="cannot be trained"):
        pickaxe.retriever("qta", rewriter="said").fit([Item("q", "x", {"relevant": ("mail",)})], unlabelled=TOOLS)
    with pytest.raises(InvalidItems, match="are none"):
        qta.index([])
    with pytest.raises(InvalidItems, match="used before"):
        qta.index([TOOLS[0], TOOLS[0]])
