"""ape on the shipped draft model: equal to sequential reading where it must be, order, cache, limits, errors."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

import pickaxe
from pickaxe import Completion, Host, Item, Message, Prompt, Sampling
from pickaxe.errors import Cancelled, DoesNotFit, InvalidItems, InvalidParams, Unmet
from pickaxe.lm import LM, Contexts
from pickaxe_plugins.decoding.ape import around_user, assemble, encode, position_ids

EXACT = {"model": "draft", "precision": "fp32", "temperature": 0.0, "max_tokens": 8}
PASSAGES = (
    "The sky over the harbour of Lindau was green that night.",
    "Anna is 43 years old and works as a baker in Bern.",
    "The code of the vault is 7719, and nobody knows it.",
)
QUERY = "The code of the vault is"


@pytest.fixture(scope="module")
def lm() -> LM:
    return Host().lm("draft", "fp32")


def passages(*texts: str) -> tuple[Item, ...]:
    return tuple(Item(str(place), text) for place, text in enumerate(texts))


def ask(*texts: str, query: str = QUERY, host: Host | None = None, **params: object) -> Completion:
    decoder = pickaxe.decoder("ape", host=host, **{**EXACT, **params})
    (found,) = decoder.complete(Prompt(query, context=passages(*texts)))
    return found


def alike(one: Completion, other: Completion, tolerance: float) -> None:
    assert one.text == other.text
    np.testing.assert_allclose(one.logprobs, other.logprobs, atol=tolerance)


NEUTRAL = {"temperature_context": 1.0, "scale": 1.0}

# ---------------------------------------------------------------- what it computes


def test_one_context_at_neutral_settings_is_sequential_reading() -> None:
    alike(ask(PASSAGES[2], **NEUTRAL), ask(PASSAGES[2], mode="sequential"), 1e-4)
    other = ask(PASSAGES[2], temperature_context=0.5, scale=0.5)
    assert np.abs(np.subtract(other.logprobs[0], ask(PASSAGES[2], **NEUTRAL).logprobs[0])) > 1e-3


def test_neutral_settings_are_one_softmax_at_reused_positions(lm: LM) -> None:
    prefix, query = [1, *lm.tokenizer.encode("Notes:\n")], lm.tokenizer.encode(QUERY)
    contexts = [lm.tokenizer.encode(text) for text in PASSAGES]
    lengths = [len(ids) for ids in contexts]
    segment = np.repeat(np.arange(len(contexts) + 2), [len(prefix), *lengths, len(query)])
    last = len(contexts) + 1
    seen = (segment[:, None] == segment) | (segment == 0) | (segment[:, None] == last)
    expected, _ = lm.forward(
        [[*prefix, *chain(*contexts), *query]],
        positions=position_ids(len(prefix), lengths, len(query))[None],
        bias=np.where(seen, 0.0, -1e9),
    )
    _, lead = lm.forward([prefix], logits_at="none")
    cache = assemble([lead, *encode(lm, lead, contexts, batch=2)], len(query))
    found, _ = lm.forward(
        [query],
        past=cache,
        positions=len(prefix) + max(lengths) + np.arange(len(query))[None],
        contexts=Contexts(np.arange(cache.width) >= len(prefix)),
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_order_of_contexts_does_not_matter() -> None:
    alike(ask(*PASSAGES), ask(*PASSAGES[::-1]), 1e-4)


def test_batches_of_contexts_do_not_matter() -> None:
    alike(ask(*PASSAGES, context_batch=1), ask(*PASSAGES, context_batch=3), 1e-4)


def test_without_contexts_it_is_plain_decoding() -> None:
    (plain,) = pickaxe.decoder("repeated-sampling", **EXACT).complete(QUERY)[1:]
    alike(ask(), plain, 1e-5)
    alike(ask("", " \n"), plain, 1e-5)


def test_duplicates_are_kept_and_double_the_mass() -> None:
    once, twice = ask(*PASSAGES), ask(*PASSAGES, PASSAGES[0])
    assert twice.usage["context_tokens"] > once.usage["context_tokens"]
    assert abs(once.logprobs[0] - twice.logprobs[0]) > 1e-4


def test_long_contexts_are_read_in_chunks() -> None:
    text = " ".join(PASSAGES * 20)
    found = ask(text, **NEUTRAL)
    assert found.usage["context_tokens"] > 512
    alike(found, ask(text, mode="sequential"), 1e-3)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_weights_work_alike(precision: str) -> None:
    params = {"precision": precision, **NEUTRAL}
    one, other = ask(PASSAGES[2], **params), ask(PASSAGES[2], mode="sequential", **params)
    assert abs(one.logprobs[0] - other.logprobs[0]) < 0.5


# ---------------------------------------------------------------- prompts


def test_a_chat_is_cut_at_its_first_user_message(lm: LM) -> None:
    messages = (Message("system", "Be short.<|im_end|>"), Message("user", "How old is Anna?<|im_start|>x"))
    head, rest = around_user(lm.tokenizer, messages)
    assert head + rest == lm.tokenizer.encode_chat(messages)
    assert lm.tokenizer.decode(head, skip_special=False).endswith("<|im_start|>user\n")
    assert lm.tokenizer.decode(rest, skip_special=False).startswith("How old is Anna?<|im_start|>x<|im_end|>")
    with pytest.raises(InvalidItems, match="no user message"):
        around_user(lm.tokenizer, messages[:1])


def test_a_chat_with_one_context_is_the_chat_with_it_in_front() -> None:
    chat = (Message("user", QUERY),)
    decoder = pickaxe.decoder("ape", separator="", **EXACT, **NEUTRAL)
    (found,) = decoder.complete(Prompt(messages=chat, context=passages(PASSAGES[2])))
    whole = (Message("user", f"{PASSAGES[2]}{QUERY}"),)
    (plain,) = pickaxe.decoder("repeated-sampling", **EXACT).complete(Prompt(messages=whole))[1:]
    alike(found, plain, 1e-4)


def test_a_prefix_comes_before_all_contexts() -> None:
    prompt = Prompt(QUERY, context=passages(PASSAGES[2]), fields={"prefix": "Notes of a spy.\n"})
    found = [
        pickaxe.decoder("ape", **{**EXACT, **NEUTRAL, "mode": mode}).complete(prompt)[0]
        for mode in ("parallel", "sequential")
    ]
    alike(*found, 1e-4)
    assert found[0].usage["prompt_tokens"] > ask(PASSAGES[2]).usage["prompt_tokens"]


def test_samples_depend_on_seed_and_number_only() -> None:
    decoder = pickaxe.decoder("ape", **{**EXACT, "temperature": 1.0})
    prompt = Prompt(QUERY, context=passages(*PASSAGES), sampling=Sampling(n=3, seed=5))
    three = decoder.complete(prompt)
    assert len({each.text for each in three}) > 1
    one = decoder.complete(replace(prompt, sampling=Sampling(n=1, seed=5)), seed=9)
    assert one[0].token_ids == three[0].token_ids
    other = decoder.complete(replace(prompt, sampling=Sampling(n=3, seed=6)))
    assert [each.token_ids for each in other] != [each.token_ids for each in three]


def test_allowed_outputs() -> None:
    prompt = Prompt(QUERY, context=passages(*PASSAGES), allowed=(" 7719", " 1234"))
    (found,) = pickaxe.decoder("ape", **EXACT).complete(prompt)
    assert found.text in prompt.allowed


def test_the_budget_counts_samples() -> None:
    prompt = Prompt(QUERY, context=passages(*PASSAGES), sampling=Sampling(n=2))
    found = pickaxe.decoder("ape", **EXACT).complete([prompt, prompt], budget=3)
    assert [each.finish_reason == "abstain" for each in found] == [False, False, False, True]


def test_answers_longer_than_the_room_to_begin_with() -> None:
    found = ask(*PASSAGES, max_tokens=280, temperature=1.0)
    assert found.usage["completion_tokens"] == len(found.token_ids)


# ---------------------------------------------------------------- cutting


def test_contexts_are_cut_on_the_right(lm: LM) -> None:
    cut = ask(*PASSAGES, max_context_tokens=3, separator="")
    assert cut.usage["context_tokens"] == 9
    short = [lm.tokenizer.decode(lm.tokenizer.encode(text)[:3]) for text in PASSAGES]
    alike(cut, ask(*short, separator=""), 1e-4)


def test_the_window_cuts_contexts(lm: LM, tmp_path: Path) -> None:
    room = Sampling(max_tokens=lm.context_length - 100)
    prompt = Prompt(QUERY, context=passages("green " * 100), sampling=room, fields={"warm_only": True})
    (found,) = pickaxe.decoder("ape", host=Host(state=tmp_path), **EXACT).complete(prompt)
    assert found.records[0]["tokens"] == 100 - found.usage["prompt_tokens"]


def test_nothing_left_to_contexts(lm: LM) -> None:
    with pytest.raises(DoesNotFit, match=r"prompts\[0\]"):
        pickaxe.decoder("ape", **EXACT).complete(
            Prompt(QUERY, context=passages("x"), sampling=Sampling(max_tokens=lm.context_length))
        )


# ---------------------------------------------------------------- cache


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(state=tmp_path)


def kept(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_a_warm_answer_equals_a_cold_one(host: Host, tmp_path: Path) -> None:
    cold = ask(*PASSAGES, host=host)
    assert cold.usage["cached_context_tokens"] == 0
    assert len(kept(tmp_path)) == 4  # with the prefix
    warm = ask(*PASSAGES[::-1], host=host)
    assert warm.usage["cached_context_tokens"] == cold.usage["context_tokens"]
    alike(cold, ask(*PASSAGES, host=host), 1e-5)
    alike(cold, ask(*PASSAGES, cache=False), 1e-5)
    again = ask(*PASSAGES, "And something new.", host=host)
    assert again.usage["cached_context_tokens"] == cold.usage["context_tokens"]


def test_warming_streams_a_record_per_context(host: Host) -> None:
    decoder = pickaxe.decoder("ape", host=host, **EXACT)
    fields = {"warm_only": True}
    (first,) = decoder.complete(Prompt("", context=passages(PASSAGES[0], "", PASSAGES[1]), fields=fields))
    *records, last = first.records
    assert [(each["id"], each["reused"]) for each in records] == [("0", False), ("2", False)]
    assert last == {"contexts": 2}
    assert (first.text, first.token_ids, first.finish_reason) == ("", (), "stop")
    (second,) = decoder.complete(Prompt("other", context=passages(*PASSAGES[1:]), fields=fields))
    assert [each["reused"] for each in second.records[:-1]] == [True, False]
    assert second.records[0]["key"] == records[1]["key"]
    assert second.records[0]["tokens"] == records[1]["tokens"]
    assert ask(*PASSAGES, host=host).usage["cached_context_tokens"] == sum(
        each["tokens"] for each in (*records, second.records[1])
    )


def test_contexts_of_one_call_are_read_once_without_state() -> None:
    prompts = [Prompt(QUERY, context=passages(*PASSAGES)), Prompt("Anna is", context=passages(*PASSAGES[1:]))]
    first, second = pickaxe.decoder("ape", **EXACT).complete(prompts)
    assert first.usage["cached_context_tokens"] == 0
    assert second.usage["cached_context_tokens"] == second.usage["context_tokens"]


def test_keys_depend_on_model_precision_and_prefix(host: Host, tmp_path: Path) -> None:
    ask(*PASSAGES, host=host)
    for change in ({"precision": "int8"}, {"separator": "\n"}):
        assert ask(*PASSAGES, host=host, **change).usage["cached_context_tokens"] == 0
    prompt = Prompt(QUERY, context=passages(*PASSAGES), fields={"prefix": "Notes."})
    (other,) = pickaxe.decoder("ape", host=host, **EXACT).complete(prompt)
    assert other.usage["cached_context_tokens"] == 0


@pytest.mark.parametrize("damage", ["another prefix", "cut short", "empty"])
def test_a_cache_that_does_not_belong_is_read_again(damage: str, host: Host, tmp_path: Path) -> None:
    cold = ask(*PASSAGES, host=host)
    mine = kept(tmp_path)
    if damage == "another prefix":
        prompt = Prompt(QUERY, context=passages(*PASSAGES), fields={"prefix": "Notes."})
        pickaxe.decoder("ape", host=host, **EXACT).complete(prompt)
        others = [path for path in kept(tmp_path) if path not in mine]
        for path, other in zip(mine, others, strict=True):
            path.write_bytes(other.read_bytes())
    else:
        for path in mine:
            path.write_bytes(path.read_bytes()[:1000] if damage == "cut short" else b"")
    with pytest.warns(RuntimeWarning, match="read again"):
        again = ask(*PASSAGES, host=host)
    assert again.usage["cached_context_tokens"] == 0
    alike(again, cold, 1e-5)
    assert ask(*PASSAGES, host=host).usage["cached_context_tokens"] == cold.usage["context_tokens"]


def test_what_was_used_longest_ago_makes_room(host: Host, tmp_path: Path) -> None:
    texts = [" ".join([text] * 6) for text in PASSAGES]  # half a MiB each
    for text in texts:
        ask(text, host=host, cache_mib=1)
    assert 0 < sum(path.stat().st_size for path in kept(tmp_path)) <= 2**20
    assert ask(texts[2], host=host, cache_mib=1).usage["cached_context_tokens"] > 0
    assert ask(texts[0], host=host, cache_mib=1).usage["cached_context_tokens"] == 0


def test_tenants_do_not_share(host: Host) -> None:
    decoder = pickaxe.decoder("ape", host=host, **EXACT)
    prompt = Prompt(QUERY, context=passages(*PASSAGES))
    for tenant in ("a", "b"):
        (found,) = decoder.complete(prompt, call=pickaxe.Call(tenant=tenant))
        assert found.usage["cached_context_tokens"] == 0


def test_warming_needs_somewhere_to_keep(host: Host) -> None:
    prompt = Prompt("", context=passages("x"), fields={"warm_only": True})
    with pytest.raises(Unmet, match="state"):
        pickaxe.decoder("ape", **EXACT).complete(prompt)
    with pytest.raises(Unmet, match="cache=false"):
        pickaxe.decoder("ape", host=host, cache=False, **EXACT).complete(prompt)


# ---------------------------------------------------------------- fit


def questions(n: int = 2) -> list[Item]:
    return [
        Item(str(row), QUERY, {"contexts": PASSAGES, "answer": " 7719", "prefix": "Notes of a spy.\n"})
        for row in range(n)
    ]


def test_fit_takes_the_best_of_the_grid(tmp_path: Path) -> None:
    decoder = pickaxe.decoder("ape", grid=(0.4, 0.7, 1.0), **EXACT)
    fitted = decoder.fit(questions(), validation=questions(1), out=tmp_path / "art")
    notes = fitted.artifact.notes
    settings = fitted.artifact.read_json("settings.json")
    for stage, name in (("temperature", "temperature_context"), ("scale", "scale")):
        tried = notes["tried"][stage]
        assert len(tried) == 3
        assert settings[name] == float(max(tried, key=tried.__getitem__))
    assert notes["validation"]["fitted"] >= notes["validation"]["at_1_and_1"]
    assert notes["validation"]["fitted"] == pytest.approx(max(notes["tried"]["scale"].values()), abs=1e-5)
    prompt = Prompt(QUERY, context=passages(*PASSAGES))
    explicit = pickaxe.decoder("ape", **{**EXACT, **settings})
    alike(fitted.complete(prompt)[0], explicit.complete(prompt)[0], 1e-6)
    neutral = pickaxe.decoder("ape", artifact=tmp_path / "art", **NEUTRAL)
    alike(neutral.complete(prompt)[0], ask(*PASSAGES, **NEUTRAL), 1e-6)


def test_fit_by_exact_match(tmp_path: Path) -> None:
    said = ask(*PASSAGES, **NEUTRAL, max_tokens=20).text.split("\n")[0]
    right = [Item("1", QUERY, {"contexts": PASSAGES, "answer": said.upper()})]
    decoder = pickaxe.decoder("ape", grid=(0.3, 1.0), objective="exact_match", **EXACT)
    fitted = decoder.fit(right, out=tmp_path / "art")
    assert fitted.artifact.read_json("settings.json") == {"temperature_context": 1.0, "scale": 1.0}
    assert fitted.artifact.notes["tried"]["temperature"]["1.0"] == 1.0


def test_fit_names_what_is_missing(tmp_path: Path) -> None:
    decoder = pickaxe.decoder("ape", **EXACT)
    bad = [Item("1", "q", {"contexts": PASSAGES, "answer": ""}), Item("2", "q", {"contexts": ("",), "answer": ""})]
    with pytest.raises(InvalidItems) as error:
        decoder.fit(bad, out=tmp_path / "art")
    fields = [each.field for each in error.value.violations]
    assert fields == ["examples[0].fields.answer", "examples[1].fields.contexts", "examples[1].fields.answer"]
    with pytest.raises(InvalidItems, match="examples: are empty"):
        decoder.fit([], out=tmp_path / "art")


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "params",
    [
        {"temperature_context": 0.0},
        {"temperature_context": 2.1},
        {"scale": 0.0},
        {"scale": -1.0},
        {"scale": 2.5},
        {"grid": (0.5, 0.0)},
        {"grid": ()},
    ],
    ids=str,
)
def test_settings_out_of_range(params: dict[str, object]) -> None:
    (name,) = params
    with pytest.raises(InvalidParams, match=name):
        pickaxe.decoder("ape", **params)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("q", context=(Item("1"),)), r"prompts\[0\]\.context\[0\]\.text"),
        (Prompt("q", fields={"warm_only": "yes"}), r"fields\.warm_only"),
        (Prompt("q", fields={"prefix": 3}), r"fields\.prefix"),
        (Prompt(messages=(Message("user", "q"),), fields={"prefix": "x"}), "system message"),
        (Prompt(messages=(Message("system", "q"),)), "no user message"),
        (Prompt(context=passages("x")), "neither text nor messages"),
    ],
)
def test_wrong_prompts(prompt: Prompt, message: str) -> None:
    with pytest.raises(InvalidItems, match=message):
        pickaxe.decoder("ape", **EXACT).complete(prompt)


def test_cancelling_ends_the_work() -> None:
    call = pickaxe.Call()
    prompt = Prompt(QUERY, context=passages(*PASSAGES), sampling=Sampling(n=20, max_tokens=200, temperature=1.0))
    running = pickaxe.decoder("ape", **EXACT).decode(prompt, call=call)
    next(running)
    call.cancel()
    with pytest.raises(Cancelled):
        list(running)


def test_positions() -> None:
    assert position_ids(2, [3, 2], 2).tolist() == [0, 1, 2, 3, 4, 2, 3, 5, 6]
    assert position_ids(2, [], 2).tolist() == [0, 1, 2, 3]
