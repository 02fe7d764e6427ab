"""Training of the projection, alone or with its encoder, and of the head that expands passages."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import pickaxe
from pickaxe import ArtifactWriter, Call, Item, Progress
from pickaxe.cross_encoder.graph import WORDS
from pickaxe.encoder.graph import read_weights
from pickaxe.encoder.states import StateEncoder
from pickaxe.extras import require
from pickaxe_plugins.reranking.tildev2 import _expander, _terms
from pickaxe_plugins.train import bert, bert_files, optimisers
from pickaxe_plugins.train.descent import Loss, Shuffle, Stopping, descend
from pickaxe_plugins.train.pairs import ROOM

if TYPE_CHECKING:
    from pickaxe_plugins.reranking.tildev2._method import Params
    from pickaxe_plugins.reranking.tildev2._passages import Framing

PROJECTION = "projection"
NEVER = -1e9
"""The score of a passage that only fills a batch."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query, passages that answer it, and some that do not."""

    id: str
    text: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()


def score_matrix(query_ids: Any, used: Any, passage_ids: Any, weights: Any) -> Any:
    """(Q, P): what each query (Q, T) scores each passage (P, L), whose tokens have the weights (P, L) >= 0.

    Only query tokens that are `used` (Q, T) count; weights of padding must be 0 or its id no query token.
    """
    import jax
    import jax.numpy as jnp

    def one(query: Any, counted: Any) -> Any:
        equal = passage_ids[None] == query[:, None, None]
        return (jnp.where(equal, weights[None], 0).max(-1) * counted[:, None]).sum(0)

    return jax.vmap(one)(query_ids, used)


def contrast(matrix: Any, group: int, known: Any = None) -> tuple[Any, Any]:
    """Mean cross-entropy of row i against column i · group, and how often that column is the highest.

    With `known` (Q,) in {0, 1}, rows of 0 are no queries and their columns no passages.
    """
    import jax
    import jax.numpy as jnp

    known = jnp.ones(len(matrix)) if known is None else jnp.asarray(known)
    matrix = jnp.where(jnp.repeat(known, group)[None] > 0, matrix, NEVER)
    right = jnp.arange(len(matrix)) * group
    chances = jax.nn.log_softmax(matrix, axis=-1)[jnp.arange(len(matrix)), right]
    first = (matrix.argmax(-1) == right) * known
    return -(chances * known).sum() / known.sum(), first.sum() / known.sum()


# ---------------------------------------------------------------- projection


class Batches:
    """What a step learns from: queries with a group of passages each, the right one first."""

    def __init__(
        self,
        queries: Sequence[Query],
        framing: Framing,
        params: Params,
        seed: int,
        call: Call,
        others: Sequence[Query] = (),
    ) -> None:
        """Queries without negatives get passages of each other, and of `others`."""
        self._queries, self._params, self._seed = queries, params, seed
        self.shuffle = Shuffle(len(queries), params.batch, seed)
        self._everywhere = list(dict.fromkeys(text for query in (*queries, *others) for text in query.positives))
        texts = dict.fromkeys([*self._everywhere, *(text for query in queries for text in query.negatives)])
        self.rows = framing.rows([Item(str(place), text) for place, text in enumerate(texts)], call)
        self.place = {text: place for place, text in enumerate(texts)}
        asked = framing.tokenizer.encode_batch([query.text for query in queries])
        self._asked = [ids[: params.q_max_len - 2] for ids in asked]
        self._width = ROOM * -(-max(map(len, self.rows)) // ROOM)

    def passages(self, row: int, epoch: int) -> list[str]:
        """One of the query's positives, and negatives: its own first, else other queries' positives."""
        query, wanted = self._queries[row], self._params.group - 1
        random = pickaxe.generator(self._seed, "draw", query.id, epoch)
        chosen = query.positives[int(random.integers(len(query.positives)))]
        pool = query.negatives or [text for text in self._everywhere if text not in query.positives]
        if len(pool) >= wanted:
            drawn = random.choice(len(pool), wanted, replace=False)
        else:
            drawn = random.integers(len(pool), size=wanted)
        return [chosen, *(pool[place] for place in drawn.tolist())]

    def given(self, step: int) -> dict[str, np.ndarray]:
        """Query ids (Q, T) and which are used, passage ids (Q G, L), their lengths, and which queries are real."""
        found = self.shuffle.rows(step).tolist()
        epoch = step // self.shuffle.per_epoch
        return self.batch(found, [self.passages(row, epoch) for row in found])

    def batch(self, found: Sequence[int], groups: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        queries, group = self._params.batch, self._params.group
        asked, used = np.zeros((queries, self._params.q_max_len), np.int32), np.zeros((queries, self._params.q_max_len))
        ids, lengths = np.zeros((queries * group, self._width), np.int32), np.zeros(queries * group, np.int32)
        places = np.zeros(queries * group, np.int32)
        for place, (row, texts) in enumerate(zip(found, groups, strict=True)):
            asked[place, : len(self._asked[row])], used[place, : len(self._asked[row])] = self._asked[row], 1
            for at, text in enumerate(texts, place * group):
                own = self.rows[self.place[text]]
                ids[at, : len(own)], lengths[at], places[at] = own, len(own), self.place[text]
        known = (np.arange(queries) < len(found)).astype(np.float32)
        return {
            "asked": asked, "used": used.astype(np.float32), "ids": ids, "lengths": lengths,
            "places": places, "known": known,
        }  # fmt: skip


def fresh_projection(width: int, seed: int) -> np.ndarray:
    """Small weights and the bias 1: at first every token weighs about 1, which is to count common terms."""
    direction = 0.02 * pickaxe.generator(seed, "weights", PROJECTION).standard_normal(width)
    return np.append(direction, 1.0).astype(np.float32)


def _weights(projection: Any, states: Any, given: Mapping[str, Any]) -> Any:
    import jax.numpy as jnp

    raw = states @ projection[:-1] + projection[-1]
    inside = jnp.arange(states.shape[1]) < given["lengths"][:, None]
    return jnp.where(inside, jnp.maximum(raw, 0), 0)


@functools.lru_cache(maxsize=4)
def head_loss(group: int) -> Loss:
    """Of the projection alone, on states that a step is given."""

    def loss(tree: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        weights = _weights(tree[PROJECTION], given["states"].astype(tree[PROJECTION].dtype), given)
        matrix = score_matrix(given["asked"], given["used"], given["ids"], weights)
        value, first = contrast(matrix, group, given["known"])
        return value, {"first": first}

    return loss


@functools.lru_cache(maxsize=4)
def whole_loss(config: bert.Config, group: int, dropout: float) -> Loss:
    """Of projection and encoder."""

    def loss(tree: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        states = bert.hidden_states(tree, config, given["ids"], given["lengths"], dropout=dropout, key=key)
        weights = _weights(tree[PROJECTION], states, given)
        value, first = contrast(
            score_matrix(given["asked"], given["used"], given["ids"], weights), group, given["known"]
        )
        return value, {"first": first}

    return loss


def train(
    learned: Sequence[Query],
    checked: Sequence[Query],
    framing: Framing,
    states: StateEncoder,
    base: Path,
    projection: np.ndarray | None,
    params: Params,
    out: ArtifactWriter,
    call: Call,
) -> Generator[Progress, None, np.ndarray]:
    """The projection, trained; with `head_only` false the encoder's folder is written into `out` as well."""
    batches = Batches(learned, framing, params, call.seed, call)
    exam = Batches(checked, framing, params, call.seed, call, learned) if checked else None
    start: dict[str, Any] = {
        PROJECTION: fresh_projection(states.width, call.seed) if projection is None else np.array(projection)
    }
    config = None
    if params.head_only:
        loss, give = head_loss(params.group), _with_states(batches, states, call)
        check = None if exam is None else _with_states(exam, states, call)
    else:
        config, network = bert_files.load(base)
        config = replace(config, head=None, mlm=False)
        start |= {name: network[name] for name, _ in bert.shapes(config)}
        loss, give = whole_loss(config, params.group, params.dropout), batches.given
        check = None if exam is None else exam.given
    steps = params.epochs * batches.shuffle.per_epoch
    rate = optimisers.Linear(params.rate or params.usual_rate, steps, round(params.warmup * steps))
    optimiser = optimisers.adamw(rate, decay=params.decay, clip=1.0, decayed=optimisers.matrices)
    stopping = None
    if exam is not None and check is not None:
        stopping = Stopping(_measure(loss, check, exam), every=batches.shuffle.per_epoch, patience=0)
    tree = yield from descend(
        loss, optimiser, start, give, steps, out, seed=call.seed, checkpoint=params.checkpoint, stopping=stopping
    )
    found: np.ndarray = np.asarray(tree[PROJECTION], np.float32)
    if config is not None:
        bert_files.save(out.path, config, {name: tree[name] for name, _ in bert.shapes(config)}, like=base)
    out.notes |= {"queries": len(learned), "steps": steps, "passages": len(batches.rows), "seed": call.seed}
    return found


def _with_states(batches: Batches, states: StateEncoder, call: Call) -> Callable[[int], dict[str, np.ndarray]]:
    """The same batches with the states of their passages, which are computed once, in half precision."""
    kept = {row: each.astype(np.float16) for row, each in states.states(batches.rows, call)}

    def given(step: int) -> dict[str, np.ndarray]:
        found = batches.given(step)
        places, ids = found.pop("places"), found["ids"]
        stacked = np.zeros((*ids.shape, states.width), np.float16)
        for row, length in enumerate(found["lengths"].tolist()):
            if length:
                stacked[row, :length] = kept[int(places[row])]
        return {**found, "states": stacked}

    return given


def _measure(loss: Loss, given: Callable[[int], Mapping[str, Any]], batches: Batches) -> Callable[[Any], float]:
    jax = require("jax", extra="train")
    value = jax.jit(lambda tree, each: loss(tree, each, None)[0])
    steps = range(batches.shuffle.per_epoch)
    return lambda tree: float(np.mean([value(tree, given(step)) for step in steps]))


# ---------------------------------------------------------------- expander


@functools.lru_cache(maxsize=4)
def expander_loss(config: bert.Config) -> Loss:
    """Binary cross-entropy of a text's logits against the other side's tokens, over the vocabulary's terms."""

    def loss(tree: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        import jax

        logits = bert.mlm_logits({**tree, WORDS: given["words"]}, config, given["firsts"])
        each = jax.nn.softplus(logits) - logits * given["targets"]
        counted = each * given["terms"]
        return counted.sum() / (given["terms"].sum() * len(logits)), {}

    return loss


def train_expander(
    learned: Sequence[Query],
    framing: Framing,
    states: StateEncoder,
    base: Path,
    params: Params,
    out: ArtifactWriter,
    call: Call,
) -> Iterator[Progress]:
    """Write the head of an expander, trained on pairs of query and passage on the encoder as it is."""
    pairs = [(query.text, text) for query in learned for text in query.positives]
    tokenizer, ends = framing.tokenizer, framing.ends
    asked = tokenizer.encode_batch([text for text, _ in pairs])
    read = tokenizer.encode_batch([text for _, text in pairs])
    rows = [[ends[0], *ids[: _expander.READ - 2], ends[1]] for ids in asked]
    rows += [_expander.framed(ids, ends) for ids in read]
    firsts = np.empty((len(rows), states.width), np.float32)
    for row, each in states.states(rows, call):
        firsts[row] = each[0]
    words = read_weights(base)[WORDS]
    stopped = _terms.mask(_terms.stop_ids(tokenizer.vocabulary), len(words))
    shuffle, size, others = Shuffle(len(rows), params.batch, call.seed), params.batch, [*read, *asked]
    frozen = {"words": require("jax", extra="train").numpy.asarray(words), "terms": (~stopped).astype(np.float32)}

    def given(step: int) -> dict[str, Any]:
        chosen = np.resize(shuffle.rows(step), size)
        targets = np.zeros((size, len(words)), np.float32)
        for place, row in enumerate(chosen.tolist()):
            targets[place, others[row]] = 1
        return {**frozen, "firsts": firsts[chosen], "targets": targets}

    config, _ = bert_files.load(base)
    config, fresh = bert.with_heads(replace(config, head=None, mlm=False), {}, call.seed, mlm=True)
    steps = params.expander_epochs * shuffle.per_epoch
    optimiser = optimisers.adamw(optimisers.Linear(params.expander_rate, steps, steps // 10), decay=0.0)
    start = {name: fresh[name] for name in _expander.HEAD}
    head = yield from descend(
        expander_loss(config), optimiser, start, given, steps, out, seed=call.seed, stage="expander", checkpoint=steps
    )
    _expander.write_head(out, head)
