"""What recipes that train a small language model share: documents as rows of tokens, networks of a wanted size."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pickaxe import Item
from pickaxe.errors import InvalidItems
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture
from pickaxe.tokenizers import Tokenizer

_HEAD = 32
_LAYERS = 32


@dataclass(frozen=True)
class Corpus:
    """Documents to learn from and to test on, all different."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    duplicates: int


def corpus(examples: Iterable[Item], validation: Iterable[Item] | None) -> Corpus:
    """The different texts that are not blank; without validation every twentieth of them, at least one, is for tests.

    A training document that is a validation document too is left out.
    """
    given = [(item.text or "").strip() for item in examples]
    different = [text for text in dict.fromkeys(given) if text]
    if validation is None:
        test = different[::20]
    else:
        test = [text for text in dict.fromkeys((item.text or "").strip() for item in validation) if text]
        if not test:
            raise InvalidItems("validation", "has no text: give documents, or leave validation out")
    held = set(test)
    train = [text for text in different if text not in held]
    if not train:
        raise InvalidItems("examples", f"are {len(different)} different texts: give at least two to train and test on")
    return Corpus(tuple(train), tuple(test), len(given) - len(different))


@dataclass(frozen=True)
class Rows:
    """Documents one after the other, cut into rows: (R, context + 1) int32, each row's last id the next one's first.

    `starts` (D,) says at which token each document begins: document d is in the rows from starts[d] // context on.
    """

    ids: np.ndarray
    starts: np.ndarray

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.ids.tobytes()).hexdigest()


def rows_of(texts: Sequence[str], tokenizer: Tokenizer, context: int) -> Rows:
    """Every token is predicted in exactly one row; a rest shorter than a row is left out."""
    end = tokenizer.eos_ids[0] if tokenizer.eos_ids else 0
    parts, starts, length = [np.array([end], np.int32)], [], 1
    for tokens in tokenizer.encode_batch(list(texts)):
        starts.append(length - 1)
        parts.append(np.array([*tokens, end], np.int32))
        length += len(tokens) + 1
    stream = np.concatenate(parts)
    count = (len(stream) - 1) // context
    places = np.arange(count)[:, None] * context + np.arange(context + 1)
    return Rows(stream[places], np.array(starts, np.int64))


@dataclass(frozen=True)
class Prepared:
    """What a recipe learns from: rows to train and to test on, in a vocabulary of their own."""

    corpus: Corpus
    tokenizer: Tokenizer
    rows: Rows
    test: Rows


def prepared(
    examples: Iterable[Item], validation: Iterable[Item] | None, vocab: int, context: int, batch: int, folder: Path
) -> Prepared:
    """The rows of the documents; writes the vocabulary into `folder`.  Raises `InvalidItems` for too little text."""
    from pickaxe_plugins.train import vocabulary

    data = corpus(examples, validation)
    tokenizer = vocabulary.learn(data.train, vocab, folder)
    rows, test = (rows_of(part, tokenizer, context) for part in (data.train, data.test))
    if len(rows.ids) < batch or not len(test.ids):
        raise InvalidItems(
            "examples",
            f"make {len(rows.ids)} rows to train on and {len(test.ids)} to test on, of {context} tokens: give more "
            f"text ({batch} rows make a step), or set context and batch lower",
        )
    return Prepared(data, tokenizer, rows, test)


def parameters(architecture: Architecture) -> int:
    """All weights: embeddings, which are the output too, norms and matrices."""
    from pickaxe_plugins.train import llama

    return sum(math.prod(shape) for _, shape in llama.shapes(architecture))


def network(wanted: float, vocab: int, context: int, largest_width: int) -> Architecture:
    """The network whose number of parameters is nearest to the wanted one, about 32 times as wide as deep."""

    def make(width: int, layers: int) -> Architecture:
        heads = width // _HEAD
        mlp = _HEAD * round(8 * width / 3 / _HEAD)
        return Architecture(layers, width, heads, heads, _HEAD, mlp, vocab, context, tied=True)

    def unlike(architecture: Architecture) -> tuple[float, float]:
        off = abs(math.log(parameters(architecture) / wanted))
        return round(off / 0.1), abs(math.log(architecture.width / architecture.layers / 32))

    widths = range(_HEAD, largest_width + 1, _HEAD)
    return min((make(width, layers) for width in widths for layers in range(1, _LAYERS + 1)), key=unlike)


NextToken = Callable[[Mapping[str, Any], Any, Any], Any]
"""(weights, rows, random key) -> mean loss of the rows' tokens, in nats."""


def next_token_loss(architecture: Architecture, dropout: float) -> NextToken:
    """The language-model loss; dropout acts on the embeddings and on the last hidden states."""
    jax = require("jax", extra="train")
    from pickaxe_plugins.train import llama

    def kept(key: Any, shape: tuple[int, ...]) -> Any:
        return jax.random.bernoulli(key, 1 - dropout, shape) / (1 - dropout)

    def loss(weights: Mapping[str, Any], rows: Any, key: Any) -> Any:
        ids, targets = rows[:, :-1], rows[:, 1:]
        noise: Any = 0.0
        shape = (*ids.shape, architecture.width)
        if dropout:
            first, last = jax.random.split(key)
            noise = weights["embedding"][ids] * (kept(first, shape) - 1)
        hidden = llama.hidden_states(weights, architecture, ids, noise)
        if dropout:
            hidden = hidden * kept(last, shape)
        logprobs = jax.nn.log_softmax(llama.logits(weights, hidden))
        return -jax.numpy.take_along_axis(logprobs, targets[..., None], -1).mean()

    return loss


def versions() -> dict[str, str]:
    """Of the libraries that trained, for the manifest."""
    return {name: str(require(name, extra="train").__version__) for name in ("jax", "optax")}
