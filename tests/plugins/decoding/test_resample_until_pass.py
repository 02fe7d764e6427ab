"""Resampling until a verifier passes: shared and separate attempts, abstention, K from a fitted run, errors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import (
    WHOLE_PROMPT,
    Call,
    Chunk,
    Column,
    Completion,
    InputField,
    Item,
    Items,
    Message,
    Method,
    Prompt,
    Sampling,
    Scores,
    catalog,
)
from pickaxe.errors import Cancelled, InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe_plugins.decoding._two_types import Types

PROMPT = "The capital of France is"
DRAFT = {"name": "repeated-sampling", "params": {"model": "draft", "max_tokens": 6, "temperature": 1.0}}
PROMPTS = [f"Count to {number}:" for number in range(6)]


class Even(Method):
    """Pass samples with an even number of characters."""

    scope = "item"
    reads = (InputField("text", "text", "A sample."), InputField("prompt", "text", "What was asked."))
    columns = (Column("even", "1 when the length is even."),)
    seen: list[Item] = []

    @hookimpl
    def score(self, items: Items) -> Scores:
        type(self).seen += list(items)
        return Scores({"even": np.array([1.0 - len(item.text or "") % 2 for item in items])})


class Pool(Even):
    """The same, as if it needed the whole pool."""

    scope = "pool"  # type: ignore[assignment]


class Coin(Method):
    """Answer with a number drawn from the prompt's seed; a prompt that says so is not answered."""

    scope = "item"
    calls: list[list[str]] = []

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        type(self).calls.append([prompt.text or "" for prompt in prompts])
        for row, prompt in enumerate(prompts):
            assert prompt.sampling.seed is not None
            if prompt.text == "silence":
                yield Chunk(row, 0, finish_reason="abstain")
                continue
            number = np.random.default_rng(prompt.sampling.seed).random()
            yield Chunk(
                row, 0, f"{number:.6f}", finish_reason="stop", usage={"completion_tokens": 8, "target_calls": 9}
            )


class Below(Method):
    """Score a number by how far it lies below the field `rate`."""

    scope = "item"
    reads = (InputField("text", "text", "A number."), InputField("rate", "float64", "The bound."))
    columns = (Column("below", "The distance."),)

    @hookimpl
    def score(self, items: Items) -> Scores:
        return Scores({"below": np.array([float(item.fields["rate"]) - float(item.text or "") for item in items])})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def methods() -> Iterator[None]:
    Even.seen.clear()
    Coin.calls.clear()
    with (
        catalog.register(Even, "even", "scorer"),
        catalog.register(Pool, "pooled", "scorer"),
        catalog.register(Below, "below", "scorer"),
        catalog.register(Coin, "coin", "decoder"),
    ):
        yield


def resampling(**params: Any) -> Any:
    return pickaxe.decoder("resample-until-pass", **{"verifier": "even", "attempts": 8, "decoder": DRAFT, **params})


def tossing(**params: Any) -> Any:
    return resampling(**{"verifier": "below", "threshold": 0.0, "decoder": "coin", **params})


def asked(rate: float, text: str = "toss", **sampling: Any) -> Prompt:
    return Prompt(text, sampling=Sampling(**sampling), fields={"rate": rate})


def record(found: Completion) -> dict[str, Any]:
    return dict(found.records[0])


# ---------------------------------------------------------------- the default decoder


def test_the_answer_is_the_first_sample_that_passes() -> None:
    sampled = pickaxe.decoder("repeated-sampling", n=8, **DRAFT["params"]).complete(PROMPTS, seed=4)  # type: ignore[arg-type]
    found = resampling().complete(PROMPTS, seed=4)
    assert [each.prompt for each in found] == list(range(len(PROMPTS)))
    for each in found:
        samples = [part for part in sampled if part.prompt == each.prompt and part.choice != WHOLE_PROMPT]
        first = next((place for place, part in enumerate(samples) if len(part.text) % 2 == 0), None)
        tried = samples if first is None else samples[: first + 1]
        assert record(each)["texts"] == [part.text for part in tried]
        assert each.usage["attempts"] == each.usage["verifier_calls"] == record(each)["attempts"] == len(tried)
        if first is not None:
            assert (each.text, each.token_ids, each.logprobs) == (
                tried[-1].text,
                tried[-1].token_ids,
                tried[-1].logprobs,
            )
            assert each.finish_reason == tried[-1].finish_reason
            assert record(each)["stopped"] == "pass"
    assert len({each.usage["attempts"] for each in found}) > 1


def test_attempts_share_the_prompt_and_none_is_drawn_in_vain() -> None:
    for each in resampling().complete(PROMPTS, seed=4):
        length = each.usage["prompt_tokens"]
        assert each.usage["prefix_tokens_shared"] == (each.usage["attempts"] - 1) * length
        assert each.usage["discarded_tokens"] == 0
        assert each.usage["drawn_tokens"] >= each.usage["completion_tokens"] == len(each.token_ids)


def test_drawing_several_attempts_together_changes_no_answer() -> None:
    together = {**DRAFT, "params": {**DRAFT["params"], "batch": 4}}  # type: ignore[dict-item]
    one_by_one, found = resampling().complete(PROMPTS, seed=4), resampling(decoder=together).complete(PROMPTS, seed=4)
    assert [(each.text, record(each)) for each in found] == [(each.text, record(each)) for each in one_by_one]
    assert sum(each.usage["discarded_tokens"] for each in found) > 0


def test_abstaining() -> None:
    found = resampling(attempts=3, threshold=2.0, abstain_text="I do not know.").complete([PROMPT, "A"])
    for each in found:
        assert (each.text, each.finish_reason, each.token_ids) == ("I do not know.", "abstain", ())
        assert (each.usage["attempts"], record(each)["stopped"], record(each)["passed"]) == (3, "attempts", False)
        assert "completion_tokens" not in each.usage


def test_the_verifier_sees_prompt_and_fields() -> None:
    given = Prompt(messages=(Message("system", "Be short."), Message("user", "Hello?")), fields={"rate": 0.5})
    resampling(attempts=1).complete(given)
    (item,) = Even.seen
    assert (item.fields["prompt"], item.fields["rate"]) == ("Hello?", 0.5)
    Even.seen.clear()
    resampling(attempts=1, decoder="coin").complete(given)
    (item,) = Even.seen
    assert (item.fields["prompt"], item.fields["rate"]) == ("Hello?", 0.5)


# ---------------------------------------------------------------- any decoder


def test_rounds_draw_for_open_prompts_only() -> None:
    prompts = [asked(1.0, "sure"), asked(-1.0, "never"), asked(1.0, "sure")]
    found = tossing(attempts=3).complete(prompts)
    assert Coin.calls == [["sure", "never", "sure"], ["never"], ["never"]]
    assert [each.usage["attempts"] for each in sorted(found, key=lambda each: each.prompt)] == [1, 3, 1]
    assert [each.finish_reason for each in found] == ["stop", "abstain", "stop"]
    assert found[1].usage["drawn_tokens"] == 24
    assert found[1].usage["target_calls"] == 27


def test_an_attempt_depends_on_seed_prompt_and_number_only() -> None:
    def texts(*prompts: Prompt, seed: int = 0, **params: Any) -> list[list[str]]:
        return [record(each)["texts"] for each in tossing(**params).complete(prompts, seed=seed)]

    (few,), (many,) = texts(asked(-1.0), attempts=3), texts(asked(-1.0), attempts=8)
    assert many[:3] == few
    assert len(set(many)) == 8
    among = texts(asked(1.0, "other"), asked(-1.0), attempts=8)
    assert among[1] == many
    assert among[0][0] not in many
    assert texts(asked(-1.0), seed=1) != [many]
    assert texts(asked(-1.0, seed=5), seed=1) == texts(asked(-1.0, seed=5), seed=2)


def test_an_attempt_that_abstains_is_not_verified() -> None:
    (found,) = tossing(attempts=2).complete(asked(1.0, "silence"))
    assert (found.finish_reason, found.usage["attempts"], found.usage["verifier_calls"]) == ("abstain", 2, 0)
    assert record(found)["scores"] == [None, None]


def test_frequencies_are_those_of_the_plan() -> None:
    """A sample is right with chance r; the verifier passes the right ones, and wrong ones with chance 1 - s."""
    rates, soundness, k, each = np.array([0.7, 0.2]), 0.75, 3, 600
    passing = rates + (1 - rates) * (1 - soundness)
    prompts = [asked(float(passing[row % 2]), f"toss {row}") for row in range(2 * each)]
    found = sorted(tossing(attempts=k).complete(prompts, seed=1), key=lambda one: one.prompt)
    passed = np.array([one.finish_reason != "abstain" for one in found])
    right = np.array(
        [p and float(one.text) < rates[row % 2] for row, (one, p) in enumerate(zip(found, passed, strict=True))]
    )
    curves = Types(np.array([0.5, 0.5]), rates, 1.0, soundness).curves(k)
    error = 3 * math.sqrt(0.25 / len(prompts))
    assert abs(passed.mean() - curves.passed[-1]) < error
    assert abs(right.mean() - curves.accuracy[-1]) < error
    assert abs(np.mean([one.usage["attempts"] for one in found]) - curves.attempts[-1]) < 3 / math.sqrt(len(prompts))


@pytest.mark.parametrize("decoder", ["coin", DRAFT])
def test_a_budget_is_the_most_attempts_of_a_call(decoder: object) -> None:
    prompts = [asked(-1.0, f"toss {row}") for row in range(3)]
    params = {"verifier": "even", "threshold": 2.0, "attempts": 4}
    found = resampling(decoder=decoder, **params).complete(prompts, budget=5)
    assert sum(each.usage["attempts"] for each in found) == 5
    assert [each.finish_reason for each in found] == ["abstain"] * 3
    assert any(record(each)["stopped"] == "budget" for each in found)
    assert all(
        each.usage["attempts"] == 0 for each in resampling(decoder=decoder, **params).complete(prompts, budget=0)
    )


def test_a_cancelled_call_ends() -> None:
    call = Call()
    running = resampling(threshold=2.0, attempts=10_000).decode(PROMPT, call=call)
    call.cancel()
    with pytest.raises(Cancelled):
        list(running)


# ---------------------------------------------------------------- K from a judged run


def run(*tasks: tuple[int, int], **fields: Any) -> list[Item]:
    return [Item(f"{v}/{g}", fields={"n": 10, "v": v, "g": g, "u": g, **fields}) for v, g in tasks]


def test_the_number_of_attempts_comes_from_the_fitted_run(tmp_path: Path) -> None:
    learnt = run((9, 9), (7, 6), (2, 0))
    best = pickaxe.scorer("resampling-limits").score(learnt).summary["groups"]["all"]
    fitted = resampling(attempts=None, threshold=2.0).fit(learnt, out=tmp_path / "art")
    assert fitted.artifact.notes["limits"]["all"]["k_best"] == best["k_best"] == 2
    assert fitted.artifact.notes["limits"]["all"]["soundness"] == pytest.approx(best["soundness"])
    (found,) = fitted.complete(PROMPT)
    assert (found.usage["attempts"], record(found)["allowed"]) == (2, 2)
    again = pickaxe.decoder("resample-until-pass", artifact=tmp_path / "art", attempts=3)
    assert again.complete(PROMPT)[0].usage["attempts"] == 3


def test_where_trying_gains_nothing_nothing_is_tried() -> None:
    fitted = tossing(attempts=None, false_positive_value=-8.0, abstain_text="?").fit(run((9, 4), (5, 1)))
    (found,) = fitted.complete(asked(1.0))
    assert (found.text, found.finish_reason, found.usage["attempts"]) == ("?", "abstain", 0)
    assert Coin.calls == []


def test_a_group_of_the_fitted_run(tmp_path: Path) -> None:
    learnt = [*run((9, 9), (8, 8), group="strong"), *run((9, 3), group="weak")]
    tossing(attempts=None).fit(learnt, out=tmp_path / "art")
    opened = {
        name: pickaxe.decoder("resample-until-pass", artifact=tmp_path / "art", group=name)
        for name in ("strong", "weak", "none", "")
    }
    assert record(opened["strong"].complete(asked(-1.0))[0])["allowed"] == 3
    assert record(opened["weak"].complete(asked(-1.0))[0])["allowed"] == 0
    for name in ("none", ""):
        with pytest.raises(InvalidParams, match="strong, weak"):
            opened[name].complete(asked(1.0))


# ---------------------------------------------------------------- errors


def test_what_is_refused() -> None:
    with pytest.raises(InvalidParams, match="verifier"):
        pickaxe.decoder("resample-until-pass", attempts=2)
    with pytest.raises(InvalidParams, match="attempts"):
        resampling(attempts=0)
    with pytest.raises(InvalidParams, match="not given: give it, or an artifact"):
        resampling(attempts=None).complete(PROMPT)
    with pytest.raises(InvalidParams, match="pool as a whole"):
        resampling(verifier="pooled").complete(PROMPT)
    with pytest.raises(InvalidParams, match="n, stop_at_first, which this method decides"):
        resampling(decoder={"name": "repeated-sampling", "params": {"n": 3, "stop_at_first": True}})
    with pytest.raises(InvalidParams, match="less than or equal to 0"):
        resampling(false_positive_value=1.0)
    with pytest.raises(InvalidItems, match=r"prompts\[1\].sampling.n"):
        resampling().complete([PROMPT, Prompt(PROMPT, sampling=Sampling(n=2))])
    with pytest.raises(InvalidItems, match="neither text nor messages"):
        resampling().complete(Prompt())
    assert resampling().complete([]) == []
