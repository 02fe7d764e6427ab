"""`fullrank`: always a permutation, the card's invariants, prompts that fit, and every kind of ranker."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Call, Chunk, Column, Item, Items, Message, Method, Prompt, Ranked, Ranking, Scores, catalog
from pickaxe.encoder.memory import VectorMemory
from pickaxe.errors import DoesNotFit, InvalidItems, InvalidParams, UnknownMethod
from pickaxe.hooks import hookimpl
from pickaxe_plugins.reranking.fullrank import (
    build_labels,
    complete_order,
    importance_weights,
    label_text,
    listwise_loss,
    listwise_messages,
    neutral,
    one_pass,
    parse_permutation,
    schedule,
    write_permutation,
)
from pickaxe_plugins.reranking.fullrank._prompt import fitted

FILES = Path(__file__).parents[2] / "golden" / "files" / "68-fullrank"


class Says(Method[pickaxe.Params]):
    """A decoder that writes `text`, whatever it is asked."""

    text: ClassVar[str] = ""
    asked: ClassVar[list[Prompt]] = []

    @hookimpl
    def decode(self, prompts: Sequence[Prompt]) -> Iterator[Chunk]:
        self.asked.extend(prompts)
        for row in range(len(prompts)):
            yield Chunk(prompt=row, text=self.text, token_ids=(1, 2), finish_reason="stop")


class Longest(Method[pickaxe.Params]):
    """A scorer: the longer the text, the better."""

    columns = (Column("length", "Characters."),)
    seen: ClassVar[list[Items]] = []

    @hookimpl
    def score(self, items: Items) -> Scores:
        self.seen.append(items)
        return Scores({"length": np.array([float(len(item.text or "")) for item in items])})


class LongestFirst(Method[pickaxe.Params]):
    """The same as a reranker, which keeps the best two of a window."""

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int) -> Ranking:
        order = sorted(range(len(candidates)), key=lambda row: -len(candidates[row].text or ""))[:2]
        ranked = tuple(Ranked(row, candidates[row].id, 1.0) for row in order)
        return Ranking(ranked, cut="keeps two", usage={"looks": 1})


@pytest.fixture(autouse=True)
def methods() -> Iterator[None]:
    Says.text, Says.asked[:], Longest.seen[:] = "", [], []
    with (
        catalog.register(Says, "says", "decoder"),
        catalog.register(Longest, "longest", "scorer"),
        catalog.register(LongestFirst, "longest-first", "reranker"),
    ):
        yield


def texts(lengths: Sequence[int]) -> list[Item]:
    return [Item(f"c{row}", "x" * length) for row, length in enumerate(lengths)]


# ---------------------------------------------------------------- windows and passes


@settings(max_examples=150, deadline=None)
@given(n=st.integers(1, 80), window=st.integers(1, 30), data=st.data())
def test_windows_go_from_back_to_front_and_leave_nothing_out(n: int, window: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(1, window))
    windows = schedule(n, window, step)
    assert windows[0] == (max(0, n - window), n)
    assert windows[-1][0] == 0
    assert all(start >= 0 and 0 < end - start <= window for start, end in windows)
    assert {place for start, end in windows for place in range(start, end)} == set(range(n))
    assert windows == sorted(windows, reverse=True)
    if window >= n:
        assert windows == [(0, n)]


@settings(max_examples=80, deadline=None)
@given(relevance=st.lists(st.integers(0, 50), min_size=1, max_size=60), window=st.integers(2, 20), data=st.data())
def test_one_pass_settles_the_top_and_complete_settles_all(
    relevance: list[int], window: int, data: st.DataObject
) -> None:
    step = data.draw(st.integers(1, window - 1))
    n = len(relevance)
    full = sorted(range(n), key=lambda row: (-relevance[row], row))

    def consistent(rows: Sequence[int]) -> list[int]:
        return sorted(rows, key=lambda row: (-relevance[row], row))

    settled = n if n <= window else window - step
    assert one_pass(range(n), consistent, window, step)[:settled] == full[:settled]
    order, passes = complete_order(consistent, n, window, step)
    assert order == full
    assert passes == (math.ceil((n - window) / (window - step)) + 1 if n > window else 1)


def test_windows_are_refused_that_leave_candidates_out() -> None:
    with pytest.raises(InvalidParams, match="from 1 to the window 4"):
        schedule(10, 4, 5)
    with pytest.raises(InvalidParams, match="a pass would fix nothing"):
        complete_order(sorted, 10, 4, 4)


# ---------------------------------------------------------------- parsing


@settings(max_examples=200, deadline=None)
@given(text=st.text(), n=st.integers(1, 12))
def test_anything_parses_to_a_permutation(text: str, n: int) -> None:
    parsed = parse_permutation(text, n)
    assert sorted(parsed.order) == list(range(n))
    assert parsed.sound == (not parsed.missing and not parsed.repeated and not parsed.out_of_range)


@settings(max_examples=50, deadline=None)
@given(order=st.permutations(range(9)))
def test_what_is_written_reads_back(order: list[int]) -> None:
    parsed = parse_permutation(write_permutation(order), 9)
    assert list(parsed.order) == order
    assert parsed.sound


def test_the_report_counts_what_was_mended() -> None:
    parsed = parse_permutation("[3] > [3] > [9] > [0] > [1]", 4)
    assert parsed.order == (2, 0, 1, 3)
    assert (parsed.missing, parsed.repeated, parsed.out_of_range) == (2, 1, 2)
    assert parse_permutation("[٣] > [١]", 3).order == (2, 0, 1)
    assert parse_permutation("[2] > [²]", 3).order == (0, 1, 2)
    assert parse_permutation("9" * 5000, 2).order == (0, 1)


@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=80), strategy=st.sampled_from(["full", "sliding", "complete"]), n=st.integers(1, 9))
def test_a_permutation_comes_out_whatever_the_decoder_writes(noise: bytes, strategy: str, n: int) -> None:
    Says.text = noise.decode("latin-1")
    ranking = pickaxe.reranker("fullrank", decoder="says", strategy=strategy, window=4, step=2).rerank(
        "query", texts(range(n))
    )
    assert sorted(entry.index for entry in ranking) == list(range(n))
    assert sorted(ranking.scores.tolist(), reverse=True) == pytest.approx([1 / rank for rank in range(1, n + 1)])


def test_prose_keeps_the_incoming_order_with_a_warning() -> None:
    Says.text = "I think they are all fine."
    ranking = pickaxe.reranker("fullrank", decoder="says").rerank("query", texts([3, 1, 2]))
    assert ranking.ids == ["c0", "c1", "c2"]
    assert ranking.record["windows"] == [
        {"passages": 3, "missing": 3, "repeated": 0, "out_of_range": 0, "max_passage_len": 100}
    ]
    assert "3 of 3 candidates were not named" in ranking.record["warnings"][0]
    Says.text = "[2]"
    assert pickaxe.reranker("fullrank", decoder="says").rerank("query", texts([3, 1, 2])).ids == ["c1", "c0", "c2"]


# ---------------------------------------------------------------- prompts


def test_identifiers_in_texts_are_neutral() -> None:
    assert neutral("see [12] and [x] and [٣]") == "see (12) and [x] and (٣)"
    messages = listwise_messages("is [2] right?", ["[1] > [2]", "no [7]"], 10)
    lines = messages[-1].content.splitlines()
    assert [line for line in lines if line.startswith("[")] == ["[1] (1) > (2)", "[2] no (7)"]
    assert "is (2) right?" in messages[-1].content


@settings(max_examples=60, deadline=None)
@given(passages=st.lists(st.text(max_size=30), min_size=1, max_size=5), query=st.text(max_size=20))
def test_passages_name_no_identifiers_of_their_own(passages: list[str], query: str) -> None:
    content = listwise_messages(query, passages, 50)[-1].content
    plain = listwise_messages("", [""] * len(passages), 50)[-1].content
    own = [
        each for each in content.replace("[2] > [1] > [3]", "").split() if each.startswith("[") and each.endswith("]")
    ]
    theirs = [
        each for each in plain.replace("[2] > [1] > [3]", "").split() if each.startswith("[") and each.endswith("]")
    ]
    assert [each for each in own if each[1:-1].isdigit()] == theirs


def test_titles_are_read_and_passages_cut_to_words() -> None:
    Says.text = "[2] > [1]"
    candidates = [Item("a", "one two three four", {"title": "Numbers"}), Item("b", "five")]
    reranker = pickaxe.reranker("fullrank", decoder="says", max_passage_len=3)
    assert reranker.rerank("query", candidates).ids == ["b", "a"]
    assert "[1] Numbers one two\n[2] five" in Says.asked[0].messages[-1].content
    assert Says.asked[0].sampling.temperature == 0


def count(messages: Sequence[Message]) -> int:
    return sum(len(turn.content.split()) for turn in messages)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 20), words=st.integers(1, 40), context=st.integers(1, 900))
def test_passages_shrink_until_all_fits_or_the_largest_number_is_named(n: int, words: int, context: int) -> None:
    passages = [" ".join(["w"] * words)] * n
    try:
        prompt = fitted("query", passages, 30, context, count, lambda m: 3 * m)
    except DoesNotFit as error:
        largest = int(error.metadata["largest"])
        assert largest < n
        for size in {largest, largest + 1} - {0}:
            fits = count(listwise_messages("query", [""] * size, 0)) + 3 * size <= context
            assert fits == (size == largest)
    else:
        assert prompt.tokens + 3 * n <= context
        assert prompt.tokens == count(prompt.messages)
        assert 0 <= prompt.max_passage_len <= 30


def test_too_many_candidates_name_the_largest_number() -> None:
    with pytest.raises(DoesNotFit, match=r"40 passages do not fit the context of 300 tokens.*at most \d+ do"):
        pickaxe.reranker("fullrank", decoder="says", context_tokens=300).rerank("query", texts([5] * 40))


# ---------------------------------------------------------------- strategies


def test_full_asks_once_and_sliding_and_complete_as_often_as_their_windows() -> None:
    candidates = texts(np.random.default_rng(0).permutation(100).tolist())
    usage = {}
    for strategy in ("full", "sliding", "complete"):
        ranking = pickaxe.reranker("fullrank", ranker="longest", strategy=strategy).rerank("query", candidates)
        usage[strategy] = (ranking.usage["prompts"], ranking.usage["passage_reads"], ranking.record["passes"])
        settled = 10 if strategy == "sliding" else 100
        lengths = [len(candidates[entry.index].text or "") for entry in ranking]
        assert lengths[:settled] == sorted(lengths, reverse=True)[:settled]
    assert usage["full"] == (1, 100, 1)
    assert usage["sliding"] == (9, 180, 1)
    assert usage["complete"] == (45, 900, 9)


@pytest.mark.parametrize("n", [1, 5, 20])
def test_sliding_over_everything_is_full(n: int) -> None:
    Says.text = "[3] > [1]"
    found = [
        pickaxe.reranker("fullrank", decoder="says", strategy=strategy).rerank("query", texts(range(n)))
        for strategy in ("full", "sliding", "complete")
    ]
    assert found[0].ids == found[1].ids == found[2].ids
    assert found[0].usage == found[1].usage == found[2].usage
    assert Says.asked[0] == Says.asked[1] == Says.asked[2]


def test_more_passes_settle_more() -> None:
    lengths = list(range(1, 31))
    options: dict[str, Any] = {"ranker": "longest", "strategy": "sliding", "window": 10, "step": 8}
    once = pickaxe.reranker("fullrank", **options).rerank("query", texts(lengths))
    often = pickaxe.reranker("fullrank", **options, passes=9).rerank("query", texts(lengths))
    best = [f"c{row}" for row in reversed(range(30))]
    assert once.ids[:2] == best[:2]
    assert once.ids != best
    assert often.ids[:10] == best[:10]
    assert often.usage["prompts"] == 9 * once.usage["prompts"]


def test_inherited_scores_stay_with_the_places() -> None:
    candidates = [Item(f"c{row}", "x" * row, {"score": 9.0 - row}) for row in range(3)]
    ranking = pickaxe.reranker("fullrank", ranker="longest", score_mode="inherit").rerank("query", candidates, 2)
    assert [(entry.id, entry.score) for entry in ranking] == [("c2", 9.0), ("c1", 8.0)]
    assert ranking.scores.tolist() == [7.0, 8.0, 9.0]


def test_shuffling_is_keyed() -> None:
    Says.text = ""
    candidates = texts(range(20))
    first, again, other = (
        pickaxe.reranker("fullrank", decoder="says", shuffle_seed=seed).rerank("query", candidates).ids
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert sorted(first) == sorted(item.id for item in candidates)
    longest = pickaxe.reranker("fullrank", ranker="longest", shuffle_seed=1).rerank("query", candidates).ids
    assert longest == [f"c{row}" for row in reversed(range(20))]


# ---------------------------------------------------------------- rankers


def test_a_scorer_sees_the_query_beside_each_passage() -> None:
    ranking = pickaxe.reranker("fullrank", ranker="longest").rerank("what?", texts([1, 3, 2]))
    assert ranking.ids == ["c1", "c2", "c0"]
    assert [item.fields["query"] for item in Longest.seen[0]] == ["what?"] * 3
    assert ranking.usage["scored_pairs"] == 3


def test_a_reranker_may_leave_candidates_out() -> None:
    ranking = pickaxe.reranker("fullrank", ranker="longest-first").rerank("query", texts([1, 3, 2, 0]))
    assert ranking.ids == ["c1", "c2", "c0", "c3"]
    assert ranking.usage["looks"] == 1
    assert ranking.record["windows"][0]["missing"] == 2


def test_the_encoder_embeds_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Letters:
        width = 3

        def __init__(self) -> None:
            self.memory = VectorMemory(self)  # type: ignore[arg-type]
            self.encoded: list[str] = []

        def encode(self, given: Sequence[str], call: Call) -> np.ndarray:
            self.encoded += given
            counts = np.array([[text.count(letter) for letter in "abc"] for text in given], np.float32)
            return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-12)

    encoder = Letters()
    monkeypatch.setattr(pickaxe.Host, "encoder", lambda self, name="encoder": encoder)
    candidates = [Item(str(row), text) for row, text in enumerate(["c", "cb", "b", "ab", "a", ""])]
    ranking = pickaxe.reranker("fullrank", ranker="encoder", strategy="complete", window=3, step=1).rerank(
        "aa", candidates
    )
    assert ranking.ids == ["4", "3", "0", "1", "2", "5"]
    assert ranking.usage["encoded_texts"] == 7
    pickaxe.reranker("fullrank", ranker="encoder").rerank("bb", candidates)
    assert sorted(encoder.encoded) == sorted(["aa", "bb", *(item.text for item in candidates)])


def test_unknown_rankers_are_refused_with_a_near_name() -> None:
    with pytest.raises(UnknownMethod, match=r"'fullrnk'.*did you mean fullrank"):
        pickaxe.reranker("fullrank", ranker="fullrnk").rerank("query", texts([1, 2]))


@pytest.mark.parametrize("constrained", [True, False])
def test_a_language_model_writes_a_permutation_of_the_forced_length(constrained: bool) -> None:
    lm = pickaxe.Host().lm("draft")
    n = 12
    reranker = pickaxe.reranker("fullrank", model="draft", constrained=constrained, max_passage_len=5)
    ranking = reranker.rerank("a query", [Item(f"c{row}", f"passage number {row}") for row in range(n)])
    assert sorted(ranking.ids) == sorted(f"c{row}" for row in range(n))
    assert ranking.usage["output_tokens"] == len(lm.tokenizer.encode(write_permutation(range(n))))
    if constrained:
        window = ranking.record["windows"][0]
        assert (window["missing"], window["repeated"], window["out_of_range"]) == (0, 0, 0)
        assert ranking.record["warnings"] == []


def test_constrained_decoding_takes_the_models_own_choice_among_the_unused() -> None:
    lm = pickaxe.Host().lm("draft")
    from pickaxe_plugins.reranking.fullrank._rankers import _write_constrained

    prompt = lm.tokenizer.encode("Order: [1] a [2] b [3] c. Answer: [3] > [1] > [2]. Order again: ")
    n = 11
    written = _write_constrained(lm, prompt, n, Call())
    text = lm.tokenizer.decode(written)
    parsed = parse_permutation(text, n)
    assert parsed.sound
    assert text == write_permutation(parsed.order)
    logprobs = lm.full_logprobs([*prompt, *written])[len(prompt) - 1 :]
    unused, position = set(range(n)), 0
    for rank, place in enumerate(parsed.order):
        pieces = {each: lm.tokenizer.encode(f"{' > ' * (rank > 0)}[{each + 1}]") for each in unused}
        for depth, token in enumerate(pieces[place]):
            options = {piece[depth] for piece in pieces.values() if piece[:depth] == pieces[place][:depth]}
            assert logprobs[position][token] >= max(logprobs[position][option] for option in options) - 1e-3
            position += 1
        unused.remove(place)


def test_the_models_context_is_kept() -> None:
    lm = pickaxe.Host().lm("draft")
    candidates = [Item(str(row), "many words " * 50) for row in range(4)]
    ranking = pickaxe.reranker("fullrank", model="draft", context_tokens=300).rerank("query", candidates)
    used = ranking.usage["prompt_tokens"] + ranking.usage["output_tokens"]
    assert used <= 300 <= lm.context_length
    assert ranking.record["windows"][0]["max_passage_len"] < 100


# ---------------------------------------------------------------- labels and loss


def test_labels_are_written_in_the_initial_numbering() -> None:
    for line in (FILES / "complete_listwise_labels_first8.jsonl").read_text().splitlines():
        label = json.loads(line)
        written = label_text(label["initial_list"], label["final_list"])
        order = parse_permutation(written, len(label["initial_list"]))
        assert order.sound
        assert [label["initial_list"][place] for place in order.order] == label["final_list"]
    with pytest.raises(InvalidItems, match="each once"):
        label_text(["a", "b"], ["a", "a"])


def test_complete_labels_come_from_any_teacher() -> None:
    lengths = np.random.default_rng(1).permutation(35).tolist()
    example = Item("q", "the longest", {"passages": ["x" * length for length in lengths]})
    teacher = pickaxe.reranker("fullrank", ranker="longest")
    (label,) = build_labels([example], teacher, window=10, step=5)
    order = label.fields["permutation"]
    assert isinstance(order, np.ndarray)
    assert [lengths[place] for place in order] == sorted(lengths, reverse=True)
    assert label.fields["target"] == write_permutation(order.tolist())
    assert label.fields["passes"] == 6
    with pytest.raises(InvalidItems, match="field passages"):
        list(build_labels([Item("q", "the longest")], teacher))


def test_weights_start_at_2_fall_and_tend_to_1() -> None:
    separator, targets = 9, np.array([5, 9] * 2000)
    weights = importance_weights(targets, separator)
    assert weights[0] == 2
    assert (weights[1::2] == 1).all()
    assert (np.diff(weights[::2]) < 0).all()
    assert 1 < weights[-2] < 1.1


def test_weights_of_1_give_the_language_model_loss() -> None:
    random = np.random.default_rng(0)
    logits, targets = random.standard_normal((6, 4)), np.array([-100, -100, 1, 3, 0, 2])
    assert listwise_loss(logits, targets, np.ones(4)) == pytest.approx(listwise_loss(logits, targets))
    rows = logits[1:5] - np.log(np.exp(logits[1:5]).sum(1, keepdims=True))
    assert listwise_loss(logits, targets) == pytest.approx(-rows[range(4), targets[2:]].mean())
    with pytest.raises(InvalidItems, match="at least one token"):
        listwise_loss(logits, np.full(6, -100))


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"window": 4, "step": 5}, "step 5 is larger than window 4"),
        ({"step": 0}, "step"),
        ({"window": 0}, "window"),
        ({"strategy": "complete", "window": 4, "step": 4}, "needs step below window 4"),
        ({"strategy": "complete", "passes": 2}, "leave passes at 1"),
        ({"passes": 0}, "passes"),
        ({"max_passage_len": 0}, "max_passage_len"),
        ({"context_tokens": 0}, "context_tokens"),
        ({"score_mode": "model"}, "score_mode"),
        ({"ranker": "encoder", "decoder": "says"}, "give one of them"),
    ],
)
def test_bad_parameters_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        pickaxe.reranker("fullrank", **params)


def test_no_candidates_give_an_empty_ranking_and_repeated_ids_an_error() -> None:
    reranker = pickaxe.reranker("fullrank", ranker="longest")
    assert len(reranker.rerank("query", [])) == 0
    with pytest.raises(InvalidItems, match="'c' was used before"):
        reranker.rerank("query", [Item("c", "a"), Item("c", "b")])


def test_inheriting_needs_falling_scores() -> None:
    reranker = pickaxe.reranker("fullrank", ranker="longest", score_mode="inherit")
    with pytest.raises(InvalidItems, match=r"items\[0\].fields.score.*missing"):
        reranker.rerank("query", texts([1, 2]))
    with pytest.raises(InvalidItems, match=r"candidates\[1\].fields.score: rises"):
        reranker.rerank("query", [Item("a", "a", {"score": 1.0}), Item("b", "b", {"score": 2.0})])


def test_a_budget_that_is_too_small_is_refused_before_the_first_prompt() -> None:
    reranker = pickaxe.reranker("fullrank", decoder="says", strategy="sliding")
    with pytest.raises(DoesNotFit, match="takes 9 prompts, the budget is 8"):
        reranker.rerank("query", texts([1] * 100), budget=8)
    assert Says.asked == []
    assert len(reranker.rerank("query", texts([1] * 100), budget=9)) == 100
