"""Which of several holdings does a citing text refer to?  Multiple choice with a small BERT (arXiv:2104.08671)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import (
    Artifact,
    Call,
    Column,
    Example,
    Flag,
    InputField,
    Item,
    Items,
    Method,
    Progress,
    Ranked,
    Ranking,
    Scores,
    hookimpl,
)
from pickaxe.artifact import ArtifactWriter
from pickaxe.encoder.graph import read_config
from pickaxe.errors import ArtifactMismatch, InvalidItems
from pickaxe_plugins.selection.holding_choice._holding import fitting, groups, log_softmax, summary

if TYPE_CHECKING:
    from pickaxe.cross_encoder import CrossEncoder
    from pickaxe_plugins.selection.holding_choice._training import Question


class Params(pickaxe.Params):
    n_choices: int = Field(5, ge=2, le=16, description="Choices of every question.")
    max_len: int = Field(128, ge=5, description="Most tokens of prompt and choice together, the three around counted.")
    model: str = Field(
        "cross-encoder", min_length=1, description="Cross-encoder: alias, name or path.  A fitted artifact goes first."
    )
    base: str = Field("encoder", min_length=1, description="fit: the BERT that training begins with.")
    layers: int | None = Field(None, ge=1, description="fit: keep only its first layers; null: all.")
    freeze_words: bool = Field(True, description="fit: the word embeddings stay as they are.")
    epochs: int = Field(3, ge=1, description="fit: how often each question is used.")
    batch: int = Field(16, ge=1, description="fit: questions of one step.")
    rate: float = Field(5e-5, gt=0, description="fit: highest learning rate.")
    warmup: float = Field(0.1, ge=0, le=1, description="fit: share of the steps until the highest rate.")
    decay: float = Field(0.01, ge=0, description="fit: weight decay of matrices.")
    dropout: float = Field(0.1, ge=0, lt=1, description="fit: share of activations dropped.")
    clip: float = Field(1.0, gt=0, description="fit: largest norm of a gradient.")
    checkpoint: int = Field(200, ge=1, description="fit: steps between the points at which an interrupted fit resumes.")


class HoldingChoice(Method[Params]):
    """Choose the holding that a citing text refers to, of five or another number.

    Prompt and each choice are read together, [CLS] prompt [SEP] choice [SEP]; one linear layer on the pooled state
    gives a logit, and a softmax over the choices log-probabilities.  `fit` trains it by cross-entropy.
    """

    title = "When Does Pretraining Help? Assessing Self-Supervised Learning for Law and the CaseHOLD Dataset"
    paper = "arXiv:2104.08671"
    version = 1
    Params = Params
    scope = "group"
    reads = (
        InputField("text", "text", "The prompt: what stands around the holding.  Also query and candidate.", False),
        InputField("choices", "texts", "The holdings to choose from, `n_choices` of them.", required=False),
        InputField("choice_logits", "tensor", "(n_choices,) replaces the model.", required=False),
        InputField("label", "int64", "The right choice, from 0: for accuracy and F1.", required=False),
        InputField("group", "text", "A fold, a task, a model: one row of figures each.", required=False),
    )
    fit_reads = (
        InputField("text", "text", "The prompt."),
        InputField("choices", "texts", "The holdings to choose from."),
        InputField("label", "int64", "The right one, from 0."),
    )
    fitted = "optional"
    stages = ("train",)
    cost = "One model call per choice, in batches sorted by length."
    reproduced = "Log-probabilities, macro F1, packing and fold interval of the golden cases; CaseHOLD is not carried."

    columns = (
        Column("log_prob", "Log-probability of the chosen one.", "float64", "nats", nullable=True),
        Column("margin", "By how much it is above the second.", "float64", "nats", nullable=True),
        Column("chosen", "The chosen one, from 0; -1 where there is no result.", "int64", "", "none"),
        Column("cross_entropy", "-log p of the labelled one.", "float64", "nats", "lower", True),
    )

    def declared_columns(self) -> tuple[Column, ...]:
        choices = range(self.params.n_choices)
        each = (Column(f"log_prob_{at}", f"Of choice {at}.", "float64", "nats", "none", True) for at in choices)
        return (*self.columns, *each)

    @classmethod
    def example(cls) -> Example:
        asked = ("The lease ended when the rent was not paid.", "The search was void, for no warrant was shown.")
        holdings = ("holding that unpaid rent ends a lease", "holding that a search wants a warrant")
        return Example(
            params={"n_choices": 2, "layers": 1, "epochs": 1, "batch": 2, "max_len": 32},
            items=tuple(
                Item(f"q{row}", text, {"choices": list(holdings), "label": row, "group": f"fold {row}"})
                for row, text in enumerate(asked)
            ),
            examples=tuple(
                Item(f"e{row}", text, {"choices": list(holdings), "label": row}) for row, text in enumerate(asked)
            ),
            query=Item("q", asked[0]),
            candidates=tuple(Item(f"h{row}", text) for row, text in enumerate(holdings)),
        )

    @cached_property
    def _model(self) -> CrossEncoder:
        if self.artifact is None:
            return self.host.cross_encoder(self.params.model)
        limit = self.artifact.notes["max_len"]
        if self.params.max_len != limit:
            raise ArtifactMismatch(f"artifact was trained with max_len {limit}, not {self.params.max_len}: open it so")
        return self.host.cross_encoder_at(self.artifact.path)

    def _logits(self, pairs: Sequence[tuple[str, str]], call: Call) -> np.ndarray:
        """(n,) float64 of the pairs, cut to fit."""
        if not pairs:
            return np.zeros(0)
        limit = min(self.params.max_len, self._model.max_tokens)
        logits = self._model.score(fitting(self._model.tokenizer, pairs, limit), call).astype(np.float64)
        if logits.ndim == 2:  # a classifier: the logit of its last class against the others
            logits = logits[:, -1] - np.logaddexp.reduce(logits[:, :-1], axis=1)
        return logits

    # ------------------------------------------------------------ scoring

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        logits = self._of_items(items, call)
        n_choices = self.params.n_choices
        labels = np.array([_label(item, row, n_choices) for row, item in enumerate(items)], np.int64)
        logs = log_softmax(logits)
        known = ~np.isnan(logs).any(1)
        chosen = np.where(known, np.nan_to_num(logs, nan=-np.inf).argmax(1), -1) if len(items) else labels
        ordered = np.sort(logs, axis=1)
        right = np.take_along_axis(logs, np.maximum(labels, 0)[:, None], 1)[:, 0]
        columns = {
            "log_prob": ordered[:, -1],
            "margin": ordered[:, -1] - ordered[:, -2],
            "chosen": chosen.astype(np.int64),
            "cross_entropy": np.where(labels >= 0, -right, np.nan),
            **{f"log_prob_{choice}": logs[:, choice] for choice in range(n_choices)},
        }
        table = groups([str(item.get("group") or "") for item in items], columns, labels)
        flags = tuple(
            Flag(row, "empty", f"item {items[row].id!r} has an empty prompt or choice: no result")
            for row in np.flatnonzero(~known).tolist()
        )
        return Scores(columns, table, summary(table, n_choices, len(items)), flags)

    def _of_items(self, items: Items, call: Call) -> np.ndarray:
        """(n, n_choices) float64: what items bring, else what the model says; NaN rows for empty texts."""
        logits = np.full((len(items), self.params.n_choices), np.nan)
        rows: list[int] = []
        pairs: list[tuple[str, str]] = []
        for row, item in enumerate(items):
            brought = item.get("choice_logits")
            if brought is not None:
                logits[row] = self._brought(brought, item, row)
                continue
            choices = self._choices(item, f"items[{row}]")
            if (item.text or "").strip() and all(choice.strip() for choice in choices):
                rows.append(row)
                pairs += [(item.text or "", choice) for choice in choices]
        logits[rows] = self._logits(pairs, call).reshape(-1, self.params.n_choices)
        return logits

    def _brought(self, values: object, item: Item, row: int) -> np.ndarray:
        array, wanted = np.asarray(values), self.params.n_choices
        if array.shape != (wanted,) or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise InvalidItems(
                f"items[{row}].fields.choice_logits",
                f"has shape {array.shape}, wanted {wanted} finite numbers (n_choices; item {item.id!r})",
            )
        return array

    def _choices(self, item: Item, place: str) -> list[str]:
        choices, wanted = item.get("choices"), self.params.n_choices
        if not isinstance(choices, (list, tuple)):
            raise InvalidItems(f"{place}.fields.choices", f"is missing, nor are there choice_logits (item {item.id!r})")
        if len(choices) != wanted:
            raise InvalidItems(
                f"{place}.fields.choices",
                f"holds {len(choices)} choices, every question must have {wanted} (set n_choices; item {item.id!r})",
            )
        return [str(choice) for choice in choices]

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int, call: Call) -> Ranking:
        """Order any number of candidates by their log-probability."""
        logits = self._logits([(query.text or "", text) for text in candidates.texts()], call)
        logs = log_softmax(logits) if len(logits) else logits
        order = np.argsort(-logs, kind="stable")[:top_n]
        ranked = tuple(Ranked(int(row), candidates[row].id, float(logs[row])) for row in order)
        return Ranking(ranked, logs, usage={"model_calls": float(len(logs))})

    # ------------------------------------------------------------ fitting

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        out: ArtifactWriter,
        init_from: Artifact | None,
        call: Call,
    ) -> Iterator[Progress]:
        from pickaxe_plugins.selection.holding_choice import _training as training

        learned = self._questions(examples, "examples")
        checked = self._questions(validation or (), "validation")
        if not learned:
            raise InvalidItems("examples", "are empty: give at least one question")
        start = self.host.model_path(self.params.base) if init_from is None else init_from.path
        shared = read_config(start).get("words_from")
        words = None if shared is None else self.host.model_path(shared)
        out.notes["max_len"] = self.params.max_len
        yield from training.train(learned, checked, start, words, self.params, out, call)

    def _questions(self, items: Iterable[Item], name: str) -> list[Question]:
        from pickaxe_plugins.selection.holding_choice._training import Question

        found = []
        for row, item in enumerate(items):
            choices = self._choices(item, f"{name}[{row}]")
            label = _label(item, row, self.params.n_choices, name)
            if label < 0:
                raise InvalidItems(f"{name}[{row}].fields.label", f"is missing (item {item.id!r})")
            if not (item.text or "").strip() or not all(choice.strip() for choice in choices):
                raise InvalidItems(f"{name}[{row}]", f"has an empty prompt or choice (item {item.id!r})")
            found.append(Question(item.text or "", tuple(choices), label))
        return found


def _label(item: Item, row: int, n_choices: int, name: str = "items") -> int:
    """The item's label; -1 without one."""
    label = item.get("label")
    if label is None:
        return -1
    if isinstance(label, bool) or not isinstance(label, (int, np.integer)) or not 0 <= label < n_choices:
        raise InvalidItems(
            f"{name}[{row}].fields.label", f"is {label!r}, wanted 0 to {n_choices - 1} (item {item.id!r})"
        )
    return int(label)
