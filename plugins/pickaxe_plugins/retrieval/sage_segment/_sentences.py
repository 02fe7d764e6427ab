"""Sentences and paragraphs of a text, with their places in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

Breaks = Literal["line", "blank"]
"""What ends a paragraph: every line break, or a blank line."""
Span = tuple[int, int]
"""Characters [start, end)."""

_END = re.compile(r"""(?<![.!?…])[.!?…]++["'”’)\]]*+\s++|(?<![。！？])[。！？]++[”’」』）]*+\s*+""")
_BREAK = {"line": re.compile(r"\n\s*"), "blank": re.compile(r"\n[^\S\n]*\n\s*")}
_UNFINISHED = re.compile(
    r"(?:\b[^\W\d_]|\b(?:mr|mrs|ms|dr|prof|st|gen|rev|sr|jr|vs|no|vol|fig|al|approx|cf))\.\s+$", re.IGNORECASE
)
"""An initial or an abbreviation: its full stop ends no sentence."""
_LOOK_BACK = 80


def paragraphs(text: str, breaks: Breaks = "line") -> list[Span]:
    """Spans whose concatenation is the text; white space between two belongs to the first.

    None for an empty text.  White space before the first word is the first paragraph's.
    """
    first = len(text) - len(text.lstrip())
    ends = [match.end() for match in _BREAK[breaks].finditer(text) if match.start() > first]
    return _spans(0, len(text), ends)


def sentences(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """The same for sentences of text[start:end]: they end at . ! ? … before white space, or at 。！？.

    Neither initials and some abbreviations end one, nor does what a small letter follows.
    """
    end = len(text) if end is None else end
    return _spans(start, end, [match.end() for match in _END.finditer(text, start, end) if _ends(text, match)])


def _ends(text: str, match: re.Match[str]) -> bool:
    if match[0][0] in "。！？":
        return True
    if text[match.end() : match.end() + 1].islower():
        return False
    return _UNFINISHED.search(text[max(0, match.start() - _LOOK_BACK) : match.end()]) is None


def _spans(start: int, end: int, ends: list[int]) -> list[Span]:
    places: Iterator[int] = iter(sorted({start, end, *ends}))
    return list(pairwise(places))
