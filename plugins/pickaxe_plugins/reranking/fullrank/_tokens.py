"""Prompts and orders as token ids: the same for training and for reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pickaxe import Message
from pickaxe.errors import Unmet
from pickaxe_plugins.reranking.fullrank._permutation import SEPARATOR

if TYPE_CHECKING:
    from pickaxe.tokenizers import Tokenizer


def prompt_ids(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The conversation by the model's template; a model without one reads plain text."""
    try:
        return tokenizer.encode_chat(messages)
    except Unmet:
        return tokenizer.encode("\n\n".join(turn.content for turn in messages) + "\n\n", add_special=True)


def first_ids(tokenizer: Tokenizer, n: int) -> list[list[int]]:
    """Tokens of each of n identifiers where it opens the answer."""
    return tokenizer.encode_batch([f"[{place + 1}]" for place in range(n)])


def later_ids(tokenizer: Tokenizer, n: int) -> list[list[int]]:
    """Tokens of each of n identifiers behind the separator."""
    return tokenizer.encode_batch([f"{SEPARATOR}[{place + 1}]" for place in range(n)])


def answer_length(tokenizer: Tokenizer, n: int) -> int:
    """At least the tokens of any order of n passages."""
    return sum(map(len, later_ids(tokenizer, n)))


def order_ids(tokenizer: Tokenizer, order: Sequence[int]) -> list[int]:
    """Tokens of a permutation of 0 … n - 1 as the model is to write it."""
    first, later = first_ids(tokenizer, len(order)), later_ids(tokenizer, len(order))
    return [token for rank, place in enumerate(order) for token in (later if rank else first)[place]]


def separator_id(tokenizer: Tokenizer) -> int:
    """The token that ends in ">" between two identifiers."""
    return tokenizer.encode(SEPARATOR.rstrip())[-1]
