"""The parts of drag without a model: prompts that grow, plans within limits, dialogues that keep to them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe import Call, Item, Prompt, Sampling
from pickaxe.errors import DoesNotFit
from pickaxe_plugins.generation.drag._desk import Desk
from pickaxe_plugins.generation.drag._dialogue import Choose, Dialogue, ModelCall, Question, Write, Written
from pickaxe_plugins.generation.drag._method import Params
from pickaxe_plugins.generation.drag._plan import Block, Lengths, Limits, Theta, fitting, plan
from pickaxe_plugins.generation.drag._prompt import (
    FINAL,
    FOLLOW_UP,
    INTERMEDIATE,
    PREFIXES,
    Context,
    Demonstration,
    Passage,
    Tokens,
    passage,
)


class Words:
    """A tokenizer of one token per word or line break."""

    def encode(self, text: str) -> list[int]:
        return [0] * len(text.replace("\n", " \n ").split(" ")) if text else []


class FakeWriter:
    """Chooses by a script and writes lines of that many words; counts calls as the real writers do."""

    def __init__(self, resends: bool, choices: Sequence[int], words: int) -> None:
        self.resends, self.choices, self.words = resends, list(choices), words

    def answer(self, asks: Sequence[tuple[Dialogue, Choose | Write]], call: Call) -> list[str | Written]:
        return [self._one(*each) for each in asks]

    def _one(self, dialogue: Dialogue, ask: Choose | Write) -> str | Written:
        if self.resends or dialogue.fresh:
            dialogue.calls.append(ModelCall(len(dialogue.context)))
            dialogue.fresh = False
        if isinstance(ask, Choose):
            return ask.options[(self.choices.pop() if self.choices else 0) % len(ask.options)]
        dialogue.calls[-1].response += ask.prefix
        return Written(" ".join(["word"] * self.words), (), (), "stop")


class FakeLibrary:
    """Finds numbered passages, some of them again."""

    def __init__(self, size: int) -> None:
        self.size, self.asked = size, 0

    def find(self, queries: Sequence[Item], k: int, call: Call) -> list[tuple[Passage, ...]]:
        self.asked += 1
        return [
            tuple(Passage(f"{self.asked}.{row}", " ".join([f"d{self.asked + row}"] * self.size)) for row in range(k))
            for _ in queries
        ]


def led(writer: FakeWriter, size: int, window: int, **params: Any) -> Dialogue:
    """One question through a desk of fakes, with two demonstrations."""
    given = Params(**{"k": 2, "m": 2, "max_tokens": 5, **params})
    passages = tuple(Passage(f"0.{row}", " ".join([f"d{row}"] * size)) for row in range(given.k))
    shown = tuple(
        Demonstration(name, "why ?", "so", passages, ((FOLLOW_UP, "what ?"), (INTERMEDIATE, "that"), (FINAL, "so")))
        for name in "ab"
    )
    lm: Any = SimpleNamespace(context_length=window, tokenizer=Words())
    library: Any = FakeLibrary(size)
    desk = Desk(given, lm, Tokens(lm.tokenizer), writer, library, shown, True, None)
    question = Question(0, 0, Prompt("who ?"), "who ?", (), Sampling(max_tokens=given.max_tokens), passages)
    (dialogue,) = desk.answered([question], Call())
    return dialogue


# ---------------------------------------------------------------- dialogues


@given(
    resends=st.booleans(),
    choices=st.lists(st.integers(0, 2), max_size=12),
    words=st.integers(1, 5),
    n=st.integers(1, 6),
    size=st.integers(1, 40),
    budget=st.one_of(st.none(), st.integers(60, 4000)),
    window=st.integers(200, 3000),
)
def test_every_dialogue_keeps_its_limits(
    resends: bool, choices: list[int], words: int, n: int, size: int, budget: int | None, window: int
) -> None:
    dialogue = led(FakeWriter(resends, choices, words), size, window, n=n, budget=budget)
    assert dialogue.answer is not None
    assert dialogue.iterations <= n
    assert dialogue.effective_context_length == sum(each.input_tokens for each in dialogue.calls)
    if budget is not None:
        assert dialogue.effective_context_length <= budget
    assert len(dialogue.context) <= window
    if n == 1:
        assert len(dialogue.calls) == 1
        assert not dialogue.steps
        return
    if not resends:
        assert len(dialogue.calls) == dialogue.iterations
        assert all(each.response.startswith(PREFIXES) for each in dialogue.calls)
    kinds = [step.prefix for step in dialogue.steps]
    assert kinds[-1] == FINAL
    assert kinds.count(FINAL) == 1
    assert all(kinds[row + 1] in (INTERMEDIATE, FINAL) for row, kind in enumerate(kinds) if kind == FOLLOW_UP)


@pytest.mark.parametrize("resends", [False, True])
def test_the_final_prefix_is_forced_at_the_cap(resends: bool) -> None:
    dialogue = led(FakeWriter(resends, [], 3), 4, 5000, n=3)
    assert [step.prefix for step in dialogue.steps] == [FOLLOW_UP, INTERMEDIATE] * 2 + [FINAL]
    assert dialogue.iterations == 3


def test_an_early_final_answer_ends_the_dialogue() -> None:
    dialogue = led(FakeWriter(False, [2], 3), 4, 5000, n=5)
    assert [step.prefix for step in dialogue.steps] == [FINAL]
    assert len(dialogue.calls) == 1


def test_an_intermediate_answer_may_come_first() -> None:
    dialogue = led(FakeWriter(False, [1, 1], 3), 4, 5000, n=5)  # the second choice is of two: the final answer
    assert [step.prefix for step in dialogue.steps] == [INTERMEDIATE, FINAL]


def test_documents_of_follow_up_questions_are_new_and_in_reverse_order() -> None:
    dialogue = led(FakeWriter(False, [], 3), 1, 5000, n=3)
    # The question has d0 and d1; searches find d1, d2 and d2, d3, best first.
    assert [step.documents for step in dialogue.steps] == [("1.1",), (), ("2.1",), (), ()]
    asked = dialogue.context.text.split("Question: who ?")[1]
    assert [line for line in asked.splitlines() if line.startswith("Document")] == ["Document: d2", "Document: d3"]
    wide = led(FakeWriter(False, [], 3), 1, 5000, n=2, k=4)
    asked = wide.context.text.split("Question: who ?")[1]
    assert "Document: d4\n" in asked
    own = wide.context.text.split("Question: who ?")[0].rsplit("\n\n", 1)[1]
    assert own == "".join(f"Document: d{row}\n" for row in (3, 2, 1, 0))


def test_documents_without_room_are_left_out_from_the_end_of_the_ranking() -> None:
    whole = led(FakeWriter(False, [], 3), 30, 5000, n=2, k=3, m=0)
    assert len(whole.steps[0].documents) == 1  # two of three were there already
    tight = led(FakeWriter(False, [], 3), 30, len(whole.context) - 5, n=2, k=3, m=0)
    assert tight.plan.theta.k < 3 or tight.lost_documents
    assert tight.plan.because in ("", "window")


# ---------------------------------------------------------------- plans

LENGTHS = Lengths(10, (Block((20, 20), 5), Block((20, 20), 5)), Block((20, 20, 20), 8))


def test_costs_follow_the_model() -> None:
    assert LENGTHS.first_call(Theta(2, 2, 1)) == 10 + 2 * 45 + 48
    assert LENGTHS.total(Theta(2, 2, 3)) == 3 * 148 + 3 * 40
    assert LENGTHS.longest(Theta(2, 2, 3)) == 148 + 80


def test_documents_go_first_then_demonstrations() -> None:
    found = [plan(Theta(3, 2, 1), LENGTHS, Limits(budget, 10_000, 5)) for budget in (168, 167, 90, 28, 27, 18)]
    assert [(each.theta.k, each.theta.m) for each in found] == [(3, 2), (2, 2), (1, 2), (0, 2), (0, 1), (0, 0)]
    assert [each.dropped_documents for each in found] == [0, 1, 2, 3, 3, 3]
    assert [each.because for each in found] == ["", *["budget"] * 5]


def test_the_window_counts_what_will_be_said() -> None:
    assert plan(Theta(3, 2, 1), LENGTHS, Limits(None, 168 + 5, 5)).because == ""
    narrow = plan(Theta(3, 2, 1), LENGTHS, Limits(None, 168 + 4, 5))
    assert (narrow.theta.k, narrow.because) == (2, "window")


def test_wanted_demonstrations_that_are_not_there_are_counted() -> None:
    assert plan(Theta(1, 9, 1), LENGTHS, Limits(None, 10_000, 5)).missing_demonstrations == 7


@pytest.mark.parametrize(("limits", "name"), [(Limits(17, 10_000, 5), "budget"), (Limits(None, 22, 5), "window")])
def test_a_question_that_cannot_fit_is_refused(limits: Limits, name: str) -> None:
    with pytest.raises(DoesNotFit, match=name) as refused:
        plan(Theta(3, 2, 1), LENGTHS, limits)
    assert name in refused.value.metadata


@given(
    st.integers(0, 6), st.integers(0, 6), st.integers(1, 5), st.lists(st.integers(1, 60), max_size=6),
    st.integers(30, 5000),
)  # fmt: skip
def test_plans_stay_within_the_budget(k: int, m: int, n: int, sizes: list[int], budget: int) -> None:
    lengths = Lengths(10, tuple(Block(tuple(sizes), 5) for _ in range(4)), Block(tuple(sizes), 8))
    found = plan(Theta(k, m, n), lengths, Limits(budget, 10**6, 5))
    assert lengths.total(found.theta) <= budget or (found.theta.k, found.theta.m) == (0, 0)
    assert lengths.first_call(found.theta) <= budget
    assert found.theta.m == min(m, 4) or found.theta.k == 0


def test_fitting_takes_the_first() -> None:
    assert [fitting([3, 4, 1], room) for room in (2, 3, 7, 8)] == [0, 1, 2, 3]


# ---------------------------------------------------------------- prompts


def test_passages_are_cut_on_the_right_and_on_one_line() -> None:
    assert passage(Item("a", "one two\nthree  four"), 3) == Passage("a", "one two three")
    assert passage(Item("a", "one two", {"title": "The title"}), 3) == Passage("a", "The title: one")
    assert passage(Item("a"), 3) == Passage("a", "")


def test_a_context_only_grows() -> None:
    tokens: Any = Tokens(Words())  # type: ignore[arg-type]
    context = Context(tokens)
    context.append("a b")
    before = list(context.ids)
    context.append(" c\n", "d")
    assert context.text == "a b c\nd"
    assert context.ids[: len(before)] == before
    assert len(context) == tokens.count(["a b", " c\n", "d"])


def test_demonstrations_survive_json() -> None:
    one = Demonstration("a", "q ?", "x", (Passage("d", "one two three"),), ((FOLLOW_UP, "r ?"), (FINAL, "x")))
    assert Demonstration.from_json(one.to_json(), 1024) == one
    assert Demonstration.from_json(one.to_json(), 2).passages[0].text == "one two"
    assert one.label(False) == ["Question: q ?\n", "Answer: x\n", "\n"]
    assert one.label(True)[1:] == ["Follow up: r ?\n", "So the final answer is: x\n", "\n"]
