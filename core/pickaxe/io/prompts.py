"""Prompts out of the same files that items come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pickaxe.data import Item, Message, Prompt, Sampling
from pickaxe.errors import InvalidItems
from pickaxe.io.items import item_from_json

_SAMPLING: Mapping[str, tuple[type, ...]] = {
    "max_tokens": (int,),
    "temperature": (int, float),
    "top_p": (int, float),
    "top_k": (int,),
    "stop": (tuple,),
    "seed": (int,),
    "n": (int,),
}
_TAKEN = ("messages", "context", "allowed", "sampling", "prompt", "json_schema", "regex")


def prompt_of(item: Item, where: str, sampling: Sampling = Sampling(), chat: bool = False) -> Prompt:  # noqa: B008
    """The prompt that a record describes.

    Its text is the column `text` or `prompt`; `messages` (list of `{"role", "content"}`), `context` (texts or
    items), `allowed` (texts), `json_schema` (an object), `regex` (text) and `sampling` (an object, which wins over
    the argument) are optional; all else are fields.  With `chat` a bare text becomes a user's message.  Raises
    `InvalidItems`.
    """
    prompt = item.get("prompt")
    text = item.text if item.text is not None or not isinstance(prompt, str) else prompt
    messages = tuple(_messages(item, where))
    if text is None and not messages:
        raise InvalidItems(where, "has neither text (or prompt) nor messages")
    if chat and text is not None:
        messages, text = (*messages, Message("user", text)), None
    return Prompt(
        text,
        messages,
        tuple(_context(item, where)),
        _sampling(item, where, sampling),
        tuple(_texts(item, "allowed", where)),
        {name: value for name, value in item.fields.items() if name not in _TAKEN},
        _json_schema(item, where),
        _regex(item, where),
    )


def _list(item: Item, name: str) -> Any:
    """A list that `item_from_json` read: texts as they are, others inside a struct of the same name."""
    value = item.get(name)
    return value[name] if isinstance(value, Mapping) and set(value) == {name} else value


def _messages(item: Item, where: str) -> Iterator[Message]:
    for row, turn in enumerate(_entries(item, "messages", where)):
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, Mapping) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise InvalidItems(f"{where}.messages[{row}]", "wants the texts role and content")
        yield Message(role, content)


def _context(item: Item, where: str) -> Iterator[Item]:
    for row, part in enumerate(_entries(item, "context", where)):
        if isinstance(part, str):
            yield Item(str(row), part)
        else:
            yield item_from_json(part, f"{where}.context[{row}]", str(row))


def _json_schema(item: Item, where: str) -> Mapping[str, Any] | None:
    schema = item.get("json_schema")
    if schema is not None and not isinstance(schema, Mapping):
        raise InvalidItems(f"{where}.json_schema", "is not an object")
    return schema


def _regex(item: Item, where: str) -> str:
    pattern = item.get("regex")
    if not isinstance(pattern, str | None):
        raise InvalidItems(f"{where}.regex", "is not text")
    return pattern or ""


def _texts(item: Item, name: str, where: str) -> Iterator[str]:
    for row, part in enumerate(_entries(item, name, where)):
        if not isinstance(part, str):
            raise InvalidItems(f"{where}.{name}[{row}]", "is not text")
        yield part


def _entries(item: Item, name: str, where: str) -> Iterable[Any]:
    value = _list(item, name)
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise InvalidItems(f"{where}.{name}", "is not a list")
    return value


def _sampling(item: Item, where: str, base: Sampling) -> Sampling:
    given = item.get("sampling")
    if given is None:
        return base
    if not isinstance(given, Mapping) or not set(given) <= set(_SAMPLING):
        raise InvalidItems(f"{where}.sampling", f"must be an object with any of {', '.join(_SAMPLING)}")
    values: dict[str, Any] = {}
    for name, value in given.items():
        values[name] = tuple(value) if isinstance(value, list) else value
        if value is not None and not isinstance(values[name], _SAMPLING[name]):
            raise InvalidItems(f"{where}.sampling.{name}", f"cannot be {value!r}")
    return dataclasses.replace(base, **values)
