"""The task in words: instruction, labels, examples, and the prompt that asks about several items at once."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pickaxe import Message
from pickaxe.data import FieldValue


@dataclass(frozen=True)
class Task:
    """What to do with the items of one prompt.

    `shots` are worked examples: a filled-in template, the label's number and whether to call it sure.  With
    `marks` the answers also say how sure they are.
    """

    instruction: str
    labels: tuple[str, ...]
    shots: tuple[tuple[str, int, bool], ...] = ()
    marks: bool = True

    def messages(self, texts: Sequence[str]) -> tuple[Message, ...]:
        """The prompt about these items, numbered by their place."""
        turns = [Message("system", self._system(len(texts)))]
        if self.shots:
            answers = (answer(place, label, sure if self.marks else None)
                       for place, (_, label, sure) in enumerate(self.shots))  # fmt: skip
            turns.append(Message("user", numbered([text for text, _, _ in self.shots])))
            turns.append(Message("assistant", "\n".join(answers)))
        return (*turns, Message("user", numbered(texts)))

    def _system(self, n: int) -> str:
        classes = ", ".join(f"[class {number}] is {label}" for number, label in enumerate(self.labels))
        form = answer("i", "c")
        asked = [
            self.instruction,
            f"The classes: {classes}.",
            f"You get a batch of {n} {'input' if n == 1 else 'inputs'}, numbered from 0. "
            "Answer with one line for every input, in this form and with nothing else:",
            f"{form}[confident]\n{form}[not confident]" if self.marks else form,
            "Here i is the number of the input and c the number of its class."
            + (" Write [confident] only when you are sure of the class." if self.marks else ""),
        ]
        return "\n".join(asked)


def numbered(texts: Sequence[str]) -> str:
    """The items of a user turn, separated by blank lines."""
    return "\n\n".join(f"Input {place}: {text}" for place, text in enumerate(texts))


def answer(place: int | str, label: int | str, confident: bool | None = None) -> str:
    """The line of an answer; without a mark where `confident` is None."""
    mark = "" if confident is None else "[confident]" if confident else "[not confident]"
    return f"Label for Input {place}: [class {label}]{mark}"


class Template:
    """A text with {field} places; {{ and }} are braces.  Raises `ValueError` for anything else in braces."""

    def __init__(self, text: str) -> None:
        self._parts = [(literal, name) for literal, name, *rest in string.Formatter().parse(text) if _plain(name, rest)]
        self.fields = tuple(dict.fromkeys(name for _, name in self._parts if name is not None))
        if not self.fields:
            raise ValueError("names no field: write {text} where the item's text goes")

    def fill(self, get: Callable[[str], FieldValue | None]) -> tuple[str, list[str]]:
        """The filled-in text, and the fields that are missing or neither text nor number."""
        values = {name: get(name) for name in self.fields}
        wrong = [name for name, value in values.items() if not isinstance(value, (str, int, float))]
        return "".join(literal + ("" if name is None else str(values[name])) for literal, name in self._parts), wrong


def _plain(name: str | None, rest: Sequence[str | None]) -> bool:
    if name is not None and (not name.isidentifier() or any(rest)):
        raise ValueError(f"has {{{name}}}: only names of fields go in braces (write {{{{ for a brace)")
    return True
