"""`ict-bfs-wlp`: pages, pairs and their stream, the loss, what a fit makes, and bad input."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe_plugins.retrieval.ict_bfs_wlp import IctBfsWlp
from pickaxe_plugins.retrieval.ict_bfs_wlp._page_pairs import BLOCK, Corpus, Page, page, pretraining_pairs, sentences
from pickaxe_plugins.retrieval.ict_bfs_wlp._train import Towers, duplicates, fresh, in_batch_loss, masked, objective
from pickaxe_plugins.train import bert
from pickaxe_plugins.train.pairs import Encoded, batch

EXAMPLE = IctBfsWlp.example()


@st.composite
def wikis(draw: st.DrawFn) -> list[Page]:
    names = [f"p{row}" for row in range(draw(st.integers(2, 4)))]
    made = []
    for name in names:
        shape = draw(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=2), min_size=1, max_size=3))
        sections = [
            [[f"{name} s{a} p{b} n{c}." for c in range(count)] for b, count in enumerate(section)]
            for a, section in enumerate(shape)
        ]
        made.append(Page(name, sections, links=draw(st.lists(st.sampled_from([*names, "gone"]), max_size=3))))
    return made


# ------------------------------------------------------------ pairs


@settings(max_examples=20, deadline=None)
@given(wikis(), st.integers(0, 5))
def test_every_pair_is_what_its_task_says(pages: list[Page], seed: int) -> None:
    by_name = {each.id: each for each in pages}
    try:
        drawn = list(islice(pretraining_pairs(pages, seed=seed), 60))
    except ValueError:
        assert not any(Corpus(pages).possible(task) for task in ("ict", "bfs", "wlp"))
        return
    for pair in drawn:
        name, section, paragraph, place = pair.query_at
        passage = by_name[name].sections[section][paragraph]
        other = by_name[pair.passage_at[0]].sections[pair.passage_at[1]][pair.passage_at[2]]
        assert pair.query == passage[place]
        if pair.task == "ict":
            assert pair.passage_at == (name, section, paragraph)
            assert pair.passage == " ".join([*passage[:place], *passage[place + 1 :]])
            assert pair.query not in pair.passage
        else:
            assert section == 0
            assert pair.passage == " ".join(other)
        if pair.task == "bfs":
            assert pair.passage_at[0] == name
            assert pair.passage_at != (name, section, paragraph)
        if pair.task == "wlp":
            assert pair.passage_at[0] != name
            assert name in by_name[pair.passage_at[0]].links


def wiki() -> list[Page]:
    return [page(item, row) for row, item in enumerate(EXAMPLE.documents)]


def test_the_stream_is_the_same_whoever_draws_it() -> None:
    whole = list(islice(pretraining_pairs(wiki(), seed=3), 3 * BLOCK))
    assert whole[BLOCK + 7 :] == list(islice(pretraining_pairs(wiki(), seed=3, start=BLOCK + 7), 2 * BLOCK - 7))
    corpus, mix = Corpus(wiki()), {"ict": 1.0, "bfs": 1.0, "wlp": 1.0}
    with ThreadPoolExecutor(3) as workers:
        blocks = list(workers.map(lambda number: corpus.block(number, mix, 3), (2, 1, 0)))  # type: ignore[arg-type]  # tasks
    assert [pair for each in reversed(blocks) for pair in each] == whole
    assert whole != list(islice(pretraining_pairs(wiki(), seed=4), 3 * BLOCK))
    tasks = [pair.task for pair in whole]
    assert all(abs(tasks.count(task) / len(tasks) - 1 / 3) < 0.05 for task in ("ict", "bfs", "wlp"))


def test_weights_kept_queries_and_short_sentences() -> None:
    drawn = list(islice(pretraining_pairs(wiki(), weights={"ict": 9, "bfs": 1, "wlp": 0}, keep_prob=0.5), 2000))
    tasks = [pair.task for pair in drawn]
    assert "wlp" not in tasks
    assert abs(tasks.count("ict") / 2000 - 0.9) < 0.05
    kept = [pair.query in pair.passage for pair in drawn if pair.task == "ict"]
    assert abs(np.mean(kept) - 0.5) < 0.06
    assert all(len(pair.query.split()) >= 4 for pair in islice(pretraining_pairs(wiki(), min_tokens=4), 200))
    with pytest.raises(ValueError, match="no task"):
        next(pretraining_pairs([Page("a", [[["One."]]], links=["a", "gone"])]))


def test_pages_of_texts() -> None:
    assert sentences('Is it? "Yes." It costs 3.5 e.g. here. ') == ["Is it?", '"Yes."', "It costs 3.5 e.g. here."]
    assert page(Item("a", "One. Two.\n\nThree."), 0).sections == [[["One.", "Two."]], [["Three."]]]
    marked = "# Head\nOne.\n\nTwo.\n## Next\nThree."
    assert page(Item("a", marked), 0).sections == [[["One."], ["Two."]], [["Three."]]]
    struct = {"sections": [["One. Two."], ["Three.", ""]]}
    assert page(Item("a", None, {"sections": struct}), 0).sections == [[["One.", "Two."]], [["Three."]]]
    assert page(Item("a", ""), 0).sections == []
    with pytest.raises(InvalidItems, match=r"examples\[2\].fields.sections"):
        page(Item("a", None, {"sections": {"sections": ["One."]}}), 2)


# ------------------------------------------------------------ loss


@pytest.fixture
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def test_the_loss_of_equal_vectors_is_log_b_and_duplicates_do_not_count(double: None) -> None:
    vectors = np.ones((7, 3))
    assert float(in_batch_loss(vectors, vectors, np.zeros((7, 7), bool))) == pytest.approx(math.log(7))
    queries, documents = np.random.default_rng(0).standard_normal((2, 5, 4))
    same = duplicates(["a", "b", "a", ("c", 1), ("c", 1)])
    assert same.sum() == 4
    value = float(in_batch_loss(queries, documents, same))
    order = [3, 1, 4, 0, 2]
    assert float(in_batch_loss(queries[order], documents[order], same[np.ix_(order, order)])) == pytest.approx(value)
    slope = jax.grad(lambda each: in_batch_loss(queries[:1], each[:1], same[:1, :1]) + 0 * each.sum())(documents)
    assert not np.asarray(slope).any()
    scores = queries @ documents.T
    alone = [np.log(np.exp(row[~mask]).sum()) - row[place]
             for place, (row, mask) in enumerate(zip(scores, same, strict=True))]  # fmt: skip
    assert value == pytest.approx(np.mean(alone))


def test_gradients_by_chunks_are_those_of_the_whole_batch(double: None) -> None:
    config = bert.Config(layers=1, width=8, heads=2, mlp=16, vocab=20, positions=16, pooling="cls")
    tree = {"both": {**bert.initial(config, 0, 0.3), **fresh(config, 4, 0, "both")}}
    random = np.random.default_rng(0)
    sides = {
        side: batch([Encoded(random.integers(0, 20, 5), np.zeros(5, np.int32)) for _ in range(6)])
        for side in ("query", "document")
    }
    given = {**sides, "same": np.zeros((6, 6), bool)}
    slopes = []
    for chunk in (None, 2):
        loss = objective(Towers(config, True, 0.0, chunk), True, False)
        slope = jax.jit(jax.grad(lambda each, loss=loss: loss(each, given, jax.random.key(0))[0]))
        slopes.append(slope(tree)["both"])
    for name, slope in slopes[0].items():
        np.testing.assert_allclose(slopes[1][name], slope, rtol=1e-5, atol=1e-8)


def test_masking_hides_a_share_and_knows_what_was_there() -> None:
    rows = [Encoded(np.arange(1, 23, dtype=np.int32), np.zeros(22, np.int32)), Encoded(np.array([1, 2]), np.zeros(2))]
    given = masked(rows, 99, 50, np.random.default_rng(0))
    counted = given["shares"] > 0
    assert counted.sum(1).tolist() == [3, 0]
    assert (given["targets"][counted] == given["places"][counted] + 1).all()
    assert given["shares"].sum() == pytest.approx(1)
    assert given["ids"][0, 0] == 1
    assert given["ids"][0, 21] == 22


# ------------------------------------------------------------ fit


def retriever(**params: Any) -> Any:
    return pickaxe.retriever("ict-bfs-wlp", **{**EXAMPLE.params, **params})


ANIMALS = {"fox": "den", "bee": "hive", "bird": "nest", "bear": "cave", "mole": "burrow", "dog": "kennel"}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[pickaxe.Progress]]:
    """A fit on pages of one passage each without links, and what its steps told."""
    pages = [
        Item(animal, f"The {animal} sleeps here. A {home} is dark. The {animal} has a {home}.")
        for animal, home in ANIMALS.items()
    ]
    steps: list[pickaxe.Progress] = []
    params = {"steps": 150, "lr": 5e-3, "batch": 12, "width": 32, "dim": 32, "dropout": 0.0}
    out = tmp_path_factory.mktemp("learned") / "fit"
    return retriever(**params).fit(pages, out=out, progress=steps.append), steps


def test_a_fit_learns_what_belongs_together(learned: tuple[Any, list[pickaxe.Progress]]) -> None:
    fitted, steps = learned
    assert steps[-1].metrics["loss"] < 0.7 * steps[0].metrics["loss"]
    assert fitted.artifact.notes["tasks"] == {"ict": 1.0}
    assert fitted.artifact.notes["dropped_tasks"] == ["bfs", "wlp"]
    index = fitted.index([Item(home, f"A {home} is dark.") for home in ANIMALS.values()])
    found = index.search([Item(animal, f"The {animal} sleeps here.") for animal in ANIMALS], 6)
    ranks = [[hit.id for hit in hits].index(home) for hits, home in zip(found, ANIMALS.values(), strict=True)]
    assert np.mean(ranks) < 1.5  # 2.5 by chance
    shares = [np.mean([rank < k for rank in ranks]) for k in range(1, 7)]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(index.add([Item("new", "A bed is soft.")], remove=["den"]).search(["bed"], 10)[0]) == 6


def test_an_index_of_any_texts(learned: tuple[Any, list[pickaxe.Progress]], tmp_path: Path) -> None:
    texts = ["", "\u5317\u4eac", "a den " * 5000]
    index = learned[0].index(texts, out=tmp_path / "index")
    assert index.artifact.notes["documents"] == 3
    for query in ("", "den", "\u5317\u4eac", "den " * 5000):
        hits = index.search([query], 10)[0]
        assert sorted(hit.id for hit in hits) == ["0", "1", "2"]
        assert all(hit.columns == {"dot": hit.score} and math.isfinite(hit.score) for hit in hits)
    with pytest.raises(InvalidItems, match="at least one document"):
        learned[0].index([])
    with pytest.raises(InvalidItems, match="used before"):
        learned[0].index([Item("a", "One."), Item("a", "Two.")])


def test_masked_words_then_questions_for_towers_of_their_own(tmp_path: Path) -> None:
    params: dict[str, Any] = {"share_towers": False, "dropout": 0.0}
    first = retriever(**params, tasks=["mlm"]).fit(EXAMPLE.documents, out=tmp_path / "fit").artifact
    assert first.notes["tasks"] == {"mlm": 1}
    assert first.has("document.onnx")
    again = retriever(**params).fit(EXAMPLE.examples[2:], init_from=tmp_path / "fit")
    assert again.artifact.notes["tasks"] == {}
    assert again.artifact.notes["questions"] == 2
    for side in ("query", "document"):
        assert first.file(f"{side}.onnx").read_bytes() != again.artifact.file(f"{side}.onnx").read_bytes()


def test_bad_input() -> None:
    with pytest.raises(ArtifactMismatch, match=r"call fit\(pages\) first"):
        retriever().index(EXAMPLE.documents)
    with pytest.raises(InvalidItems, match="are none"):
        retriever().fit([])
    with pytest.raises(InvalidItems, match="no task can be drawn"):
        retriever().fit([Item("a", "One.")])
    for tasks in (["ict"], ["mlm"]):
        with pytest.raises(InvalidItems, match="without any text"):
            retriever(tasks=tasks).fit([Item("a", " ")])
    with pytest.raises(InvalidItems, match="two pages of one id"):
        retriever().fit([Item("a", "One. Two."), Item("a", "One. Two.")])
    for wrong, said in (({"chunk": 3}, "multiple of chunk"), ({"width": 15, "heads": 2}, "multiple of heads"),
                        ({"mix": {"ict": -1}}, "negative"), ({"tasks": []}, "tasks")):  # fmt: skip
        with pytest.raises(InvalidParams, match=said):
            retriever(**wrong)
    with pytest.raises(InvalidItems, match="sections of paragraphs"):
        retriever().fit([Item("a", None, {"sections": {"sections": "One."}})])
