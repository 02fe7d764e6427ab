"""Gopher's quality rules: lengths, symbols, bullets, letters and stop words (arXiv:2112.11446, Table A1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import Field

from pickaxe import Example, Item
from pickaxe_plugins.selection._numbered_words import Words, cut
from pickaxe_plugins.selection._rules import KEEP, REASON, Rules, Verdict, WordParams, above, below, first, statistic
from pickaxe_plugins.selection._rules import share as _share

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
ELLIPSES = ("...", "\u2026")
BULLETS = frozenset("\u2022-")


class Params(WordParams):
    min_words: int | None = Field(50, ge=0, description="Fewest words that are not symbols; None: no such rule.")
    max_words: int | None = Field(100_000, ge=0, description="Most words that are not symbols; None: no such rule.")
    min_mean_word_length: float | None = Field(3.0, ge=0, description="Least mean characters of such a word.")
    max_mean_word_length: float | None = Field(10.0, ge=0, description="Largest mean characters of such a word.")
    max_hash_per_word: float | None = Field(0.1, ge=0, description="Most number signs a word.")
    max_ellipsis_per_word: float | None = Field(0.1, ge=0, description="Most ellipses a word.")
    max_bullet_lines: float | None = Field(0.9, ge=0, le=1, description="Largest share of lines that begin as bullets.")
    max_ellipsis_lines: float | None = Field(
        0.3, ge=0, le=1, description="Largest share of lines that end in an ellipsis."
    )
    min_alpha_words: float | None = Field(0.8, ge=0, le=1, description="Least share of words with a letter.")
    stop_words: tuple[str, ...] = Field(STOP_WORDS, description="Stop words, case-sensitive: those of the language.")
    min_stop_words: int | None = Field(2, ge=0, description="Fewest different stop words in a text.")


class RulesGopherQuality(Rules[Params]):
    """Keep texts that have the lengths, symbols and common words of prose (the quality rules of Gopher).

    Ten rules in fixed order; the first that fails names the reason.  Every statistic is a column, also of texts
    that failed early.  Words are counted with their punctuation.
    """

    title = "Scaling Language Models: Methods, Analysis & Insights from Training Gopher"
    paper = "arXiv:2112.11446"
    version = 1
    Params = Params
    columns = (
        KEEP,
        REASON,
        statistic("n_words", "words, punctuation runs included", "int64"),
        statistic("n_non_symbol_words", "words with a character that is no punctuation, symbol or control", "int64"),
        statistic("mean_word_length", "mean characters of those words"),
        statistic("hash_per_word", "number signs over words"),
        statistic("ellipsis_per_word", "ellipses over words"),
        statistic("bullet_lines", "share of lines that begin with a bullet or a hyphen"),
        statistic("ellipsis_lines", "share of lines that end in an ellipsis"),
        statistic("alpha_words", "share of words with a letter"),
        statistic("distinct_stop_words", "different stop words in the text", "int64"),
    )
    cost = "One pass over the text: some 0.15 ms for 3 kB on one core.  Memory: one batch."
    reproduced = "Decisions, reasons and statistics of datatrove 0.10.1 on 34 texts, exactly (golden cases)."

    @classmethod
    def example(cls) -> Example:
        prose = (
            "The river rose in the night and the people of the lower town went up to the church with all they have. "
        )
        return Example(
            params={"min_words": 20},
            items=(Item("prose", prose * 2), Item("tags", "#sale #now #cheap " * 20)),
            ordered=True,
        )

    def judge(self, texts: Sequence[str]) -> Iterable[Verdict]:
        words = cut(texts, self.params.word_pattern)
        plain, alpha = words.fact("plain"), words.fact("alpha")
        counts = words.counts, words.sums(plain), words.sums(words.fact("length") * plain), words.sums(alpha)
        return map(self._page, texts, *(each.tolist() for each in (*counts, _different(words, self.params.stop_words))))

    def _page(self, text: str, number: int, plain: int, letters: int, alphabetic: int, common: int) -> Verdict:
        """The verdict on a text of `number` words, `plain` of them no symbols with `letters` characters, and so on."""
        limits, lines = self.params, text.splitlines()
        mean, alpha = _share(letters, plain), _share(alphabetic, number)
        hashes = _share(text.count("#"), number)
        dots = sum(map(text.count, ELLIPSES))
        ellipses = _share(dots, number)
        bullets = _share(sum([line.lstrip()[:1] in BULLETS for line in lines]), len(lines))
        endings = _share(sum(line.rstrip().endswith(ELLIPSES) for line in lines) if dots else 0, len(lines))
        reason = first(
            ("gopher_short_doc", below(plain, limits.min_words)),
            ("gopher_long_doc", above(plain, limits.max_words)),
            ("gopher_below_avg_threshold", below(mean, limits.min_mean_word_length)),
            ("gopher_above_avg_threshold", above(mean, limits.max_mean_word_length)),
            ("gopher_too_many_hashes", above(hashes, limits.max_hash_per_word)),
            ("gopher_too_many_ellipsis", above(ellipses, limits.max_ellipsis_per_word)),
            ("gopher_too_many_bullets", above(bullets, limits.max_bullet_lines)),
            ("gopher_too_many_end_ellipsis", above(endings, limits.max_ellipsis_lines)),
            ("gopher_below_alpha_threshold", below(alpha, limits.min_alpha_words)),
            ("gopher_enough_stop_words", below(common, limits.min_stop_words)),
        )
        return Verdict(reason, (number, plain, mean, hashes, ellipses, bullets, endings, alpha, common))


def _different(words: Words, wanted: Iterable[str]) -> np.ndarray:
    """How many different ones of the wanted words each text holds."""
    numbers = [words.lexicon.number(word) for word in dict.fromkeys(wanted)]
    held = [words.sums(words.ids == number) > 0 for number in numbers if number >= 0]
    return sum(held, np.zeros(len(words.counts), np.int64))
