"""A prompt with contexts as token ids: the prefix that every context is read after, the contexts, the query."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from pickaxe import Message, Prompt, Sampling
from pickaxe.errors import DoesNotFit, InvalidItems, Unmet
from pickaxe.lm import Request, read_prompts
from pickaxe.randomness import generator

if TYPE_CHECKING:
    from pickaxe.lm import LM
    from pickaxe.tokenizers import Tokenizer
    from pickaxe_plugins.decoding.ape._method import Params


@dataclass(frozen=True)
class Asked:
    """Prompt number `row` of a call.  `places` are those of the contexts in `prompt.context`: empty ones are gone.

    `whole` is the prompt without contexts, read at once.
    """

    row: int
    prompt: Prompt
    prefix: list[int]
    contexts: list[list[int]]
    places: list[int]
    query: list[int]
    whole: list[int]
    sampling: Sampling

    @property
    def start(self) -> int:
        """Position of the first query token: after the prefix and the longest context."""
        return len(self.prefix) + max(map(len, self.contexts), default=0)

    @property
    def context_tokens(self) -> int:
        return sum(map(len, self.contexts))

    @property
    def warm_only(self) -> bool:
        return bool(self.prompt.fields.get("warm_only", False))


def position_ids(prefix: int, contexts: Sequence[int], query: int) -> np.ndarray:
    """Positions of prefix | contexts one after the other | query, by their lengths: all contexts begin at one."""
    end = prefix + max(contexts, default=0)
    parts = [np.arange(prefix), *(np.arange(prefix, prefix + length) for length in contexts)]
    return np.concatenate([*parts, np.arange(end, end + query)])


def read_asked(prompts: Sequence[Prompt], lm: LM, params: Params, seed: int) -> list[Asked]:
    """Raises `InvalidItems` for what is missing, and `DoesNotFit` where no room is left for contexts."""
    return [_read(request, lm, params) for request in read_prompts(prompts, lm, params, seed, "ape")]


def _read(request: Request, lm: LM, params: Params) -> Asked:
    prompt, row, sampling = request.prompt, request.row, request.sampling
    if not isinstance(warm := prompt.fields.get("warm_only", False), (bool, np.bool_)):
        raise InvalidItems(f"prompts[{row}].fields.warm_only", f"is {warm!r}; must be true or false")
    prefix, query = _prefix_and_query(prompt, row, lm)
    kept = {place: text for place, text in enumerate(_context_texts(prompt, row)) if text.strip()}
    contexts = lm.tokenizer.encode_batch([text + params.separator for text in kept.values()])
    if contexts:
        max_tokens, room = _limits(request, len(prefix) + len(query), lm, params)
        contexts = [ids[:room] for ids in contexts]
        own = generator(request.seed, *chain(*contexts))
        sampling = replace(sampling, max_tokens=max_tokens, seed=int(own.integers(2**63)))
    whole = [*prefix, *query] if "prefix" in prompt.fields else request.ids
    return Asked(row, prompt, prefix, contexts, list(kept), query, whole, sampling)


def _prefix_and_query(prompt: Prompt, row: int, lm: LM) -> tuple[list[int], list[int]]:
    tokenizer = lm.tokenizer
    given = prompt.fields.get("prefix")
    if prompt.messages:
        if given is not None:
            raise InvalidItems(f"prompts[{row}].fields.prefix", "goes with text: with messages, use a system message")
        prefix, query = around_user(tokenizer, prompt.messages, row)
        return prefix or [_start(tokenizer)], query
    if given is not None and not isinstance(given, str):
        raise InvalidItems(f"prompts[{row}].fields.prefix", f"is a {type(given).__name__}; must be text")
    start = _start(tokenizer)
    return [start, *tokenizer.encode(given or "")], tokenizer.encode(prompt.text or "") or [start]


def _start(tokenizer: Tokenizer) -> int:
    if tokenizer.bos_id is not None:
        return tokenizer.bos_id
    if not tokenizer.eos_ids:
        raise Unmet("the model's tokenizer names neither a start nor an end token, and ape begins with one")
    return tokenizer.eos_ids[0]


def around_user(tokenizer: Tokenizer, messages: Sequence[Message], row: int = 0) -> tuple[list[int], list[int]]:
    """Ids of a chat up to its first user message's content, and of the rest with the head of the answer.

    Special tokens in contents stay plain text.
    """
    first = next((place for place, turn in enumerate(messages) if turn.role == "user"), None)
    if first is None:
        raise InvalidItems(f"prompts[{row}].messages", "hold no user message: contexts are put before the first one")
    names = sorted((tokenizer.id_to_bytes(index).decode() for index in tokenizer.special_ids), key=len, reverse=True)
    # A text cannot hold its own hash: the fences mark special tokens in contents, and the place for contexts.
    fence = hashlib.sha256(repr(messages).encode("utf-8", "replace")).hexdigest()[:32]
    pattern = re.compile("|".join(map(re.escape, names)) or r"(?!)")
    turns = [
        replace(
            turn,
            content=(f"{fence}<>" if place == first else "")
            + pattern.sub(lambda match: f"{fence}<{names.index(match[0])}>", turn.content),
        )
        for place, turn in enumerate(messages)
    ]
    head, _, rest = tokenizer.chat(turns).partition(f"{fence}<>")

    def encoded(text: str) -> list[int]:
        parts = re.split(f"{fence}<([0-9]+)>", text)
        plain = (tokenizer.encode(names[int(part)]) for part in parts[1::2])
        parsed = (tokenizer.encode(part, parse_special=True) for part in parts[::2])
        return [*next(parsed), *chain.from_iterable(chain(*pair) for pair in zip(plain, parsed, strict=True))]

    return encoded(head), encoded(rest)


def _context_texts(prompt: Prompt, row: int) -> list[str]:
    texts = []
    for place, item in enumerate(prompt.context):
        if not isinstance(item.text, str):
            raise InvalidItems(f"prompts[{row}].context[{place}].text", f"is missing (item {item.id!r})")
        texts.append(item.text)
    return texts


def _limits(request: Request, used: int, lm: LM, params: Params) -> tuple[int, int]:
    """Most tokens of an answer, and of one context; without a wish, an answer leaves half of the room to contexts."""
    room = lm.context_length - used
    wanted = request.prompt.sampling.max_tokens
    max_tokens = min(params.max_tokens, max(1, room // 2)) if wanted is None else wanted
    left = room - max_tokens
    if left < 1:
        raise DoesNotFit(
            f"prompts[{request.row}]: {used} prompt tokens and {max_tokens} new ones leave nothing of the "
            f"{lm.context_length} of model {lm.name!r} to contexts: shorten the prompt or lower max_tokens",
            metadata={"prompt_tokens": used, "max_tokens": max_tokens, "context": lm.context_length},
        )
    return max_tokens, left if params.max_context_tokens is None else min(left, params.max_context_tokens)
