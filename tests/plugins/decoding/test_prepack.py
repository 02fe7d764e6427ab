"""prepack and prepack-plan on the shipped draft model: what comes out is what every prompt alone gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import pickaxe
from pickaxe import Completion, Host, Item, Message, Prompt, Sampling
from pickaxe.errors import Cancelled, InvalidItems, InvalidParams
from pickaxe.lm import LM
from pickaxe_plugins.decoding.prepack import plan

GREEDY = {"model": "draft", "precision": "fp32", "temperature": 0.0}


@pytest.fixture(scope="module")
def lm() -> LM:
    return Host().lm("draft", "fp32")


def texts(lm: LM, lengths: Sequence[int], seed: int) -> list[str]:
    """Prompts of so many tokens."""
    random = np.random.default_rng(seed)
    words = [" sky", " harbour", " green", " Anna", " baker", " code", " the", " was", " of", " and"]
    found = ["".join(random.choice(words, length)) for length in lengths]
    assert [len(lm.tokenizer.encode(text)) for text in found] == list(lengths)
    return found


def complete(prompts: Sequence[str | Prompt], **params: object) -> list[Completion]:
    return pickaxe.decoder("prepack", **{**GREEDY, "max_tokens": 6, **params}).complete(prompts)


def alone(prompts: Sequence[str], max_tokens: int) -> list[str]:
    decoder = pickaxe.decoder("repeated-sampling", **GREEDY, max_tokens=max_tokens)
    return [decoder.complete(prompt)[1].text for prompt in prompts]


@pytest.mark.parametrize("seed", range(3))
def test_greedy_texts_equal_decoding_each_alone(seed: int, lm: LM) -> None:
    lengths = [1, *np.random.default_rng(seed).integers(1, 120, 6)]
    prompts = texts(lm, lengths, seed)
    expected = alone(prompts, 32)
    options = [{}, {"emit": "packed"}, {"mode": "official"}][seed]
    found = complete(prompts, max_tokens=32, **options)
    assert [each.text for each in found] == expected
    order = np.random.default_rng(seed).permutation(len(prompts))
    shuffled = complete([prompts[place] for place in order], max_tokens=32, packer="exact", **options)
    assert [each.text for each in shuffled] == [expected[place] for place in order]


@pytest.mark.parametrize(
    "options",
    [
        {"packer": "first_fit_decreasing"},
        {"packer": "exact"},
        {"row_capacity": 16},
        {"max_rows": 1},
        {"max_slots": 20},
        {"max_batch": 2},
        {"emit": "packed"},
        {"mode": "official"},
    ],
    ids=str,
)
def test_how_prompts_are_packed_changes_no_result(options: dict[str, object], lm: LM) -> None:
    prompts = texts(lm, (40, 3, 12, 1, 7, 25), seed=9)
    plain, packed = complete(prompts), complete(prompts, **options)
    for one, other in zip(plain, packed, strict=True):
        assert one.token_ids == other.token_ids
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


def test_only_one_token_prompts(lm: LM) -> None:
    prompts = texts(lm, (1, 1, 1), seed=3)
    for emit in ("last_token", "packed"):
        assert [each.text for each in complete(prompts, emit=emit)] == alone(prompts, 6)


def test_choices_of_a_prompt_share_what_was_read(lm: LM) -> None:
    hot = {"temperature": 1.0}
    given = Prompt("The sky over the harbour", sampling=Sampling(n=3, seed=5))
    found = complete([given, Prompt("One", sampling=Sampling(n=2, seed=5))], **hot)
    assert [(each.prompt, each.choice) for each in found] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert len({each.text for each in found[:3]}) > 1
    (one,) = complete([Prompt(given.text, sampling=Sampling(seed=5))], **hot)
    assert one.token_ids == found[0].token_ids


def test_chats_stop_strings_and_allowed_outputs() -> None:
    chat = Prompt(messages=(Message("user", "Say yes or no."),), allowed=("yes", "no"))
    first, second = complete([chat, Prompt("One, two, three, four,", sampling=Sampling(stop=(",",)))])
    assert first.text in ("yes", "no")
    assert "," not in second.text


def test_usage_tells_what_the_batch_took(lm: LM) -> None:
    prompts = texts(lm, (40, 3, 12, 1, 7, 25), seed=9)
    for each, length in zip(complete(prompts, emit="packed"), (40, 3, 12, 1, 7, 25), strict=True):
        assert each.usage["prompt_tokens"] == length
        assert each.usage["completion_tokens"] == len(each.token_ids)
        assert each.usage["batch_slots"] == 40 + 37 + 11  # 40 alone; 25 + 12; 7 + 3 + 1 would be padded too much
        assert each.usage["batch_runs"] == 3


def test_a_prompt_that_is_too_long_leaves_the_others_alone(lm: LM) -> None:
    long = " sky" * (lm.context_length - 3)
    first, second, third = complete(["One", Prompt(long, sampling=Sampling(max_tokens=4)), "Two"])
    assert second.finish_reason == "abstain"
    assert f"exceed the {lm.context_length}" in second.records[0]["error"]
    assert [first.text, third.text] == alone(["One", "Two"], 6)


def test_the_budget_counts_samples() -> None:
    two = Sampling(n=2)
    found = complete([Prompt("One", sampling=two), Prompt("Two", sampling=two)], max_tokens=2)
    assert all(each.finish_reason != "abstain" for each in found)
    decoder = pickaxe.decoder("prepack", **GREEDY, max_tokens=2)
    found = decoder.complete([Prompt("One", sampling=two), Prompt("Two", sampling=two), Prompt("3")], budget=3)
    assert [each.finish_reason == "abstain" for each in found] == [False, False, False, True, True]
    assert found[-1].records == ({"error": "the budget is spent"},)


def test_cancelling_ends_the_work() -> None:
    call = pickaxe.Call()
    running = pickaxe.decoder("prepack", **GREEDY, max_tokens=200).decode(["One", "Two and"], call=call)
    next(running)
    call.cancel()
    with pytest.raises(Cancelled):
        list(running)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mode": "official", "emit": "packed"}, "holds back"),
        ({"row_capacity": 0}, "row_capacity"),
        ({"row_capacity": 5000}, "row_capacity"),
        ({"packer": "best"}, "packer"),
        ({"max_rows": 0}, "max_rows"),
        ({"max_batch": 0}, "max_batch"),
    ],
)
def test_wrong_parameters(params: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        pickaxe.decoder("prepack", **params)


def test_a_prompt_without_anything() -> None:
    with pytest.raises(InvalidItems, match=r"prompts\[1\]"):
        complete(["One", Prompt()])


# ---------------------------------------------------------------- plans


def items(*lengths: int) -> list[Item]:
    return [Item(str(row), fields={"n_tokens": length}) for row, length in enumerate(lengths)]


def test_a_plan_says_where_prompts_lie_and_what_is_saved() -> None:
    found = pickaxe.scorer("prepack-plan").score(items(6, 4, 1, 5, 2, 2))
    assert found["row"].tolist() == [0, 2, -1, 1, 2, 1]
    assert found["start"].tolist() == [0, 0, 0, 0, 3, 4]
    assert found.summary == {"rows": 3, "width": 5, "slots_used": 14, "slots_packed": 15, "slots_padded": 36}
    np.testing.assert_allclose(found.primary, 14 / 15, rtol=1e-6)
    np.testing.assert_allclose(found["waste_saved"], 1 - 15 / 36, rtol=1e-6)


def test_a_plan_of_nothing_much() -> None:
    alone = pickaxe.scorer("prepack-plan").score(items(1, 1))
    assert alone.primary.tolist() == [1, 1]
    assert alone["waste_saved"].tolist() == [1, 1]
    assert len(pickaxe.scorer("prepack-plan").score([])) == 0


def test_plans_count_the_tokens_of_texts() -> None:
    scorer = pickaxe.scorer("prepack-plan", model="draft")
    found = scorer.score([Item("1", "The sky was green."), Item("2", ""), Item("3", "ignored", {"n_tokens": 9})])
    assert found.summary["slots_padded"] == 27
    assert found["row"].tolist() == [1, -1, 0]


def test_capacity_and_packers_of_plans() -> None:
    lengths = (6, 5, 5, 4, 3, 3)
    wide = pickaxe.scorer("prepack-plan", row_capacity=10).score(items(*lengths))
    exact = pickaxe.scorer("prepack-plan", row_capacity=10, packer="exact").score(items(*lengths))
    assert (wide.summary["rows"], exact.summary["rows"]) == (3, 2)
    official = pickaxe.scorer("prepack-plan", mode="official").score(items(*lengths))
    assert official.summary["rows"] == len(plan(lengths, "official").rows)


def test_wrong_items() -> None:
    with pytest.raises(InvalidItems) as error:
        pickaxe.scorer("prepack-plan").score([*items(0, -3), Item("x")])
    assert [each.field for each in error.value.violations] == [
        "items[0].fields.n_tokens",
        "items[1].fields.n_tokens",
        "items[2]",
    ]
    with pytest.raises(InvalidParams, match="32 prompts"):
        pickaxe.scorer("prepack-plan", packer="exact").score(items(*[2] * 33))
