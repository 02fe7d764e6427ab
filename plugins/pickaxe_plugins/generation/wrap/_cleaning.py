"""What a rephraser wrote becomes a text, or a reason to reject it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pydantic
from pydantic import Field

import pickaxe
from pickaxe_plugins.generation.wrap._measures import length_ratio, overlap, repetition
from pickaxe_plugins.generation.wrap._styles import LABELS, Style

Reason = Literal["abstained", "empty", "refusal", "no pairs", "length", "copy", "repetition"]
Pair = tuple[str, str]


class Cleaning(pickaxe.Params):
    """When a rephrase is rejected, and words that give away talk about the task."""

    min_ratio: float = Field(default=0.3, ge=0, description="Fewest words per word of the source.")
    max_ratio: float = Field(default=3.0, gt=0, description="Most words per word of the source.")
    max_overlap: float = Field(default=0.6, ge=0, le=1, description="Largest share of copied 8-grams of words.")
    max_repetition: float = Field(default=0.3, ge=0, le=1, description="Largest share of repeated lines or 4-grams.")
    openers: tuple[str, ...] = Field(default=(), description="More beginnings of a first sentence that is dropped.")
    refusals: tuple[str, ...] = Field(default=(), description="More beginnings of an answer that refuses.")

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Cleaning:
        if self.min_ratio >= self.max_ratio:
            raise ValueError(f"min_ratio {self.min_ratio} must be below max_ratio {self.max_ratio}")
        if not all(each.strip() for each in (*self.openers, *self.refusals)):
            raise ValueError("openers and refusals must not be blank: a blank one would fit every text")
        return self


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A rephrase after clean-up: its text and, for a style of pairs, the pairs; "" with a reason."""

    text: str
    pairs: tuple[Pair, ...] = ()
    reason: Reason | None = None


def cleaned(written: str, source: str, style: Style, rules: Cleaning) -> Cleaned:
    """Clean up what was written for `source` and judge it."""
    text = strip_talk(written, rules.openers)
    pairs = tuple(parse_qa(text, style.pairs)) if style.pairs else ()
    if pairs and style.pairs:
        text = write_qa(pairs, style.pairs)
    if reason := rejected(text, source, style, rules):
        return Cleaned("", (), reason)
    return Cleaned(text, pairs)


def rejected(text: str, source: str, style: Style | None, rules: Cleaning) -> Reason | None:
    """Why a rephrase of `source` cannot be used; None when it can."""
    if not text.strip():
        return "empty"
    if refuses(text, rules.refusals) and not refuses(source, rules.refusals):
        return "refusal"
    if style is not None and style.pairs and not parse_qa(text, style.pairs):
        return "no pairs"
    if not rules.min_ratio <= length_ratio(source, text) <= rules.max_ratio:
        return "length"
    if overlap(source, text) > rules.max_overlap:
        return "copy"
    return "repetition" if repetition(text) > rules.max_repetition else None


# ---------------------------------------------------------------- questions and answers


def parse_qa(text: str, labels: tuple[str, str] = LABELS) -> list[Pair]:
    """Complete (question, answer) pairs.

    Each question label opens a segment up to the next one; what stands in it before the first answer label is the
    question, all after it the answer.
    """
    asks, answers = labels
    pairs = []
    for segment in text.split(asks)[1:]:
        question, _, answer = (part.strip() for part in segment.partition(answers))
        if question and answer:
            pairs.append((question, answer))
    return pairs


def write_qa(pairs: Sequence[Pair], labels: tuple[str, str] = LABELS) -> str:
    """Pairs as a text."""
    asks, answers = labels
    return "\n\n".join(f"{asks} {question}\n{answers} {answer}" for question, answer in pairs)


# ---------------------------------------------------------------- talk about the task

_TEMPLATE = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>")
_SPEAKER = re.compile(r"^\s*(?:assistant|ai)\s*:", re.IGNORECASE)
_SENTENCE = re.compile(r"\s*[^\n]*?(?:[.!?:]+(?=\s|$)|$|(?=\n))")
_AGREES = re.compile(r"(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|gladly)\b", re.IGNORECASE)
_SHOWS = re.compile(r"(?:here(?:'s|’s| is| are)|below (?:is|are)|the following (?:is|are))\b", re.IGNORECASE)
_NAMES = re.compile(r"(?:this is|i (?:have|will|can)|i['’]ve|let me|my|an?|the)\b", re.IGNORECASE)
_TASK = re.compile(r"\b(?:paraphras|rephras|re-?writ|re-?word|retell|restate|simplified)", re.IGNORECASE)
_RESULT = re.compile(r"\b(?:version|passage|text|conversation|dialogue|questions?|answers?|q&a)\b", re.IGNORECASE)
_REFUSES = re.compile(
    r"(?:(?:i(?:'m|’m| am)|so) (?:\w+ )?sorry\b|sorry, (?:but )?i\b|i apologi[sz]e\b|as an? (?:ai|language model)\b"
    r"|(?:unfortunately, )?i (?:cannot|can't|can’t|can not|won't|will not|am (?:not able|unable) to) "
    r"(?:\w+ )?(?:help|assist|fulfil|provide|comply|rephrase|paraphrase|rewrite|do|answer|create|generate|write)\b)",
    re.IGNORECASE,
)
_TALKS_MOST = 3


def strip_talk(text: str, openers: Sequence[str] = ()) -> str:
    """The text without template tokens and without first sentences that talk about the task.

    Those agree ("Sure!") or announce the result ("Here is a paraphrase of the passage:"), or begin with one of
    `openers`.  At most three are dropped.
    """
    text = _SPEAKER.sub("", _TEMPLATE.sub("", text))
    for _ in range(_TALKS_MOST):
        text = text.strip()
        sentence = _SENTENCE.match(text)
        if sentence is None or not _is_talk(sentence[0], openers):
            break
        text = text[sentence.end() :]
    return text.strip()


def _is_talk(sentence: str, openers: Sequence[str]) -> bool:
    if _begins(sentence, openers):
        return True
    if agrees := _AGREES.match(sentence):
        rest = sentence[agrees.end() :].strip()
        return not rest.strip(".!:,") or (rest.startswith(",") and bool(_TASK.search(rest) or _RESULT.search(rest)))
    task = bool(_TASK.search(sentence))
    if _SHOWS.match(sentence) and task:
        return True
    announces = _SHOWS.match(sentence) or _NAMES.match(sentence)
    return announces is not None and sentence.endswith(":") and (task or bool(_RESULT.search(sentence)))


def refuses(text: str, more: Sequence[str] = ()) -> bool:
    """Whether the text begins like an answer that declines."""
    text = text.lstrip()
    return _REFUSES.match(text) is not None or _begins(text, more)


def _begins(text: str, beginnings: Sequence[str]) -> bool:
    return text.casefold().startswith(tuple(each.casefold() for each in beginnings))
