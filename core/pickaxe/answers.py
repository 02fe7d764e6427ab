"""Answers compared with the right ones: the same words, among other words, or how many of them in common."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter


def answer_words(text: str) -> list[str]:
    """Words as answers are compared: lower case, compatible Unicode forms, no punctuation; accents stay."""
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower())


def exact_match(answer: str, right: str) -> float:
    """1.0 when both have the same words in the same order."""
    return float(answer_words(answer) == answer_words(right))


def contains_answer(answer: str, right: str) -> float:
    """1.0 when the answer has the words of the right one in a row."""
    return float(f" {' '.join(answer_words(right))} " in f" {' '.join(answer_words(answer))} ")


def token_f1(answer: str, right: str) -> float:
    """Harmonic mean of precision and recall of the words that both have; 1 when neither has any."""
    given, wanted = answer_words(answer), answer_words(right)
    if not given and not wanted:
        return 1.0
    common = (Counter(given) & Counter(wanted)).total()
    return 2 * common / (len(given) + len(wanted))
