"""Changing what may be said next: logits processors, tries of allowed outputs, tokenizer checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pickaxe.errors import InvalidParams, Unmet

if TYPE_CHECKING:
    from pickaxe.tokenizers import Tokenizer


class LogitsProcessor(Protocol):
    """Called before each draw with the ids generated so far and the float32 logits (vocab,) of what may follow.

    Returns the logits to draw from, as another array: those given are needed as they are.  -inf forbids a token.
    """

    def __call__(self, generated: Sequence[int], logits: np.ndarray) -> np.ndarray: ...


class OnlyTokens:
    """Nothing but these ids."""

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids = np.array(sorted(set(ids)), dtype=np.int64)
        if not len(self.ids):
            raise InvalidParams("ids", "must name at least one token")

    def __call__(self, generated: Sequence[int], logits: np.ndarray) -> np.ndarray:
        return only(self.ids, logits)


class WithoutTokens:
    """None of these ids."""

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids = np.array(sorted(set(ids)), dtype=np.int64)

    def __call__(self, generated: Sequence[int], logits: np.ndarray) -> np.ndarray:
        kept = logits.copy()
        kept[self.ids] = -np.inf
        return kept


class TokenTrie:
    """Token sequences of which the output must be exactly one."""

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        self._root: dict[int, dict] = {}
        self._complete: set[int] = set()
        for sequence in sequences:
            node = self._root
            for token in sequence:
                node = node.setdefault(int(token), {})
            if node is self._root:
                raise InvalidParams("allowed", "holds an empty text")
            self._complete.add(id(node))
        if not self._root:
            raise InvalidParams("allowed", "must hold at least one text")

    @classmethod
    def of_texts(cls, texts: Iterable[str], tokenizer: Tokenizer) -> TokenTrie:
        return cls(tokenizer.encode(text) for text in texts)

    def follow(self, generated: Sequence[int]) -> tuple[list[int], bool]:
        """The ids that may come next, and whether `generated` is complete as it stands."""
        node = self._root
        for token in generated:
            if token not in node:
                raise InvalidParams("allowed", f"no allowed text continues with token {token}")
            node = node[token]
        return sorted(node), id(node) in self._complete


class FollowTrie:
    """Keeps the output on a trie; a complete sequence that could go on may also end with a stop token."""

    def __init__(self, trie: TokenTrie, stop_ids: Sequence[int]) -> None:
        self.trie = trie
        self.stop_ids = list(stop_ids)

    def __call__(self, generated: Sequence[int], logits: np.ndarray) -> np.ndarray:
        following, complete = self.trie.follow(generated)
        return only(following + (self.stop_ids if complete else []), logits)

    def finished(self, generated: Sequence[int]) -> bool:
        """Nothing can follow."""
        return not self.trie.follow(generated)[0]


def only(ids: Sequence[int] | np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The logits with everything but these ids forbidden."""
    kept = np.full_like(logits, -np.inf)
    kept[ids] = logits[ids]
    return kept


def same_tokenizer(first: Tokenizer, second: Tokenizer) -> None:
    """Raise `Unmet` unless every id means the same token in both (for draft models, guidance, merging)."""
    if first.digest != second.digest:
        raise Unmet(
            "the two models have different tokenizers, so their token ids cannot be mixed: use models of one family",
            metadata={"first": first.digest, "second": second.digest},
        )
