"""The scorer `wrap-check`."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Call, Column, Example, InputField, Item, Items, Method, Scores
from pickaxe.errors import InvalidItems, Violation
from pickaxe.hooks import hookimpl
from pickaxe_plugins.generation.wrap._cleaning import Cleaning, parse_qa, rejected
from pickaxe_plugins.generation.wrap._measures import distinct, length_ratio, overlap
from pickaxe_plugins.generation.wrap._styles import LABELS, PROMPTS, Style, Styles, by_name, styles


class Params(pickaxe.Params):
    """Parameters of `wrap-check`."""

    styles: Styles = Field(styles(*PROMPTS), description="The styles that items may name.")
    cleaning: Cleaning = Field(Cleaning(), description="When a rephrase is rejected.")
    min_similarity: float | None = Field(
        None, ge=-1, le=1, description="Least cosine of a rephrase that is kept; null: any."
    )
    encoder: str = Field("encoder", min_length=1, description="Sentence encoder: alias, name or path.")


class WrapCheck(Method[Params]):
    """Tell usable rephrases of a text from copies, refusals, repetition and texts about something else.

    The similarity is the cosine of sentence embeddings; `keep` applies the same rules as the decoder `wrap`.
    """

    title = "Rephrasing the Web: A Recipe for Compute and Data-Efficient Language Modeling"
    paper = "arXiv:2401.16380"
    version = 1
    Params = Params
    scope = "item"
    reads = (
        InputField("text", "text", "The source."),
        InputField("second_text", "text", "The rephrase."),
        InputField("style", "text", "The style of the rephrase; one of pairs demands questions and answers.", False),
    )
    columns = (
        Column("similarity", "Cosine of the sentence embeddings of source and rephrase, -1 to 1."),
        Column("keep", "Whether the rephrase may be used.", "bool"),
        Column("reason", "Why it may not; empty when it may.", "str", direction="none", nullable=True),
        Column("length_ratio", "Words of the rephrase per word of the source.", direction="none"),
        Column("overlap8", "Share of the rephrase's word 8-grams that the source has.", direction="lower"),
        Column("distinct2", "Share of different word 2-grams in the rephrase."),
        Column("qa_pairs", "Complete question-answer pairs.", "int64", direction="none"),
    )
    cost = "Two texts of the sentence encoder and a pass over the words, per item."
    reproduced = "A copy has overlap 1; rephrases are closer to their source than other texts are: see the page."

    @classmethod
    def example(cls) -> Example:
        source = "Green tea is brewed at about 80 degrees, black tea with boiling water."
        asked = "Question: How hot is the water for green tea?\nAnswer: About 80 degrees."
        return Example(
            items=(
                Item("copy", source, {"second_text": source, "style": "medium"}),
                Item("qa", source, {"second_text": asked, "style": "qa"}),
                Item("other", source, {"second_text": "The Moon turns once on its axis for every orbit."}),
            ),
            ordered=True,
        )

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        named = by_name(self.params.styles)
        chosen = [_style(item, named) for item in items]
        if unknown := [
            Violation(f"items[{row}].fields.style", f"is {style!r}, unknown (item {item.id!r}): {', '.join(named)}")
            for row, (item, style) in enumerate(zip(items, chosen, strict=True))
            if isinstance(style, str)
        ]:
            raise InvalidItems(unknown)
        sources, texts = items.texts(), [str(item.fields["second_text"]) for item in items]
        similarity = self._similarity(sources, texts, call)
        rows = []
        for source, text, style, cosine in zip(sources, texts, chosen, similarity, strict=True):
            call.check()
            rows.append(self._row(source, text, style if isinstance(style, Style) else None, float(cosine)))
        return Scores(
            {"similarity": similarity} | {name: np.array([row[name] for row in rows]) for name in rows[0]}
            if rows
            else {column.name: np.empty(0) for column in self.columns}
        )

    def _similarity(self, sources: list[str], texts: list[str], call: Call) -> np.ndarray:
        """Cosines (n,); a text that comes again, as sources do, is embedded once."""
        place = {text: row for row, text in enumerate(dict.fromkeys([*sources, *texts]))}
        vectors = self.host.encoder(self.params.encoder).encode(list(place), call)
        left, right = ([place[text] for text in side] for side in (sources, texts))
        return np.clip((vectors[left] * vectors[right]).sum(1), -1, 1)

    def _row(self, source: str, text: str, style: Style | None, similarity: float) -> dict[str, Any]:
        least = self.params.min_similarity
        reason: str = rejected(text, source, style, self.params.cleaning) or ""
        if not reason and least is not None and similarity < least:
            reason = "unlike"
        return {
            "keep": not reason,
            "reason": reason,
            "length_ratio": length_ratio(source, text),
            "overlap8": overlap(source, text),
            "distinct2": distinct(text),
            "qa_pairs": len(parse_qa(text, (style.pairs if style else None) or LABELS)),
        }


def _style(item: Item, named: dict[str, Style]) -> Style | str | None:
    """The style that an item names: the name itself when it is unknown, None without one."""
    name = item.fields.get("style")
    return None if name is None else named.get(str(name), str(name))
