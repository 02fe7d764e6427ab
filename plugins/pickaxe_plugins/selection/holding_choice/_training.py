"""Training of the holding selector: a softmax over the choices of each question (arXiv:2104.08671)."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe import Call, Progress
from pickaxe.artifact import ArtifactWriter
from pickaxe.cross_encoder.graph import WORDS
from pickaxe.errors import InvalidParams
from pickaxe.extras import require
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.selection.holding_choice._holding import fitting
from pickaxe_plugins.train import bert, bert_files, optimisers
from pickaxe_plugins.train.descent import Loss, Shuffle, Stopping, descend
from pickaxe_plugins.train.pairs import Encoded, Framing, batch

if TYPE_CHECKING:
    from pickaxe_plugins.selection.holding_choice import Params


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, its choices, and which is right."""

    prompt: str
    choices: tuple[str, ...]
    label: int


def train(
    questions: Sequence[Question],
    checked: Sequence[Question],
    start: Path,
    words: Path | None,
    params: Params,
    out: ArtifactWriter,
    call: Call,
) -> Iterator[Progress]:
    """Write the folder of a cross-encoder of one output into `out`, trained from the encoder in `start`.

    `words` is the model that `start` has its word embeddings and tokenizer of, if they are not its own.  With
    `checked` questions the weights after the epoch of the highest accuracy on them are kept.
    """
    jax = require("jax", extra="train")
    config, weights = bert_files.load(start, words)
    config, weights = _bare(*bert.shortened(config, weights, params.layers))
    config, weights = bert.with_heads(config, weights, call.seed, head=bert.Head("pooler"))
    if params.max_len > config.positions:
        raise InvalidParams("max_len", f"is {params.max_len}; {params.base!r} reads at most {config.positions}")
    framed = _Framed(Tokenizer.open(words or start), params)
    frozen = {WORDS: jax.numpy.asarray(weights.pop(WORDS))} if params.freeze_words else {}
    shuffle = Shuffle(len(questions), params.batch, call.seed)
    steps = params.epochs * shuffle.per_epoch
    rate = optimisers.Linear(params.rate, steps, round(params.warmup * steps))
    exam = _Exam(checked, framed, config, frozen)
    trained = yield from descend(
        _loss(config, params.dropout, params.n_choices),
        optimisers.adamw(rate, decay=params.decay, clip=params.clip, decayed=optimisers.matrices),
        weights,
        lambda step: {**framed.given([questions[row] for row in shuffle.rows(step)]), "frozen": frozen},
        steps,
        out,
        seed=call.seed,
        checkpoint=params.checkpoint,
        stopping=Stopping(exam, every=shuffle.per_epoch, patience=0) if checked else None,
    )
    bert_files.save(out.path, config, {**frozen, **trained}, like=words or start)
    out.file("sentence_bert_config.json").write_text(json.dumps({"max_seq_length": params.max_len}))
    out.notes |= {"questions": len(questions), "steps": steps, "layers": config.layers, "seed": call.seed}
    if checked:
        out.notes |= {"validation_accuracy": -exam({name: np.asarray(each) for name, each in trained.items()})}


def _bare(config: bert.Config, weights: Mapping[str, np.ndarray]) -> tuple[bert.Config, dict[str, np.ndarray]]:
    """The same network without any head of its own."""
    kept = {name: array for name, array in weights.items() if not name.startswith(("classifier.", "cls."))}
    return replace(config, head=None, mlm=False), kept


class _Framed:
    """Questions as batches: `n_choices` pairs each, their labels, and their shares in the mean."""

    def __init__(self, tokenizer: Tokenizer, params: Params) -> None:
        self._tokenizer, self._framing = tokenizer, Framing(tokenizer, params.max_len)
        self._max_len, self._size, self._choices = params.max_len, params.batch, params.n_choices

    def pairs(self, questions: Sequence[Question]) -> list[Encoded]:
        texts = [(each.prompt, choice) for each in questions for choice in each.choices]
        first, second = zip(*fitting(self._tokenizer, texts, self._max_len), strict=True)
        return self._framing.pairs(first, second)

    def given(self, questions: Sequence[Question]) -> dict[str, Any]:
        labels, shares = np.zeros(self._size, np.int32), np.zeros(self._size, np.float32)
        labels[: len(questions)] = [each.label for each in questions]
        shares[: len(questions)] = 1 / len(questions)
        padded = batch(self.pairs(questions), self._size * self._choices)
        return {**padded, "labels": labels, "shares": shares}


class _Exam:
    """Minus the accuracy on questions that are not learned from."""

    def __init__(
        self, questions: Sequence[Question], framed: _Framed, config: bert.Config, frozen: Mapping[str, Any]
    ) -> None:
        self._given = [(batch(framed.pairs([each])), each.label) for each in questions]
        self._config, self._frozen = config, frozen

    def __call__(self, weights: Mapping[str, Any]) -> float:
        scores = _scores(self._config)
        every = {**self._frozen, **weights}
        return -float(np.mean([int(np.argmax(scores(every, given))) == label for given, label in self._given]))


@functools.lru_cache(maxsize=4)
def _loss(config: bert.Config, dropout: float, n_choices: int) -> Loss:
    jax = require("jax", extra="train")

    def loss(weights: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        every = {**given["frozen"], **weights}
        scores = bert.scores(every, config, given, dropout=dropout, key=key)[:, 0].reshape(-1, n_choices)
        labels, shares = given["labels"], given["shares"]
        right = jax.numpy.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], 1)[:, 0]
        return -(shares * right).sum(), {"accuracy": ((scores.argmax(1) == labels) * shares).sum()}

    return loss


@functools.lru_cache(maxsize=4)
def _scores(config: bert.Config) -> Any:
    jax = require("jax", extra="train")
    return jax.jit(lambda weights, given: bert.scores(weights, config, given)[:, 0])
