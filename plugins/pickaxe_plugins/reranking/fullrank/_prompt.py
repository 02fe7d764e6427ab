"""The listwise prompt: passages with identifiers, the query before and after, cut until it all fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pickaxe import Item, Message
from pickaxe.errors import DoesNotFit
from pickaxe_plugins.reranking.fullrank._permutation import write_permutation

SYSTEM = "You are an expert who orders passages by how relevant they are to a search query."

_IDENTIFIER = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True)
class Listwise:
    """A prompt for n passages and the words that each was cut to."""

    messages: tuple[Message, ...]
    tokens: int
    max_passage_len: int


def neutral(text: str) -> str:
    """The text with "[12]" as "(12)", so that nothing in it reads like an identifier."""
    return _IDENTIFIER.sub(r"(\1)", text)


def passage(item: Item) -> str:
    """What is ranked: the title, if there is one, and the text."""
    title = item.get("title")
    return f"{title} {item.text or ''}" if isinstance(title, str) and title else item.text or ""


def listwise_messages(query: str, passages: Sequence[str], max_passage_len: int) -> tuple[Message, ...]:
    """The conversation that asks for the order of the passages, each cut to so many words."""
    asked, n = neutral(query), len(passages)
    lines = "\n".join(
        f"[{row}] {' '.join(neutral(text).split()[:max_passage_len])}" for row, text in enumerate(passages, 1)
    )
    content = (
        f"Below are {n} passages, each behind its identifier in brackets. Order them by their relevance to the "
        f"search query: {asked}\n\n{lines}\n\nSearch query: {asked}\n"
        f"List the identifiers of all {n} passages, the most relevant first, as in [2] > [1] > [3], and nothing else."
    )
    return Message("system", SYSTEM), Message("user", content)


def fitted(
    query: str,
    passages: Sequence[str],
    max_passage_len: int,
    context: int | None,
    prompt_tokens: Callable[[Sequence[Message]], int],
    output_tokens: Callable[[int], int],
) -> Listwise:
    """The prompt with the longest passages, up to `max_passage_len` words, that fit the context with the output.

    `output_tokens(n)` says how many tokens the order of n passages takes.  Raises `DoesNotFit` with the largest
    number of passages that would, when even no words at all are too many.
    """
    n, words = len(passages), max_passage_len
    while True:
        messages = listwise_messages(query, passages, words)
        tokens = prompt_tokens(messages)
        overflow = 0 if context is None else tokens + output_tokens(n) - context
        if overflow <= 0:
            return Listwise(messages, tokens, words)
        if words == 0:
            break
        words = max(0, words - max(1, overflow // (4 * n)))
    assert context is not None
    largest = _largest(lambda m: prompt_tokens(listwise_messages(query, [""] * m, 0)) + output_tokens(m) <= context, n)
    raise DoesNotFit(
        f"{n} passages do not fit the context of {context} tokens even without their texts; at most {largest} do: "
        "pass fewer candidates or use strategy='sliding' with a smaller window",
        metadata={"candidates": n, "largest": largest, "context": context},
    )


def _largest(fits: Callable[[int], bool], above: int) -> int:
    """The largest number below `above` that fits; 0 when none does.  What fits, fits with fewer too."""
    low, high = 0, above
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def output_text(n: int) -> str:
    """The form that every order of n passages takes."""
    return write_permutation(range(n))
