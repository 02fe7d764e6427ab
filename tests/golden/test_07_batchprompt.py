"""Golden cases of batchprompt: reading answers, and the state machine of votes with its accounting."""

from collections.abc import Sequence
from typing import Any

import pytest
from golden import golden, understood

from pickaxe import Call
from pickaxe_plugins.decoding.batchprompt.asking import Question, Reply
from pickaxe_plugins.decoding.batchprompt.polling import Poll, totals
from pickaxe_plugins.decoding.batchprompt.voting import Rules, Vote, parse, winner

CASE = understood(golden("07-batchprompt"), "how", "rules", "tolerance", "parse", "cases")
assert CASE["tolerance"] == "exact"


def vote(pair: Any) -> Vote | None:
    return None if pair is None else Vote(*pair)


class Table:
    """Answers from a table; an item's text is its number in the batch."""

    room = None
    answer_tokens = 12
    varies = False

    def __init__(self, inputs: dict[str, Any]) -> None:
        self.inputs = inputs
        self.orders: list[list[int]] = []

    def tokens(self, texts: Sequence[str]) -> int:
        own: list[int] = self.inputs["item_tokens"]
        return int(self.inputs["instruction_tokens"]) + sum(own[int(text)] for text in texts)

    def cut(self, text: str, tokens: int) -> str:
        raise AssertionError("nothing is too long")

    def ask(self, questions: Sequence[Question], call: Call) -> list[Reply]:
        (question,) = questions
        answers = self.inputs["answers_by_round"][len(self.orders)]
        self.orders.append([int(text) for text in question.texts])
        votes = [vote(answers[int(text)]) for text in question.texts]
        return [Reply(votes, self.tokens(question.texts), 0)]


@pytest.mark.parametrize("case", CASE["parse"])
def test_parse(case: dict[str, Any]) -> None:
    understood(case, "inputs", "expected")
    inputs = understood(case["inputs"], "text", "n")
    assert parse(inputs["text"], inputs["n"]) == [vote(pair) for pair in case["expected"]]


@pytest.mark.parametrize("case", CASE["cases"])
def test_state_machine(case: dict[str, Any]) -> None:
    understood(case, "inputs", "expected")
    inputs = understood(
        case["inputs"],
        "instruction_tokens", "item_tokens", "rounds", "permutations", "answers_by_round", "early_stop",
        "require_confident", "weight_confident", "weight_unsure",
    )  # fmt: skip
    expected = understood(case["expected"], "prompt_orders", "calls", "input_tokens", "votes_used", "labels")
    names = ("rounds", "early_stop", "require_confident", "weight_confident", "weight_unsure")
    rules = Rules(**{name: inputs[name] for name in names})
    n, table = len(inputs["item_tokens"]), Table(inputs)
    labels = 1 + max(pair[0] for row in inputs["answers_by_round"] for pair in row if pair is not None)
    texts = [str(number) for number in range(n)]
    poll = Poll(texts, table, rules, lambda number, round_, n: inputs["permutations"][round_], labels=labels)
    (batch,) = poll.run([range(n)], Call())
    assert table.orders == expected["prompt_orders"]
    assert totals([batch])["calls"] == expected["calls"]
    assert totals([batch])["input_tokens"] == expected["input_tokens"]
    assert [len(each.votes) for each in poll.standings] == expected["votes_used"]
    assert [winner(each.votes, rules)[0] for each in poll.standings] == expected["labels"]
