"""What decoders that run a language model have in common: their parameters, and prompts as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pickaxe.data import Prompt, Sampling
from pickaxe.errors import InvalidItems
from pickaxe.params import Params
from pickaxe.randomness import generator

if TYPE_CHECKING:
    from pickaxe.lm.lm import LM


class LMParams(Params):
    """Which model, and how it draws where a request does not say."""

    model: str = Field("lm", min_length=1, description="Alias or path of the causal language model.")
    precision: Literal["auto", "fp32", "fp16", "int8", "int4"] = Field(
        "auto",
        description="Precision of its weights; auto is as stored (int4 or int8) on a CPU, fp16 on a GPU.",
    )
    temperature: float = Field(1.0, ge=0, allow_inf_nan=False, description="Where the request has none; 0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Share of probability drawn from, where the request has none.")
    top_k: int = Field(0, ge=0, description="Most tokens drawn from, where the request has none; 0 is no limit.")
    max_tokens: int = Field(1024, ge=1, description="Most tokens of a sample, where the request has no limit.")


@dataclass(frozen=True)
class Request:
    """Prompt number `row` of a call as token ids, with every open choice of sampling made.

    `sampling.seed` is keyed by the prompt too, so that two prompts of a call do not share their luck.
    """

    row: int
    prompt: Prompt
    ids: list[int]
    sampling: Sampling

    @property
    def seed(self) -> int:
        assert self.sampling.seed is not None
        return self.sampling.seed


def read_prompts(prompts: Sequence[Prompt], lm: LM, params: LMParams, seed: int, key: str) -> list[Request]:
    """The prompts of a call for a method whose random numbers go by `key`, its name.

    `max_tokens` that a request does not give is what params say, or less where the context ends before.  Raises
    `InvalidItems` for a prompt with neither text nor messages.
    """
    return [_read(prompt, row, lm, params, seed, key) for row, prompt in enumerate(prompts)]


def prompt_ids(prompt: Prompt, row: int, lm: LM) -> list[int]:
    """Token ids of a prompt's text or chat; of an empty text, the token that begins (or ends) a text."""
    if prompt.messages:
        ids = lm.tokenizer.encode_chat(prompt.messages)
    elif prompt.text is not None:
        ids = lm.tokenizer.encode(prompt.text, add_special=True)
    else:
        raise InvalidItems(f"prompts[{row}]", "has neither text nor messages")
    return ids or [lm.tokenizer.eos_ids[0] if lm.tokenizer.bos_id is None else lm.tokenizer.bos_id]


def _read(prompt: Prompt, row: int, lm: LM, params: LMParams, seed: int, key: str) -> Request:
    ids, given = prompt_ids(prompt, row, lm), prompt.sampling
    room = max(1, lm.context_length - len(ids))
    own = generator(seed if given.seed is None else given.seed, key, *ids)
    sampling = Sampling(
        max_tokens=min(params.max_tokens, room) if given.max_tokens is None else given.max_tokens,
        temperature=params.temperature if given.temperature is None else given.temperature,
        top_p=params.top_p if given.top_p is None else given.top_p,
        top_k=params.top_k if given.top_k is None else given.top_k,
        stop=given.stop,
        seed=int(own.integers(2**63)),
        n=given.n,
    )
    return Request(row, prompt, ids, sampling)
