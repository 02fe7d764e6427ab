"""What each item offers to Min-K% Prob: given log-probabilities or logits checked, texts cut and run by a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pickaxe import Call, Item, Items
from pickaxe.errors import InvalidItems, Unmet, Violation
from pickaxe_plugins.selection.min_k_prob import _stats as stats

if TYPE_CHECKING:
    from pickaxe.lm import LM

Window = Literal["truncate", "chunks"]
_ROUNDING = 1e-6
"""How far above 0 a log-probability may lie."""


@dataclass(frozen=True)
class Pass:
    """Log-probabilities of one item by one model: one array per chunk, empty ones where nothing was predicted.

    `z` holds the standardised values of Min-K%++, when they were asked for and could be had.
    """

    logprobs: tuple[np.ndarray, ...] = ()
    z: tuple[np.ndarray, ...] = ()
    truncated: bool = False


@dataclass(frozen=True)
class Reading:
    """How texts are cut and tokenised."""

    max_tokens: int | None
    window: Window
    words: int | None
    add_bos: Literal["auto"] | bool
    batch_tokens: int

    def pieces(self, text: str) -> list[str]:
        """The stretches of `words` words that are scored; the text itself without such a limit."""
        if self.words is None:
            return [text]
        words = text.split()
        last = len(words) if self.window == "chunks" else self.words
        starts = range(0, min(len(words), last) - self.words + 1, self.words)
        return [" ".join(words[start : start + self.words]) for start in starts]

    def tokens(self, ids: list[int], lm: LM, bos: list[int]) -> tuple[list[list[int]], bool]:
        """The token lists to run for one piece, each within the context, and whether some of it is not read."""
        room = min(self.max_tokens or lm.context_length, lm.context_length) - len(bos)
        if len(ids) <= room:
            return [bos + ids], False
        if self.window == "truncate" or self.words is not None:
            return [bos + ids[:room]], True
        chunks = np.array_split(np.asarray(ids), -(-len(ids) // room))
        return [bos + chunk.tolist() for chunk in chunks], False

    def _bos(self, lm: LM) -> list[int]:
        bos = lm.tokenizer.bos_id
        wanted = self.add_bos
        if wanted == "auto":
            wanted = bos is not None and lm.tokenizer.encode("", add_special=True)[:1] == [bos]
        if not wanted:
            return []
        if bos is None:
            raise Unmet(f"add_bos is on, but model {lm.name!r} has no token for the beginning of a text")
        return [bos]

    def run(self, lm: LM, texts: Sequence[Sequence[str]], call: Call, *, with_z: bool = False) -> list[Pass]:
        """One pass of the model over every piece of every text, batched together."""
        bos = self._bos(lm)
        encoded = iter(lm.tokenizer.encode_batch([piece for pieces in texts for piece in pieces]))
        cut = [[self.tokens(next(encoded), lm, bos) for _ in pieces] for pieces in texts]
        lists = [tokens for pieces in cut for chunks, _ in pieces for tokens in chunks]
        z: list[np.ndarray] = []
        if with_z:
            moments = [
                each.astype(np.float64) for each in lm.token_moments(lists, call, batch_tokens=self.batch_tokens)
            ]
            logprobs = [each[0] for each in moments]
            z = [stats.surprise_scores(*each) for each in moments]
        else:
            found = lm.token_logprobs(lists, call, batch_tokens=self.batch_tokens)
            logprobs = [each.astype(np.float64) for each in found]
        passes, at = [], 0
        for pieces in cut:
            end = at + sum(len(chunks) for chunks, _ in pieces)
            passes.append(Pass(tuple(logprobs[at:end]), tuple(z[at:end]), any(short for _, short in pieces)))
            at = end
        return passes


def given(item: Item, row: int, suffix: str = "") -> Pass | None:
    """What the item's own `token_logprobs{suffix}` (or `logits`) say; None when it has none.

    Raises `InvalidItems` for a wrong rank, NaN, or a log-probability above 0.
    """
    name = f"token_logprobs{suffix}"
    values = item.fields.get(name)
    from_logits = _logits(item, row) if not suffix else None
    if values is None:
        return from_logits
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise _invalid(row, name, item, f"has shape {array.shape} of {array.dtype}, wanted numbers of shape (n,)")
    array = array.astype(np.float64)
    if np.isnan(array).any():
        raise _invalid(row, name, item, f"is NaN at position {int(np.flatnonzero(np.isnan(array))[0])}")
    if len(array) and array.max() > _ROUNDING:
        raise _invalid(row, name, item, f"holds {array.max():g}; log-probabilities are at most 0")
    return Pass((array,), from_logits.z if from_logits else ())


def _logits(item: Item, row: int) -> Pass | None:
    logits, ids = item.fields.get("logits"), item.fields.get("token_ids")
    if logits is None:
        return None
    logits = np.asarray(logits)
    if logits.ndim != 2 or logits.dtype.kind not in "fiu" or np.isnan(logits).any():
        raise _invalid(row, "logits", item, f"has shape {logits.shape}, wanted finite numbers of shape (n, V)")
    ids = np.asarray(() if ids is None else ids)
    if ids.shape != logits.shape[:1] or (len(ids) and ids.dtype.kind not in "iu"):
        raise _invalid(row, "token_ids", item, f"has shape {ids.shape}, wanted {logits.shape[:1]} whole numbers")
    if len(ids) and (ids.min() < 0 or ids.max() >= logits.shape[1]):
        raise _invalid(row, "token_ids", item, f"names tokens outside the vocabulary of {logits.shape[1]}")
    if not len(ids):
        return Pass((np.empty(0),), (np.empty(0),))
    logprobs, means, stds = stats.from_logits(logits, ids)
    return Pass((logprobs,), (stats.surprise_scores(logprobs, means, stds),))


def _invalid(row: int, name: str, item: Item, what: str) -> InvalidItems:
    return InvalidItems(f"items[{row}].fields.{name}", f"{what} (item {item.id!r})")


def has_own(item: Item) -> bool:
    """Whether the item brings the log-probabilities (or logits) of its text itself."""
    return "token_logprobs" in item.fields or "logits" in item.fields


def check_readable(items: Items) -> None:
    """Raise `InvalidItems` naming every item that has neither text nor log-probabilities."""
    found = list(_unreadable(items))
    if found:
        raise InvalidItems(found)


def _unreadable(items: Items) -> Iterator[Violation]:
    for row, item in enumerate(items):
        if item.text is None and not has_own(item):
            yield Violation(f"items[{row}]", f"has neither text nor token_logprobs nor logits (item {item.id!r})")
