"""Votes, rounds, early stops and splitting of batchprompt, on askers that need no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe import Call
from pickaxe.errors import DoesNotFit
from pickaxe_plugins.decoding.batchprompt.asking import Question, Reply
from pickaxe_plugins.decoding.batchprompt.polling import Batch, Poll, Window, permutation, plan, totals
from pickaxe_plugins.decoding.batchprompt.task import answer
from pickaxe_plugins.decoding.batchprompt.voting import Rules, Vote, parse, winner

Answers = Callable[[Sequence[int]], "list[Vote | None]"]


class Told:
    """Answers by a function of the items, which are numbers; notes what was asked."""

    room: int | None = None
    answer_tokens = 12
    varies = False

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.asked: list[list[int]] = []

    def tokens(self, texts: Sequence[str]) -> int:
        return 100 + sum(len(text) for text in texts)

    def cut(self, text: str, tokens: int) -> str:
        return text[:tokens]

    def ask(self, questions: Sequence[Question], call: Call) -> list[Reply]:
        replies = []
        for question in questions:
            rows = [int(text) for text in question.texts]
            self.asked.append(rows)
            replies.append(Reply(self.answers(rows), self.tokens(question.texts), 12 * len(rows)))
        return replies


def polled(
    answers: Answers, n: int, size: int, rules: Rules, seed: int = 0, **options: int
) -> tuple[Poll, Told, list[Batch]]:
    asker = Told(answers)
    texts = [str(row) for row in range(n)]
    _, batches, _ = plan(texts, asker, Window(size))
    poll = Poll(texts, asker, rules, permutation(seed), **{"labels": 2, **options})
    return poll, asker, list(poll.run(batches, Call()))


def noisy(seed: int, right: float = 0.8) -> Answers:
    """Random votes; label 1 is right, half of the answers are sure, some are missing."""
    random = np.random.default_rng(seed)

    def answers(rows: Sequence[int]) -> list[Vote | None]:
        drawn = random.random((len(rows), 3))
        return [None if a > 0.9 else Vote(int(b < right), bool(c < 0.5)) for a, b, c in drawn]

    return answers


def accuracy(poll: Poll, rules: Rules) -> float:
    """Of items whose right label is 1."""
    return float(np.mean([label == 1 for label in labels(poll, rules)]))


def labels(poll: Poll, rules: Rules) -> list[int | None]:
    return [winner(each.votes, rules)[0] for each in poll.standings]


# ---------------------------------------------------------------- rounds


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 9), st.integers(0, 99))
def test_every_prompt_has_exactly_the_open_items(n: int, size: int, rounds: int, seed: int) -> None:
    rules = Rules(rounds)
    seen: list[list[int]] = []
    asker = Told(noisy(seed))
    texts = [str(row) for row in range(n)]
    poll = Poll(texts, asker, rules, permutation(seed), labels=2, parallel=1)
    batches = [list(range(start, min(start + size, n))) for start in range(0, n, size)]
    answers = asker.answers

    def checked(rows: Sequence[int]) -> list[Vote | None]:
        mine = next(batch for batch in batches if rows[0] in batch)
        assert sorted(rows) == [row for row in mine if not poll.standings[row].closed]
        if all(not poll.standings[row].votes for row in rows):
            assert list(rows) == mine
        seen.append(list(rows))
        found = answers(rows)
        return found if any(found) else [Vote(1, False)] * len(rows)

    asker.answers = checked
    list(poll.run(batches, Call()))
    assert all(each.closed or len(each.votes) == rounds for each in poll.standings)
    assert sum(map(len, seen)) == sum(len(each.votes) for each in poll.standings)


def test_orders_go_by_seed_batch_and_round_and_are_fresh() -> None:
    everything = Rules(5, early_stop=False)
    orders = {}
    for parallel in (1, 8):
        _, asker, _ = polled(noisy(0), 24, 8, everything, seed=4, parallel=parallel)
        orders[parallel] = sorted(asker.asked)
    assert orders[1] == orders[8]
    assert len({tuple(order) for order in orders[1]}) == 15
    assert sorted(polled(noisy(0), 24, 8, everything, seed=5)[1].asked) != orders[1]


def test_agreement_closes_after_two_rounds() -> None:
    poll, asker, done = polled(lambda rows: [Vote(row % 2, True) for row in rows], 8, 8, Rules(9))
    assert [len(each.votes) for each in poll.standings] == [2] * 8
    assert labels(poll, Rules(9)) == [0, 1] * 4
    assert totals(done)["calls"] == len(asker.asked) == 2


def test_unsure_agreement_closes_only_where_that_is_enough() -> None:
    unsure: Answers = lambda rows: [Vote(1, False) for _ in rows]  # noqa: E731
    assert len(polled(unsure, 4, 4, Rules(5))[0].standings[0].votes) == 5
    assert len(polled(unsure, 4, 4, Rules(5, require_confident=False))[0].standings[0].votes) == 2


@pytest.mark.parametrize("seed", range(5))
def test_early_stop_saves_calls_and_without_it_all_rounds_are_run(seed: int) -> None:
    _, _, stopped = polled(noisy(seed), 16, 8, Rules(7), seed)
    whole, _, run = polled(noisy(seed), 16, 8, Rules(7, early_stop=False), seed)
    assert totals(stopped)["calls"] <= totals(run)["calls"] == 14
    assert totals(stopped)["item_prompts"] < totals(run)["item_prompts"]
    assert all(len(each.votes) == 7 for each in whole.standings)


def test_an_order_blind_model_gives_the_same_labels_for_any_number_of_rounds() -> None:
    truth: Answers = lambda rows: [Vote(row * row % 3 % 2, row % 2 == 0) for row in rows]  # noqa: E731
    found = [labels(polled(truth, 30, 8, Rules(rounds))[0], Rules(rounds)) for rounds in (1, 3, 5, 9, 15)]
    assert all(each == found[0] for each in found)


# ---------------------------------------------------------------- simulations


def test_majority_of_independent_votes_is_binomial() -> None:
    def answers(random: np.random.Generator) -> Answers:
        return lambda rows: [Vote(int(value < 0.75), False) for value in random.random(len(rows))]

    n = 20_000
    rules = Rules(5, early_stop=False)
    poll, _, _ = polled(answers(np.random.default_rng(1)), n, 250, rules)
    wanted = 0.896484375  # at least three of five
    assert accuracy(poll, rules) == pytest.approx(wanted, abs=3 * np.sqrt(wanted * (1 - wanted) / n))
    rules = Rules(5, require_confident=False)
    poll, _, _ = polled(answers(np.random.default_rng(2)), n, 250, rules)
    early = np.mean([len(each.votes) == 2 for each in poll.standings])
    assert early == pytest.approx(0.625, abs=3 * np.sqrt(0.625 * 0.375 / n))


def test_rounds_undo_a_position_effect_and_early_stops_keep_that() -> None:
    def answers() -> Answers:
        random = np.random.default_rng(3)
        return lambda rows: [
            Vote(int(value < chance), True)
            for value, chance in zip(random.random(len(rows)), np.linspace(0.9, 0.6, 32), strict=False)
        ]

    def run(rules: Rules) -> tuple[float, float]:
        poll, _, done = polled(answers(), 400 * 32, 32, rules)
        return accuracy(poll, rules), totals(done)["item_prompts"]

    once, _ = run(Rules(1))
    voted, asked = run(Rules(5, early_stop=False))
    stopped, fewer = run(Rules(5))
    assert once == pytest.approx(0.75, abs=0.02)
    assert voted > once + 0.08
    assert abs(stopped - voted) < 0.02
    assert fewer < 0.6 * asked


# ---------------------------------------------------------------- votes


def test_ties_go_to_the_label_voted_first() -> None:
    rules = Rules(3)
    assert winner([Vote(1, True), Vote(0, True)], rules) == (1, 0.5)
    assert winner([None, Vote(0, False), Vote(1, True)], rules) == (1, pytest.approx(1 / 1.2))
    thirds = Rules(7, weight_unsure=0.1)
    assert (
        winner([Vote(1, False)] * 3 + [Vote(0, False)] * 3, thirds)[0] == 1
    )  # sums of 0.1 that differ in the last bit


def test_without_a_vote_there_is_no_label() -> None:
    assert winner([None, None], Rules(3)) == (None, 0.0)
    assert winner([Vote(1, False)], Rules(3, weight_unsure=0)) == (1, 0.0)


def test_a_missing_answer_is_a_prompt_but_no_vote_and_breaks_the_row() -> None:
    sure, turns = Vote(1, True), {0: 0, 1: 0}

    def answers(rows: Sequence[int]) -> list[Vote | None]:
        for row in rows:
            turns[row] += 1
        return [None if row == 0 and turns[row] == 2 else sure for row in rows]

    poll, _, _ = polled(answers, 2, 2, Rules(9))
    assert poll.standings[0].votes == [sure, None, sure, sure]
    assert poll.standings[1].votes == [sure, sure]


def test_labels_that_there_are_not_are_no_votes() -> None:
    poll, _, _ = polled(lambda rows: [Vote(7, True) if row else Vote(1, True) for row in rows], 3, 3, Rules(3))
    assert poll.standings[1].votes == [None, None, None]
    assert labels(poll, Rules(3)) == [1, None, None]


# ---------------------------------------------------------------- refusals, limits


def test_a_refused_batch_is_put_again_then_split_down_to_single_items() -> None:
    def answers(rows: Sequence[int]) -> list[Vote | None]:
        return [None] * len(rows) if 5 in rows else [Vote(1, True) for _ in rows]

    asker = Told(answers)
    asker.varies = True
    texts = [str(row) for row in range(8)]
    poll = Poll(texts, asker, Rules(2), permutation(0), labels=2, retry=1)
    done = list(poll.run([range(8)], Call()))
    assert asker.asked[:4] == [[*range(8)], [*range(8)], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert asker.asked.count([4, 5, 6, 7]) == 2
    assert asker.asked.count([4, 5]) == 2
    assert labels(poll, Rules(2)) == [1] * 5 + [None] + [1] * 2
    assert sorted(row for batch in done for row in batch.rows) == list(range(8))
    assert asker.asked.count([5]) == 4  # twice in each round
    assert totals(done)["refused_calls"] == sum(5 in rows for rows in asker.asked)
    assert [len(each.votes) for each in poll.standings] == [2] * 8


def test_a_model_that_cannot_answer_otherwise_is_not_asked_again() -> None:
    _, asker, _ = polled(lambda rows: [None] * len(rows), 2, 2, Rules(1), retry=3)
    assert asker.asked == [[0, 1], [0], [1]]


def test_the_budget_is_the_most_calls() -> None:
    poll, asker, done = polled(noisy(1), 40, 8, Rules(5, early_stop=False), budget=7)
    assert len(asker.asked) == totals(done)["calls"] == 7
    assert poll.exhausted
    assert sorted(row for batch in done for row in batch.rows) == list(range(40))


def test_batches_keep_within_the_window() -> None:
    asker = Told(noisy(0))
    asker.room = 100 + 3 * (12 + 10)
    texts = ["x" * 10] * 7
    kept, batches, single = plan(texts, asker, Window(32))
    assert kept == texts
    assert [len(batch) for batch in batches] == [2, 2, 2, 1]  # each place costs a little itself
    assert single == [110] * 7
    assert [len(batch) for batch in plan(texts, asker, Window(32, tokens=12))[1]] == [1] * 7
    with pytest.raises(DoesNotFit, match="item 1 takes"):
        plan(["x", "x" * 100], asker, Window(32))
    kept, batches, single = plan(["x", "x" * 100], asker, Window(32, cut=True))
    assert kept[1] == "x" * 54
    assert batches == [[0], [1]]


# ---------------------------------------------------------------- reading


@given(st.data())
def test_answers_are_found_by_index_whatever_is_around(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 12))
    votes = [Vote(data.draw(st.integers(0, 30)), data.draw(st.booleans())) for _ in range(n)]
    chatter = st.text("abc []\n.!?", max_size=12)
    pieces = []
    for place in data.draw(st.permutations(range(n))):
        line = answer(place, votes[place].label, votes[place].confident)
        form = data.draw(st.sampled_from([line, line.upper(), line.lower()]))
        pieces += [data.draw(chatter), " ", form, data.draw(st.sampled_from(["\n", " ", ". So, "]))]
    assert parse("".join(pieces), n) == votes


@given(st.text(max_size=300), st.integers(1, 5))
def test_any_text_can_be_read(text: str, n: int) -> None:
    assert len(parse(text, n)) == n


def test_a_mark_belongs_to_its_own_answer() -> None:
    text = "Input 0: [class 1]\n[not sure] Input 1: [ CLASS 0 ]\n [ not  confident ] Input 12: [class 1][confident]"
    assert parse(text, 2) == [Vote(1, False), Vote(0, False)]
