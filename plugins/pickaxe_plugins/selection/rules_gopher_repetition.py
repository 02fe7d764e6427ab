"""Gopher's repetition rules: lines, paragraphs and n-grams that come again (arXiv:2112.11446, Table A1)."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from pickaxe import Column, Example, Item
from pickaxe_plugins.selection._numbered_words import cut
from pickaxe_plugins.selection._rules import (
    KEEP,
    REASON,
    Rules,
    Verdict,
    WordParams,
    above,
    duplicates,
    first,
    statistic,
)
from pickaxe_plugins.selection._rules_grams import repeated_gram_chars, top_gram_chars

Share = Annotated[float, Field(ge=0)]
TOP = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

_PROSE = (
    "The mill stood by the river until the flood of that spring.\n"
    "Nobody could say who had built it, though every family in town claimed some part of its story.\n"
    "When the water fell again they found one wheel, two stones and a door without hinges."
)


class Params(WordParams):
    max_dup_paragraphs: float | None = Field(0.3, ge=0, le=1, description="Largest share of repeated paragraphs.")
    max_dup_paragraph_chars: float | None = Field(0.2, ge=0, le=1, description="Largest share of their characters.")
    max_dup_lines: float | None = Field(0.3, ge=0, le=1, description="Largest share of repeated lines.")
    max_dup_line_chars: float | None = Field(0.2, ge=0, le=1, description="Largest share of their characters.")
    ignore_blank_lines: bool = Field(False, description="Leave lines and paragraphs without a character out.")
    top_grams: dict[Annotated[int, Field(ge=2, le=32)], Share] = Field(
        TOP, description="Size n → largest share of characters that the most frequent n-gram may take."
    )
    dup_grams: dict[Annotated[int, Field(ge=2, le=64)], Share] = Field(
        REPEATED, description="Size n → largest share of characters that repeated n-grams may take."
    )


class RulesGopherRepetition(Rules[Params]):
    """Keep texts that do not repeat themselves (the repetition rules of Gopher).

    Repeated paragraphs and lines, the most frequent n-gram for n = 2 to 4 and all repeated n-grams for n = 5 to 10,
    each as a share of the text's characters.  Every statistic is a column, also of texts that failed early.
    """

    title = "Scaling Language Models: Methods, Analysis & Insights from Training Gopher"
    paper = "arXiv:2112.11446"
    version = 1
    Params = Params
    columns = (
        KEEP,
        REASON,
        statistic("dup_paragraphs", "share of paragraphs that repeat an earlier one"),
        statistic("dup_paragraph_chars", "their characters over those of the text"),
        statistic("dup_lines", "share of lines that repeat an earlier one"),
        statistic("dup_line_chars", "their characters over those of the text"),
        *(statistic(f"top_{n}_gram_chars", f"share of the most frequent {n}-gram in the characters") for n in TOP),
        *(statistic(f"dup_{n}_gram_chars", f"share of repeated {n}-grams in the characters") for n in REPEATED),
    )
    cost = "Tables, a few sorts of integers: some 0.35 ms for 3 kB on one core.  Memory: one block, 100 bytes a word."
    reproduced = "Decisions, reasons and statistics of datatrove 0.10.1 on 34 texts, exactly (golden cases)."

    def declared_columns(self) -> tuple[Column, ...]:
        top, repeated = self.params.top_grams, self.params.dup_grams
        return (
            *self.columns[:6],
            *(statistic(f"top_{n}_gram_chars", f"share of the most frequent {n}-gram in the characters") for n in top),
            *(statistic(f"dup_{n}_gram_chars", f"share of repeated {n}-grams in the characters") for n in repeated),
        )

    @classmethod
    def example(cls) -> Example:
        return Example(
            items=(
                Item("prose", _PROSE),
                Item("menu", "Home\nAbout\nContact\n" * 12),
            ),
            ordered=True,
        )

    def judge(self, texts: Sequence[str]) -> Iterable[Verdict]:
        words = cut(texts, self.params.word_pattern)
        tops = top_gram_chars(words, tuple(self.params.top_grams))
        grams = repeated_gram_chars(words, tuple(self.params.dup_grams))
        table = np.array([*tops.values(), *grams.values()], np.int64).reshape(-1, len(texts))
        return map(self._page, texts, table.T.tolist())

    def _page(self, text: str, grams: Sequence[int]) -> Verdict:
        """The verdict on a text of which n-grams take these characters, for each n of `top_grams`, then `dup_grams`."""
        limits, size = self.params, len(text)
        if not text:
            return Verdict("empty", (math.nan,) * (4 + len(grams)))
        paragraphs, again, again_chars = duplicates(self._counted(_paragraphs(text.strip())))
        lines, twice, twice_chars = duplicates(self._counted(_lines(text)))
        values = [
            _of(again, paragraphs), _of(again_chars, size), _of(twice, lines), _of(twice_chars, size)
        ]  # fmt: skip
        shares = [part / size for part in grams]
        most = [*limits.top_grams.values(), *limits.dup_grams.values()]
        names = (*(f"top_{n}_gram" for n in limits.top_grams), *(f"duplicated_{n}_n_grams" for n in limits.dup_grams))
        reason = first(
            ("dup_para_frac", above(values[0], limits.max_dup_paragraphs)),
            ("dup_para_char_frac", above(values[1], limits.max_dup_paragraph_chars)),
            ("dup_line_frac", above(values[2], limits.max_dup_lines)),
            ("dup_line_char_frac", above(values[3], limits.max_dup_line_chars)),
            *zip(names, map(operator.gt, shares, most), strict=True),
        )
        return Verdict(reason, (*values, *shares))

    def _counted(self, parts: Iterable[str]) -> Iterable[str]:
        return (part for part in parts if part.strip()) if self.params.ignore_blank_lines else parts


def _paragraphs(text: str) -> list[str]:
    """The stripped text split at runs of two line breaks and more."""
    return [part.removeprefix("\n") for part in text.split("\n\n") if part] if text else [text]


def _lines(text: str) -> list[str]:
    """The text split at runs of line breaks: empty lines are left only before the first run and behind the last."""
    first, *rest = text.split("\n")
    return [first, *filter(None, rest[:-1]), rest[-1]] if rest else [first]


def _of(part: int, whole: int) -> float:
    """The share; a text that has only blank lines, all of which are left out, repeats none."""
    return part / whole if whole else 0.0
