"""Prompts out of records."""

import json
from pathlib import Path
from typing import Any

import pytest

from pickaxe import Item, Message, Prompt, Sampling
from pickaxe.errors import InvalidItems
from pickaxe.io.prompts import prompt_of
from pickaxe.io.readers import Source


def prompt(tmp_path: Path, record: Any, **options: Any) -> Prompt:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(record) + "\n")
    found = next(Source(path).records())
    return prompt_of(found.item, "p", **options)


def test_all_parts(tmp_path: Path) -> None:
    made = prompt(
        tmp_path,
        {
            "messages": [{"role": "system", "content": "Be brief."}],
            "context": ["one", "two"],
            "allowed": ["yes", "no"],
            "sampling": {"temperature": 0.5, "stop": ["."], "n": 2},
            "level": 3,
        },
        sampling=Sampling(max_tokens=9, temperature=1.0),
    )
    assert made == Prompt(
        messages=(Message("system", "Be brief."),),
        context=(Item("0", "one"), Item("1", "two")),
        sampling=Sampling(9, 0.5, stop=(".",), n=2),
        allowed=("yes", "no"),
        fields={"level": 3},
    )


def test_grammars(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, "two", None]}}, "required": ["a"]}
    assert prompt(tmp_path, {"text": "a", "json_schema": schema}) == Prompt("a", json_schema=schema)
    assert prompt(tmp_path, {"text": "a", "regex": "[0-9]+"}) == Prompt("a", regex="[0-9]+")


def test_text_prompt_and_chat(tmp_path: Path) -> None:
    assert prompt(tmp_path, {"text": "a"}) == Prompt("a")
    assert prompt(tmp_path, {"prompt": "a"}) == Prompt("a")
    assert prompt(tmp_path, {"prompt": "a"}, chat=True) == Prompt(messages=(Message("user", "a"),))
    assert prompt(tmp_path, {"text": "a", "context": [{"id": "d", "text": "t"}]}).context == (Item("d", "t"),)


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"other": 1}, "p"),
        ({"messages": [{"role": "user"}]}, "p.messages[0]"),
        ({"messages": "hello"}, "p.messages"),
        ({"text": "a", "allowed": 3}, "p.allowed"),
        ({"text": "a", "allowed": ["a", {"b": 1}]}, "p.allowed[1]"),
        ({"text": "a", "context": [{"id": []}]}, "p.context[0].id"),
        ({"text": "a", "json_schema": "object"}, "p.json_schema"),
        ({"text": "a", "regex": 3}, "p.regex"),
        ({"text": "a", "sampling": {"temp": 1}}, "p.sampling"),
        ({"text": "a", "sampling": {"n": "three"}}, "p.sampling.n"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, record: Any, field: str) -> None:
    with pytest.raises(InvalidItems) as caught:
        prompt(tmp_path, record)
    assert caught.value.violations[0].field == field
