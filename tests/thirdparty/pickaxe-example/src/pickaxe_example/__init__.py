"""Lexical diversity: how seldom does a text repeat itself?  (Covington and McFall, 2010)"""

from collections.abc import Iterable, Iterator

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import ArtifactWriter, Call, Column, Example, InputField, Item, Items, Method, Progress, Scores, hookimpl


class Params(pickaxe.Params):
    window: int = Field(50, ge=2, le=10_000, description="Words in the moving window.")


class LexicalDiversity(Method[Params]):
    """Share of different words in a window that moves over the text, averaged.

    Unlike the plain type-token ratio it does not fall with the length of a text.
    """

    title = "Cutting the Gordian Knot: The Moving-Average Type-Token Ratio (MATTR)"
    paper = "doi:10.1080/09296171003643098"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "Words separated by white space."),)
    fit_reads = (InputField("text", "text", "A text that is usual for you."),)
    columns = (
        Column("diversity", "Mean share of different words, from 0 to 1; 0 without a word."),
        Column("unusual", "Standard deviations above the texts of fit.", direction="none", nullable=True),
    )
    fitted = "optional"
    stages = ("read",)
    cost = "One pass over the words."
    reproduced = "The definition; the paper's corpora are not public."

    @classmethod
    def example(cls) -> Example:
        return Example(
            params={"window": 4},
            items=(Item("rich", "every word here is new"), Item("poor", "again and again and again")),
            ordered=True,
            examples=(Item("a", "one fish two fish"), Item("b", "the cat saw the dog"), Item("c", "no word twice")),
        )

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        diversity = np.zeros(len(items), np.float32)
        for row, text in enumerate(items.texts()):
            call.check()
            diversity[row] = mean_share(text.lower().split(), self.params.window)
        unusual = np.full(len(items), np.nan, np.float32)
        if self.artifact is not None:
            usual = self.artifact.read_json("usual.json")
            unusual = ((diversity - usual["mean"]) / usual["deviation"]).astype(np.float32)
        return Scores({"diversity": diversity, "unusual": unusual})

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        shares = []
        for row, item in enumerate(examples):
            call.check()
            shares.append(mean_share((item.text or "").lower().split(), self.params.window))
            yield Progress("read", row + 1)
        out.write_json("usual.json", {"mean": float(np.mean(shares)), "deviation": float(np.std(shares)) or 1.0})
        out.notes["texts"] = len(shares)


def mean_share(words: list[str], window: int) -> float:
    """Mean over all windows of (different words / words); 0 without a word."""
    window = min(window, len(words))
    if not window:
        return 0.0
    starts = range(len(words) - window + 1)
    return float(np.mean([len(set(words[start : start + window])) / window for start in starts]))
