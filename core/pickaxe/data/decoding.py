"""What goes into decoders and comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pickaxe.data.items import FieldValue, Item, Json


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.  None leaves the choice to the method; temperature 0 is greedy."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to continue: `text` as it is, or `messages` through the model's chat template.

    `context` holds documents for methods that read some.  The output is exactly one of `allowed`, JSON text of a
    value that `json_schema` allows, or a text that `regex` matches as a whole, where one of them is given.
    """

    text: str | None = None
    messages: tuple[Message, ...] = ()
    context: tuple[Item, ...] = ()
    sampling: Sampling = Sampling()
    allowed: tuple[str, ...] = ()
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    json_schema: Mapping[str, Json] | None = None
    regex: str = ""


FinishReason = Literal["", "stop", "length", "abstain"]

WHOLE_PROMPT = -1
"""`Chunk.choice` of a record about all choices of a prompt together, e.g. which one was selected."""


@dataclass(frozen=True)
class Chunk:
    """A piece of one choice of one prompt.  Exactly one chunk per choice carries a finish reason.

    `logprobs` are the target model's natural-log probabilities of `token_ids`.
    """

    prompt: int = 0
    choice: int = 0
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    record: Mapping[str, Json] | None = None
    finish_reason: FinishReason = ""
    usage: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Completion:
    """All chunks of one choice put together."""

    prompt: int
    choice: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    records: tuple[Mapping[str, Json], ...]
    finish_reason: FinishReason
    usage: Mapping[str, float]


def completions(chunks: Iterable[Chunk]) -> list[Completion]:
    """The chunks of a decode call as whole completions, by prompt and choice; `WHOLE_PROMPT` records first."""
    gathered: dict[tuple[int, int], list[Chunk]] = {}
    for chunk in chunks:
        gathered.setdefault((chunk.prompt, chunk.choice), []).append(chunk)
    return [
        Completion(
            prompt,
            choice,
            "".join(part.text for part in parts),
            tuple(token for part in parts for token in part.token_ids),
            tuple(value for part in parts for value in part.logprobs),
            tuple(part.record for part in parts if part.record is not None),
            next((part.finish_reason for part in parts if part.finish_reason), ""),
            next((part.usage for part in reversed(parts) if part.usage), {}),
        )
        for (prompt, choice), parts in sorted(gathered.items())
    ]
