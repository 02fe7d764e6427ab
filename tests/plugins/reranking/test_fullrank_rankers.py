"""`fullrank`: prompts that fit, and every kind of ranker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from fullrank_methods import Longest, Says, texts
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Call, Item, Message
from pickaxe.encoder.memory import VectorMemory
from pickaxe.errors import DoesNotFit, UnknownMethod
from pickaxe_plugins.reranking.fullrank import listwise_messages, neutral, parse_permutation, write_permutation
from pickaxe_plugins.reranking.fullrank._prompt import fitted

pytestmark = pytest.mark.usefixtures("fullrank_methods")


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
