"""PreSelect as a scorer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np

from pickaxe import Artifact, Call, Column, Example, Flag, InputField, Item, Items, Method, Progress, Scores, hookimpl
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import InvalidItems, InvalidParams, Violation
from pickaxe_plugins.selection.preselect._fitting import CUT_CHARACTERS, CUT_SCORES, MODEL, STAGES, Fit
from pickaxe_plugins.selection.preselect._losses import losses_of
from pickaxe_plugins.selection.preselect._params import Params
from pickaxe_plugins.selection.preselect._strength import Cut, bits_per_character, strength

_STRENGTH = Column(
    "strength", "share of model pairs that the losses rank as the benchmark does, in [0, 1]", "float64", nullable=True
)
_BPC = Column("bpc_mean", "mean loss of the models", "float64", unit="bits/character", direction="none", nullable=True)
_LOSSES = InputField("losses", "tensor", "One loss per model, in nats over the whole document: (M,).", required=False)


class PreSelect(Method[Params]):
    """Keep documents on which better models lose less, as a fastText classifier recognises them.

    The predictive strength of a document is the share of model pairs in which the better model (by a benchmark)
    has the lower loss on it.  `fit` finds it on a sample and trains a classifier on the extremes; `score` gives
    the classifier's probability.  Without a fit, documents that carry `losses` are scored by strength itself.
    """

    title = "Predictive Data Selection: The Data That Predicts Is the Data That Teaches"
    paper = "arXiv:2503.00808"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "The document; an empty one is never kept."), _LOSSES)
    fit_reads = (
        InputField("text", "text", "The document; empty ones are left out."),
        _LOSSES,
        InputField("label", "int64", "Validation only: 1 keep, 0 drop.", required=False),
    )
    columns = (
        Column("quality", "the classifier's probability of the label to keep, in [0, 1]", nullable=True),
        Column("keep", "whether quality reaches the threshold", "bool"),
        _STRENGTH,
        _BPC,
    )
    fitted = "optional"
    stages = STAGES
    cost = (
        "Scoring: fastText, some 40,000 documents of 60 words a second and core.  Fitting: M losses per document, by "
        "far the largest part, unless they are given.  A model takes about 4 * dim * bucket bytes, 800 MB by default."
    )
    reproduced = (
        "On a synthetic corpus where losses betray one topic of four, the best tenth of 1,000 fresh documents is that "
        "topic entirely (3 seeds of 3); not tried: the paper's 1B and 3B training runs."
    )

    @classmethod
    def example(cls) -> Example:
        wanted, other = "theorem proof lemma integer vector", "offer cheap click order sale"
        scale = np.array([50.0, 46.0, 41.0])
        examples = tuple(
            Item(f"{kind}-{row}", f"{words} {row}", {"losses": scale if kind == "good" else scale[::-1].copy()})
            for row in range(8)
            for kind, words in (("good", wanted), ("bad", other))
        )
        return Example(
            params={
                "benchmark_scores": [40.0, 50.0, 60.0], "dim": 8, "bucket": 1000, "epoch": 30, "lr": 0.5,
                "keep_fraction": 0.5,
            },
            items=(
                Item("maths", "a lemma on the integer vector, with proof", {"losses": np.array([9.0, 8.0, 7.0])}),
                Item("shop", "click here for a cheap offer", {"losses": np.array([7.0, 8.0, 6.0])}),
            ),
            ordered=True,
            examples=examples,
            validation=examples[:4],
        )  # fmt: skip

    def declared_columns(self) -> tuple[Column, ...]:
        return (_STRENGTH, _BPC) if self.artifact is None else self.columns

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        unlabelled: Iterable[Item] | None,
        out: ArtifactWriter,
        call: Call,
    ) -> Iterator[Progress]:
        yield from Fit(self.params, self.host, out, call).run(examples, validation, unlabelled)

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        texts = items.texts()
        losses = [losses_of(item, len(self.params.benchmark_scores), f"items[{row}]") for row, item in enumerate(items)]
        columns = {"strength": self._strengths(losses), "bpc_mean": _mean_bits(losses, texts)}
        if self.artifact is None:
            self._check_losses(items, losses)
            return Scores(columns)
        threshold = self._threshold
        quality = self._quality(self.artifact, texts, call)
        return Scores(
            {"quality": quality, "keep": quality.astype(np.float64) >= threshold, **columns},
            flags=tuple(
                Flag(row, "empty", "an empty text has no quality") for row, text in enumerate(texts) if not text
            ),
        )

    def _check_losses(self, items: Items, losses: list[np.ndarray | None]) -> None:
        if not self.params.benchmark_scores:
            raise InvalidParams("benchmark_scores", "is needed to score without a fit: one score for each model")
        missing = [
            Violation(f"items[{row}].fields.losses", f"is missing (item {items[row].id!r}); without a fit it is needed")
            for row, each in enumerate(losses)
            if each is None
        ]
        if missing:
            raise InvalidItems(missing)

    def _strengths(self, losses: list[np.ndarray | None]) -> np.ndarray:
        found = np.full(len(losses), np.nan)
        rows = [row for row, each in enumerate(losses) if each is not None]
        if rows and self.params.benchmark_scores:
            found[rows] = strength(np.array([losses[row] for row in rows]), self.params.benchmark_scores)
        return found

    def _quality(self, artifact: Artifact, texts: list[str], call: Call) -> np.ndarray:
        """Probabilities (n,) float32; NaN where the text is empty."""
        quality = np.full(len(texts), np.nan, np.float32)
        rows = [row for row, text in enumerate(texts) if text]
        model = self.host.fasttext(artifact.file(MODEL))
        quality[rows] = model.probability([texts[row] for row in rows], self.params.label, call)
        return quality

    @cached_property
    def _threshold(self) -> float:
        """What quality must reach to be kept."""
        assert self.artifact is not None  # asked for only when there is a classifier
        if self.params.threshold is not None:
            return self.params.threshold
        if not self.artifact.has(CUT_SCORES):
            raise InvalidParams("threshold", "is needed: this model was adopted without a sample to cut by share")
        sample = (np.asarray(self.artifact.read_array(name)) for name in (CUT_SCORES, CUT_CHARACTERS))
        return Cut(*sample).threshold(self.params.keep_fraction)


def _mean_bits(losses: list[np.ndarray | None], texts: list[str]) -> np.ndarray:
    """Mean bits per character over the models, float64 (n,); NaN without losses or characters."""
    return np.array(
        [
            np.nan if each is None or not text else bits_per_character(each[None], np.array([len(text)])).mean()
            for each, text in zip(losses, texts, strict=True)
        ]
    )
