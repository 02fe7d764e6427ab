"""Final answers out of written samples, and when two of them are the same."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

from pickaxe.errors import InvalidParams
from pickaxe.extras import require

INVALID = "[invalid]"
"""The answer of a sample in which none can be found: a class of its own in every vote, and never correct."""

SEARCH_SECONDS = 1.0
"""How long a caller's pattern may search one answer."""

Extract = Literal["text", "regex", "gsm8k", "math", "code"]


def extract(text: str, how: Extract, pattern: str = "") -> str:
    """The answer in `text`, or `INVALID`.

    text: the whole text, stripped.  regex: the last match's first group (the match itself without groups).
    gsm8k: the number after the last `####`.  math: the last boxed or "final answer is" expression, normalised.
    code: the first fenced block.
    """
    match how:
        case "text":
            found: str | None = text.strip()
        case "regex":
            found = _last_of_users_pattern(pattern, text)
        case "gsm8k":
            found = _gsm8k(text)
        case "math":
            found = _math(text)
        case "code":
            found = _code(text)
    return found or INVALID


def same(answer: str, reference: str) -> bool:
    """Whether an answer is the reference: the same characters, or else the same value."""
    return answer != INVALID and (answer == reference or canonical(answer) == canonical(reference))


def canonical(answer: str) -> str:
    """One string per meaning: numbers and simple LaTeX fractions by value, other answers without outer blanks."""
    value = _value(answer)
    return answer.strip() if value is None else str(value)


# ---------------------------------------------------------------- values

_LONGEST = 400
"""Characters beyond which an answer is not read as a number."""
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")
_FRACTION = re.compile(r"([-+]?)\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")
_RATIO = re.compile(r"([^/]+)/([^/]+)")


def _value(answer: str) -> Fraction | None:
    """The number an answer stands for; commas, dollar signs, blanks and a final full stop do not count."""
    if len(answer) > _LONGEST:
        return None
    bare = re.sub(r"\\[,!; ]|[\s$,]|\\\$", "", answer).rstrip(".")
    if _NUMBER.fullmatch(bare):
        return Fraction(bare)
    if latex := _FRACTION.fullmatch(bare):
        return _quotient(latex[2], latex[3], -1 if latex[1] == "-" else 1)
    if ratio := _RATIO.fullmatch(bare):
        return _quotient(ratio[1], ratio[2], 1)
    return None


def _quotient(above: str, below: str, sign: int) -> Fraction | None:
    if not (_NUMBER.fullmatch(above) and _NUMBER.fullmatch(below)) or not Fraction(below):
        return None
    return sign * Fraction(above) / Fraction(below)


# ---------------------------------------------------------------- extractors

_MARKED = re.compile(r"####[ \t]*(-?[ \t]*\$?[ \t]*-?[\d.,]+)")
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_SENTENCE = re.compile(r"final answer is:?\s*(.+?)(?:\.\s*I hope|\.?\s*$|\.\s*\n)", re.IGNORECASE | re.MULTILINE)


def _last_of_users_pattern(pattern: str, text: str) -> str | None:
    """The same for a pattern of a caller, which may be one that would search for ages.

    The standard library's `re` knows no time limit, and while it searches no other thread runs.
    """
    regex = require("regex", extra="patterns")
    try:
        matches = list(regex.finditer(pattern, text, timeout=SEARCH_SECONDS, concurrent=True))
    except TimeoutError:
        raise InvalidParams("pattern", f"searched one answer for more than {SEARCH_SECONDS} s: simplify it") from None
    return (matches[-1][1 if matches[-1].re.groups else 0] or "").strip() if matches else None


def _last_match(pattern: re.Pattern[str], text: str) -> str | None:
    matches = list(pattern.finditer(text))
    return (matches[-1][1 if pattern.groups else 0] or "").strip() if matches else None


def _gsm8k(text: str) -> str | None:
    marked = _MARKED.findall(text)
    if not marked:
        return None
    number = re.sub(r"[\s$,]", "", marked[-1]).rstrip(".")
    return number if _NUMBER.fullmatch(number) else None


def _code(text: str) -> str | None:
    block = _FENCE.search(text)
    return block[1].rstrip("\n") if block else None


def _math(text: str) -> str | None:
    sentences = _SENTENCE.findall(text)
    found = sentences[-1] if sentences else _boxed(text)
    return normalise_math(found) if found else None


def _boxed(text: str) -> str | None:
    """What stands in the last `\\boxed{…}`, whose braces balance."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for at in range(begin, len(text)):
        if text[at] == "{":
            depth += 1
        elif text[at] == "}":
            if depth == 0:
                return text[begin:at]
            depth -= 1
    return None


_UNITS = (
    "square units", "square", "ways", "integers", "dollars", "mph", "inches", "hours", "km", "units", "points",
    "feet", "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges", "students",
    "multiples", "ft",
)  # fmt: skip
_UNIT = re.compile(r"(?<=[\d}$])\s*(?:\\text\{)?\s*(?:" + "|".join(_UNITS) + r")\b\.?\}?")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mbox|overline)\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\[dt]?frac([^{\s])([^{\s])")
_SHORT_ROOT = re.compile(r"\\sqrt([^{\[\s])")
_THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+")


def normalise_math(answer: str) -> str:
    """A final answer in the manner of Minerva's evaluation: one spelling for what people write in many ways.

    What follows the last "=" counts; dollar signs, boxes, text wrappers, units, degree marks, percent signs and
    blanks go; `\\frac12` and `\\sqrt2` get their braces; thousands lose their commas.
    """
    answer = _boxed(answer) or answer
    answer = answer.split("=")[-1].strip().removesuffix(".")
    answer = _UNIT.sub("", answer)
    answer = _WRAPPED.sub(r"\1", answer)
    answer = re.sub(r"\\left|\\right|\\!|\\,|\\;|\\ |\\%|%|\{,\}(?=\d)|\^\{?\\circ\}?|\\\$|\$", "", answer)
    answer = re.sub(r"\\[dt]frac", r"\\frac", answer)
    answer = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", answer)
    answer = _SHORT_ROOT.sub(r"\\sqrt{\1}", answer)
    answer = re.sub(r"\s+", "", answer)
    if _THOUSANDS.fullmatch(answer):
        answer = answer.replace(",", "")
    return answer
