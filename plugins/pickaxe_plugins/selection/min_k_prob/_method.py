"""Min-K% Prob: was this text in the pretraining data?  (arXiv 2310.16789; Min-K%++ is arXiv 2404.02936)"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import ArtifactWriter, Call, Column, Example, Flag, InputField, Item, Items, Method, Progress, Scores
from pickaxe.errors import ArtifactMismatch, InvalidItems, Unmet
from pickaxe.hooks import hookimpl
from pickaxe_plugins.selection._roc import roc
from pickaxe_plugins.selection.min_k_prob import _stats as stats
from pickaxe_plugins.selection.min_k_prob._read import Pass, Reading, Window, check_readable, given, has_own

ColumnName = Literal["ppl_neg", "nll", "zlib", "lowercase", "ref", "min_k_pp"]
_CALIBRATION = "calibration.json"
_SETTINGS = ("ratio", "model", "precision", "max_tokens", "window", "words", "add_bos")
"""Parameters that move `min_k`, and with it the threshold."""
_BATCH = 1024
_MEANINGS: Mapping[str, tuple[str, str]] = {
    "ppl_neg": ("Minus the perplexity, -exp(NLL).", ""),
    "nll": ("Mean negative log-probability (NLL) of the predicted tokens.", "nats/token"),
    "zlib": ("Minus NLL by the bytes of the zlib-compressed text.", "nats/token/byte"),
    "lowercase": ("NLL of the lower-cased text by NLL.", ""),
    "ref": ("NLL of the reference model minus NLL.", "nats/token"),
    "min_k_pp": ("Min-K%++: mean of the lowest share of standardised log-probabilities.", ""),
}


def ratio_column(ratio: float) -> str:
    """The column of a ratio: its percentage, `min_k_05` for 0.05 and `min_k_12.5` for 0.125."""
    whole, dot, part = f"{ratio * 100:g}".partition(".")
    return f"min_k_{whole.zfill(2)}{dot}{part}"


class Params(pickaxe.Params):
    """Parameters of `min-k-prob`."""

    ratio: float = Field(0.2, gt=0, le=1, description="Share K of least likely tokens whose mean is `min_k`.")
    ratios: tuple[float, ...] = Field((), max_length=64, description="Further shares: one column each (`min_k_05`).")
    columns: tuple[ColumnName, ...] = Field(
        ("ppl_neg", "nll", "zlib"),
        description="Columns beside `min_k`; lowercase costs a second pass, ref a second model.",
    )
    model: str = Field("lm", min_length=1, description="Alias or path of the causal language model.")
    reference: str = Field("", description="Alias or path of the reference model of column ref.")
    precision: Literal["auto", "fp32", "fp16", "int8", "int4"] = Field(
        "auto",
        description="Precision of both models' weights; auto is as stored (int4 or int8) on a CPU, fp16 on a GPU.",
    )
    max_tokens: int | None = Field(None, ge=2, description="Longest run of tokens; the model's context by default.")
    window: Window = Field(
        "truncate", description="What happens to longer texts: cut at the end, or scored in chunks and averaged."
    )
    words: int | None = Field(
        None, ge=1, description="Score exactly this many words (or chunks of them); shorter texts get no score."
    )
    add_bos: Literal["auto"] | bool = Field(
        "auto", description="Whether a text begins with the BOS token; auto asks the tokenizer."
    )
    batch_tokens: int = Field(2048, ge=1, description="Tokens that one run of the model reads.")
    invert: bool = Field(False, description="Turn the signs, so that higher means less likely seen.")
    max_fpr: float | None = Field(
        None, ge=0, lt=1, description="Calibrate to this false positive rate, not to balanced accuracy."
    )

    @pydantic.field_validator("ratios")
    @classmethod
    def _in_range(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < ratio <= 1 for ratio in ratios):
            raise ValueError("each ratio must be in (0, 1]")
        if len({ratio_column(ratio) for ratio in ratios}) < len(ratios):
            raise ValueError("two ratios name the same column")
        return ratios

    @pydantic.field_validator("columns")
    @classmethod
    def _distinct(cls, columns: tuple[ColumnName, ...]) -> tuple[ColumnName, ...]:
        return tuple(dict.fromkeys(columns))


class MinKProb(Method[Params]):
    """Tell how likely a text was in a language model's training data.

    The mean log-probability of the least likely tokens of a text, its Min-K% Prob: unseen texts hold some very
    unlikely tokens, seen ones fewer.  Higher means more likely seen; `fit` turns the score into a decision.
    """

    title = "Detecting Pretraining Data from Large Language Models"
    paper = "arXiv:2310.16789"
    version = 1
    Params = Params
    scope = "item"
    reads = (
        InputField("text", "text", "The text; not needed where log-probabilities are given.", required=False),
        InputField("token_logprobs", "tensor", "Log-probabilities of the tokens, (n,); skips the model.", False),
        InputField("token_logprobs_lower", "tensor", "The same for the lower-cased text, (m,).", False),
        InputField("token_logprobs_ref", "tensor", "The same by a reference model, (r,).", False),
        InputField("logits", "tensor", "Logits (n, V), row i predicting token_ids[i]; skips the model.", False),
        InputField("token_ids", "tensor", "The predicted tokens (n,) of `logits`.", False),
    )
    fit_reads = (*reads, InputField("label", "int64", "1 when the text was in the training data, else 0."))
    columns = (Column("min_k", "Mean log-probability of the least likely tokens.", "float64", "nats", nullable=True),)
    fitted = "optional"
    stages = ("score", "calibrate")
    cost = "One forward pass over all tokens; a second one for lowercase, another model's for ref."
    reproduced = (
        "The authors' columns and ROC figures on 41 given texts.  SmolLM2-135M, 24 famous passages against retellings: "
        "AUC 0.65, 0.80, 0.85 at 8, 16, 24 words, below perplexity's 0.92 to 0.94.  Not run yet: members known exactly."
    )

    def declared_columns(self) -> tuple[Column, ...]:
        """`min_k`, one column per ratio, the chosen baselines, counts, and the decision once calibrated."""
        seen = "less" if self.params.invert else "more"
        doc = f"Mean of the lowest share of log-probabilities; higher: {seen} likely seen."
        names = [("min_k", doc, "nats")]
        names += [(ratio_column(ratio), doc, "nats") for ratio in self.params.ratios]
        names += [(name, *_MEANINGS[name]) for name in self.params.columns]
        columns = [Column(name, doc, "float64", unit, nullable=True) for name, doc, unit in names]
        columns = [self._lower_is_seen(each) if each.name == "nll" else each for each in columns]
        columns.append(Column("n_tokens", "Predicted tokens.", "int64", "tokens", "none"))
        columns.append(Column("truncated", "Whether the end of the text was not read.", "bool", "", "none"))
        if self.artifact is not None:
            columns.append(Column("seen", "1 where min_k reaches the threshold.", "float32", "", "none", True))
            if self.params.window == "chunks":
                columns.append(
                    Column("seen_share", "Share of chunks that reach the threshold.", "float64", "", "none", True)
                )
        return tuple(columns)

    def _lower_is_seen(self, column: Column) -> Column:
        direction: Literal["higher", "lower"] = "higher" if self.params.invert else "lower"
        return Column(column.name, column.doc, column.dtype, column.unit, direction, column.nullable)

    @classmethod
    def example(cls) -> Example:
        """A text that a model knows by heart and one it does not, as its log-probabilities tell."""
        known = np.array([-0.1, -0.3, -0.2, -1.1, -0.1, -0.4])
        fresh = np.array([-0.9, -6.5, -0.2, -4.8, -2.0, -0.4])
        items = (
            Item("seen", "To be, or not to be", {"token_logprobs": known}),
            Item("fresh", "To bee, or knot to tree", {"token_logprobs": fresh}),
        )
        labelled = tuple(Item(item.id, item.text, {**item.fields, "label": 1 - row}) for row, item in enumerate(items))
        return Example(items=items, ordered=True, examples=labelled)

    # ------------------------------------------------------------ scoring

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        calibration = self._calibration()
        table = self._measure(items, call)
        columns = dict(table.columns)
        if calibration is not None:
            threshold = calibration["columns"]["min_k"]["threshold"]
            columns["seen"] = _reaches(columns["min_k"], threshold).astype(np.float32)
            if self.params.window == "chunks":
                columns["seen_share"] = _average(table.owners, _reaches(table.chunks, threshold), len(items))
        if self.params.invert:
            for name in columns.keys() - {"nll", "n_tokens", "truncated", "seen", "seen_share"}:
                columns[name] = -columns[name]
        return Scores(columns, flags=table.flags)

    def _calibration(self) -> dict[str, Any] | None:
        if self.artifact is None:
            return None
        calibration: dict[str, Any] = self.artifact.read_json(_CALIBRATION)
        now = self._settings()
        if changed := [name for name in _SETTINGS if calibration["settings"][name] != now[name]]:
            raise ArtifactMismatch(
                f"the threshold was calibrated with other values of {', '.join(changed)}: fit again with these",
                metadata={name: f"{calibration['settings'][name]} (now {now[name]})" for name in changed},
            )
        return calibration

    def _settings(self) -> dict[str, Any]:
        return self.params.model_dump(mode="json", include=set(_SETTINGS))

    def _measure(self, items: Items, call: Call) -> _Table:
        """All columns in the product's sign, before `invert`."""
        check_readable(items)
        params, wanted = self.params, self.params.columns
        reading = Reading(params.max_tokens, params.window, params.words, params.add_bos, params.batch_tokens)
        passes = self._passes(items, reading, call, "", with_z="min_k_pp" in wanted)
        owners, chunks = _flatten([each.logprobs for each in passes])
        n = len(items)
        shares = stats.lowest_means(chunks, (params.ratio, *params.ratios))
        nll = -_average(owners, _means(chunks), n)
        columns = {"min_k": _average(owners, shares[:, 0], n)}
        columns |= {ratio_column(r): _average(owners, shares[:, i + 1], n) for i, r in enumerate(params.ratios)}
        extra: dict[str, Callable[[], np.ndarray]] = {
            "nll": lambda: nll,
            "ppl_neg": lambda: -np.exp(nll),
            "zlib": lambda: -nll / _bytes(items, reading),
            "lowercase": lambda: self._nll(items, reading, call, "_lower") / nll,
            "ref": lambda: self._nll(items, reading, call, "_ref") - nll,
            "min_k_pp": lambda: self._plus_plus(passes, n),
        }
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            columns |= {name: extra[name]() for name in wanted}
        columns["n_tokens"] = np.bincount(owners, [len(chunk) for chunk in chunks], n).astype(np.int64)
        columns["truncated"] = np.fromiter((each.truncated for each in passes), np.bool_, n)
        return _Table(columns, owners, shares[:, 0], tuple(self._flags(items, passes, columns)))

    def _passes(self, items: Items, reading: Reading, call: Call, suffix: str, *, with_z: bool = False) -> list[Pass]:
        """The log-probabilities of every item: its own, or the model's where it has only text.

        Items with neither get an empty pass; so do those whose own log-probabilities, which may be another
        model's, come without their lower-cased partner.
        """
        passes = [given(item, row, suffix) for row, item in enumerate(items)]
        rows = [row for row, found in enumerate(passes) if found is None]
        if suffix == "_ref" and rows and not self.params.reference:
            raise Unmet(
                "column ref needs a reference model: name one in `reference`, "
                f"or give token_logprobs_ref (item {items[rows[0]].id!r} has none)"
            )
        if suffix == "_lower":
            rows = [row for row in rows if not has_own(items[row])]
        texts = [(row, text) for row in rows if (text := items[row].text) is not None]
        if texts:
            lm = self.host.lm(self.params.reference if suffix == "_ref" else self.params.model, self.params.precision)
            pieces = [reading.pieces(text) for _, text in texts]
            if suffix == "_lower":
                pieces = [[piece.lower() for piece in each] for each in pieces]
            for (row, _), found in zip(texts, reading.run(lm, pieces, call, with_z=with_z), strict=True):
                passes[row] = found
        return [found or Pass() for found in passes]

    def _nll(self, items: Items, reading: Reading, call: Call, suffix: str) -> np.ndarray:
        owners, chunks = _flatten([each.logprobs for each in self._passes(items, reading, call, suffix)])
        return -_average(owners, _means(chunks), len(items))

    def _plus_plus(self, passes: Sequence[Pass], n: int) -> np.ndarray:
        owners, chunks = _flatten([each.z for each in passes])
        return _average(owners, stats.lowest_means(chunks, (self.params.ratio,))[:, 0], n)

    def _flags(self, items: Items, passes: Sequence[Pass], columns: Mapping[str, np.ndarray]) -> Iterator[Flag]:
        words = self.params.words
        for row, item in enumerate(items):
            if columns["n_tokens"][row] == 0:
                short = f"fewer than {words} words" if words and not passes[row].logprobs else "fewer than 2 tokens"
                yield Flag(row, "too_short", f"item {item.id!r} has {short}: no score")
                continue
            if passes[row].truncated:
                yield Flag(row, "truncated", f"item {item.id!r} is longer than the tokens read; its end was left out")
            missing = [name for name in self.params.columns if np.isnan(columns[name][row])]
            if missing:
                yield Flag(row, "incomplete", f"item {item.id!r} gives nothing to compute {', '.join(missing)} from")

    # ------------------------------------------------------------ calibration

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        """Calibrate every column on labelled texts; the threshold of `min_k` decides `seen` from then on."""
        parts: list[dict[str, np.ndarray]] = []
        labels: list[int] = []
        stream = iter(examples)
        while part := Items(islice(stream, _BATCH)):
            labels += [_label(item, len(labels) + row) for row, item in enumerate(part)]
            parts.append(self._measure(part, call).columns)
            yield Progress("score", len(labels))
        truth = np.array(labels, np.int64)
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
        skipped = ("n_tokens", "truncated")
        figures = {
            name: figures_of(-values if name == "nll" else values, truth, self.params.max_fpr)
            for name, values in columns.items()
            if name not in skipped and not np.isnan(values).all()
        }
        if "min_k" not in figures:
            raise InvalidItems("examples", "hold no text that can be scored")
        out.write_json(_CALIBRATION, {"settings": self._settings(), "columns": figures})
        out.notes.update({name: each["auc"] for name, each in figures.items()}, examples=len(truth))
        yield Progress("calibrate", 1, 1, {"auc": figures["min_k"]["auc"]})


@dataclass(frozen=True)
class _Table:
    """Columns of the items, and `min_k` of every chunk with the row of the item it belongs to."""

    columns: dict[str, np.ndarray]
    owners: np.ndarray
    chunks: np.ndarray
    flags: tuple[Flag, ...]


def figures_of(scores: np.ndarray, labels: np.ndarray, max_fpr: float | None = None) -> dict[str, float]:
    """Threshold and ROC figures of one column in which higher means seen; NaN scores are left out.

    Raises `InvalidItems` unless both labels are there.
    """
    known = ~np.isnan(scores)
    scores, labels = scores[known], labels[known]
    if len(np.unique(labels)) < 2:
        raise InvalidItems("examples", "need texts of both labels, 1 (seen) and 0 (not seen), that can be scored")
    curve = roc(scores, labels)
    point = curve.best(max_fpr)
    return {
        "threshold": curve.threshold(point),
        "auc": curve.auc,
        "best_balanced_accuracy": float(curve.balanced_accuracy.max()),
        "tpr_at_5pct_fpr": curve.tpr_below(0.05),
        "tpr_at_1pct_fpr": curve.tpr_below(0.01),
        "tpr": float(curve.tpr[point]),
        "fpr": float(curve.fpr[point]),
        "n": len(scores),
    }


def _label(item: Item, row: int) -> int:
    label = item.fields["label"]
    if label not in (0, 1):
        raise InvalidItems(f"examples[{row}].fields.label", f"is {label}, wanted 0 or 1 (item {item.id!r})")
    return int(label)


def _flatten(parts: Sequence[Sequence[np.ndarray]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """All chunks that hold a prediction in one list, and the row of the item each belongs to."""
    pairs = [(row, chunk) for row, chunks in enumerate(parts) for chunk in chunks if len(chunk)]
    return np.array([row for row, _ in pairs], np.int64), [chunk for _, chunk in pairs]


def _means(chunks: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([chunk.mean() for chunk in chunks], np.float64)


def _average(owners: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Mean of the values of each owner, (n,) float64; NaN for owners without any."""
    counts = np.bincount(owners, minlength=n)
    with np.errstate(invalid="ignore"):
        return np.bincount(owners, values, n) / np.where(counts, counts, np.nan)


def _reaches(scores: np.ndarray, threshold: float) -> np.ndarray:
    """1 where the score reaches the threshold, 0 where not, NaN where there is none."""
    return np.where(np.isnan(scores), np.nan, scores >= threshold)


def _bytes(items: Items, reading: Reading) -> np.ndarray:
    """Compressed size of what is scored of each text, NaN for items without text."""
    rows = [row for row, item in enumerate(items) if item.text is not None]
    texts = [" ".join(reading.pieces(items[row].text or "")) for row in rows]
    sizes = np.full(len(items), np.nan)
    sizes[rows] = stats.compressed_sizes(texts)
    return sizes
