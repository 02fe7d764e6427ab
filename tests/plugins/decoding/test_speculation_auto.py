"""How much to draft, chosen from measured times: here of a machine that does as the tests say."""

from __future__ import annotations

import pytest

from pickaxe_plugins.decoding._speculation.auto import LOOK, Auto
from pickaxe_plugins.decoding._speculation.rounds import Plan, Round, Trial


class Machine:
    """Takes `target` + `node` a node, `draft` a level; accepts drafts as `accepted` (a cycle) says."""

    def __init__(self, target: float, node: float, draft: float, accepted: list[bool]) -> None:
        self.target, self.node, self.draft, self.accepted = target, node, draft, accepted
        self.turn = 0

    def round(self, plan: Plan) -> Round:
        nodes = 1 + plan.count * plan.length
        trials = []
        for depth in range(plan.length):
            self.turn += 1
            taken = self.accepted[self.turn % len(self.accepted)]
            trials.append(Trial(depth, 0, plan.count if depth == 0 else 1, taken))
            if not taken:
                break
        else:
            trials.append(Trial(plan.length, 0, 0, False))
        reading, drafting = self.target + self.node * nodes, self.draft * plan.length
        return Round(plan, nodes, plan.length, trials, drafting, reading, reading + drafting + 1e-4)

    def run(self, auto: Auto, rounds: int) -> list[Plan]:
        plans = []
        for _ in range(rounds):
            plan = auto.plan()
            auto.learn(self.round(plan))
            plans.append(plan)
        return plans


def test_good_cheap_drafts_grow_long():
    plans = Machine(10e-3, 0.1e-3, 0.1e-3, [True] * 9 + [False]).run(Auto(8, 8), 80)
    assert plans[0] == Plan(1, 0)
    assert plans[1] == Plan(1, 1)
    assert plans[-1].length == 8


def test_drafts_that_are_never_accepted_end_in_plain_decoding():
    plans = Machine(10e-3, 1e-3, 2e-3, [False]).run(Auto(1, 4), 200)
    late = plans[-3 * LOOK :]
    assert sum(plan.length == 0 for plan in late) > len(late) * 0.8
    assert any(plan.length for plan in late), "it looks again now and then"


def test_a_draft_as_slow_as_the_target_does_not_pay():
    plans = Machine(10e-3, 1e-3, 10e-3, [True, False]).run(Auto(4, 4), 100)
    assert plans[-1].length == 0 or plans[-2].length == 0


def test_several_drafts_where_nodes_are_free_and_drafts_are_poor():
    plans = Machine(10e-3, 1e-6, 0.5e-3, [True, False, False, False]).run(Auto(8, 2), 60)
    assert plans[-1].count > 1


def test_long_drafts_end_where_the_draft_is_unsure():
    machine = Machine(10e-3, 1.5e-3, 1e-3, [True, True, False])
    plan = machine.run(Auto(1, 8), 40)[-1]
    assert plan.length == 8
    assert 0 < plan.least < 1


def test_rates_follow_from_times_and_acceptance():
    auto = Auto(4, 4)
    for plan in (Plan(1, 0), Plan(1, 1)):
        auto.learn(Machine(10e-3, 1e-3, 2e-3, [True]).round(plan))
    plain, one = auto.rate(Plan(1, 0)), auto.rate(Plan(1, 1))
    assert plain == pytest.approx(1 / 11.1e-3, rel=0.05)
    assert one > plain
