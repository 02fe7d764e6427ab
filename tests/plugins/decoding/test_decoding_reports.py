"""What coverage and resampling-limits tell in words and figures is what their columns and groups say."""

from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Item, Scores
from pickaxe.report import Axis, Figure, Series, explained

COUNTS = {"large": (60, 35, 90, 12), "small": (3, 1, 20, 0)}


def coverage(**params: Any) -> Scores:
    fields = {name: params.pop(name) for name in ("answers", "reference", "scores") if name in params}
    items = [
        Item(f"{group}-{row}", fields={"n": 100, "c": c, "group": group} | fields)
        for group, counts in COUNTS.items()
        for row, c in enumerate(counts)
    ]
    return pickaxe.scorer("coverage", bootstrap=200, **params).score(items)


def titled(scores: Scores) -> dict[str, Figure]:
    return {figure.title: figure for figure in explained(scores.summary)[1]}


def named(figure: Figure) -> dict[str, Series]:
    return {series.name: series for series in figure.series}


# ---------------------------------------------------------------- coverage


def test_coverage_draws_the_curves_with_their_bands() -> None:
    found = coverage()
    figure = titled(found)["Coverage by number of samples"]
    assert figure.x == Axis("samples k", scale="log")
    for name in COUNTS:
        report, series = found.summary["groups"][name], named(figure)[name]
        assert series.kind == "band"
        np.testing.assert_allclose(np.array([series.x, series.y, series.low, series.high]),  # type: ignore[arg-type]
                                   [report["k"], report["coverage"], report["low"], report["high"]])  # fmt: skip
    assert "95% of the resamples" in figure.note


def test_coverage_says_who_leads_and_how_far_each_gets() -> None:
    found = coverage()
    answer, _ = explained(found.summary)
    assert answer[0] == "The highest coverage at the end of its curve is that of large: 1."
    report = found.summary["groups"]["small"]
    assert answer[2] == (
        "small: of 4 problems, 0.06 are solved with 1 sample and 0.75 with 100 "
        f"(95% interval {report['low'][-1]:.3g} to {report['high'][-1]:.3g})."
    )


def test_coverage_warns_of_what_extrapolates_and_draws_it() -> None:
    found = coverage(predict=(50, 1000), target=0.999)
    answer, _ = explained(found.summary)
    told = found.summary["groups"]["small"]
    inside, beyond = (each["coverage"] for each in told["predicted"])
    assert f"small: with 50 samples its law gives a coverage of {inside:.3g}." in answer
    warned = (
        f"small: with 1000 samples its law gives a coverage of {beyond:.3g}, which extrapolates beyond the samples."
    )
    assert warned in answer
    assert any(text.startswith("small: a coverage of 0.999 takes ") and "extrapolates" in text for text in answer)
    law = named(titled(found)["Coverage by number of samples"])["small, law"]
    assert law.x[-1] == pytest.approx(min(told["target"]["k"], 100 * 100))


def test_coverage_without_bands_and_laws_draws_lines() -> None:
    items = [Item("a", fields={"n": 10, "c": 0})]
    found = pickaxe.scorer("coverage", bootstrap=0).score(items)
    answer, [figure] = explained(found.summary)
    assert [series.kind for series in figure.series] == ["line"]
    assert any("no law fits: coverage is 0 at every k" in text for text in answer)
    answer, _ = explained(pickaxe.scorer("coverage").score([Item("a", fields={"n": 10, "c": 10})]).summary)
    assert answer[1].startswith("all: one problem only")
    assert answer[2].startswith("all: all is solved at the first k")


def test_coverage_shows_what_selection_and_money_keep() -> None:
    answers = ["7"] * 6 + ["8"] * 4
    items = [Item(str(row), fields={"answers": answers, "reference": right}) for row, right in enumerate("77787")]
    found = pickaxe.scorer("coverage", output_tokens=100, usd_per_m_output=10, budget_usd=0.005).score(items)
    answer, _ = explained(found.summary)
    voted = "the most frequent answer (majority) is right for 0.8 of 5 problems, 0.2 below coverage."
    assert f"all: without a verifier, {voted}" in answer
    assert "all: 0.005 dollars buy 5 samples per problem" in " ".join(answer)
    figures = titled(found)
    selection = found.summary["groups"]["all"]["selection"]
    assert named(figures["What selection keeps of coverage: all"])["majority"].y == tuple(selection["majority"])
    assert figures["Coverage by cost"].x == Axis("cost per problem", "USD", "log")


# ---------------------------------------------------------------- resampling limits


def limits(**params: Any) -> Scores:
    counts = {
        "weak": ((40, 30, 10), (40, 20, 4), (40, 0, 0)),
        "strong": ((40, 36, 34), (40, 30, 28), (40, 25, 25)),
    }
    items = [
        Item(f"{group}-{row}", fields={"n": n, "v": v, "g": g, "u": g, "group": group, "task": str(row)})
        for group, tasks in counts.items()
        for row, (n, v, g) in enumerate(tasks)
    ]
    return pickaxe.scorer("resampling-limits", **params).score(items)


def test_limits_say_when_to_stop_and_who_cannot_match() -> None:
    found = limits()
    answer, _ = explained(found.summary)
    weak, strong = (found.summary["groups"][name] for name in ("weak", "strong"))
    assert weak["k_best"] == 0
    assert "weak: where a wrong answer is worth -1, do not try: no number of attempts gains anything." in answer
    stop = f"strong: where a wrong answer is worth -1, stop after {strong['k_best']} attempt"
    assert any(text.startswith(stop) and f"{strong['max_reward']:.3g}." in text for text in answer)
    between = f"between {weak['limit_worst']:.3g} and {weak['limit_best']:.3g}, as unsolved tasks may turn out."
    assert any(text.startswith("weak: a single sample") and text.endswith(between) for text in answer)
    assert "weak cannot match a single sample of strong, whatever the number of attempts." in answer


def test_limits_draw_intervals_rewards_and_wrong_answers() -> None:
    found = limits()
    figures = titled(found)
    endless = figures["What endless attempts reach"]
    assert endless.y.categories == found.groups.keys  # type: ignore[union-attr]
    series = named(endless)["endless attempts"]
    assert series.low == tuple(found.groups.columns["limit_worst"])  # type: ignore[union-attr]
    assert series.high == tuple(found.groups.columns["limit_best"])  # type: ignore[union-attr]
    rewards = named(figures["Expected reward by number of attempts"])
    curve = found.summary["groups"]["weak"]["curves"]["reward"]
    assert rewards["weak"].y == tuple(curve[int(k or 0) - 1] for k in rewards["weak"].x)
    assert rewards["best number of attempts"].x == (found.summary["groups"]["strong"]["k_best"],)
    wrong = named(figures["Wrong answers by the attempt that passes first"])["weak"]
    bins = found.summary["groups"]["weak"]["false_positive_bins"]
    assert wrong.y == tuple(each["false_positive_rate"] for each in bins)


def test_left_out_tasks_are_told() -> None:
    items = [Item(name, fields={"n": 10, "v": 5, "g": 4, "u": u}) for name, u in (("a", 4), ("b", 6))]
    answer, _ = explained(pickaxe.scorer("resampling-limits").score(items).summary)
    assert "all: 1 tasks are left out, of which the verifier rejects a correct sample." in answer


def test_plans_are_told_too() -> None:
    plan = Item("plan", fields={"r": np.array([0.87, 0.13]), "prior": np.array([0.58, 0.42]), "soundness": 0.75})
    bad = Item("bad", fields={"r": np.array([0.1]), "prior": np.array([1.0]), "soundness": 0.1})
    found = pickaxe.scorer("resampling-limits", form="plan").score([plan, bad])
    answer, [figure] = explained(found.summary)
    assert answer[0] == f"plan: stop after 2 attempts, for an expected reward of {found['reward'][0]:.3g}."
    assert answer[1].startswith("bad: do not try")
    assert named(figure)["best number of attempts"].y == (pytest.approx(found["reward"][0]),)
