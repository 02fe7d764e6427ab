"""The influence model of `mates`: from a text to a label, by a linear head on the mean state of a BERT encoder."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import ArtifactWriter, Call, Progress
from pickaxe.comparison import spearman
from pickaxe.encoder import Encoder
from pickaxe_plugins.train import bert, bert_files, optimisers
from pickaxe_plugins.train.descent import Loss, Shuffle, Stopping, descend
from pickaxe_plugins.train.pairs import ROOM

BLOCK = 512
"""Texts whose pieces are held at a time."""
CHARACTERS = 64
"""A token; texts that are longer are looked at only as far as the encoder reads."""
EVALUATIONS = "evaluations.json"
_BLANK = re.compile(r"\s")
_RIDGES = 10.0 ** np.arange(-4, 7)
"""Penalties that are tried, times the mean variance of a feature."""


class Tuning(pickaxe.Params):
    """How the whole encoder is fine-tuned."""

    epochs: int = Field(default=5, ge=1, description="How often each probe is used.")
    rate: float = Field(default=5e-5, gt=0, description="First learning rate; it falls linearly to 0.")
    batch: int = Field(default=32, ge=1, description="Probes of one step.")
    decay: float = Field(default=0.01, ge=0, description="Weight decay of the matrices.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout, also before the head.")
    clip: float = Field(default=1.0, gt=0, description="Largest norm of a gradient.")
    every: int = Field(default=20, ge=1, description="Steps between evaluations, of which the best Spearman is kept.")


@dataclass(frozen=True, slots=True)
class Head:
    """Label = features @ weight + bias."""

    weight: np.ndarray
    bias: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(features @ self.weight + self.bias, np.float64)


# ---------------------------------------------------------------- features


def framed(encoder: Encoder, texts: Sequence[str], pieces: int) -> list[list[list[int]]]:
    """Each text's token ids, [CLS] … [SEP], in at most so many pieces of what the encoder reads at a time.

    Only the first piece has [CLS], and only the last one [SEP], also when the text was cut.
    """
    limit = encoder.max_tokens
    most, found = pieces * limit, []
    beginnings = [_beginning(text, most) for text in texts]
    tokens = encoder.tokenizer.encode_batch(beginnings, add_special=True)
    for text, beginning, ids in zip(texts, beginnings, tokens, strict=True):
        if len(beginning) < len(text) and len(ids) <= most:
            ids = encoder.tokenizer.encode(text, add_special=True)
        kept = ids if len(ids) <= most else [*ids[: most - 1], ids[-1]]
        found.append([kept[start : start + limit] for start in range(0, len(kept), limit)])
    return found


def _beginning(text: str, tokens: int) -> str:
    """Of a long text what should do for so many tokens, up to a blank: a huge one takes gigabytes to cut whole."""
    blank = _BLANK.search(text, CHARACTERS * tokens)
    return text[: blank.start()] if blank else text


def features(encoder: Encoder, texts: Sequence[str], pieces: int, call: Call) -> np.ndarray:
    """(n, width) float32: the mean of the last hidden states over all tokens of all pieces of each text."""
    found = np.zeros((len(texts), encoder.width), np.float32)
    for start in range(0, len(texts), BLOCK):
        cut = framed(encoder, texts[start : start + BLOCK], pieces)
        rows = [piece for text in cut for piece in text]
        owner = np.repeat(np.arange(len(cut)), [len(text) for text in cut])
        lengths = np.array([len(row) for row in rows])
        shares = (lengths / np.bincount(owner, lengths)[owner]).astype(np.float32)
        np.add.at(found, start + owner, encoder.pooled(rows, call) * shares[:, None])
    return found


# ---------------------------------------------------------------- a head on a frozen encoder


def ridge(rows: np.ndarray, labels: np.ndarray, penalty: float | None, start: Head | None = None) -> tuple[Head, float]:
    """The head of least squares with a penalty on its distance from `start` (0), and the penalty.

    Without a penalty, that of the least leave-one-out error, in closed form.  `penalty` is in units of the mean
    variance of a feature.
    """
    rows = np.asarray(rows, np.float64)
    prior = np.zeros(rows.shape[1]) if start is None else start.weight
    mean, unexplained = rows.mean(0), labels - rows @ prior
    left, singular, right = np.linalg.svd(rows - mean, full_matrices=False)
    centred = unexplained - unexplained.mean()
    told = left.T @ centred
    scale = max(float((singular**2).sum()) / rows.shape[1], np.finfo(np.float64).tiny)

    def left_out(tried: float) -> float:
        shrunk = singular**2 / (singular**2 + tried * scale)
        residual = centred - left @ (shrunk * told)
        leverage = (left**2 * shrunk).sum(1) + 1 / len(labels)
        return float(np.square(residual / np.maximum(1 - leverage, 1e-9)).mean())

    best = min(map(float, _RIDGES), key=left_out) if penalty is None else penalty
    weight = prior + right.T @ (singular / (singular**2 + best * scale) * told)
    return Head(weight, float(labels.mean() - mean @ weight)), best


# ---------------------------------------------------------------- the whole encoder


def tune(
    encoder: Encoder,
    folder: Path,
    texts: tuple[Sequence[str], Sequence[str]],
    labels: tuple[np.ndarray, np.ndarray],
    pieces: int,
    tuning: Tuning,
    start: Head | None,
    out: ArtifactWriter,
    call: Call,
) -> Generator[Progress, None, tuple[Head, dict[str, Any]]]:
    """Fine-tune the encoder in `folder` on the first texts, keep what ranks the second ones best, write it to `out`.

    Returns the head, and the evaluation that was kept.
    """
    config, weights = bert_files.load(folder)
    weights |= {"head.weight": np.zeros((1, config.width), np.float32), "head.bias": np.zeros(1, np.float32)}
    if start is not None:
        weights |= {
            "head.weight": start.weight.astype(np.float32)[None],
            "head.bias": np.array([start.bias], np.float32),
        }
    learned, held = (framed(encoder, each, pieces) for each in texts)
    shuffle = Shuffle(len(learned), tuning.batch, call.seed)
    steps = tuning.epochs * shuffle.per_epoch
    every = min(tuning.every, steps)
    told = _Evaluations(out, every)

    def given(step: int) -> Mapping[str, Any]:
        rows = shuffle.rows(step)
        return batch([learned[row] for row in rows], tuning.batch) | {"labels": _filled(labels[0][rows], tuning.batch)}

    def measure(weights: Mapping[str, Any]) -> float:
        parts = [held[start : start + tuning.batch] for start in range(0, len(held), tuning.batch)]
        read = _reading(config)
        found = np.concatenate([np.asarray(read(weights, batch(part, tuning.batch)))[: len(part)] for part in parts])
        reached = told.add(quality(found, labels[1]))["spearman"]
        return 1.0 if reached is None else -reached

    optimiser = optimisers.adamw(
        optimisers.Linear(tuning.rate, steps), decay=tuning.decay, decayed=optimisers.matrices, clip=tuning.clip
    )
    weights = yield from descend(
        _loss(config, tuning.dropout),
        optimiser,
        weights,
        given,
        steps,
        out,
        seed=call.seed,
        checkpoint=every,
        stopping=Stopping(measure, every=every, patience=0),
    )
    head = Head(weights.pop("head.weight")[0].astype(np.float64), float(weights.pop("head.bias")[0]))
    bert_files.save(out.path, config, weights, like=folder)
    return head, told.best


def batch(texts: Sequence[Sequence[Sequence[int]]], size: int) -> dict[str, np.ndarray]:
    """The pieces of `size` texts: `ids` (P, T) and `lengths` (P,), and each one's `shares` (size, P) in a mean."""
    rows = [(at, piece) for at, text in enumerate(texts) for piece in text]
    count = size * -(-len(rows) // size)
    width = ROOM * -(-max(len(piece) for _, piece in rows) // ROOM)
    ids, lengths = np.zeros((count, width), np.int32), np.zeros(count, np.int32)
    shares = np.zeros((size, count), np.float32)
    for place, (at, piece) in enumerate(rows):
        ids[place, : len(piece)], lengths[place], shares[at, place] = piece, len(piece), len(piece)
    return {"ids": ids, "lengths": lengths, "shares": shares / np.maximum(shares.sum(1, keepdims=True), 1)}


def _filled(labels: np.ndarray, size: int) -> np.ndarray:
    """The labels, then NaN up to `size`."""
    filled = np.full(size, np.nan, np.float32)
    filled[: len(labels)] = labels
    return filled


def predicted(
    weights: Mapping[str, Any], config: bert.Config, given: Mapping[str, Any], dropout: float = 0.0, key: Any = None
) -> Any:
    """(size,) labels of a `batch`."""
    import jax
    import jax.numpy as jnp

    hidden = bert.hidden_states(weights, config, given["ids"], given["lengths"], dropout=dropout, key=key)
    mean = given["shares"] @ bert.pooled(hidden, given["lengths"])
    if key is not None and dropout:
        kept = jax.random.bernoulli(jax.random.fold_in(key, 0), 1 - dropout, mean.shape)
        mean = jnp.where(kept, mean / (1 - dropout), 0)
    return (mean @ weights["head.weight"].T + weights["head.bias"])[:, 0]


@functools.lru_cache(maxsize=2)
def _loss(config: bert.Config, dropout: float) -> Loss:
    def loss(weights: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        import jax.numpy as jnp

        there = ~jnp.isnan(given["labels"])
        missed = jnp.where(there, predicted(weights, config, given, dropout, key) - given["labels"], 0)
        return (missed**2).sum() / there.sum(), {}

    return loss


@functools.lru_cache(maxsize=2)
def _reading(config: bert.Config) -> Callable[..., Any]:
    import jax

    function: Callable[..., Any] = jax.jit(lambda weights, given: predicted(weights, config, given))
    return function


class _Evaluations:
    """One line an evaluation, in a file that an interrupted fit goes on with."""

    def __init__(self, out: ArtifactWriter, every: int) -> None:
        self._out = out
        step = int(out.stage_notes("checkpoint")["step"]) if out.done("checkpoint") else 0
        path = out.file(EVALUATIONS)
        before = json.loads(path.read_text(encoding="utf-8")) if step and path.is_file() else []
        self._rows, self._every = before[: step // every], every

    def add(self, reached: Mapping[str, float | None]) -> Mapping[str, float | None]:
        self._rows.append({"step": (len(self._rows) + 1) * self._every, **reached})
        self._out.write_json(EVALUATIONS, self._rows)
        return reached

    @property
    def best(self) -> dict[str, Any]:
        """The first of the highest Spearman."""
        return max(self._rows, key=lambda row: -2.0 if row["spearman"] is None else row["spearman"])


def quality(found: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """How well labels are predicted; correlations are None where one side is constant."""
    both = np.isfinite(found).all() and min(np.ptp(found), np.ptp(labels)) > 0
    return {
        "spearman": spearman(found, labels) if both else None,
        "pearson": float(np.corrcoef(found, labels)[0, 1]) if both else None,
        "mse": float(np.square(found - labels).mean()),
    }
