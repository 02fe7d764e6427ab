"""Log-probabilities of given tokens: sorted by length, batched by a token budget, never leaving as logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from pickaxe.errors import DoesNotFit, InvalidItems
from pickaxe.lm.cache import KV
from pickaxe.lm.network import CHUNK
from pickaxe.lm.sampling import logsumexp

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.lm.lm import LM

TokenList = Sequence[int] | np.ndarray
Normalise = Literal["none", "tokens", "bytes"]


def score_tokens(
    lm: LM, token_lists: Sequence[TokenList], call: Call | None, batch_tokens: int, *, moments: bool
) -> list[np.ndarray]:
    """Per item float32 (1, n - 1), with `moments` (3, n - 1): of each token but the first, given those before."""
    arrays = [np.asarray(tokens, dtype=np.int64) for tokens in token_lists]
    _check_fit(lm, arrays)
    results = [np.empty((3 if moments else 1, 0), np.float32)] * len(arrays)
    for group in _groups([len(tokens) for tokens in arrays], min(batch_tokens, lm.network.most_states)):
        scored = _score_group(lm, [arrays[item] for item in group], call, moments)
        for item, row in zip(group, scored, strict=True):
            results[item] = row
    return results


def _check_fit(lm: LM, arrays: Sequence[np.ndarray]) -> None:
    for item, tokens in enumerate(arrays):
        if tokens.size and (tokens.min() < 0 or tokens.max() >= lm.vocab_size):
            raise InvalidItems(f"items[{item}]", f"has token ids outside [0, {lm.vocab_size})")
        if len(tokens) > lm.context_length:
            raise DoesNotFit(
                f"item {item} has {len(tokens)} tokens, model {lm.name!r} takes {lm.context_length}: cut it or "
                "score it in windows",
                metadata={"item": item, "tokens": len(tokens), "context": lm.context_length},
            )


def _groups(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Items of two tokens and more, longest first, so many at a time that the padded batch keeps the budget."""
    order = sorted((item for item, length in enumerate(lengths) if length > 1), key=lambda item: -lengths[item])
    start = 0
    while start < len(order):
        rows = max(1, budget // lengths[order[start]])
        yield order[start : start + rows]
        start += rows


def _score_group(lm: LM, arrays: Sequence[np.ndarray], call: Call | None, moments: bool) -> list[np.ndarray]:
    """All rows from their first token, in chunks whose borders are the same for every row and batch."""
    ids, lengths = pad(arrays)
    network = lm.network
    cache = KV.empty(network.architecture, len(ids), ids.shape[1], network.dtype)
    parts: list[list[np.ndarray]] = [[] for _ in arrays]
    for start in range(0, ids.shape[1], CHUNK):
        piece = np.ascontiguousarray(ids[:, start : start + CHUNK])
        counts = np.clip(lengths - start, 0, piece.shape[1])
        wanted = np.clip(lengths - 1 - start, 0, piece.shape[1])  # nothing follows a row's last token
        rows = np.concatenate([row * piece.shape[1] + np.arange(count) for row, count in enumerate(wanted)])
        targets = np.concatenate([ids[row, start + 1 : start + 1 + count] for row, count in enumerate(wanted)])
        with lm.turn(call):
            hidden, cache = network.read(piece, counts, cache, rows, call=call)
            scored = network.score(hidden, targets, call, moments=moments)
        for row, values in enumerate(np.split(scored, np.cumsum(wanted)[:-1], axis=1)):
            parts[row].append(values)
    return [np.concatenate(row, axis=1) for row in parts]


def pad(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Token lists as ids (B, T), padded on the right with zeros, and their lengths (B,)."""
    lengths = np.array([len(tokens) for tokens in arrays])
    ids = np.zeros((len(arrays), int(lengths.max())), np.int64)
    for row, tokens in enumerate(arrays):
        ids[row, : len(tokens)] = tokens
    return ids, lengths


def choose(
    lm: LM,
    prompt_ids: TokenList,
    continuations: Sequence[TokenList],
    call: Call | None,
    normalise: Normalise,
    batch_tokens: int,
) -> np.ndarray:
    """Log-probability of each continuation after the prompt, float64; the prompt is read once."""
    arrays = [np.asarray(tokens, dtype=np.int64) for tokens in continuations]
    for item, tokens in enumerate(arrays):
        if not len(tokens):
            raise InvalidItems(f"continuations[{item}]", "has no tokens")
    _check_fit(lm, [np.concatenate([prompt_ids, tokens]) for tokens in arrays])
    logits, prompt = lm.prefill(prompt_ids, call)
    first = logits.astype(np.float64) - logsumexp(logits)
    totals = np.array([first[tokens[0]] for tokens in arrays])
    lengths = [len(tokens) for tokens in arrays]
    for group in _groups(lengths, max(1, min(batch_tokens - prompt.width, lm.network.most_states))):
        ids, counts = pad([arrays[item] for item in group])
        wanted = counts - 1
        rows = np.concatenate([row * ids.shape[1] + np.arange(count) for row, count in enumerate(wanted)])
        targets = np.concatenate([ids[row, 1 : 1 + count] for row, count in enumerate(wanted)])
        with lm.turn(call):
            hidden, _ = lm.network.read(ids, counts, prompt.tile(len(group)), rows, call=call)
            scored = lm.network.score(hidden, targets, call)[0].astype(np.float64)
        for item, values in zip(group, np.split(scored, np.cumsum(wanted)[:-1]), strict=True):
            totals[item] += values.sum()
    if normalise == "tokens":
        return totals / lengths
    if normalise == "bytes":
        sizes = [sum(len(lm.tokenizer.id_to_bytes(int(token))) for token in tokens) for tokens in arrays]
        return totals / np.maximum(sizes, 1)
    return totals
