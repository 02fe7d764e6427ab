"""The scorer `calibration-sets`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import (
    Artifact,
    ArtifactWriter,
    Call,
    Column,
    Example,
    Flag,
    Groups,
    InputField,
    Item,
    Items,
    Method,
    Progress,
    Scores,
)
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.extras import require
from pickaxe.hooks import hookimpl
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.reranking.calibration_sets._read import Candidates, Normalisers, read
from pickaxe_plugins.reranking.calibration_sets._report import told
from pickaxe_plugins.reranking.calibration_sets._sets import STATISTICS, Chosen, check_needs, choose
from pickaxe_plugins.reranking.calibration_sets._strategies import FAITHFULNESS, RELEVANCE, Reference
from pickaxe_plugins.train.settings import Net

if TYPE_CHECKING:
    from pickaxe.lm import LM
    from pickaxe_plugins.reranking.calibration_sets._training import Lesson

_NORMALISERS = "normalisers.json"


class Params(pickaxe.Params):
    """Parameters of `calibration-sets`."""

    target: Literal["relevance", "faithfulness"] = Field(
        "relevance", description="relevance: k candidates in order; faithfulness: positives against negatives."
    )
    strategy: str = Field(
        "auto",
        min_length=1,
        description="auto: max_gap for relevance, hard for faithfulness.  "
        f"Relevance: {', '.join(RELEVANCE)}; faithfulness: {', '.join(FAITHFULNESS)}.",
    )
    k: int = Field(4, ge=2, le=100, description="Relevance: candidates of a set.")
    n_pos: int = Field(2, ge=1, le=100, description="Faithfulness: positives of a set.")
    n_neg: int = Field(2, ge=1, le=100, description="Faithfulness: negatives of a set.")
    metrics: tuple[str, ...] = Field(
        (), description="Metrics that make the aggregate; none: all that the items have, else computed ones."
    )
    normalisers: dict[str, tuple[float, float]] = Field(
        default_factory=dict,
        description="Metric to mean and standard deviation; without: those of fit, else of the candidates themselves.",
    )
    reference_status: Reference = Field(
        "positive", description="Faithfulness: the reference counts like any positive, is always in (ensure), or never."
    )
    search_limit: int = Field(
        5000,
        ge=1,
        le=1_000_000,
        description="diversity and surprise: subsets looked at; above it, so many random ones.",
    )
    model: str | None = Field(
        None, min_length=1, description="Language model for likelihoods that items lack; a fitted artifact goes first."
    )
    max_source: int = Field(512, ge=1, description="Tokens of the source that a model reads, from its start.")
    max_target: int = Field(128, ge=2, description="Tokens of a candidate that a model reads, from its start.")
    smoothing: float = Field(0.1, ge=0, lt=1, description="Label smoothing, of likelihoods too.")
    base: str | None = Field(
        None, min_length=1, description="Fit: the fine-tuned model to calibrate; null: a new one, as `net` says."
    )
    net: Net = Field(Net(), description="Fit: the size of a new network; its vocabulary is learned from the examples.")
    loss: Literal["auto", "ranking", "contrastive", "unlikelihood", "positive_distillation"] = Field(
        "auto", description="Fit: auto is ranking for relevance and contrastive for faithfulness."
    )
    lam: float = Field(0.001, ge=0, description="Fit: lambda, the wanted distance of neighbours' scores.")
    scale: float = Field(0.1, gt=0, description="Fit: factor of the scores in the ranking loss.")
    alpha: float = Field(2.0, ge=0, description="Fit: exponent of the length in the scores.")
    mle_weight: float | None = Field(
        None, ge=0, description="Fit: weight of the likelihood of the reference; null: 0.1 with ranking, else 1."
    )
    weight: float = Field(1.0, ge=0, description="Fit: weight of the calibration loss.")
    projection: int = Field(64, ge=1, description="Fit: size of the contrastive projection.")
    head_rate: float = Field(1e-3, gt=0, description="Fit: learning rate of the projection.")
    epochs: int = Field(4, ge=1, description="Fit: how often each set is used.")
    batch: int = Field(8, ge=1, description="Fit: sets of one step.")
    rate: float = Field(3e-5, gt=0, description="Fit: highest learning rate.")
    warmup: float = Field(0.2, ge=0, le=1, description="Fit: share of the steps until the highest rate.")
    decay: float = Field(0.01, ge=0, description="Fit: weight decay of matrices.")
    clip: float = Field(1.0, gt=0, description="Fit: largest norm of a gradient.")
    checkpoint: int = Field(100, ge=1, description="Fit: steps between the points at which an interrupted fit resumes.")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Params:
        known = RELEVANCE if self.target == "relevance" else FAITHFULNESS
        if self.strategy_used not in known:
            raise ValueError(f"strategy {self.strategy!r} is unknown for {self.target}; known are {', '.join(known)}")
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError("metrics name one metric twice")
        negative = sorted(name for name, (_, deviation) in self.normalisers.items() if deviation < 0)
        if negative:
            raise ValueError(f"normalisers of {', '.join(negative)} have a negative standard deviation")
        if self.loss in ("contrastive", "unlikelihood") and self.target == "relevance":
            raise ValueError(f"loss {self.loss} needs positives and negatives: target faithfulness")
        if self.loss == "ranking" and self.target == "faithfulness":
            raise ValueError("loss ranking needs an order: target relevance")
        return self

    @property
    def strategy_used(self) -> str:
        if self.strategy != "auto":
            return self.strategy
        return "max_gap" if self.target == "relevance" else "hard"

    @property
    def loss_used(self) -> str:
        if self.loss != "auto":
            return self.loss
        return "ranking" if self.target == "relevance" else "contrastive"


class CalibrationSets(Method[Params]):
    """Pick the candidates of each document that a fine-tuned model is calibrated on, and calibrate it.

    Items are candidate outputs (summaries, answers) with quality metrics, grouped by document.  Selected are those
    whose metrics lie far apart, or agree with the model's own ranking, or are hard negatives: see `strategy`.
    """

    title = (
        "What are the Desired Characteristics of Calibration Sets? Identifying Correlates on Long Form Scientific "
        "Summarization"
    )
    paper = "arXiv:2305.07615"
    version = 1
    Params = Params
    scope = "pool"
    reads = (
        InputField("text", "text", "The candidate."),
        InputField("group", "text", "The document it belongs to."),
        InputField("metrics", "struct", "Quality metrics by name, higher is better.", False),
        InputField("reference", "text", "The reference, for ROUGE where `metrics` lacks it; fit learns it too.", False),
        InputField("source", "text", "The document, for fragments, likelihoods and fit.", False),
        InputField("sample_idx", "int64", "Place in the model's beam, 0 first.", False),
        InputField("own", "bool", "Whether the model itself made the candidate (default: yes).", False),
        InputField("likelihood", "float64", "Mean log-probability of a token under the model.", False),
        InputField("density", "float64", "Density of extractive fragments.", False),
        InputField("sign", "text", "Faithfulness: positive or negative.", False),
        InputField("is_reference", "bool", "Whether the candidate is the reference itself.", False),
    )
    fit_reads = reads
    columns = (
        Column("selected", "1 for members of their document's set, else 0.", "float64"),
        Column(
            "rank_in_set", "Place in the set from 1, best first (positives first); 0: not in it.", "int64", "", "none"
        ),
        Column(
            "copies",
            "How often it stands in the set: more than once where candidates were too few.",
            "int64",
            "",
            "none",
        ),
        Column("aggregate", "Mean z-score of its metrics.", "float64", "standard deviations"),
        Column("likelihood", "Mean log-probability of a token, given or computed.", "float64", "nats", nullable=True),
    )
    fitted = "optional"
    stages = ("select", "train")
    cost = "Sorting each group; diversity and surprise look at up to search_limit subsets of it."
    reproduced = (
        "Selections, fragments and losses of the authors' code (golden cases); in a linear model sets of wide margin "
        "rank held-out data better than narrow ones by 0.47.  The paper's summarisers were not trained."
    )

    @classmethod
    def example(cls) -> Example:
        """Two documents of five candidates; a tiny decoder to calibrate."""
        words = ("ant bee cat dog elk", "ant bee cat dog", "ant bee cat fox", "ant bee fox gnu", "ant owl fox gnu")
        items = tuple(
            Item(
                f"{group}-{place}",
                text,
                {"group": group, "source": f"{group} saw ant bee cat dog elk", "metrics": {"quality": 5.0 - place},
                 "reference": words[0], "sample_idx": (place * 2) % 5},
            )
            for group in ("first", "second")
            for place, text in enumerate(words)
        )  # fmt: skip
        return Example(
            params={
                "k": 3,
                "net": {"layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "vocab": 260, "context": 64},
                "epochs": 2,
                "batch": 1,
                "max_source": 16,
                "max_target": 8,
                "rate": 1e-3,
                "checkpoint": 1,
            },
            items=items,
            examples=items,
        )

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        params = self.params
        found = self._read(items, "items", call)
        normalisers = self._normalisers(found)
        aggregate = found.aggregate(normalisers)
        chosen = list(choose(found, aggregate, params, call))
        rank, copies = np.zeros(len(items), np.int64), np.zeros(len(items), np.int64)
        for each in chosen:
            for place, row in enumerate(each.rows):
                rank[row] = rank[row] or place + 1
                copies[row] += 1
        flat = [name for name, (_, deviation) in normalisers.items() if not deviation > 0]
        model = "" if self._lm() is None else "; likelihoods that were not given are the model's"
        return Scores(
            {
                "selected": (copies > 0).astype(float),
                "rank_in_set": rank,
                "copies": copies,
                "aggregate": aggregate,
                "likelihood": found.likelihood,
            },
            groups=_table(chosen),
            summary={
                **told(chosen, aggregate, params, model, flat),
                "Normalisers": {name: {"mean": mean, "deviation": std} for name, (mean, std) in normalisers.items()},
            },
            flags=tuple(_flags(chosen)),
        )

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        init_from: Artifact | None,
        out: ArtifactWriter,
        call: Call,
    ) -> Iterator[Progress]:
        require("jax", extra="train")
        from pickaxe_plugins.reranking.calibration_sets import _training as training

        params = self.params
        if params.loss_used == "contrastive" and params.n_pos < 2:
            raise InvalidParams("n_pos", "is 1: the contrastive loss compares positives, give 2 or more")
        learned = self._read(Items(examples), "examples", call)
        if not learned.items:
            raise InvalidItems("examples", "are none: give the candidates of at least one document")
        normalisers = params.normalisers or learned.normalisers()
        given = self._lessons(learned, normalisers, "examples", call)
        held = self._lessons(self._read(Items(validation or ()), "validation", call), normalisers, "validation", call)
        yield Progress("select", len(given), len(given))
        out.write_json(_NORMALISERS, normalisers)
        start = None if init_from is None else (init_from.path, Tokenizer.open(init_from.path))
        if start is None and params.base is not None:
            start = self.host.model_path(params.base), self.host.lm(params.base).tokenizer
        yield from training.train(given, held, start, params, out, call.seed)

    # ------------------------------------------------------------ parts

    def _read(self, items: Items, where: str, call: Call) -> Candidates:
        params = self.params
        found = read(items, params.target, params.metrics, where)
        lm = self._lm()
        missing = [
            row for row in np.flatnonzero(np.isnan(found.likelihood)).tolist() if items[row].get("source") is not None
        ]
        if lm is not None and missing:
            from pickaxe_plugins.reranking.calibration_sets._likelihood import likelihoods

            pairs = [(str(items[row].get("source")), items[row].text or "") for row in missing]
            found.likelihood[missing] = likelihoods(lm, pairs, params, call)
        check_needs(found, params.strategy_used, where)
        return found

    def _lessons(self, found: Candidates, normalisers: Normalisers, where: str, call: Call) -> list[Lesson]:
        from pickaxe_plugins.reranking.calibration_sets._training import lessons

        if not found.items:
            return []
        aggregate = found.aggregate(self._known(found, normalisers))
        return lessons(found, list(choose(found, aggregate, self.params, call)), where)

    def _lm(self) -> LM | None:
        """The model that `fit` calibrated, else the one that the parameters name."""
        if self.artifact is not None:
            return self.host.lm_at(self.artifact.path, "fp32")
        return None if self.params.model is None else self.host.lm(self.params.model)

    def _normalisers(self, found: Candidates) -> Normalisers:
        if self.params.normalisers:
            return self._known(found, self.params.normalisers)
        if self.artifact is not None:
            kept = {name: (pair[0], pair[1]) for name, pair in self.artifact.read_json(_NORMALISERS).items()}
            return self._known(found, kept)
        return found.normalisers() if found.items else {}

    def _known(self, found: Candidates, normalisers: Normalisers) -> Normalisers:
        unknown = [name for name in found.metrics if name not in normalisers]
        if unknown and found.items:
            raise InvalidParams(
                "normalisers", f"lack {', '.join(unknown)}: give mean and standard deviation of each metric"
            )
        return {name: normalisers[name] for name in found.metrics if name in normalisers}


def _table(chosen: Sequence[Chosen]) -> Groups:
    schema = tuple(Column(name, doc, "float64", "", "none", nullable=True) for name, doc in STATISTICS.items())
    columns = {name: np.array([each.statistics[name] for each in chosen], float) for name in STATISTICS}
    return Groups(tuple(each.group for each in chosen), columns, schema)


def _flags(chosen: Sequence[Chosen]) -> Iterator[Flag]:
    for each in chosen:
        if each.padded:
            message = f"group {each.group!r} has too few candidates: its last one is repeated"
            yield Flag(each.rows[-1], "padded", message)
