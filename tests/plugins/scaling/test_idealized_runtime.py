"""Idealized runtime: the law, its invariances, costs, comparison of deployments, profiling, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe.report import explained
from pickaxe_plugins.scaling.idealized_runtime._model import (
    Deployment,
    PromptMode,
    Rules,
    aggregated,
    estimate,
    fit_deployment,
    presets,
)

RNG = np.random.default_rng(0)
PROMPTS, OUTPUTS = (1, 16, 64, 256), (1, 4, 16, 32)
FIRST = {1: 0.02, 16: 0.021, 64: 0.03, 256: 0.08}
G = 0.0125
MODES = st.sampled_from(["single_token", "intercept"])
FIRSTS = st.lists(st.floats(1e-4, 10.0), min_size=4, max_size=4)


def grid(extra: float = 0.0, times: float = 1.0) -> np.ndarray:
    return np.array([(p, o, times * (FIRST[p] + G * (o - 1)) + extra) for p in PROMPTS for o in OUTPUTS])


def law(points: np.ndarray, **rules: Any) -> Deployment:
    return fit_deployment("it", points, Rules(**rules), np.random.default_rng(0))


def point(p: float, o: float, seconds: Any, **fields: Any) -> Item:
    return Item(
        "point", fields={"num_prompt_tokens": p, "num_output_tokens": o, "runtimes": np.array(seconds), **fields}
    )


def points(rows: np.ndarray, **fields: Any) -> list[Item]:
    return [point(p, o, [seconds], **fields) for p, o, seconds in rows]


def request(p: float = 100, o: float = 10, name: str = "request", **fields: Any) -> Item:
    return Item(name, fields={"num_prompt_tokens": p, "num_output_tokens": o, **fields})


def score(*items: Item, **params: Any) -> Any:
    return pickaxe.scorer("idealized-runtime", **params).score(items)


def entry(first: float = 0.1, g: float = 0.02, **facts: Any) -> dict[str, Any]:
    return {"runtime_per_output_token": g, "runtime_for_prompt_tokens": {1: first, 128: 2 * first}, **facts}


def fitted(items: list[Item], **params: Any) -> Any:
    return pickaxe.scorer("idealized-runtime", **{"bootstrap": 0, **params}).fit(items)


# ---------------------------------------------------------------- the law


@settings(deadline=None, max_examples=30)
@given(
    st.floats(1e-4, 1.0),
    st.lists(st.floats(1e-4, 10.0), min_size=4, max_size=4),
    MODES,
)
def test_an_exact_law_is_recovered(g: float, first: list[float], mode: PromptMode) -> None:
    rising = dict(zip(PROMPTS, sorted(first), strict=True))
    exact = np.array([(p, o, rising[p] + g * (o - 1)) for p in PROMPTS for o in OUTPUTS])
    found = law(exact, prompt_mode=mode)
    assert found.runtime_per_output_token == pytest.approx(g, abs=1e-9)
    assert list(found.runtime_for_prompt_tokens.values()) == pytest.approx(list(rising.values()), abs=1e-9)
    assert found.quality is not None
    assert found.quality.r2 == pytest.approx(1, abs=1e-9)
    assert found.quality.held_out_error == pytest.approx(0, abs=1e-6)


def test_at_a_measured_size_the_estimate_is_the_measurement() -> None:
    found = law(grid())
    p = np.array(PROMPTS, np.float64)
    for o in (0, 1):
        assert estimate(found, p, np.full(4, o)).total.tolist() == list(found.runtime_for_prompt_tokens.values())
    assert estimate(found, p, np.full(4, 11)).decode == pytest.approx(10 * G)


def test_between_sizes_the_larger_throughput_counts_and_the_estimate_may_fall() -> None:
    found = law(grid())
    at = estimate(found, np.array([64.0, 65.0, 512.0]), np.ones(3)).prompt
    assert at == pytest.approx([0.03, 0.08 * 65 / 256, 0.16])
    assert at[1] < at[0]


def test_doubled_runtimes_double_every_column_of_seconds() -> None:
    one, two = (fitted(points(grid(times=times))) for times in (1.0, 2.0))
    items = [request(p, o) for p, o in ((5, 3), (300, 0), (64, 1))]
    for column in ("neg_runtime_s", "runtime_s", "prompt_s", "decode_s", "overhead_s"):
        assert two.score(items)[column] == pytest.approx(2 * one.score(items)[column])


def test_a_constant_goes_into_the_overhead_alone() -> None:
    before, after = (law(grid(extra), split_overhead=True, prompt_mode="intercept") for extra in (0.0, 0.25))
    assert after.overhead == pytest.approx(before.overhead + 0.25)
    assert after.runtime_per_output_token == pytest.approx(before.runtime_per_output_token)
    assert list(after.runtime_for_prompt_tokens.values()) == pytest.approx(
        list(before.runtime_for_prompt_tokens.values())
    )
    assert before.runtime_for_prompt_tokens[1] == pytest.approx(before.runtime_per_output_token)


def test_a_batch_equals_its_requests_one_by_one() -> None:
    davinci = presets("idealized")["openai/davinci"]
    p, o = RNG.integers(1, 4000, 1_000_000), RNG.integers(0, 300, 1_000_000)
    whole = estimate(davinci, p, o).total
    for row in RNG.integers(0, len(p), 300):
        assert estimate(davinci, p[row : row + 1], o[row : row + 1]).total[0] == whole[row]
    items = [request(float(a), float(b), deployment="openai/davinci") for a, b in zip(p[:50], o[:50], strict=True)]
    assert score(*items)["runtime_s"].tolist() == whole[:50].tolist()


def test_the_minimum_of_many_trials_finds_the_clean_law() -> None:
    clean = law(grid(), prompt_mode="intercept")
    off = []
    for trials in (3, 300):
        noisy = {(int(p), int(o)): s + RNG.exponential(0.05, trials) for p, o, s in grid()}
        found = law(aggregated(noisy, "min"), prompt_mode="intercept")
        off.append(abs(found.runtime_per_output_token - clean.runtime_per_output_token))
        first = np.array(list(found.runtime_for_prompt_tokens.values())) - list(
            clean.runtime_for_prompt_tokens.values()
        )
        off.append(float(np.abs(first).max()))
    assert off[2] < 1e-4
    assert off[3] < 1e-3
    assert off[2] < off[0]
    assert off[3] < off[1]


def test_the_interval_of_a_noisy_law_holds_the_truth() -> None:
    noisy = grid()
    noisy[:, 2] += RNG.normal(0, 0.001, len(noisy))
    quality = law(noisy, bootstrap=200, prompt_mode="intercept").quality
    assert quality is not None
    assert quality.per_token_low is not None
    assert quality.per_token_high is not None
    assert quality.per_token_low < G < quality.per_token_high
    assert quality.held_out_points == len(PROMPTS)
    assert quality.held_out_error is not None
    assert quality.held_out_error < 0.05


# ---------------------------------------------------------------- scores


@given(st.floats(1, 64), st.floats(0.1, 100), st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_cost_is_linear_in_accelerators_and_price(accelerators: float, price: float, times: int) -> None:
    table = {"it": entry()}
    one = score(request(num_accelerators=accelerators, price_per_hour=price), preset="none", table=table)
    more = score(request(num_accelerators=accelerators * times, price_per_hour=price), preset="none", table=table)
    dear = score(request(num_accelerators=accelerators, price_per_hour=price * times), preset="none", table=table)
    assert one["cost_usd"][0] == pytest.approx(one["runtime_s"][0] * accelerators * price / 3600)
    assert more["cost_usd"][0] == pytest.approx(times * one["cost_usd"][0])
    assert dear["cost_usd"][0] == pytest.approx(times * one["cost_usd"][0])


def test_pareto_compares_deployments_by_their_means() -> None:
    table = {"fast": entry(0.1), "good": entry(0.3), "bad": entry(0.4), "unjudged": entry(0.01)}
    items = [request(deployment=name, quality=quality) for name, quality in
             (("fast", 0.5), ("fast", 0.7), ("good", 0.8), ("bad", 0.7))]  # fmt: skip
    found = score(*items, request(deployment="unjudged"), preset="none", table=table)
    assert found["pareto"][:4].tolist() == [1, 1, 1, 0]
    assert np.isnan(found["pareto"][4])
    answer, figures = explained(found.summary)
    assert answer[0].startswith("Fastest of 4 is unjudged")
    assert "No other deployment is both faster and better than fast" in answer[1]
    assert figures[0].series[0].x == pytest.approx(sorted(row["seconds"] for row in found.summary["deployments"]))
    assert [series.name for series in figures[1].series] == [
        "neither faster nor better elsewhere",
        "another is faster and better",
    ]


def test_requests_without_a_measured_time_do_not_count() -> None:
    table = {"it": entry()}
    items = [request(measured_runtime=1.0), request(), request(measured_runtime=2.0)]
    found = score(*items, preset="none", table=table)
    runtime = found["runtime_s"][0]
    assert found["discrepancy_s"][[0, 2]] == pytest.approx([1 - runtime, 2 - runtime])
    assert np.isnan(found["discrepancy_s"][1])
    row = found.summary["deployments"][0]
    assert row["measured - estimate"] == pytest.approx(1.5 - runtime)
    assert row["requests with a measured runtime"] == 2
    assert "over the 2 of 3 requests" in " ".join(explained(found.summary)[0])


def test_texts_are_counted_by_the_tokenizer_and_echoes_taken_off() -> None:
    table = {"it": entry(tokenizer="draft")}
    texts = Item("texts", "The tide came in.", {"completions": ["It went out.", "It went out."]})
    tokens = pickaxe.host.default_host().lm("draft").tokenizer.encode
    p, o = len(tokens("The tide came in.")), 2 * len(tokens("It went out."))
    echo = request(p, p + o, echoed=True)
    short = request(p, p - 1, echoed=True)
    found = score(texts, request(p, o), echo, short, preset="none", table=table)["decode_s"]
    assert found.tolist() == [found[0]] * 3 + [0]
    assert found[0] == pytest.approx(0.02 * (o - 1))


def test_beyond_what_was_measured_is_flagged_and_said() -> None:
    ada = {"deployment": "openai/ada"}
    found = score(request(3000, 5, **ada), request(5, 400, **ada), request(5, 5, **ada))
    assert [(flag.index, flag.reason) for flag in found.flags] == [(0, "extrapolated"), (1, "extrapolated")]
    assert "2 of 3 requests are larger than any measured one: extrapolated." in explained(found.summary)[0]


def test_times_that_do_not_rise_with_the_output_are_flagged() -> None:
    handle = fitted([point(p, o, [0.5]) for p in (1, 64) for o in (1, 16, 32)])
    assert [(flag.index, flag.reason) for flag in handle.score([request(64, 16)]).flags] == [(0, "flat")]


def test_unequal_requests_are_said() -> None:
    found = score(request(100, 10, deployment="openai/ada"), request(100, 60, deployment="openai/davinci"))
    assert "did not get equal requests" in " ".join(explained(found.summary)[0])


def test_unknown_deployments() -> None:
    found = score(request(deployment="mine"), request(deployment="openai/ada"))
    assert np.isnan(found.primary[0])
    assert found.flags[0].reason == "unknown-deployment"
    assert "Without an entry, and so without an estimate: mine." in explained(found.summary)[0]
    with pytest.raises(InvalidItems, match=r"items\[0\].fields.deployment: 'mine' is not in the table"):
        score(request(deployment="mine"), unknown="error")
    with pytest.raises(InvalidItems, match="is missing, and the table has 19"):
        score(request())


def test_the_batch_size_stands_beside_the_time() -> None:
    handle = fitted(points(grid(), batch_size=8, hardware="one card"))
    found = handle.score([request()])
    row = found.summary["deployments"][0]
    assert row["batch size of these seconds"] == 8
    assert row["hardware"] == "one card"
    assert found["runtime_s"][0] == pytest.approx(0.08 * 100 / 256 + 9 * G)


# ---------------------------------------------------------------- profiling


def test_profiling_a_decoder_of_this_product() -> None:
    params: dict[str, Any] = {
        "decoder": {"name": "repeated-sampling", "params": {"model": "draft"}},
        "prompt_sizes": (1, 8, 100_000), "output_sizes": (1, 4), "warmup": 1, "trials": 2, "deployment": "mine",
        "hardware": "a test machine",
    }  # fmt: skip
    steps: list[Any] = []
    handle = pickaxe.scorer("idealized-runtime", **params).fit([], progress=steps.append)
    assert handle.artifact is not None
    table = handle.artifact.read_json("table.json")
    assert set(table["mine"]["runtime_for_prompt_tokens"]) == {"1", "8"}  # 100,000 tokens fit no context
    assert table["mine"]["longest_output"] == 4
    assert table["mine"]["tokenizer"] == "draft"
    assert handle.artifact.notes["hardware"] == {"mine": "a test machine"}
    assert [step.stage for step in steps if step.metrics].count("profile") == 8
    found = handle.score([Item("text", "The tide came in.", {"completions": ["It went out."]})])
    assert found["runtime_s"][0] > 0


def test_a_budget_that_is_too_small_is_said() -> None:
    decoder = {"name": "repeated-sampling", "params": {"model": "draft"}}
    with pytest.raises(Unmet, match="budget_s"):
        pickaxe.scorer("idealized-runtime", decoder=decoder, warmup=0, budget_s=1e-9).fit([])


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_prompt_tokens": 0}, "num_prompt_tokens: must be at least 1"),
        ({"num_output_tokens": -1}, "num_output_tokens: must be at least 0"),
        ({"measured_runtime": float("inf")}, "measured_runtime: must be a finite number"),
        ({"measured_runtime": -1.0}, "measured_runtime: must be at least 0"),
        ({"num_accelerators": 0.0}, "num_accelerators: must be above 0"),
        ({"price_per_hour": -1.0}, "price_per_hour: must be at least 0"),
        ({"num_prompt_tokens": None}, "num_prompt_tokens: is missing, as is text"),
        ({"num_output_tokens": None}, "num_output_tokens: is missing, as are completions"),
    ],
)
def test_wrong_requests(fields: dict[str, Any], said: str) -> None:
    given = {"num_prompt_tokens": 5, "num_output_tokens": 5, "deployment": "openai/ada", **fields}
    kept = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(InvalidItems, match=rf"items\[0\].fields.{said}"):
        score(Item("wrong", fields=kept))


def test_texts_without_a_tokenizer() -> None:
    with pytest.raises(Unmet, match="set tokenizer"):
        score(Item("text", "The tide", {"num_output_tokens": 3, "deployment": "openai/ada"}))


def test_profiles_that_fit_no_law() -> None:
    with pytest.raises(Unmet, match="prompt size 16: no point of 1 output token"):
        fitted([point(1, 1, [1.0]), point(1, 2, [2.0]), point(16, 2, [2.0])])
    with pytest.raises(Unmet, match="output size 1 only"):
        fitted([point(1, 1, [1.0]), point(16, 1, [2.0])])
    with pytest.raises(Unmet, match="prompt size 16: one output size only"):
        fitted([point(1, 1, [1.0]), point(1, 2, [2.0]), point(16, 2, [2.0])], prompt_mode="intercept")


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (point(0, 1, [1.0]), "num_prompt_tokens: must be a whole number of at least 1"),
        (point(1, 0, [1.0]), "num_output_tokens: must be a whole number of at least 1"),
        (point(1, 1.5, [1.0]), "num_output_tokens: must be a whole number"),
        (point(1, 1, [1.0, np.nan]), "runtimes: is nan at place 1"),
        (point(1, 1, [0.0]), "runtimes: must hold at least one number, all above 0"),
        (point(1, 1, [1.0], runtime=1.0), "runtimes: is missing: give runtimes or runtime, and not both"),
        (Item("none", fields={"num_prompt_tokens": 1}), "num_output_tokens: is missing"),
    ],
)
def test_wrong_points(item: Item, said: str) -> None:
    with pytest.raises(InvalidItems, match=rf"examples\[0\].fields.{said}"):
        fitted([item])


def test_facts_that_differ_and_nothing_to_fit() -> None:
    with pytest.raises(InvalidItems, match="batch_size: is 2 here and 1 before"):
        fitted([point(1, 1, [1.0], batch_size=1), point(1, 2, [1.0], batch_size=2)])
    with pytest.raises(InvalidItems, match="no profile points, and no decoder"):
        fitted([])


def test_tables_by_hand_are_checked() -> None:
    with pytest.raises(InvalidParams, match="prompt sizes must be at least 1"):
        score(request(), table={"it": {"runtime_per_output_token": 1.0, "runtime_for_prompt_tokens": {0: 1.0}}})
