"""A small library, a scripted decoder and shorthands for the tests of drag."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pickaxe
from pickaxe import Chunk, Completion, Item, Method, Prompt
from pickaxe.hooks import hookimpl

PEOPLE = (("Ada", "Riga", "Daugava"), ("Bo", "Kyiv", "Dnipro"), ("Cy", "Oslo", "Akerselva"), ("Di", "Bern", "Aare"))
DOCUMENTS = [
    *(Item(f"born-{name}", f"{name} was born in {town}.") for name, town, _ in PEOPLE),
    *(Item(f"river-{town}", f"{town} lies on the river {river}.", {"title": town}) for _, town, river in PEOPLE),
]
EXAMPLES = [Item(name, f"Where was {name} born?", {"answer": town}) for name, town, _ in PEOPLE[2:]]
QUESTION = "Where was Ada born?"


class Scripted(Method):
    """Answers by a function of the prompt's text; chooses the preferred of the allowed texts."""

    constraints = frozenset({"allowed"})
    prompts: list[Prompt] = []
    say: Callable[[str], str] = staticmethod(lambda text: " Riga")
    prefer: Sequence[str] = ()
    obedient = True

    @hookimpl
    def decode(self, prompts: Sequence[Prompt]) -> Iterator[Chunk]:
        kind = type(self)
        kind.prompts += prompts
        for row, prompt in enumerate(prompts):
            allowed = [each for each in kind.prefer if each in prompt.allowed] or list(prompt.allowed)
            text = allowed[0] if allowed and kind.obedient else kind.say(prompt.text or "")
            yield Chunk(row, 0, text, finish_reason="stop")


def drag(**params: Any) -> Any:
    return pickaxe.decoder("drag", **{"model": "draft", "k": 2, "m": 0, "max_tokens": 8, **params})


def one(found: Sequence[Completion]) -> tuple[Completion, dict[str, Any]]:
    (completion,) = found
    return completion, dict(completion.records[0])


def documents(text: str) -> list[list[str]]:
    """Runs of document lines in a prompt."""
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("Document: "):
            blocks[-1].append(line.removeprefix("Document: "))
        elif blocks[-1]:
            blocks.append([])
    return [each for each in blocks if each]
