"""spectr on the shipped small model in fp32, where reading one token or several gives equal logits."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Call, Completion, Message, Prompt, Sampling
from pickaxe.errors import Cancelled, DoesNotFit, InvalidParams, ModelMissing, Unmet
from pickaxe.host import default_host
from pickaxe.lm import Draw

MODEL = {"model": "draft", "precision": "fp32", "max_tokens": 20}
LAYERS = {"draft": "layers", "draft_layers": 1}
PROMPTS = ("The capital of France is", "One, two, three, one, two, three, one,", "def add(a, b):\n    return")
DRAFTS: tuple[dict[str, Any], ...] = (
    LAYERS,
    {"draft": "ngram"},
    {"draft": "model"},
    {"draft": "model", "draft_vocab": 4096, "confidence": 0.3},
    {"draft": "both", "ngram_least": 2},
)


def spectr(**params: Any) -> Any:
    return pickaxe.decoder("spectr", **{**MODEL, "num_drafts": 3, "draft_length": 3, **params})


def one(found: list[Completion]) -> Completion:
    (completion,) = found
    return completion


def greedy(text: str, **sampling: Any) -> Completion:
    prompt = Prompt(text, sampling=Sampling(temperature=0, **sampling))
    return pickaxe.decoder("repeated-sampling", **MODEL).complete(prompt)[-1]


# ---------------------------------------------------------------- what is said


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("tree_attention", [True, False])
@pytest.mark.parametrize("text", PROMPTS)
def test_greedy_text_is_that_of_plain_decoding(draft, tree_attention, text):
    prompt = Prompt(text, sampling=Sampling(temperature=0))
    found = one(spectr(**draft, tree_attention=tree_attention).complete(prompt))
    plain = greedy(text)
    assert (found.text, found.token_ids) == (plain.text, plain.token_ids)
    np.testing.assert_allclose(found.logprobs, plain.logprobs, atol=1e-3)


@pytest.mark.parametrize("draft", DRAFTS)
def test_tree_and_batch_say_the_same(draft):
    prompts = [Prompt(text, sampling=Sampling(temperature=0.9, top_p=0.95, n=2)) for text in PROMPTS]
    tree, batch = (spectr(**draft, tree_attention=kind).complete(prompts, seed=4) for kind in (True, False))
    assert [each.token_ids for each in tree] == [each.token_ids for each in batch]
    assert [each.usage for each in tree] == [each.usage for each in batch]


def test_equal_seeds_say_the_same_and_others_do_not():
    decoder = spectr(**LAYERS)
    prompts = [Prompt(text) for text in PROMPTS]
    first = decoder.complete(prompts, seed=1)
    assert first == decoder.complete(prompts, seed=1)
    assert [each.text for each in first] != [each.text for each in decoder.complete(prompts, seed=2)]
    alone = one(decoder.complete([prompts[1]], seed=1))
    assert alone.token_ids == first[1].token_ids


def test_first_tokens_are_distributed_as_the_models():
    """Five tokens are possible; drafts come from another law, a single layer's."""
    n = 300
    prompt = Prompt(PROMPTS[0], sampling=Sampling(max_tokens=2, top_k=5, temperature=1.5, n=n))
    lm = default_host().lm("draft", "fp32")
    ids, probs = Draw(1.5, 5).distribution(lm.prefill(lm.tokenizer.encode(PROMPTS[0]))[0])
    found = spectr(**LAYERS, num_drafts=2, draft_length=1).complete(prompt)
    counts = np.array([sum(each.token_ids[0] == token for each in found) for token in ids])
    assert counts.sum() == n
    assert ((counts - n * probs) ** 2 / (n * probs)).sum() < 23.5  # chi-square of 4 degrees, p = 1e-4


def test_log_probabilities_are_the_models_own():
    found = one(spectr(**LAYERS).complete(Prompt(PROMPTS[0], sampling=Sampling(temperature=0.5, top_k=20))))
    lm = default_host().lm("draft", "fp32")
    prompt = lm.tokenizer.encode(PROMPTS[0], add_special=True)
    wanted = lm.token_logprobs([[*prompt, *found.token_ids]])[0][len(prompt) - 1 :]
    np.testing.assert_allclose(found.logprobs, wanted, atol=1e-3)


# ---------------------------------------------------------------- rounds and counters


def test_a_draft_like_the_target_is_always_accepted():
    for sampling in (Sampling(temperature=0, max_tokens=16), Sampling(temperature=1, max_tokens=16)):
        found = one(spectr(num_drafts=1, draft_length=3).complete(Prompt(PROMPTS[0], sampling=sampling)))
        if found.finish_reason == "length":
            assert found.usage["target_calls"] == 4
            assert found.usage["accepted"] == found.usage["drafted"] == 12


def test_chunks_come_by_round_and_usage_adds_up():
    decoder = spectr(draft="model", num_drafts=2, draft_length=3)
    chunks = list(decoder.decode([Prompt(PROMPTS[0], sampling=Sampling(n=2))]))
    for choice, group in groupby(chunks, key=lambda chunk: chunk.choice):
        rounds = list(group)
        assert all(1 <= len(chunk.token_ids) <= 4 for chunk in rounds)
        assert [bool(chunk.finish_reason) for chunk in rounds] == [False] * (len(rounds) - 1) + [True]
        usage, record = rounds[-1].usage, rounds[-1].record
        assert usage["target_calls"] == len(rounds)
        assert usage["completion_tokens"] == sum(len(chunk.token_ids) for chunk in rounds)
        assert usage["prompt_tokens"] == (5 if choice == 0 else 0)
        assert usage["accepted"] == sum(record["accepted_at"])
        assert usage["completion_tokens"] <= usage["accepted"] + usage["target_calls"]
        assert all(a <= b for a, b in zip(record["accepted_at"], record["checked_at"], strict=True))
        assert record["accepted_at"][0] >= record["checked_at"][1]


def test_greedy_drafts_once():
    found = one(spectr(**LAYERS, num_drafts=8).complete(Prompt(PROMPTS[0], sampling=Sampling(temperature=0))))
    assert found.usage["drafted"] <= 3 * found.usage["target_calls"]


def test_a_repeating_text_is_drafted_from_itself():
    found = one(spectr(draft="ngram").complete(Prompt(PROMPTS[1], sampling=Sampling(temperature=0))))
    assert found.usage["draft_calls"] == 0
    assert found.usage["accepted"] > 0
    with_samples = spectr(draft="ngram", ngram_texts=[PROMPTS[0] + greedy(PROMPTS[0]).text])
    taught = one(with_samples.complete(Prompt(PROMPTS[0], sampling=Sampling(temperature=0))))
    assert taught.usage["target_calls"] <= 8


def test_what_repeats_is_drafted_without_the_model():
    prompt = Prompt(PROMPTS[1], sampling=Sampling(temperature=0))
    table, model, both = (one(spectr(draft=kind, num_drafts=1).complete(prompt)) for kind in ("ngram", "model", "both"))
    assert table.token_ids == model.token_ids == both.token_ids
    assert table.usage["draft_calls"] < both.usage["draft_calls"] < model.usage["draft_calls"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_prompt_that_was_read_with_the_first_tree_is_remembered(temperature):
    decoder = spectr(draft="ngram", num_drafts=1)
    words = "A prompt of this length is worth remembering, and nobody has asked it of this host before: " + "so " * 20
    prompt = Prompt(words, sampling=Sampling(temperature=temperature))
    prefixes = default_host().lm("draft", "fp32").engine.prefixes
    ids = np.array(default_host().lm("draft", "fp32").tokenizer.encode(words))
    first = one(decoder.complete(prompt, seed=3))
    assert prefixes.knows(ids)
    again = one(decoder.complete(prompt, seed=3))
    assert again.token_ids == first.token_ids


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_max_tokens_cuts_a_block(count):
    found = one(spectr(num_drafts=1).complete(Prompt(PROMPTS[1], sampling=Sampling(temperature=0, max_tokens=count))))
    assert found.token_ids == greedy(PROMPTS[1]).token_ids[:count]
    assert found.finish_reason == "length"


def test_stop_strings_end_inside_a_block():
    whole = greedy(PROMPTS[1])
    word = whole.text[4:7]
    plain = greedy(PROMPTS[1], stop=(word,))
    found = one(spectr(num_drafts=1).complete(Prompt(PROMPTS[1], sampling=Sampling(temperature=0, stop=(word,)))))
    assert (found.text, found.finish_reason) == (plain.text, "stop")
    assert found.usage["completion_tokens"] == len(found.token_ids)


def test_a_stop_token_inside_a_draft_ends_the_sample():
    prompts = [Prompt(messages=(Message("user", "Say hi."),), sampling=Sampling(max_tokens=100, n=4, temperature=0.5))]
    ends = default_host().lm("draft", "fp32").tokenizer.eos_ids
    found = spectr(num_drafts=2, draft_length=4).complete(prompts)
    stopped = [each for each in found if each.finish_reason == "stop"]
    assert stopped, "none of the samples ended by itself"
    for each in stopped:
        assert each.token_ids[-1] in ends
        assert not set(each.token_ids[:-1]) & set(ends)
        assert each.usage["completion_tokens"] == len(each.token_ids)


@pytest.mark.parametrize("draft", [LAYERS, {"draft": "ngram", "ngram_texts": [" yes or no, maybe"]}])
def test_allowed_texts_bind_drafts_and_target(draft):
    allowed = (" yes", " yes, or no", " maybe", " no")
    prompt = Prompt("Is it so? Answer:", allowed=allowed, sampling=Sampling(n=12))
    found = spectr(**draft).complete(prompt)
    assert {each.text for each in found} <= set(allowed)
    assert {each.finish_reason for each in found} == {"stop"}


# ---------------------------------------------------------------- edges


def test_a_full_context_shrinks_drafts_and_ends():
    lm = default_host().lm("draft", "fp32")
    words = lm.tokenizer.decode(lm.tokenizer.encode(" a" * (lm.context_length - 4)))
    room = lm.context_length - len(lm.tokenizer.encode(words, add_special=True))
    prompt = Prompt(words, sampling=Sampling(max_tokens=100, temperature=0))
    found = one(spectr(draft="ngram", num_drafts=1, draft_length=8).complete(prompt))
    assert found.finish_reason == "length"
    assert len(found.token_ids) == room
    with pytest.raises(DoesNotFit, match="leave no room"):
        spectr(draft="ngram").complete(Prompt(words + " a" * room))


def test_auto_says_what_the_model_would():
    decoder = spectr(auto=True, draft="ngram")
    found = one(decoder.complete(Prompt(PROMPTS[1], sampling=Sampling(temperature=0))))
    assert found.token_ids == greedy(PROMPTS[1]).token_ids
    assert one(decoder.complete(Prompt(PROMPTS[0]))).token_ids


def test_a_cancelled_call_ends():
    call = Call()
    running = spectr(**LAYERS).decode([Prompt(PROMPTS[0], sampling=Sampling(max_tokens=200))], call=call)
    next(running)
    call.cancel()
    with pytest.raises(Cancelled):
        list(running)


@pytest.mark.parametrize(
    ("params", "field"),
    [({"num_drafts": 0}, "num_drafts"), ({"num_drafts": 65}, "num_drafts"), ({"draft_length": 33}, "draft_length")],
)
def test_counts_out_of_range(params, field):
    with pytest.raises(InvalidParams, match=field):
        spectr(**params)


def test_a_draft_that_is_not_there():
    with pytest.raises(ModelMissing, match="no model is called"):
        spectr(draft_model="nobody").complete(PROMPTS[0])


def test_a_draft_with_other_tokens(monkeypatch):
    from pickaxe_plugins.decoding._speculation import sources

    def refuse(*_: object) -> None:
        raise Unmet("the two models have different tokenizers")

    monkeypatch.setattr(sources, "same_vocabulary", refuse)
    with pytest.raises(Unmet, match="different tokenizers"):
        spectr(draft="model").complete(PROMPTS[0])
