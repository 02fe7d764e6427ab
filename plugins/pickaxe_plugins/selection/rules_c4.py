"""C4's rules: keep lines that are sentences, drop pages that are none (arXiv:1910.10683)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property

from pydantic import Field

import pickaxe
from pickaxe import Column, Example, Item
from pickaxe_plugins.selection._rules import KEEP, REASON, Rules, Verdict, statistic
from pickaxe_plugins.selection._text_units import SENTENCE_END, Pattern, sentences

CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
ENDINGS = (".", "?", "!", '"', "'")
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


class Params(pickaxe.Params):
    max_word_length: int | None = Field(1000, ge=1, description="Lines with a longer word go; None: no such rule.")
    remove_citations: bool = Field(True, description="Delete [1], [], [edit] and [citation needed].")
    require_punctuation: bool = Field(
        True, description="Lines that do not end in . ? ! or a straight quotation mark, or end in ..., go."
    )
    min_words: int = Field(3, ge=0, description="Lines of fewer words (split at blanks) go.")
    lorem_ipsum: bool = Field(True, description="A kept line with lorem ipsum drops the document.")
    javascript: bool = Field(True, description="Lines that mention javascript go.")
    curly_bracket: bool = Field(True, description="A kept line with { drops the document.")
    policy: bool = Field(True, description="Lines about cookies, privacy policies and terms of use go.")
    min_sentences: int = Field(5, ge=0, description="Documents with fewer sentences in their kept lines are dropped.")
    sentence_pattern: Pattern = Field(SENTENCE_END, description="Regular expression of what ends a sentence.")
    bad_words: tuple[str, ...] = Field((), description="A document with one of these words, in any case, is dropped.")


class RulesC4(Rules[Params]):
    """Keep the lines of a page that are sentences, and the pages with enough of them (the rules of C4).

    Unlike the other rule scorers it edits: `text` holds the kept lines.  The order of the rules matters: a brace in
    a line that went for its punctuation does not drop the document.
    """

    title = "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer"
    paper = "arXiv:1910.10683"
    version = 1
    Params = Params
    columns = (
        KEEP,
        REASON,
        Column("text", "the kept lines; empty for a document that is dropped", "str", direction="none", nullable=True),
        statistic("n_lines", "lines of the document", "int64"),
        statistic("n_kept_lines", "lines kept, up to the one that drops the document", "int64"),
        statistic("n_sentences", "sentences in them", "int64"),
    )
    cost = "One pass over the lines: some 0.1 ms for 3 kB on one core.  Memory: one batch, twice."
    reproduced = "Decisions, reasons and cleaned texts of datatrove 0.10.1 on 34 texts, exactly (golden cases)."

    @classmethod
    def example(cls) -> Example:
        page = "Home | About\nThe mill stood by the river.[1] Nobody knew who built it.\nPlease enable javascript.\n"
        return Example(
            params={"min_sentences": 2},
            items=(Item("page", page), Item("code", "if (ready) { start(); }\nreturn start;")),
            ordered=True,
        )

    def judge(self, texts: Sequence[str]) -> Iterable[Verdict]:
        return map(self._page, texts)

    def _page(self, text: str) -> Verdict:
        lines = text.splitlines()
        kept: list[str] = []
        number, reason = 0, ""
        for line in lines:
            clean = self._clean(line.strip())
            if clean is None:
                continue
            verdict = self._line(clean)
            if verdict == "drop":
                continue
            if verdict:
                reason = verdict
                break
            number += sentences(clean, self.params.sentence_pattern)
            kept.append(clean)
        if not reason and number < self.params.min_sentences:
            reason = "too_few_sentences"
        whole = "\n".join(kept).strip()
        if not reason and self._bad_words is not None and self._bad_words.search(whole.lower()):
            reason = "bad_words"
        return Verdict(reason, ("" if reason else whole, len(lines), len(kept), number))

    def _clean(self, line: str) -> str | None:
        """The line without citations; None when its form drops it."""
        params, words = self.params, line.split()
        if params.max_word_length is not None and max(map(len, words), default=0) > params.max_word_length:
            return None
        if params.remove_citations:
            line = CITATION.sub("", line)
        if params.require_punctuation and (not line.endswith(ENDINGS) or line.endswith("...")):
            return None
        return None if len(words) < params.min_words else line

    def _line(self, line: str) -> str:
        """What a line says that drops the document, "drop" when it only drops the line, "" when it stays."""
        params, lower = self.params, line.lower()
        if params.lorem_ipsum and "lorem ipsum" in lower:
            return "lorem_ipsum"
        if params.javascript and "javascript" in lower:
            return "drop"
        if params.curly_bracket and "{" in line:
            return "curly_bracket"
        return "drop" if params.policy and any(policy in lower for policy in POLICIES) else ""

    @cached_property
    def _bad_words(self) -> re.Pattern[str] | None:
        """Any of the words, where what stands beside it is no word character."""
        words = [re.escape(word.lower()) for word in self.params.bad_words if word.strip()]
        return re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)") if words else None
