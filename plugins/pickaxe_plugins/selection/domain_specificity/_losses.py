"""Losses of texts under a general and a domain model: given, causal, masked, or of a fresh task head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import pickaxe
from pickaxe import Call, Item
from pickaxe.errors import InvalidItems
from pickaxe_plugins.selection.domain_specificity._masked_lm import MaskedLM

if TYPE_CHECKING:
    from pickaxe.encoder import Encoder
    from pickaxe.lm import LM

GIVEN = ("token_logprobs_general", "token_logprobs_domain")
HEAD_SCALE = 0.02
"""Standard deviation of a fresh head's weights, as BERT initialises them."""


@dataclass
class Losses:
    """Of n texts under one model, float64 (n,) each; NaN where there is none."""

    nats: np.ndarray
    """Summed over the tokens."""
    tokens: np.ndarray
    """Tokens that the sum is over."""
    characters: np.ndarray
    """Characters that were read."""
    cut: np.ndarray
    """bool: only the beginning was read."""

    @classmethod
    def empty(cls, n: int) -> Losses:
        return cls(np.full(n, np.nan), np.zeros(n), np.full(n, np.nan), np.zeros(n, bool))

    def per(self, unit: str) -> np.ndarray:
        """Nats per token or character."""
        units = self.tokens if unit == "token" else self.characters
        with np.errstate(invalid="ignore", divide="ignore"):
            losses: np.ndarray = np.where(units > 0, self.nats / units, np.nan)
        return losses


def given(item: Item, row: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The log-probabilities that an item brings of both models; None when it has none.

    Raises `InvalidItems` for one without the other, a wrong rank, NaN, or a log-probability above 0.
    """
    values = [item.get(name) for name in GIVEN]
    if all(value is None for value in values):
        return None
    checked = []
    for name, value in zip(GIVEN, values, strict=True):
        place = f"items[{row}].fields.{name}"
        if value is None:
            raise InvalidItems(place, f"is missing: give both or neither (item {item.id!r})")
        array = np.asarray(value)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "fiu"):
            raise InvalidItems(place, f"has shape {array.shape}, wanted numbers of shape (n,) (item {item.id!r})")
        array = array.astype(np.float64)
        if not np.isfinite(array).all() or (array > 1e-6).any():
            raise InvalidItems(place, f"holds a number that is no log-probability (item {item.id!r})")
        checked.append(array)
    return checked[0], checked[1]


def causal(lm: LM, texts: Sequence[str], limit: int | None, call: Call) -> Losses:
    """-log p of every token but the first, given those before it."""
    found = Losses.empty(len(texts))
    room = min(limit or lm.context_length, lm.context_length)
    encoded = lm.tokenizer.encode_batch(texts)
    rows = [row for row, ids in enumerate(encoded) if len(ids) > 1]
    logs = lm.token_logprobs([encoded[row][:room] for row in rows], call)
    for row, values in zip(rows, logs, strict=True):
        ids = encoded[row]
        found.nats[row], found.tokens[row] = -values.sum(dtype=np.float64), len(values)
        found.cut[row] = len(ids) > room
        found.characters[row] = len(lm.tokenizer.decode(ids[:room])) if found.cut[row] else len(texts[row])
    return found


@dataclass(frozen=True)
class Masks:
    """Which tokens are masked together."""

    share: float
    repeats: int
    exact: bool
    seed: int

    def draw(self, name: str, tokens: int) -> list[np.ndarray]:
        """Places in a text of so many tokens: each token once, or a share of them in each of the repeats."""
        if self.exact:
            return [np.array([place]) for place in range(tokens)]
        number = max(1, round(self.share * tokens))
        draws = (pickaxe.generator(self.seed, "masks", name, repeat) for repeat in range(self.repeats))
        return [np.sort(draw.choice(tokens, number, replace=False)) for draw in draws]


def masked(
    model: MaskedLM, names: Sequence[str], texts: Sequence[str], masks: Masks, limit: int | None, call: Call
) -> Losses:
    """Mean -log p over the masked tokens, times the tokens of the text."""
    found = Losses.empty(len(texts))
    first, last = model.tokenizer.encode("", add_special=True)
    room = min(limit or model.max_tokens, model.max_tokens) - 2
    owners: list[int] = []
    rows: list[list[int]] = []
    places: list[np.ndarray] = []
    for row, ids in enumerate(model.tokenizer.encode_batch(texts)):
        kept = ids[:room]
        if not kept:
            continue
        found.tokens[row], found.cut[row] = len(kept), len(kept) < len(ids)
        found.characters[row] = len(texts[row])
        if found.cut[row]:
            found.characters[row] = model.tokenizer.offsets(texts[row])[len(kept) - 1][1]
        for drawn in masks.draw(names[row], len(kept)):
            owners.append(row)
            rows.append([first, *kept, last])
            places.append(drawn + 1)
    sums, counts = np.zeros(len(texts)), np.zeros(len(texts))
    for row, logs in zip(owners, model.log_probs(rows, places, call), strict=True):
        sums[row] -= logs.sum()
        counts[row] += len(logs)
    with np.errstate(invalid="ignore"):
        found.nats = np.where(counts > 0, sums / np.maximum(counts, 1) * found.tokens, np.nan)
    return found


def task_head(encoder: Encoder, items: Sequence[Item], labels: int, seed: int, call: Call) -> Losses:
    """Cross-entropy of a freshly initialised head on sentence vectors with the items' labels, one "token" each.

    With `choices`, the head gives one number per choice, read behind the text; else one per label.
    """
    found = Losses.empty(len(items))
    width = encoder.width
    for row, item in enumerate(items):
        choices = item.get("choices")
        options = [str(each) for each in choices] if isinstance(choices, (list, tuple)) else None
        label = _label(item, row, len(options) if options else labels)
        if not item.text:
            continue
        if options:
            vectors = encoder.encode([f"{item.text} {each}" for each in options], call, normalize=False)
            logits = vectors @ head(seed, 1, width)[0]
        else:
            logits = head(seed, labels, width) @ encoder.encode([item.text], call, normalize=False)[0]
        logits = logits.astype(np.float64)
        found.nats[row] = float(np.logaddexp.reduce(logits) - logits[label])
        found.tokens[row] = 1
    return found


def head(seed: int, outputs: int, width: int) -> np.ndarray:
    """A fresh linear head, (outputs, width)."""
    return HEAD_SCALE * pickaxe.generator(seed, "head", outputs, width).standard_normal((outputs, width))


def _label(item: Item, row: int, labels: int) -> int:
    label = item.get("label")
    if not isinstance(label, (int, np.integer)) or not 0 <= label < labels:
        what = "is missing" if label is None else f"is {label}"
        raise InvalidItems(
            f"items[{row}].fields.label", f"{what}; loss=task_head wants 0 to {labels - 1} (item {item.id!r})"
        )
    return int(label)


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error (ddof 1) of the values that are there."""
    known = values[~np.isnan(values)]
    if not len(known):
        return math.nan, math.nan
    error = float(known.std(ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else math.nan
    return float(known.mean()), error
