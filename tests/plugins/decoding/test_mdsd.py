"""The decoder `mdsd` on the shipped draft model: what it says, what it counts, what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import pickaxe
from pickaxe import Completion, Prompt, Sampling
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe_plugins.decoding._speculation.multiverify import PAIRS

LAYERS = {"model": "draft", "precision": "fp32", "draft": "layers", "draft_layers": 1}
ITSELF = {"model": "draft", "precision": "fp32", "draft_model": "draft"}
NGRAM = {"model": "draft", "precision": "fp32", "draft": "ngram"}
SPEECH = "one two three four one two three four one two"


def complete(
    params: dict[str, Any], prompts: Prompt | Sequence[Prompt], seed: int = 0, **more: Any
) -> list[Completion]:
    return pickaxe.decoder("mdsd", **params, **more).complete(prompts, seed=seed)


def prompt(tokens: int = 12, **sampling: Any) -> Prompt:
    return Prompt(SPEECH, sampling=Sampling(max_tokens=tokens, **sampling))


@pytest.mark.parametrize(
    "params",
    [
        {**LAYERS, "num_drafts": 2, "depth": 2},
        {**LAYERS, "num_drafts": 3, "depth": 3, "width": 1},
        {**LAYERS, "num_drafts": 2, "depth": 2, "tree_attention": False},
        {**NGRAM, "num_drafts": 4},
        {**ITSELF, "num_drafts": 2, "auto": True},
    ],
)
def test_temperature_0_is_the_models_greedy_text(params: dict[str, Any]) -> None:
    plain = pickaxe.decoder("repeated-sampling", model="draft", precision="fp32", temperature=0, max_tokens=16)
    (wanted,) = [each for each in plain.complete(SPEECH) if each.choice == 0]
    (found,) = complete(params, prompt(16, temperature=0))
    assert (found.text, found.token_ids) == (wanted.text, wanted.token_ids)
    assert found.logprobs == pytest.approx(wanted.logprobs, abs=1e-3)


@pytest.mark.parametrize("top_k", [0, 1])
def test_one_token_to_draw_from_is_greedy_too(top_k: int) -> None:
    wanted = complete(LAYERS, prompt(temperature=0))[0]
    narrow = {"top_k": 1} if top_k else {"top_p": 1e-6}
    assert complete(LAYERS, prompt(temperature=1.0, **narrow))[0].token_ids == wanted.token_ids


@pytest.mark.parametrize(("law", "rule"), PAIRS)
def test_a_draft_equal_to_the_target_is_accepted_whole(law: str, rule: str) -> None:
    """But for rounding, which tells the draft's calls from the target's, every token of a round is a draft."""
    found = complete(ITSELF, prompt(12), law=law, verify=rule, num_drafts=2, depth=3, width=64, top_k=30)[0]
    assert found.usage["target_calls"] == 3
    assert found.usage["accepted"] == 9
    assert found.records[0] == {"checked_at": [3, 3, 3], "accepted_at": [3, 3, 3], "rounds": {f"{law}/{rule}": 3}}


@pytest.mark.parametrize("verify", ["auto", "rrs"])
def test_same_seed_same_text_in_tree_and_in_rows(verify: str) -> None:
    prompts = [prompt(10, n=2), Prompt("The sky is", sampling=Sampling(max_tokens=8))]
    tree = complete(LAYERS, prompts, verify=verify)
    rows = complete(LAYERS, prompts, verify=verify, tree_attention=False)
    assert [each.token_ids for each in tree] == [each.token_ids for each in rows]
    assert tree[0].token_ids != tree[1].token_ids
    other = complete(LAYERS, prompts, seed=1, verify=verify)
    assert [each.token_ids for each in tree] != [each.token_ids for each in other]
    assert complete(LAYERS, prompts[1], verify=verify)[0].token_ids == tree[2].token_ids


def test_chunks_come_by_round_and_add_up() -> None:
    params = {**LAYERS, "num_drafts": 3, "depth": 2, "width": 1}
    chunks = list(pickaxe.decoder("mdsd", **params).decode([prompt(12)]))
    usage, record = chunks[-1].usage, chunks[-1].record
    assert record is not None
    assert usage["target_calls"] == len(chunks)
    assert usage["completion_tokens"] == sum(len(chunk.token_ids) for chunk in chunks) == 12
    assert all(1 <= len(chunk.token_ids) <= 3 for chunk in chunks)
    assert usage["accepted"] == sum(record["accepted_at"]) == 12 - len(chunks)
    assert usage["drafted"] <= 6 * len(chunks)
    assert sum(record["rounds"].values()) == record["checked_at"][0]
    assert [chunk.finish_reason for chunk in chunks] == [""] * (len(chunks) - 1) + ["length"]


def test_wider_trees_hold_more_drafts() -> None:
    """One round of two levels: 2 drafts, then 2 after each node that is drafted on from."""
    for width, drafted in ((1, 4), (2, 6)):
        found = complete(ITSELF, prompt(3, top_k=30), num_drafts=2, depth=2, width=width, verify="greedy_optimal")[0]
        assert (found.usage["target_calls"], found.usage["drafted"]) == (1, drafted)


def test_stop_strings_and_allowed_texts() -> None:
    whole = complete(LAYERS, prompt(12, temperature=0))[0].text
    stopped = complete(LAYERS, prompt(12, temperature=0, stop=(whole[5:8],)))[0]
    assert (stopped.text, stopped.finish_reason) == (whole[: whole.find(whole[5:8])], "stop")
    allowed = Prompt(SPEECH, allowed=(" three four", " thirteen"), sampling=Sampling(max_tokens=9))
    for seed in range(3):
        found = complete(LAYERS, allowed, seed=seed, num_drafts=2, depth=3)[0]
        assert found.text in allowed.allowed
        assert found.finish_reason == "stop"


def test_no_prompts_and_prompts_of_nothing() -> None:
    assert complete(LAYERS, []) == []
    with pytest.raises(InvalidItems, match="neither text nor messages"):
        complete(LAYERS, Prompt())


@pytest.mark.parametrize(
    "params",
    [
        {"law": "greedy", "verify": "k_sequential"},
        {"law": "without", "verify": "k_sequential"},
        {"law": "with", "verify": "greedy_optimal"},
        {"num_drafts": 0},
        {"num_drafts": 17},
        {"depth": 0},
        {"depth": 17},
        {"width": 0},
    ],
)
def test_params_that_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        pickaxe.decoder("mdsd", **params)
