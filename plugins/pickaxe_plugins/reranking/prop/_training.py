"""Pre-training of a cross-encoder: the more likely set first (ROP), and masked words of the document (MLM)."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import pickaxe
from pickaxe import ArtifactWriter, Call, Progress
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe.extras import require
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.reranking.prop._pairs import Pair, Sampler
from pickaxe_plugins.reranking.prop._statistics import Counts
from pickaxe_plugins.train import bert, bert_files, optimisers
from pickaxe_plugins.train.descent import Loss, Shuffle, Stopping, descend
from pickaxe_plugins.train.pairs import Encoded, Framing, batch

if TYPE_CHECKING:
    from pickaxe_plugins.reranking.prop._method import Params

Margin = Literal["softmax_margin", "margin"]
READ = 512
"""White-space words of a document that training looks at."""
SHORT = 100
"""Documents of fewer tokens are mostly skipped."""
MASKED, KEPT = 0.8, 0.1
"""Shares of chosen tokens that become [MASK], and that stay; the others become any token."""
ROOM = 8
"""Masked places are padded to multiples of so many, so that few shapes are compiled."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text as it is read, its counted words, and the pairs drawn for it."""

    id: str
    text: str
    pairs: Sequence[Pair]


def read(id: str, text: str, counts: Counts, sampler: Sampler, count: int, seed: int) -> Document:
    """The document with `count` pairs, or fewer."""
    return Document(id, " ".join(text.split()[:READ]), sampler.pairs(counts, count, seed, id))


# ---------------------------------------------------------------- losses


def rop_loss(positive: Any, negative: Any, kind: Margin) -> Any:
    """Mean hinge with margin 1 between the scores (n,) of pairs, or between their shares of a softmax."""
    import jax
    import jax.numpy as jnp

    if kind == "softmax_margin":
        shares = jax.nn.softmax(jnp.stack([positive, negative], -1), axis=-1)
        positive, negative = shares[..., 0], shares[..., 1]
    return jnp.maximum(0, 1 - positive + negative).mean()


def mlm_loss(logits: Any, labels: Any) -> Any:
    """Mean cross-entropy of logits (…, vocab) where the label (…) is not -1; 0 where all are."""
    import jax
    import jax.numpy as jnp

    counted = jnp.asarray(labels) >= 0
    chances = jax.nn.log_softmax(jnp.asarray(logits), axis=-1)
    chosen = jnp.take_along_axis(chances, jnp.maximum(jnp.asarray(labels), 0)[..., None], axis=-1)[..., 0]
    return -jnp.where(counted, chosen, 0).sum() / jnp.maximum(counted.sum(), 1)


@functools.lru_cache(maxsize=4)
def _loss(config: bert.Config, dropout: float, kind: Margin) -> Loss:
    def loss(weights: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        import jax.numpy as jnp

        scores, hidden = _scores(weights, config, given, dropout, key)
        positive, negative = scores[0::2], scores[1::2]
        rop = rop_loss(positive, negative, kind)
        states = jnp.take_along_axis(hidden, given["places"][..., None], axis=1)
        mlm = mlm_loss(bert.mlm_logits(weights, config, states), given["labels"])
        return rop + mlm, {"rop_accuracy": (positive > negative).mean(), "mlm_loss": mlm}

    return loss


def _scores(weights: Any, config: bert.Config, given: Mapping[str, Any], dropout: float, key: Any) -> tuple[Any, Any]:
    """What the head says, (B,), and the states that it reads, as `bert.scores` computes them."""
    import jax
    import jax.numpy as jnp

    hidden = bert.hidden_states(
        weights, config, given["ids"], given["lengths"], given["segments"], dropout=dropout, key=key
    )
    state = jnp.tanh(bert.dense(weights, "pooler.dense", hidden[:, 0]))
    if key is not None and dropout:
        kept = jax.random.bernoulli(jax.random.fold_in(key, 1), 1 - dropout, state.shape)
        state = jnp.where(kept, state / (1 - dropout), 0)
    return bert.dense(weights, "classifier", state)[:, 0], hidden


# ---------------------------------------------------------------- masking


def whole_words(ids: Sequence[int], start: int, pieces: np.ndarray) -> list[list[int]]:
    """Places of the words of `ids` from `start` up to the closing token; `pieces` (vocab,) marks what continues one."""
    found: list[list[int]] = []
    for place in range(start, len(ids) - 1):
        if found and pieces[ids[place]]:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def masked_words(count: int, share: float, most: int) -> int:
    """How many of `count` words are masked: min(most, max(1, round(share · count)))."""
    return min(count, most, max(1, round(share * count)))


class Masking:
    """Chooses words of the document, never of the set, and hides them."""

    def __init__(self, tokenizer: Tokenizer, share: float, most: int) -> None:
        mask = tokenizer.token_to_id("[MASK]")
        if mask is None:
            raise Unmet("this model's vocabulary has no [MASK]: it cannot be trained by masked words")
        self._mask, self._share, self._most = mask, share, most
        self._size = tokenizer.vocab_size
        self._pieces = np.zeros(self._size, bool)
        self._pieces[[index for token, index in tokenizer.vocabulary.items() if token.startswith("##")]] = True

    def hidden(self, row: Encoded, random: np.random.Generator) -> tuple[Encoded, np.ndarray, np.ndarray]:
        """The input with tokens replaced, the places (m,) of the chosen ones, and what they were."""
        start = int(np.argmax(row.segments > 0))
        groups = whole_words(row.ids.tolist(), start, self._pieces)
        count = masked_words(len(groups), self._share, self._most)
        chosen = random.permutation(len(groups))[:count].tolist()
        places = np.array(sorted(place for group in chosen for place in groups[group]), np.int32)
        ids, fate = row.ids.copy(), random.random(len(places))
        other = random.integers(self._size, size=len(places))
        was = ids[places]
        ids[places] = np.where(fate < MASKED, self._mask, np.where(fate < MASKED + KEPT, was, other))
        return Encoded(ids, row.segments), places, was


# ---------------------------------------------------------------- training


class Batches:
    """What a step learns from: pairs of inputs, the positive one first, masked."""

    def __init__(self, documents: Sequence[Document], framing: Framing, masking: Masking, params: Params, seed: int):
        self._documents, self._framing, self._masking, self._seed = documents, framing, masking, seed
        self._size, self._used, self._dynamic = params.batch, params.used_pairs, params.dynamic_masking
        self._rows = [(row, which) for row, each in enumerate(documents)
                      for which in range(min(params.used_pairs, len(each.pairs)))]  # fmt: skip
        self.shuffle = Shuffle(len(self._rows), params.batch, seed)

    def inputs(self, row: int, epoch: int) -> tuple[str, list[Encoded]]:
        """A name, and both inputs; later epochs come to the pairs that earlier ones left out."""
        place, which = self._rows[row]
        document = self._documents[place]
        number = (epoch * self._used + which) % len(document.pairs)
        pair = document.pairs[number]
        sets = [" ".join(pair.positive), " ".join(pair.negative)]
        return f"{document.id}\x1f{number}", self._framing.pairs(sets, [document.text] * 2)

    def plain(self) -> Iterator[list[Encoded]]:
        """All inputs, not masked, `batch` pairs at a time."""
        for start in range(0, len(self._rows), self._size):
            rows = range(start, min(start + self._size, len(self._rows)))
            yield [each for row in rows for each in self.inputs(row, 0)[1]]

    def given(self, step: int) -> dict[str, np.ndarray]:
        """A batch with `places` and `labels` (2 B, M) of masked tokens; -1 is no label.

        Rows that are missing in an epoch's last batch are taken from its beginning.
        """
        epoch = step // self.shuffle.per_epoch
        rows, chosen = [], []
        for row in np.resize(self.shuffle.rows(step), self._size).tolist():
            name, inputs = self.inputs(row, epoch)
            random = pickaxe.generator(self._seed, "mask", name, epoch if self._dynamic else 0)
            for each in inputs:
                hidden, places, was = self._masking.hidden(each, random)
                rows.append(hidden)
                chosen.append((places, was))
        width = ROOM * -(-max(1, *(len(places) for places, _ in chosen)) // ROOM)
        found = {"places": np.zeros((len(rows), width), np.int32), "labels": np.full((len(rows), width), -1, np.int32)}
        for row, (places, was) in enumerate(chosen):
            found["places"][row, : len(places)], found["labels"][row, : len(was)] = places, was
        return {**batch(rows), **found}


def train(
    documents: Sequence[Document],
    held: Sequence[Document],
    start: Path,
    words: Path | None,
    params: Params,
    out: ArtifactWriter,
    call: Call,
) -> Iterator[Progress]:
    """Write the folder of a cross-encoder into `out`, trained from the BERT in `start`.

    `words` is the model that `start` has its word embeddings and tokenizer of, if they are not its own.  With `held`
    documents the weights after the epoch of their best pair accuracy are kept.
    """
    config, weights = bert.shortened(*bert_files.load(start, words), params.layers)
    # A head that is there already stays: fit again goes on where the last one stopped.
    config, weights = bert.with_heads(config, weights, call.seed, head=config.head or bert.Head("pooler"), mlm=True)
    if config.head != bert.Head("pooler"):
        raise Unmet(f"the head of {params.base!r} is {config.head}; only one output of BERT's pooler is trained")
    if params.max_len > config.positions:
        raise InvalidParams("max_len", f"is {params.max_len}; {params.base!r} reads at most {config.positions}")
    tokenizer = Tokenizer.open(words or start)
    framing, masking = Framing(tokenizer, params.max_len), Masking(tokenizer, params.mlm_prob, params.max_mlm)
    kept = [each for each in documents if each.pairs and not _skipped(each, tokenizer, params, call.seed)]
    if not kept:
        raise InvalidItems("examples", "leave no pair of word sets: give longer ones, or lower min_cf or skip_short")
    batches = Batches(kept, framing, masking, params, call.seed)
    steps = params.epochs * batches.shuffle.per_epoch
    rate = optimisers.Linear(params.rate, steps, round(params.warmup * steps))
    optimiser = optimisers.adamw(rate, decay=params.decay, clip=1.0, decayed=optimisers.matrices)
    held = [each for each in held if each.pairs]
    exam = _Exam(Batches(held, framing, masking, params, call.seed), config) if held else None
    stopping = None if exam is None else Stopping(exam, every=batches.shuffle.per_epoch, patience=0)
    trained = yield from descend(
        _loss(config, params.dropout, params.loss), optimiser, weights, batches.given, steps, out,
        seed=call.seed, checkpoint=params.checkpoint, stopping=stopping,
    )  # fmt: skip
    bert_files.save(out.path, config, trained, like=words or start)
    out.file("sentence_bert_config.json").write_text(json.dumps({"max_seq_length": params.max_len}), encoding="utf-8")
    pairs = sum(len(each.pairs) for each in kept)
    out.notes |= {"trained_documents": len(kept), "pairs": pairs, "steps": steps, "seed": call.seed}
    if exam is not None:
        out.notes["validation_accuracy"] = -exam({name: np.asarray(each) for name, each in trained.items()})


def _skipped(document: Document, tokenizer: Tokenizer, params: Params, seed: int) -> bool:
    """Whether a short document is left out."""
    short = len(tokenizer.encode(document.text)) < SHORT
    return short and pickaxe.generator(seed, "short", document.id).random() < params.skip_short


class _Exam:
    """Minus the share of held-out pairs whose more likely set scores higher."""

    def __init__(self, batches: Batches, config: bert.Config) -> None:
        jax = require("jax", extra="train")
        self._inputs = [batch(rows) for rows in batches.plain()]
        self._scores = jax.jit(lambda weights, given: _scores(weights, config, given, 0.0, None)[0])

    def __call__(self, weights: Mapping[str, Any]) -> float:
        right = []
        for given in self._inputs:
            scores = np.asarray(self._scores(weights, given))
            right.append(scores[0::2] > scores[1::2])
        return -float(np.concatenate(right).mean())
