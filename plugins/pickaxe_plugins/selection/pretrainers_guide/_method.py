"""Quality, toxicity and word-list filters, and what age and sources of pre-training data cost (arXiv:2305.13169)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Call, Column, Example, Flag, InputField, Item, Items, Method, MethodRef, Progress, Scores, hookimpl
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams, Unmet
from pickaxe_plugins.selection._entries import checked_list, read_list
from pickaxe_plugins.selection.pretrainers_guide import _report as report
from pickaxe_plugins.selection.pretrainers_guide import _text as texts_of
from pickaxe_plugins.selection.pretrainers_guide._classifier import chances, learn
from pickaxe_plugins.selection.pretrainers_guide._filters import Filter, budgeted
from pickaxe_plugins.selection.pretrainers_guide._read import ablations, given, periods
from pickaxe_plugins.selection.pretrainers_guide._studies import Degradation, degradation, harm, ranks

Direction = Literal["normal", "inverse"]
HEADS = ("quality", "toxicity")
_BATCH = 1024

_FILTER = (
    Column("keep", "1 when every active filter keeps the text, else 0.", "float64"),
    Column("margin", "Smallest distance to a threshold, above 0 inside.", "float64", nullable=True),
    Column("quality_risk", "0 to 1; HIGH is low quality.", "float64", "", "lower", True),
    Column("toxicity", "0 to 1; high is toxic.", "float64", "", "lower", True),
    Column("ngram_hits", "Different entries of the blocklist in the text.", "int64", "", "lower"),
    Column("keep_quality", "What the quality filter says; 1 when it is off.", "float64"),
    Column("keep_toxicity", "What the toxicity filter says; 1 when it is off.", "float64"),
)
_TEMPORAL = (
    Column(
        "neg_degradation_per_year",
        "Minus slope_pooled: higher is more robust.",
        "float64",
        "points/year",
        nullable=True,
    ),
    Column("slope_pooled", "Score points lost a year, from all points.", "float64", "points/year", "lower", True),
    Column("slope_mean", "Mean of the slopes of each evaluation year.", "float64", "points/year", "lower", True),
    Column("pearson_r", "Of gap and degradation.", "float64", "", "none", True),
    Column("pearson_score_gap", "Of score and absolute gap.", "float64", "", "none", True),
    Column("n_points", "Points of the pooled line.", "int64", "", "none"),
)
_ABLATION = (
    Column("harm_percent", "Mean loss over tasks without the source; below 0: a gain.", "float64", "%", nullable=True),
    Column("rank", "1: its removal harms most; 0 without a value.", "int64", "", "none"),
)


class Params(pickaxe.Params):
    mode: Literal["filter", "temporal", "ablation"] = Field(
        "filter", description="filter: documents; temporal: scores by training and evaluation year; ablation: sources."
    )
    quality_threshold: float | None = Field(
        0.9, ge=0, le=1, description="Keep documents of a quality risk up to this; null: no quality filter."
    )
    quality_direction: Direction = Field("normal", description="inverse: keep those of this quality risk and above.")
    toxicity_threshold: float | None = Field(
        None, ge=0, le=1, description="Keep documents of a toxicity up to this; null: no toxicity filter."
    )
    toxicity_direction: Direction = Field("normal", description="inverse: keep those of this toxicity and above.")
    blocklist: tuple[str, ...] = Field((), description="Words and phrases; a document with any of them is dropped.")
    blocklist_file: str = Field("", description="A file of more of them: a line each, or a JSON list.")
    quality_scorer: MethodRef | None = Field(
        None, description="Scorer whose primary column, 0 to 1, is the quality risk."
    )
    toxicity_scorer: MethodRef | None = Field(None, description="Scorer whose primary column, 0 to 1, is the toxicity.")
    budget_tokens: int | None = Field(
        None, ge=0, description="Move the quality threshold (or, without, that of toxicity) to keep at most so many."
    )
    features: bool = Field(False, description="Add columns of text features, and their means of kept and dropped.")
    hash_bits: int = Field(18, ge=10, le=24, description="fit: 2 to this power are the weights of a classifier.")
    l2: float = Field(1e-5, gt=0, description="fit: weight of the squared norm.")


class PretrainersGuide(Method[Params]):
    """Filter documents by quality, toxicity and a blocklist, and say what filters, age and sources cost.

    A document is kept when its risk is at most the threshold (inverse: at least).  `temporal` fits how scores fall per
    year between training and evaluation data; `ablation` ranks sources by the harm of leaving them out.
    """

    title = (
        "A Pretrainer's Guide to Training Data: Measuring the Effects of Data Age, Domain Coverage, Quality & Toxicity"
    )
    paper = "arXiv:2305.13169"
    version = 1
    Params = Params
    scope = "pool"
    reads = (
        InputField("text", "text", "filter: the document.", required=False),
        InputField("quality_risk", "float64", "filter: known quality risk, 0 to 1.", required=False),
        InputField("toxicity", "float64", "filter: known toxicity, 0 to 1.", required=False),
        InputField("tokens", "int64", "filter: tokens; words where it is missing.", required=False),
        InputField("group", "text", "filter: the domain, for rates of each.", required=False),
        InputField("pretraining_years", "tensor", "temporal: (p,)", required=False),
        InputField("evaluation_years", "tensor", "temporal: (e,)", required=False),
        InputField("scores", "tensor", "temporal: (p, e), higher is better.", required=False),
        InputField("full", "tensor", "ablation: (tasks,) scores with all sources.", required=False),
        InputField("without", "tensor", "ablation: (tasks,) scores without this source.", required=False),
    )
    fit_reads = (
        InputField("text", "text", "A document."),
        InputField("quality", "text", '"positive" (good) or "negative".', required=False),
        InputField("toxic", "bool", "Whether it is toxic.", required=False),
    )
    columns = _FILTER
    fitted = "optional"
    stages = ("quality", "toxicity")
    cost = "Some 30 MB of text a second for both classifiers on one core, plus one pass for a blocklist."
    reproduced = "All golden cases; no model was trained, so the paper's effects on tasks were not tried."

    def declared_columns(self) -> tuple[Column, ...]:
        if self.params.mode == "temporal":
            return _TEMPORAL
        if self.params.mode == "ablation":
            return _ABLATION
        if not self.params.features:
            return _FILTER
        more = (Column(name, doc, "float64", "", "none", True) for name, doc in texts_of.FEATURES.items())
        return (*_FILTER, *more)

    @classmethod
    def example(cls) -> Example:
        good = ("The treaty was signed in 1848 after long talks.", "Whales are mammals that breathe air.")
        bad = ("click here buy cheap now free free free", "best price casino bonus click now")
        return Example(
            params={"hash_bits": 12, "blocklist": ["darn"]},
            items=(
                Item("good", "The talks on the treaty were long."),
                Item("listed", "Well, darn: whales breathe air."),
                Item("bad", "click here now: cheap casino bonus, free"),
            ),
            examples=tuple(
                Item(f"{name}{row}", text, {"quality": name})
                for row, pair in enumerate(zip(good, bad, strict=True))
                for name, text in zip(("positive", "negative"), pair, strict=True)
            ),
        )

    # ------------------------------------------------------------ fitting

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        """One classifier of quality and one of toxicity, each from the examples that carry its label."""
        labelled: dict[str, list[tuple[str, bool]]] = {name: [] for name in HEADS}
        for row, item in enumerate(examples):
            call.check()
            if not isinstance(item.text, str):
                raise InvalidItems(f"examples[{row}].text", f"is missing (item {item.id!r})")
            for name, risk in _labels(item, row):
                labelled[name].append((item.text, risk))
        if not any(labelled.values()):
            raise InvalidItems("examples", "carry no label: give `quality` (positive, negative) or `toxic` (bool)")
        biases = {}
        for name, pairs in labelled.items():
            if not pairs:
                continue
            yield Progress(name, 0, len(pairs))
            risky = np.array([risk for _, risk in pairs])
            if risky.all() or not risky.any():
                raise InvalidItems("examples", f"hold one class of {name} only: both are needed")
            weights, biases[name] = learn([text for text, _ in pairs], risky, self.params.hash_bits, self.params.l2)
            out.write_array(f"{name}.npy", weights)
            yield Progress(name, len(pairs), len(pairs))
        out.notes.update(
            biases=biases,
            hash_bits=self.params.hash_bits,
            documents={name: len(pairs) for name, pairs in labelled.items()},
            thresholds={"quality": self.params.quality_threshold, "toxicity": self.params.toxicity_threshold},
        )

    @cached_property
    def _heads(self) -> dict[str, tuple[np.ndarray, float]]:
        """Fitted classifiers: weights and bias by name."""
        if self.artifact is None:
            return {}
        notes = self.artifact.notes
        if notes["hash_bits"] != self.params.hash_bits:
            raise ArtifactMismatch(f"artifact has hash_bits {notes['hash_bits']}, not {self.params.hash_bits}")
        return {name: (self.artifact.read_array(f"{name}.npy"), bias) for name, bias in notes["biases"].items()}

    # ------------------------------------------------------------ scoring

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        match self.params.mode:
            case "temporal":
                return _temporal(items)
            case "ablation":
                return _ablation(items)
        return self._filter(items, call)

    def _filter(self, items: Items, call: Call) -> Scores:
        params = self.params
        risks = self._risks(items, call)
        hits = self._hits(items, call)
        tokens = _tokens(items, call)
        filters = [
            Filter("quality", params.quality_threshold, params.quality_direction, risks["quality"]),
            Filter("toxicity", params.toxicity_threshold, params.toxicity_direction, risks["toxicity"]),
        ]
        if params.budget_tokens is not None:
            at = next((at for at, each in enumerate(filters) if each.threshold is not None), None)
            if at is None:
                raise InvalidParams("budget_tokens", "needs a quality or toxicity filter whose threshold it can move")
            others = (hits == 0) & filters[1 - at].kept
            filters[at] = budgeted(filters[at], others, tokens, params.budget_tokens)
        kept = filters[0].kept & filters[1].kept & (hits == 0)
        columns: dict[str, np.ndarray] = {
            "keep": kept.astype(np.float64),
            "margin": np.fmin(filters[0].margin, filters[1].margin),
            "quality_risk": risks["quality"],
            "toxicity": risks["toxicity"],
            "ngram_hits": hits,
            "keep_quality": filters[0].kept.astype(np.float64),
            "keep_toxicity": filters[1].kept.astype(np.float64),
        }
        if params.features:
            found = []
            for item in items:
                call.check()
                found.append(texts_of.features(item.text or ""))
            columns |= {name: np.array([each[name] for each in found]) for name in texts_of.FEATURES}
        active = [each for each in filters if each.threshold is not None]
        dropped_by = {each.told: ~each.kept for each in active} | (
            {"blocklist": hits > 0} if self._list.entries else {}
        )
        groups = report.domains(items, kept, tokens)
        return Scores(columns, groups, report.filtered(items, columns, dropped_by, kept, tokens, groups))

    def _risks(self, items: Items, call: Call) -> dict[str, np.ndarray]:
        """Given values first, then a named scorer's, then the fitted classifier's; NaN where a filter is off."""
        params = self.params
        thresholds = {"quality": params.quality_threshold, "toxicity": params.toxicity_threshold}
        scorers = {"quality": params.quality_scorer, "toxicity": params.toxicity_scorer}
        found = {name: given(items, field) for name, field in zip(HEADS, ("quality_risk", "toxicity"), strict=True)}
        for name, values in found.items():
            missing = np.flatnonzero(np.isnan(values)).tolist()
            scorer = scorers[name]
            if not missing:
                continue
            if scorer is not None:
                values[missing] = self._scored(scorer, name, Items(items[row] for row in missing), call)
            elif name in self._heads:
                values[missing] = self._judged(name, Items(items[row] for row in missing), call)
            elif thresholds[name] is not None:
                raise Unmet(
                    f"the {name} filter has nothing to go by for item {items[missing[0]].id!r}: fit with labelled "
                    f"documents, name a {name}_scorer, give the values as a field, or set {name}_threshold=null"
                )
        return found

    def _scored(self, scorer: MethodRef, name: str, items: Items, call: Call) -> np.ndarray:
        values = self.host.scorer(scorer).score(items, call=call).primary.astype(np.float64)
        if not ((values >= 0) & (values <= 1)).all():
            raise InvalidParams(f"{name}_scorer", f"{scorer.name} gives scores outside 0 to 1, which no threshold fits")
        return values

    def _judged(self, name: str, items: Items, call: Call) -> np.ndarray:
        weights, bias = self._heads[name]
        texts, parts = items.texts(), []
        for start in range(0, len(texts), _BATCH):
            call.check()
            parts.append(chances(texts[start : start + _BATCH], [weights], [bias], self.params.hash_bits)[0])
        return np.concatenate(parts)

    @cached_property
    def _list(self) -> texts_of.Blocklist:
        entries: list[Any] = list(self.params.blocklist)
        if self.params.blocklist_file:
            entries += read_list(self.params.blocklist_file, self.host, "blocklist_file")
        return texts_of.Blocklist(checked_list(entries, "blocklist") if entries else ())

    def _hits(self, items: Items, call: Call) -> np.ndarray:
        if not self._list.entries:
            return np.zeros(len(items), np.int64)
        found = []
        for text in items.texts():
            call.check()
            found.append(len(self._list.hits(text)))
        return np.array(found, np.int64)


def _labels(item: Item, row: int) -> Iterator[tuple[str, bool]]:
    quality, toxic = item.get("quality"), item.get("toxic")
    if quality is not None:
        if quality not in ("positive", "negative"):
            raise InvalidItems(
                f"examples[{row}].fields.quality", f"is {quality!r}, wanted positive or negative (item {item.id!r})"
            )
        yield "quality", quality == "negative"
    if toxic is not None:
        yield "toxicity", bool(toxic)


def _tokens(items: Items, call: Call) -> np.ndarray:
    """Given ones, else words."""
    found = []
    for row, item in enumerate(items):
        call.check()
        tokens = item.get("tokens")
        if tokens is not None and (not isinstance(tokens, (int, np.integer)) or tokens < 0):
            raise InvalidItems(f"items[{row}].fields.tokens", f"is {tokens!r}, wanted 0 or more (item {item.id!r})")
        found.append(texts_of.count_words(item.text or "") if tokens is None else int(tokens))
    return np.array(found, np.int64)


def _temporal(items: Items) -> Scores:
    found: list[Degradation] = [degradation(*periods(item, row)) for row, item in enumerate(items)]
    columns = {
        "neg_degradation_per_year": np.array([-each.slope_pooled for each in found]),
        **{
            name: np.array([getattr(each, name) for each in found])
            for name in ("slope_pooled", "slope_mean", "pearson_r", "pearson_score_gap")
        },
        "n_points": np.array([len(each.gaps) for each in found], np.int64),
    }
    flags = tuple(
        Flag(row, "no-slope", f"item {items[row].id!r} needs two training years or more and gaps that differ")
        for row in np.flatnonzero(np.isnan(columns["slope_pooled"])).tolist()
    )
    return Scores(columns, None, report.aged(items, found), flags)


def _ablation(items: Items) -> Scores:
    pairs = [ablations(item, row) for row, item in enumerate(items)]
    harms = np.array([harm(*pair) for pair in pairs], np.float64)
    flags = tuple(
        Flag(row, "no-value", f"item {items[row].id!r} has no task, or one whose full score is 0")
        for row in np.flatnonzero(np.isnan(harms)).tolist()
    )
    columns = {"harm_percent": harms, "rank": ranks(harms)}
    return Scores(columns, None, report.ablated(items, columns), flags)
