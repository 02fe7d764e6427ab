"""Losses of whole documents: those that items carry, and what a causal language model says in sliding windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pickaxe import Call, Item
from pickaxe.errors import InvalidItems

if TYPE_CHECKING:
    from pickaxe.lm import LM


def losses_of(item: Item, models: int, place: str) -> np.ndarray | None:
    """The item's `losses`, float64 (M,), or None; NaN stands for a model without a loss.

    `models` 0 takes any number.  Raises `InvalidItems` for a wrong length, or a negative or infinite loss.
    """
    given = item.fields.get("losses")
    if given is None:
        return None
    losses, where = np.asarray(given), f"{place}.fields.losses"
    if losses.dtype.kind not in "fiu" or losses.shape != (models or losses.size,) or not losses.size:
        wanted = f"({models},), one per benchmark score" if models else "(M,)"
        raise InvalidItems(where, f"has shape {losses.shape} of {losses.dtype}, wanted {wanted} (item {item.id!r})")
    if (losses < 0).any() or np.isinf(losses).any():
        raise InvalidItems(where, f"holds a negative or infinite loss (item {item.id!r})")
    return losses.astype(np.float64)


class Window(NamedTuple):
    """Positions [begin, end) to read, of which [first, end) are scored."""

    begin: int
    end: int
    first: int


def windows(positions: int, block: int, stride: int, *, whole: bool = False) -> Iterator[Window]:
    """Windows of `block` + 1 positions, `stride` apart, that score every position but the first once.

    The last one is shortened to end where the positions end.  With `whole` it is left out instead, which is
    what the authors' code does to the tail of its stream of documents.
    """
    begin, scored = 0, 1
    while scored < positions and not (whole and begin + block + 1 > positions):
        end = min(begin + block + 1, positions)
        yield Window(begin, end, scored)
        begin, scored = begin + stride, end


def start_of_text(lm: LM) -> list[int]:
    """The token before a document: beginning of text, else end of text, else none."""
    tokenizer = lm.tokenizer
    return [tokenizer.bos_id] if tokenizer.bos_id is not None else list(tokenizer.eos_ids[:1])


def document_losses(lm: LM, texts: Sequence[str], block: int, stride: int, call: Call) -> np.ndarray:
    """Sum of -log p over each document's tokens, in nats: float64 (n,).

    Every document is a stream of its own.  Its first token is scored too where the model has a token to put
    before it.
    """
    start = start_of_text(lm)
    pieces: list[list[int]] = []
    places: list[tuple[int, int]] = []
    for row, tokens in enumerate(lm.tokenizer.encode_batch(list(texts))):
        stream = [*start, *tokens]
        for window in windows(len(stream), block, stride):
            pieces.append(stream[window.begin : window.end])
            places.append((row, window.first - window.begin - 1))
    totals = np.zeros(len(texts))
    for (row, skipped), logprobs in zip(places, lm.token_logprobs(pieces, call), strict=True):
        totals[row] -= logprobs[skipped:].sum(dtype=np.float64)
    return totals
