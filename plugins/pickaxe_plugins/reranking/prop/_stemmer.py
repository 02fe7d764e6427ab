"""Porter's stemmer (Program 14:3, 1980) for lower-case words of a-z."""

from __future__ import annotations

import functools
import re

_STEP2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "abli": "able", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble",
}  # fmt: skip
_STEP3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP4 = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
)  # fmt: skip


@functools.lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """The word's stem; words of one or two letters are their own."""
    if len(word) <= 2:
        return word
    for step in (_plurals, _past, _final_y):
        word = step(word)
    word = _replaced(word, _STEP2)
    word = _replaced(word, _STEP3)
    return _tidied(_suffixes(word))


def _shape(word: str) -> str:
    """The word in v and c; y is a vowel after a consonant."""
    shape = ""
    for letter in word:
        shape += "v" if letter in "aeiou" or (letter == "y" and shape.endswith("c")) else "c"
    return shape


def _measure(word: str) -> int:
    """m in [C](VC)^m[V]."""
    return len(re.findall("v+c+", _shape(word)))


def _closed(word: str) -> bool:
    """Whether it ends in consonant, vowel, consonant, the last of which is not w, x or y."""
    return _shape(word).endswith("cvc") and word[-1] not in "wxy"


def _doubled(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _shape(word).endswith("c")


def _plurals(word: str) -> str:
    for end, other in (("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")):
        if word.endswith(end):
            return word[: -len(end)] + other
    return word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for end in ("ed", "ing"):
        if word.endswith(end):
            rest = word[: -len(end)]
            return _mended(rest) if "v" in _shape(rest) else word
    return word


def _mended(word: str) -> str:
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if _doubled(word) and word[-1] not in "lsz":
        return word[:-1]
    return word + "e" if _measure(word) == 1 and _closed(word) else word


def _final_y(word: str) -> str:
    return word[:-1] + "i" if word.endswith("y") and "v" in _shape(word[:-1]) else word


def _replaced(word: str, table: dict[str, str]) -> str:
    """The longest suffix of the table in its other form, where enough is left."""
    end = max((each for each in table if word.endswith(each)), key=len, default="")
    rest = word[: len(word) - len(end)]
    return rest + table[end] if end and _measure(rest) > 0 else word


def _suffixes(word: str) -> str:
    end = max((each for each in _STEP4 if word.endswith(each)), key=len, default="")
    rest = word[: len(word) - len(end)]
    if not end or _measure(rest) <= 1 or (end == "ion" and not rest.endswith(("s", "t"))):
        return word
    return rest


def _tidied(word: str) -> str:
    if word.endswith("e"):
        rest = word[:-1]
        if _measure(rest) > 1 or (_measure(rest) == 1 and not _closed(rest)):
            word = rest
    return word[:-1] if _measure(word) > 1 and _doubled(word) and word.endswith("l") else word
