"""Choosing among holdings: how two texts share the room, log-probabilities, and the figures of a test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pickaxe import Column, Groups
from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe.tokenizers import Tokenizer

AROUND = 3
"""[CLS] a [SEP] b [SEP]"""
ALL = "all questions"
_MOST = 30
_COLUMNS = (
    Column("accuracy", "Share of the labelled questions whose right choice was chosen.", "float64"),
    Column("macro_f1", "Mean F1 over the choices that occur among labels or predictions.", "float64"),
    Column("cross_entropy", "Mean -log p of the right choice.", "float64", "nats", "lower"),
    Column("questions", "Labelled questions with a result.", "int64", "", "none"),
)


def packed(first: int, second: int, max_len: int) -> tuple[int, int]:
    """Tokens that two texts of `first` and `second` tokens keep, those around them counted too.

    One token at a time leaves the longer text; of two equally long ones the second.
    """
    room = max_len - AROUND
    if first + second <= room:
        return first, second
    half = room // 2
    if second <= half:
        return room - second, second
    if first <= half:
        return first, room - first
    return room - half, half


def fitting(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], max_len: int) -> list[tuple[str, str]]:
    """The pairs with both texts cut, at ends of tokens, to what `packed` leaves them."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    lengths = dict(zip(texts, map(len, tokenizer.encode_batch(texts)), strict=True))

    def cut(text: str, tokens: int) -> str:
        return text if lengths[text] <= tokens else text[: tokenizer.offsets(text)[tokens - 1][1]]

    found = []
    for first, second in pairs:
        kept = packed(lengths[first], lengths[second], max_len)
        found.append((cut(first, kept[0]), cut(second, kept[1])))
    return found


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """float64, over the last axis; NaN rows stay."""
    logits = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):
        logs: np.ndarray = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return logs


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean F1 over the classes that occur among labels or predictions; NaN without any."""
    scores = []
    for each in np.union1d(labels, predictions):
        right = int(((labels == each) & (predictions == each)).sum())
        scores.append(2 * right / int((labels == each).sum() + (predictions == each).sum()))
    return float(np.mean(scores)) if scores else math.nan


def interval(scores: Sequence[float]) -> tuple[float, float]:
    """Mean over folds, and 1.96 standard errors (ddof 1); NaN for the latter with one fold."""
    values = np.asarray(scores, np.float64)
    half = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), half


def groups(names: Sequence[str], columns: Mapping[str, np.ndarray], labels: np.ndarray) -> Groups | None:
    """One row per group (a fold, a task, a model) of labelled questions; None without labels (-1)."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if labels[row] >= 0 and columns["chosen"][row] >= 0:
            rows.setdefault(name or ALL, []).append(row)
    if not rows:
        return None
    table: dict[str, list[float]] = {column.name: [] for column in _COLUMNS}
    for each in rows.values():
        table["accuracy"].append(float((labels[each] == columns["chosen"][each]).mean()))
        table["macro_f1"].append(macro_f1(labels[each], columns["chosen"][each]))
        table["cross_entropy"].append(float(columns["cross_entropy"][each].mean()))
        table["questions"].append(len(each))
    return Groups(tuple(rows), {c.name: np.array(table[c.name], c.dtype) for c in _COLUMNS}, _COLUMNS)


def summary(table: Groups | None, n_choices: int, n: int) -> dict[str, Any]:
    """Answer and figure."""
    if table is None:
        return explain([f"{n} questions without labels: choices were made, nothing says whether they are right."])
    scores, questions = table.columns["macro_f1"], int(table.columns["questions"].sum())
    accuracy = float(table.columns["accuracy"] @ table.columns["questions"]) / questions
    words = [
        f"{number(100 * accuracy, 3)}% of {questions} questions are answered as labelled; choosing blindly among "
        f"{n_choices} gives {number(100 / n_choices, 3)}%."
    ]
    mean, half = interval(scores.tolist())
    if len(scores) > 1:
        told = f"{number(mean, 3)} ± {number(half, 2)}"
        words.append(f"Macro F1 over {len(scores)} groups: {told} (1.96 standard errors).")
    else:
        words.append(f"Macro F1 {number(mean, 3)}; one group only: no interval, give the folds in `group`.")
    order = np.argsort(-scores, kind="stable")[:_MOST]
    figure = Figure(
        "Macro F1 by group",
        Axis("macro F1"),
        Axis("group", categories=[table.keys[row] for row in order]),
        (Series("macro F1", "points", scores[order], range(len(order))),),
    )
    return {**explain(words, [figure]), "overall": {"accuracy": accuracy, "macro F1": mean, "half width": half}}
