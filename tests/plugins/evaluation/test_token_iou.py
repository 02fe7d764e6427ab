"""token-iou: what must hold of the metrics, its errors, units, summary and searching."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pickaxe
from pickaxe import Hit, Item, Method, SearchResults, catalog
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe.hooks import hookimpl
from pickaxe.host import default_host
from pickaxe.report import explained
from pickaxe_plugins.evaluation.token_iou import _spans, evaluate, sentences

Spans = list[tuple[int, int]]


def question(references: Spans, retrieved: list[Any] | None, chunks: Spans | None = None, **fields: Any) -> Item:
    """One question of corpus "a"; retrieved chunks without a corpus are of it."""
    given: dict[str, Any] = {"references": np.array(references), "corpus": "a", **fields}
    if retrieved is not None:
        given["retrieved"] = {"retrieved": [[*each, "a"][:3] for each in retrieved]}
    if chunks is not None:
        given["all_chunks"] = {"all_chunks": [[*each, "a"] for each in chunks]}
    return Item("q", "What?", given)


def scored(*items: Item, **params: Any) -> dict[str, float]:
    scores = pickaxe.scorer("token-iou", **params).score(items)
    return {name: values[0].item() for name, values in scores.columns.items()}


# ---------------------------------------------------------------- must hold

span = st.tuples(st.integers(0, 120), st.integers(1, 40)).map(lambda each: (each[0], sum(each)))
spans = st.lists(span, min_size=1, max_size=5)
chunks = st.lists(span, min_size=1, max_size=12)


def positions(ranges: Spans) -> set[int]:
    return {place for start, end in ranges for place in range(start, end)}


@given(spans, spans, chunks)
def test_strict_metrics_are_those_of_sets_of_positions(references: Spans, retrieved: Spans, chunks: Spans) -> None:
    row = scored(question(references, retrieved, chunks))
    wanted, found = positions(references), positions(retrieved)
    total = sum(end - start for start, end in retrieved)
    hit = len(wanted & found)
    assert row["recall"] == pytest.approx(hit / len(wanted))
    assert row["precision"] == pytest.approx(hit / total)
    assert row["iou"] == pytest.approx(hit / (total + len(wanted - found)))
    assert row["n_hit_chunks"] == sum(bool(positions([each]) & wanted) for each in retrieved)
    met = [each for each in chunks if positions([each]) & wanted]
    assert row["chunks_needed"] == len(met)
    assert row["precision_omega"] == pytest.approx(len(wanted & positions(met)) / len(wanted | positions(met)))


@given(spans, spans, st.sampled_from(["strict", "official"]), st.randoms(use_true_random=False))
def test_bounds_and_order(references: Spans, retrieved: Spans, mode: str, random: Any) -> None:
    row = scored(question(references, retrieved, retrieved), mode=mode)
    assert all(0 <= row[name] <= 1 for name in ("iou", "recall", "precision", "precision_omega", "f1"))
    if mode == "strict":
        assert row["iou"] <= min(row["precision"], row["recall"]) + 1e-12
    if row["recall"] == 1:
        assert row["iou"] == row["precision"]
    shuffled = question(random.sample(references, len(references)), random.sample(retrieved, len(retrieved)), retrieved)
    assert scored(shuffled, mode=mode) == row


@given(spans, spans)
def test_twice_the_same_chunk_lowers_precision_and_iou_alone(references: Spans, retrieved: Spans) -> None:
    once = scored(question(references, retrieved), k=50)
    twice = scored(question(references, [*retrieved, retrieved[0]]), k=50)
    assert twice["recall"] == once["recall"]
    for name in ("precision", "iou"):
        assert twice[name] < once[name] or once[name] == twice[name] == 0


def test_retrieving_the_references_is_perfect() -> None:
    row = scored(question([(10, 20), (40, 70)], [(40, 70), (10, 20)], [(10, 20), (20, 40), (40, 70)]))
    assert row["iou"] == row["recall"] == row["precision"] == row["f1"] == row["precision_omega"] == 1
    assert row["chunks_needed"] == row["n_hit_chunks"] == 2


def test_omega_is_no_upper_bound_of_iou() -> None:
    """The second chunk holds one character of the answer; Omega needs it, a retriever may do without."""
    row = scored(question([(0, 101)], [(0, 100)], [(0, 100), (100, 1100)]))
    assert row["precision_omega"] == pytest.approx(101 / 1100)
    assert row["iou"] == pytest.approx(100 / 101)


def test_the_whole_corpus_as_one_chunk() -> None:
    row = scored(question([(10, 20), (50, 60)], [(0, 400)], [(0, 400)]))
    assert row["recall"] == 1
    assert row["precision"] == row["iou"] == row["precision_omega"] == 20 / 400


def test_chunks_of_other_corpora_cost_precision() -> None:
    row = scored(question([(0, 10)], [(0, 10, "b"), (0, 10)]))
    assert (row["recall"], row["precision"], row["iou"], row["n_hit_chunks"]) == (1, 0.5, 0.5, 1)


def test_touching_is_meeting_in_official_mode_only() -> None:
    item = question([(100, 200)], [(0, 100), (100, 200)], [(0, 100), (100, 200), (200, 300)])
    strict, official = scored(item), scored(item, mode="official")
    assert (strict["precision_omega"], strict["chunks_needed"], strict["n_hit_chunks"]) == (1, 1, 1)
    assert (official["precision_omega"], official["chunks_needed"], official["n_hit_chunks"]) == (1 / 3, 3, 2)


def test_overlapping_references_count_once_in_strict_mode() -> None:
    item = question([(0, 20), (10, 30)], [(0, 30)])
    assert scored(item)["recall"] == 1
    assert scored(item, mode="official")["recall"] == 30 / 40


def test_k_cuts_the_list_and_needed_takes_as_many_as_there_are_to_find() -> None:
    item = question([(0, 10), (20, 30)], [(40, 50), (0, 10), (20, 30)], [(0, 10), (10, 20), (20, 30), (40, 50)])
    assert scored(item, k=1)["recall"] == 0
    assert scored(item, k="needed")["recall"] == 0.5
    assert scored(item)["recall"] == 1


def test_chunks_of_very_different_lengths_are_found() -> None:
    """Long chunks around short ones: those that meet are not neighbours by start."""
    chunks = [(0, 10_000), *((start, start + 5) for start in range(0, 10_000, 5)), (2000, 9000)]
    assert scored(question([(5001, 5012)], [(0, 5)], chunks))["chunks_needed"] == 5


def test_many_pairs_are_looked_at_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [question([(row, row + 30), (90, 95)], [(0, 9)], [(at, at + 9) for at in range(90)]) for row in range(50)]
    whole = pickaxe.scorer("token-iou").score(items)
    monkeypatch.setattr(_spans, "PAIRS_AT_ONCE", 7)
    blocks = pickaxe.scorer("token-iou").score(items)
    for name, values in whole.columns.items():
        np.testing.assert_array_equal(blocks[name], values)


# ---------------------------------------------------------------- groups, units, nothing retrieved


def test_a_chunking_given_once_serves_its_group() -> None:
    cut = [(0, 10), (10, 20)]
    items = [
        question([(0, 5)], [(0, 10)], cut, group="tens"),
        question([(10, 20)], [(0, 10)], group="tens"),
        question([(10, 20)], [(0, 20)], group="uncut"),
    ]
    scores = pickaxe.scorer("token-iou").score(items)
    assert scores["precision_omega"].tolist()[:2] == [0.5, 1]
    assert np.isnan(scores["precision_omega"][2])
    assert scores.groups is not None
    assert scores.groups.keys == ("tens / a", "uncut / a")
    assert scores.groups.columns["mean_iou"].tolist() == pytest.approx([0.25, 0.5])
    assert scores.groups.columns["std_iou"].tolist() == pytest.approx([0.25, 0])


def test_the_report_names_the_best_group_and_draws_its_means() -> None:
    items = [
        question([(0, 10 + row)], [(0, 10 * size)], [(0, 10 * size)], group=f"{size} tens")
        for size in (1, 3)
        for row in range(6)
    ]
    scores = pickaxe.scorer("token-iou").score(items)
    answer, (figure,) = explained(scores.summary)
    assert answer[0].startswith("1 tens: mean IoU")
    assert any("3 tens" in sentence for sentence in answer)
    drawn = {series.name: series.x for series in figure.series}
    means = [line["mean_iou"] for line in scores.summary["Overall"]]
    assert list(drawn["IoU"]) == pytest.approx(means)
    assert figure.y.categories == ("1 tens", "3 tens")


def test_words_and_tokens_are_counted_where_they_start() -> None:
    text = "One two three. Four extraordinarily long words."
    item = question([(0, 14)], [(0, 47)], corpus_text=text)
    assert scored(item)["precision"] == pytest.approx(14 / 47)
    assert scored(item, unit="word")["precision"] == pytest.approx(3 / 7)
    tokenizer = default_host().lm("draft").tokenizer
    first, all_of = len(tokenizer.encode(text[:14])), len(tokenizer.encode(text))
    assert scored(item, unit="token")["precision"] == pytest.approx(first / all_of)


def test_nothing_retrieved() -> None:
    items = [question([(0, 10)], []), question([(0, 10)], [(0, 10)])]
    zero = pickaxe.scorer("token-iou").score(items)
    assert [zero[name][0] for name in ("iou", "recall", "precision", "f1")] == [0, 0, 0, 0]
    assert [(flag.index, flag.reason) for flag in zero.flags] == [(0, "nothing-retrieved")]
    nan = pickaxe.scorer("token-iou", empty_policy="nan").score(items)
    assert np.isnan(nan["iou"][0])
    assert nan["recall"][0] == 0
    assert nan.summary["Overall"][0]["mean_iou"] == 1
    with pytest.raises(InvalidItems, match=r"items\[0\].fields.retrieved.*empty_policy"):
        pickaxe.scorer("token-iou", empty_policy="error").score(items)
    alone = pickaxe.scorer("token-iou", empty_policy="nan").score(items[:1])
    assert "Nothing was retrieved" in explained(alone.summary)[0][0]


def test_a_question_that_no_chunk_meets_is_flagged() -> None:
    scores = pickaxe.scorer("token-iou").score([question([(50, 60)], [(0, 10)], [(0, 10)])])
    assert scores["precision_omega"][0] == scores["chunks_needed"][0] == 0
    assert [flag.reason for flag in scores.flags] == ["no-chunk"]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("item", "what"),
    [
        (question([(10, 10)], [(0, 10)]), r"references\[0\].*start < end"),
        (question([(0, 10)], [(30, 20)]), r"retrieved\[0\].*start < end"),
        (question([(-1, 10)], [(0, 10)]), r"references\[0\].*0 <= start"),
        (question([(0, 50)], [(0, 10)], corpus_length=40), r"references\[0\].*inside the corpus of 40 characters"),
        (question([(0, 5)], [(0, 10)], [(0, 50)], corpus_text="x" * 40), r"all_chunks\[0\].*of 40 characters"),
        (question([(0, 5)], [(0, 10)], corpus=""), "corpus: is empty"),
        (Item("q", fields={"corpus": "a", "references": np.zeros((0, 2), int), "retrieved": {}}), "one or more"),
        (Item("q", fields={"corpus": "a", "references": np.zeros((1, 2)), "retrieved": {}}), "whole numbers"),
        (question([(0, 5)], None), "retrieved: is missing.*retriever"),
        (Item("q", fields={"corpus": "a", "references": np.array([[0, 1]]), "retrieved": {"x": 1}}), "wants"),
        (question([(0, 5)], [(0, 10)], corpus_text="text text text", corpus_length=3), "corpus_length"),
    ],
)  # fmt: skip
def test_bad_spans_are_named(item: Item, what: str) -> None:
    with pytest.raises(InvalidItems, match=rf"items\[1\]\.fields\..*{what}.*'q'"):
        pickaxe.scorer("token-iou").score([question([(0, 5)], [(0, 10)]), item])


def test_missing_fields_params_and_texts_are_named() -> None:
    with pytest.raises(InvalidItems, match=r"items\[0\].fields.corpus: is missing"):
        scored(Item("q", fields={"references": np.array([[0, 1]])}))
    with pytest.raises(InvalidParams, match=r"k: .*at least 1"):
        pickaxe.scorer("token-iou", k=0)
    with pytest.raises(InvalidItems, match="all_chunks: is missing: k=needed"):
        scored(question([(0, 5)], [(0, 10)]), k="needed")
    with pytest.raises(InvalidItems, match="corpus 'a', whose corpus_text no item holds"):
        scored(question([(0, 5)], [(0, 10)]), unit="word")
    with pytest.raises(InvalidItems, match=r"references\[0\]: holds no unit"):
        scored(question([(1, 3)], [(0, 10)], corpus_text="a" * 10), unit="word")
    with pytest.raises(InvalidItems, match="otherwise than before"):
        scored(question([(0, 5)], [(0, 10)], [(0, 10)]), question([(0, 5)], [(0, 10)], [(0, 20)]))


# ---------------------------------------------------------------- searching

TEXT = "The ferry leaves at nine. It has two decks. Tickets cost four coins. Children pay half."


class FirstLetters(Method[pickaxe.Params]):
    """Finds what shares most words with the query; with `spans` it tells where."""

    reads = (pickaxe.InputField("text", "text", "A text."),)

    @hookimpl
    def index(self, documents: Any, out: Any, call: Any) -> Any:
        out.write_json("texts.json", {item.id: item.text for item in documents})
        yield pickaxe.Progress("read", 1, 1)

    @hookimpl
    def search(self, queries: Any, k: int) -> SearchResults:
        texts = self.artifact.read_json("texts.json")  # type: ignore[union-attr]
        results = []
        for query in queries:
            words = set(query.text.lower().split())
            scores = {name: len(words & set(text.lower().strip(".").split())) for name, text in texts.items()}
            best = sorted(scores, key=lambda name: -scores[name])[:k]
            results.append(tuple(Hit(name, scores[name]) for name in best))
        return SearchResults(tuple(results))


def asked() -> list[Item]:
    fields = {"references": np.array([[44, 68]]), "corpus": "guide", "corpus_text": TEXT}
    return [Item("q", "What do tickets cost ?", fields)]


def test_sentences_are_cut_with_their_places() -> None:
    assert [TEXT[each.start : each.end] for each in sentences(3)(TEXT)] == [TEXT[:68], TEXT[69:]]
    assert [(each.start, each.end) for each in sentences(1)("  A b.\n\nNo end ")] == [(2, 6), (8, 14)]
    assert sentences(2)(" \n") == []


def test_a_retriever_searches_where_nothing_was_retrieved() -> None:
    with catalog.register(FirstLetters, "first-letters", "retriever"):
        row = scored(*asked(), retriever="first-letters", sentences=1, k=1)
        assert (row["iou"], row["precision_omega"]) == (1, 1)
        pairs = evaluate(sentences(2), "first-letters", asked(), {"guide": TEXT}, k=1)
        assert pairs["iou"][0] == pytest.approx(24 / len(TEXT[44:]))
        with pytest.raises(Unmet, match="spans of its hits"):
            scored(*asked(), retriever="first-letters", sentences=0)
        with pytest.raises(InvalidItems, match=r"items\[0\].fields.corpus_text: is missing"):
            scored(question([(0, 1)], None), retriever="first-letters")
        with pytest.raises(InvalidItems, match="given for some questions"):
            scored(question([(0, 1)], [(0, 1)]), *asked(), retriever="first-letters")


def test_spans_of_a_retriever_that_cuts_by_itself() -> None:
    params = {"name": "chronicles", "params": {"chunk_size": 4}}
    row = scored(*asked(), retriever=params, sentences=0, k=1)
    assert row["recall"] > 0
    assert np.isnan(row["precision_omega"])
