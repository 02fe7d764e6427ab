"""`sage`: the rounds of answers and feedback, what they cost, budgets, and bad input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pickaxe
from pickaxe import WHOLE_PROMPT, Call, Chunk, Completion, Item, Message, Method, Prompt, Sampling, catalog
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe_plugins.retrieval._sage_feedback import Rounds, Verdict, parse
from pickaxe_plugins.retrieval._sage_selection import SelectionParams

CONTEXT = tuple(
    Item(name, f"Text of {name}.", {"score": score}) for name, score in {"low": 0.1, "top": 0.9, "mid": 0.8}.items()
)
SETTINGS = {"decoder": "scripted", "reranker": None, "score_transform": "none", "chat": False}


class Scripted(Method[pickaxe.Params]):
    """Says the next line of the script and keeps what it was asked."""

    script: tuple[str, ...] = ()
    asked: tuple[Prompt, ...] = ()

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        for row, prompt in enumerate(prompts):
            said = Scripted.script[len(Scripted.asked)]
            Scripted.asked += (prompt,)
            words = len((prompt.text or "").split())
            yield Chunk(row, 0, said, tuple(range(len(said.split()))), finish_reason="stop")
            yield Chunk(row, WHOLE_PROMPT, record={}, usage={"prompt_tokens": words})


def ask(script: Sequence[str], prompt: Prompt | None = None, budget: int | None = None, **params: object) -> Completion:
    Scripted.script, Scripted.asked = tuple(script), ()
    with catalog.register(Scripted, "scripted", "decoder"):
        decoder = pickaxe.decoder("sage", **{**SETTINGS, **params})
        return decoder.complete([prompt or Prompt("Who?", context=CONTEXT)], budget=budget)[0]


def test_feedback_moves_the_number_of_chunks_and_the_best_answer_wins() -> None:
    found = ask(
        ["one", "Score: 4\nAdjustment: 1", "two", "Score: 7/10, adjustment -1", "three", "Score: 5\nAdjustment: 1"],
        min_k=1, g=1.0,
    )  # fmt: skip
    assert found.text == "two"
    (record,) = found.records
    assert record["ended"] == "rounds"
    assert (record["round"], record["documents"]) == (1, ["top", "mid"])
    assert [each["min_k"] for each in record["rounds"]] == [1, 2, 1]
    assert [each["score"] for each in record["rounds"]] == [4, 7, 5]
    assert [each["adjustment"] for each in record["rounds"]] == [1, -1, 1]
    words = sum(len((prompt.text or "").split()) for prompt in Scripted.asked)
    said = sum(len(line.split()) for line in Scripted.script)
    assert found.usage["model_calls"] == 6
    assert (found.usage["input_tokens"], found.usage["output_tokens"]) == (words, said)
    assert found.usage["cost"] == words + said  # feedback is not free
    assert found.token_ids == (0,)


def test_prompts_show_the_chosen_chunks_in_their_order() -> None:
    ask(["an answer", "9"], min_k=2, g=1.0, document_order="document")
    first, second = (prompt.text or "" for prompt in Scripted.asked)
    assert "[1] Text of top.\n\n[2] Text of mid." in first
    assert "Text of low" not in first
    assert "Answer: an answer" in second
    ask(["an answer", "9"], min_k=3, document_order="rank")
    assert "[1] Text of top.\n\n[2] Text of mid.\n\n[3] Text of low." in (Scripted.asked[0].text or "")
    ask(["an answer", "9"], min_k=3, document_order="document")
    assert "[1] Text of low.\n\n[2] Text of top." in (Scripted.asked[0].text or "")


def test_ends_at_the_threshold_or_where_feedback_cannot_be_read() -> None:
    assert ask(["one", "10"]).records[0]["ended"] == "threshold"
    silent = ask(["one", "Score: 3, adjustment: 1", "two", "I cannot say."])
    assert (silent.text, silent.records[0]["ended"]) == ("two", "feedback")
    assert silent.records[0]["rounds"][1]["score"] is None
    half = ask(["one", "Score: 3"])
    assert (half.text, half.records[0]["ended"]) == ("one", "feedback")


def test_one_round_asks_for_no_feedback() -> None:
    found = ask(["one"], max_rounds=1)
    assert (found.text, found.usage["model_calls"], len(Scripted.asked)) == ("one", 1, 1)
    assert found.records[0]["ended"] == "rounds"


def test_budget_counts_answers_and_feedback() -> None:
    script = ["one", "Score: 3, adjustment: 1", "two", "Score: 2, adjustment: 1"]
    assert ask(script, budget=0).finish_reason == "abstain"
    for budget, calls, text in ((1, 1, "one"), (2, 2, "one"), (3, 3, "one"), (4, 4, "one")):
        found = ask(script, budget=budget)
        assert (found.usage["model_calls"], found.text) == (calls, text)
        assert found.records[0]["ended"] == "budget"


def test_chats_and_choices_and_what_binds_the_answer() -> None:
    turns = (Message("user", "Hello."), Message("assistant", "Hi."), Message("user", "Who?"))
    ask(["x", "9"], Prompt(messages=turns, context=CONTEXT), chat=True)
    assert Scripted.asked[0].messages[:2] == turns[:2]
    assert "Question: Who?" in Scripted.asked[0].messages[2].content
    Scripted.script, Scripted.asked = ("a", "b", "9", "9"), ()
    with catalog.register(Scripted, "scripted", "decoder"):
        both = pickaxe.decoder("sage", **SETTINGS).complete(Prompt("Who?", context=CONTEXT, sampling=Sampling(n=2)))
    assert [each.text for each in both] == ["a", "b"]
    seeds = [prompt.sampling.seed for prompt in Scripted.asked[:2]]
    assert seeds[0] != seeds[1]
    with pytest.raises(InvalidItems, match="allowed"):
        ask(["x"], Prompt("Who?", context=CONTEXT, allowed=("a", "b")))  # the scripted decoder keeps to nothing


def test_a_retriever_finds_the_chunks() -> None:
    index = pickaxe.retriever("bm25").index([Item("tea", "Green tea is brewed."), Item("rain", "Rain in Spain.")])
    assert index.artifact is not None
    found = ask(
        ["80 degrees", "9"], Prompt("How is green tea brewed?"),
        retriever={"name": "bm25", "artifact": str(index.artifact.path)},
    )  # fmt: skip
    assert found.records[0]["documents"] == ["tea"]


def test_no_candidates_leave_an_empty_context() -> None:
    found = ask(["I do not know.", "9"], Prompt("Who?"))
    assert (found.text, found.records[0]["documents"]) == ("I do not know.", [])


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Score: 8\nAdjustment: 1", Verdict(8, 1)),
        ("Score: 1\nAdjustment: -1", Verdict(1, -1)),
        ("Adjustment: -1. Score: 10", Verdict(10, -1)),
        ("8/10, adjustment: +1", Verdict(8, 1)),
        ("7 out of 10; adjustment \u22121", Verdict(7, -1)),
        ("From 1 to 10 I say 6 and -1", Verdict(6, -1)),
        ("Score: 9", Verdict(9, 0)),
        ("1", Verdict(1, 0)),
        ("-1", None),
        ("Score: 8.5", None),
        ("Score: 42", None),
        ("good", None),
        ("", None),
    ],
)
def test_feedback_is_read_strictly(reply: str, verdict: Verdict | None) -> None:
    assert parse(reply) == verdict


@given(
    st.lists(st.floats(0, 1), max_size=12), st.integers(1, 5), st.integers(1, 10), st.integers(1, 10),
    st.lists(st.tuples(st.integers(1, 10), st.sampled_from([-1, 1])), min_size=10, max_size=10),
)  # fmt: skip
def test_rounds(scores: list[float], min_k: int, threshold: int, most: int, replies: list[tuple[int, int]]) -> None:
    rounds = Rounds(SelectionParams(min_k=min_k), np.array(scores), threshold, most)
    for score, adjustment in replies:
        if rounds.ended:
            break
        rounds.take("", Verdict(score, adjustment))
    told = [each.verdict.score for each in rounds.done if each.verdict is not None]
    assert rounds.ended
    assert len(told) <= most
    assert all(score < threshold for score in told[:-1])
    assert all(each.min_k >= 1 for each in rounds.done)
    assert told[rounds.final] == max(told)
    assert told.index(max(told)) == rounds.final


def test_bad_params() -> None:
    wrong = {"feedback_threshold": 11, "max_rounds": 0, "depth": 0, "min_k": 0, "max_tokens": 0}
    for name, value in wrong.items():
        with pytest.raises(InvalidParams, match=name):
            pickaxe.decoder("sage", **{name: value})
    with pytest.raises(InvalidParams, match="answer_prompt lacks"):
        pickaxe.decoder("sage", answer_prompt="{documents}")
    with pytest.raises(InvalidItems, match="neither text nor messages"):
        ask(["x"], Prompt(context=CONTEXT))
