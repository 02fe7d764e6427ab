"""MetaCLIP's parts: spacing of texts and entries, counts to probabilities, thresholds and tail shares."""

from __future__ import annotations

import string
from bisect import bisect_right

import numpy as np

_WRAPPED = ",.;:?!`"
_BLANKS = "\t\n\r"
_UNSPACED = (
    (0x0E00, 0x0E7F),  # Thai
    (0x0E80, 0x0EFF),  # Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2010, 0x2027),  # dashes, curly quotes, dots
    (0x2030, 0x205E),  # per mille, primes, guillemets
    (0x2E80, 0x2FFF),  # radicals, description characters
    (0x3001, 0x303F),  # CJK marks
    (0x3040, 0x30FF),  # kana, which the published code leaves out
    (0x3400, 0x4DBF),  # ideographs, extension A
    (0x4E00, 0x9FFF),  # ideographs
    (0xF900, 0xFAFF),  # compatibility ideographs
    (0xFF01, 0xFF0F),  # full-width marks, in four stretches
    (0xFF1A, 0xFF20),
    (0xFF3B, 0xFF40),
    (0xFF5B, 0xFF65),
    (0x20000, 0x2EBEF),  # ideographs, extensions B to F
)
_STARTS = [low for low, _ in _UNSPACED]


def spaced(text: str) -> str:
    """The text as entries are looked for in it: blanks at both ends and around `,.;:?!` and backquotes.

    Case and runs of blanks stay; tabs and line ends become blanks.
    """
    text = f" {text} "
    for mark in _WRAPPED:
        text = text.replace(mark, f" {mark} ")
    for mark in _BLANKS:
        text = text.replace(mark, " ")
    return text


def pattern(entry: str, multilingual: bool) -> str:
    """What must occur in a spaced text: the entry between blanks.

    With `multilingual` no blank stands beside a mark or a character of a script that is written without blanks.
    """
    if not multilingual:
        return f" {entry} "
    before, after = ("" if unspaced(end) else " " for end in (entry[0], entry[-1]))
    return f"{before}{entry}{after}"


def unspaced(character: str) -> bool:
    """Whether words of the character's script are written without blanks, or it is a mark."""
    if character in string.punctuation:
        return True
    place = bisect_right(_STARTS, ord(character)) - 1
    return place >= 0 and ord(character) <= _UNSPACED[place][1]


def probabilities(counts: np.ndarray, t: int) -> np.ndarray:
    """t / max(count, t): 1 for entries in the tail."""
    return t / np.maximum(counts.astype(np.float64), t)


def tail_share(counts: np.ndarray, t: int) -> float:
    """The share of all matches that belongs to entries counted fewer than `t` times; 0 without any match."""
    total = int(counts.sum())
    return int(counts[counts < t].sum()) / total if total else 0.0


def threshold(counts: np.ndarray, share: float) -> int:
    """The count at which the entries up to it, rarest first, hold the share of all matches nearest to `share`.

    At least 1.  Not the inverse of `tail_share`, which leaves out entries of exactly that count.
    """
    ascending = np.sort(counts)
    cumulative = np.cumsum(ascending, dtype=np.float64)
    if not cumulative[-1]:
        return 1
    return max(1, int(ascending[np.argmin(np.abs(cumulative / cumulative[-1] - share))]))
