"""The four styles of the paper, in own words, and styles of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pydantic
from pydantic import Field

import pickaxe
from pickaxe import Message

SYSTEM = (
    "You are a helpful assistant. Do with the text exactly what you are asked, keep its facts, and reply with the "
    "result alone."
)

PROMPTS: Mapping[str, str] = {
    "easy": "Retell the following passage for a toddler. Use only a tiny vocabulary of everyday words, and very short "
    "and very simple sentences.",
    "medium": "Write a varied paraphrase of the following passage in high-quality English, in full and clear "
    "sentences such as those of Wikipedia.",
    "hard": "Restate the following passage in very terse and abstruse language that only an erudite scholar would "
    "understand. Prefer rare and learned words.",
    "qa": "Read the passage below and write several questions about it, each followed by its answer, as in a "
    'conversation. Begin each question with "Question:" and each answer with "Answer:" on a new line.',
}
"""Built-in style -> what it asks for; the passage follows."""

LABELS = ("Question:", "Answer:")


class Style(pickaxe.Params):
    """A way of rephrasing.  A bare name stands for the built-in style: easy, medium, hard or qa."""

    name: str = Field(min_length=1, description="Its name.")
    prompt: str = Field("", description="What the rephraser is asked to do; empty: as the built-in style has it.")
    pairs: tuple[str, str] | None = Field(
        None, description="Labels of questions and answers, for a style that makes pairs of them."
    )
    n: int = Field(1, ge=1, le=100, description="Rephrases of each passage.")
    weight: float = Field(1.0, gt=0, description="Its share among the styles, where a share counts.")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _built_in(cls, value: Any) -> Any:
        given = {"name": value} if isinstance(value, str) else value
        if not isinstance(given, Mapping) or given.get("prompt"):
            return given
        name = str(given.get("name"))
        if name not in PROMPTS:
            raise ValueError(f"unknown style {name!r}: give it a prompt, or use one of {', '.join(PROMPTS)}")
        labels = {"pairs": LABELS} if name == "qa" and given.get("pairs") is None else {}
        return {**given, "prompt": PROMPTS[name], **labels}

    @pydantic.field_validator("pairs")
    @classmethod
    def _labels(cls, value: tuple[str, str] | None) -> tuple[str, str] | None:
        if value is not None and not (all(value) and value[0] != value[1]):
            raise ValueError("needs two different labels")
        return value


def _distinct(styles: tuple[Style, ...]) -> tuple[Style, ...]:
    if len({style.name for style in styles}) != len(styles):
        raise ValueError("names a style twice; for several rephrases of a passage, raise its n")
    return styles


Styles = Annotated[tuple[Style, ...], Field(min_length=1), pydantic.AfterValidator(_distinct)]


def styles(*names: str) -> tuple[Style, ...]:
    """Built-in styles."""
    return tuple(Style.model_validate(name) for name in names)


def messages(style: Style, system: str, passage: str) -> tuple[Message, ...]:
    """The chat that asks for a rephrase: equal for all passages up to the passage itself."""
    asked = Message("user", f"{style.prompt}\n\n{passage}")
    return (Message("system", system), asked) if system else (asked,)


def by_name(given: Sequence[Style]) -> dict[str, Style]:
    return {style.name: style for style in given}
