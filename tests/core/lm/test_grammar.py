"""Grammars: which tokens may follow, outputs of a model that keeps to one, errors; on the shipped draft model."""

from __future__ import annotations

import gc
import json
import re
import weakref
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Call, Prompt, Sampling
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe.lm import LM, Draw, Generation, Grammar, Transcript
from pickaxe.models import ModelStore
from pickaxe.session import Runtime
from pickaxe.tokenizers import Tokenizer

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 199},
        "colours": {"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "colours"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def draft(runtime: Runtime) -> LM:
    return LM.open(ModelStore(), runtime, "draft")


def follow(grammar: Grammar, lm: LM, text: str) -> bool:
    """Whether the grammar takes the text token by token; fails when it takes one that it did not offer."""
    ids, follower = lm.tokenizer.encode(text), grammar.follower()
    for place, token in enumerate(ids):
        kept = follower(ids[:place], np.zeros(lm.vocab_size, np.float32))
        if kept[token] == -np.inf:
            return False
    kept = follower(ids, np.zeros(lm.vocab_size, np.float32))
    return bool(np.isfinite(kept[list(lm.tokenizer.eos_ids)]).any())


# ---------------------------------------------------------------- what may follow


@pytest.mark.parametrize(
    ("pattern", "texts", "others"),
    [
        ("[0-9]{3}(abc)?", ["123", "123abc"], ["12", "1234", "123ab", "a"]),
        ("(yes|no), .*", ["yes, it is", "no, "], ["maybe", "yes"]),
        ("(?i)paris", ["Paris", "PARIS"], ["London", "Paris!"]),
        ("é+ü?", ["é", "ééü"], ["e", "ü"]),
    ],
)
def test_regex_matches_the_whole_output(draft: LM, pattern: str, texts: list[str], others: list[str]) -> None:
    grammar = Grammar.of_regex(pattern, draft.tokenizer)
    assert all(re.fullmatch(pattern, text) and follow(grammar, draft, text) for text in texts)
    assert not any(re.fullmatch(pattern, text) or follow(grammar, draft, text) for text in others)


def test_schema_allows_its_values_in_one_form_only(draft: LM) -> None:
    grammar = Grammar.of_json_schema(SCHEMA, draft.tokenizer)
    value = {"name": "Ann", "age": 7, "colours": ["red", "red"]}
    assert follow(grammar, draft, json.dumps(value))
    for other in (
        json.dumps(value, indent=1),
        json.dumps({**value, "age": 200}),
        json.dumps({**value, "colours": []}),
        json.dumps({**value, "more": 1}),
        json.dumps({"name": "Ann"}),
    ):
        assert not follow(grammar, draft, other)


def test_the_follower_goes_where_the_output_goes(draft: LM) -> None:
    grammar = Grammar.of_regex("ab(cd|ef)g", draft.tokenizer)
    follower, zeros = grammar.follower(), np.zeros(draft.vocab_size, np.float32)
    ids = {letter: draft.tokenizer.encode(letter)[0] for letter in "abcdefg"}
    for text in ("", "a", "ab", "abc", "abcd", "abe", "ab", "", "abef"):  # forwards, and back to another way
        output = [ids[letter] for letter in text]
        assert np.array_equal(follower(output, zeros), grammar.follower()(output, zeros))
    assert not follower.finished([ids[letter] for letter in "abef"])
    assert follower.finished([ids[letter] for letter in "abefg"])
    with pytest.raises(InvalidParams, match="regex: does not go on with token"):
        follower([ids["b"]], zeros)


def test_followers_are_independent(draft: LM) -> None:
    grammar, zeros = Grammar.of_regex("[ab]c", draft.tokenizer), np.zeros(draft.vocab_size, np.float32)
    one, other = grammar.follower(), grammar.follower()
    one(draft.tokenizer.encode("a"), zeros)
    assert np.array_equal(other([], zeros), grammar.follower()([], zeros))


def test_logits_are_kept_and_padding_of_the_vocabulary_is_forbidden(draft: LM) -> None:
    grammar = Grammar.of_regex("[a-z]+", draft.tokenizer)
    logits = np.random.default_rng(0).standard_normal(draft.vocab_size + 64).astype(np.float32)
    before = logits.copy()
    kept = grammar.follower()([], logits)
    assert np.array_equal(logits, before)
    assert kept.dtype == np.float32
    assert np.array_equal(kept[np.isfinite(kept)], logits[np.isfinite(kept)])
    assert np.isinf(kept[draft.vocab_size :]).all()


# ---------------------------------------------------------------- generation


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_samples_are_values_of_the_schema(draft: LM, temperature: float) -> None:
    grammar = Grammar.of_json_schema(SCHEMA, draft.tokenizer)
    sampling = Sampling(n=4, temperature=temperature, max_tokens=150, seed=1)
    prompt = draft.tokenizer.encode("A person as JSON: ")
    texts: dict[int, str] = {}
    for step in draft.generate(Generation(prompt, sampling, grammar=grammar), Call()):
        texts[step.sample] = texts.get(step.sample, "") + step.text
        assert step.finish_reason in ("", "stop")
    assert len(texts) == 4
    for text in texts.values():
        value = json.loads(text)
        assert set(value) == {"name", "age", "colours"}
        assert 0 <= value["age"] <= 199
        assert set(value["colours"]) <= {"red", "blue"}


def test_requests_with_and_without_grammars_are_decoded_together(draft: LM) -> None:
    ids = draft.tokenizer.encode("The answer is")
    sampling = Sampling(max_tokens=8, temperature=0.0)
    grammars = (Grammar.of_regex(" (yes|no)", draft.tokenizer), Grammar.of_regex(" [0-9]{2}", draft.tokenizer), None)
    requests = [Generation(ids, sampling, grammar=grammar) for grammar in grammars]
    texts = ["", "", ""]
    for number, step in draft.generate_all(requests, Call()):
        texts[number] += step.text
    assert texts[0] in (" yes", " no")
    assert re.fullmatch(" [0-9]{2}", texts[1])
    assert texts[2] == "".join(step.text for step in draft.generate(Generation(ids, sampling), Call()))


def test_an_output_that_nothing_can_follow_ends_without_an_end_token(draft: LM) -> None:
    transcript = Transcript(draft.tokenizer, 9, grammar=Grammar.of_regex("abc", draft.tokenizer))
    flat, random = np.zeros(draft.vocab_size, np.float32), np.random.default_rng(0)
    steps = []
    while not transcript.finished:
        steps.append(transcript.draw(flat, 0.0, Draw(), random))
    assert "".join(step.text for step in steps) == "abc"
    assert steps[-1].finish_reason == "stop"
    assert steps[-1].token_id not in draft.tokenizer.eos_ids


def test_the_limit_cuts(draft: LM) -> None:
    transcript = Transcript(draft.tokenizer, 1, grammar=Grammar.of_regex("a{50}", draft.tokenizer))
    step = transcript.draw(np.zeros(draft.vocab_size, np.float32), 0.0, Draw(0.0), np.random.default_rng(0))
    assert step.finish_reason == "length"


# ---------------------------------------------------------------- prompts


def test_a_decoder_follows_what_a_prompt_asks_for() -> None:
    decoder = pickaxe.decoder("repeated-sampling", model="draft", max_tokens=100, temperature=1.0)
    prompts = [
        Prompt("A person as JSON: ", json_schema=SCHEMA),
        Prompt("One digit:", regex=" [0-9]"),
        Prompt("Yes or no?", allowed=("yes", "no")),
        Prompt("Once upon a time", sampling=Sampling(max_tokens=3)),
    ]
    texts = [each.text for each in decoder.complete(prompts) if each.choice == 0]
    assert set(json.loads(texts[0])) == {"name", "age", "colours"}
    assert re.fullmatch(" [0-9]", texts[1])
    assert texts[2] in ("yes", "no")


def test_a_prompt_has_one_of_them() -> None:
    decoder = pickaxe.decoder("repeated-sampling", model="draft")
    for wrong in (Prompt("a", allowed=("b",), regex="b"), Prompt("a", regex="b", json_schema={})):
        with pytest.raises(InvalidItems, match=r"prompts\[0\]: has more than one of allowed, json_schema and regex"):
            decoder.complete(wrong)
    not_an_object: Any = "string"
    with pytest.raises(InvalidItems, match=r"prompts\[0\]\.json_schema: is a str, wanted an object"):
        decoder.complete(Prompt("a", json_schema=not_an_object))


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("pattern", ["(", "a(?=b)", r"(a)\1", r"\bword\b"])
def test_expressions_that_cannot_be_followed(draft: LM, pattern: str) -> None:
    with pytest.raises(InvalidParams, match="regex: cannot be followed: ") as caught:
        Grammar.of_regex(pattern, draft.tokenizer)
    assert "\n" not in caught.value.message
    with pytest.raises(InvalidParams, match="regex"):
        pickaxe.decoder("repeated-sampling", model="draft").complete(Prompt("a", regex=pattern))


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "strange"}, "Invalid type: strange"),
        ({"type": "string", "minLength": -1}, "minLength"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"$ref": "http://example.org/schema"}, "not present in a registry"),
        ({"if": {}}, "Unimplemented keys"),
        ({"enum": {1, 2}}, "is not JSON"),
    ],
)
def test_schemas_that_cannot_be_followed(draft: LM, schema: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParams, match=f"json_schema: .*{message}"):
        Grammar.of_json_schema(schema, draft.tokenizer)


def test_what_no_token_satisfies(draft: LM) -> None:
    with pytest.raises(Unmet, match="regex cannot be followed: no token"):
        Grammar.of_regex(r"[^\x00-\u{10FFFF}]", draft.tokenizer)


def test_a_dead_end_is_an_error_of_its_request_alone(draft: LM) -> None:
    lost = [byte for byte in range(256) if not draft.tokenizer.encode(chr(byte))]
    assert lost, "the tokenizer has a token for every byte"
    grammar = Grammar.of_regex(f"ab\\x{lost[0]:02x}", draft.tokenizer)
    sampling = Sampling(max_tokens=5)
    with pytest.raises(Unmet, match="no token of this model's goes on with it here"):
        list(draft.generate(Generation([5, 6], sampling, grammar=grammar), Call()))
    assert list(draft.generate(Generation([5, 6], sampling), Call()))


def test_a_tokenizer_is_not_kept_alive(draft: LM, tmp_path: Any) -> None:
    draft.tokenizer.save(tmp_path)
    tokenizer = Tokenizer.open(tmp_path)
    Grammar.of_regex("a", tokenizer)
    gone = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert gone() is None
