"""What travels between callers and methods: items in; scores, hits, rankings and chunks out.

Frozen dataclasses with NumPy inside; the same objects in process, in the command line and in the gRPC client.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, overload

import numpy as np

from pickaxe.errors import InvalidItems, Violation

Json: TypeAlias = Any
"""What `json.loads` returns."""

# ---------------------------------------------------------------- items


@dataclass(frozen=True, slots=True)
class Handle:
    """Something large that stays where it is: a checkpoint or a database.

    Over gRPC `name` is one that the operator listed; embedded users may give a path.
    """

    kind: Literal["checkpoint", "database"]
    name: str


FieldValue: TypeAlias = "str | tuple[str, ...] | list[str] | bool | int | float | np.ndarray | dict[str, Any] | Handle"
"""Text, texts, bool, int64, float64, tensor, struct (JSON object) or handle."""


def kind_of(value: object) -> str:
    """The name of a field value's kind, as declared in `InputField.kind`; "" when it is none of them."""
    match value:
        case bool() | np.bool_():
            return "bool"
        case int() | np.integer():
            return "int64"
        case float() | np.floating():
            return "float64"
        case str():
            return "text"
        case np.ndarray():
            return "tensor"
        case dict():
            return "struct"
        case Handle():
            return value.kind
        case list() | tuple() if all(isinstance(part, str) for part in value):
            return "texts"
    return ""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to score, index, search for or rerank.

    `fields` holds whatever else a method reads.  By convention `title` (text), `group` (text), `links` (texts)
    and `sections` (struct `{"sections": [[paragraph, …], …]}`) describe documents.
    """

    id: str
    text: str | None = None
    fields: Mapping[str, FieldValue] = field(default_factory=dict)

    def get(self, name: str) -> FieldValue | None:
        """The field, or the text for the name "text"; None when absent."""
        return self.text if name == "text" else self.fields.get(name)


class Items(Sequence[Item]):
    """A sequence of items that can stack one field of them all."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._items = items if isinstance(items, tuple) else tuple(items)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Items: ...
    def __getitem__(self, index: int | slice) -> Item | Items:
        return Items(self._items[index]) if isinstance(index, slice) else self._items[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Items) and self._items == other._items

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return f"Items({len(self._items)})"

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self._items]

    def texts(self) -> list[str]:
        """Every item's text.  Raises `InvalidItems` naming each item without one; empty texts are fine."""
        missing = [
            Violation(f"items[{row}].text", f"is missing (item {item.id!r})")
            for row, item in enumerate(self._items)
            if not isinstance(item.text, str)
        ]
        if missing:
            raise InvalidItems(missing)
        return [item.text for item in self._items if item.text is not None]

    def column(self, name: str) -> np.ndarray:
        """One field of all items, stacked: (n,) for scalars and text, (n, …) for tensors of equal shape.

        Raises `InvalidItems` naming the first item that lacks the field or whose shape differs.
        """
        values = [item.get(name) for item in self._items]
        for row, value in enumerate(values):
            if value is None:
                raise InvalidItems(f"items[{row}].fields.{name}", f"is missing (item {self._items[row].id!r})")
        shapes = [np.shape(value) if isinstance(value, np.ndarray) else () for value in values]
        for row, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise InvalidItems(
                    f"items[{row}].fields.{name}",
                    f"has shape {shape}, the first item has {shapes[0]} (item {self._items[row].id!r})",
                )
        if values and isinstance(values[0], np.ndarray):
            return np.stack(values)  # type: ignore[arg-type]
        if values and not isinstance(values[0], (bool, int, float, np.generic)):
            stacked = np.empty(len(values), object)
            stacked[:] = values
            return stacked
        return np.asarray(values)


# ---------------------------------------------------------------- declarations

DType = Literal["float32", "float64", "int64", "bool", "str"]


@dataclass(frozen=True, slots=True)
class Column:
    """A declared score column.  `direction` says what a user prefers; the primary column is always "higher"."""

    name: str
    doc: str
    dtype: DType = "float32"
    unit: str = ""
    direction: Literal["higher", "lower", "none"] = "higher"
    nullable: bool = False
    """Whether NaN (or "" in a str column) may say "no value"."""


@dataclass(frozen=True, slots=True)
class InputField:
    """An item field that a method reads; `kind` is one of `kind_of`'s names, "text" for `Item.text` too."""

    name: str
    kind: str
    doc: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class Example:
    """Small inputs on which a method shows what it does; used by docs, the conformance kit and `GetMethod`.

    With `ordered`, `items` come in the order the primary column should put them, best first.
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    items: tuple[Item, ...] = ()
    ordered: bool = False
    examples: tuple[Item, ...] = ()
    validation: tuple[Item, ...] = ()
    documents: tuple[Item, ...] = ()
    queries: tuple[Item, ...] = ()
    query: Item | None = None
    candidates: tuple[Item, ...] = ()
    prompts: tuple[Prompt, ...] = ()


# ---------------------------------------------------------------- scores


@dataclass(frozen=True, slots=True)
class Flag:
    """A soft failure: item `index` got no or a doubtful result, and why."""

    index: int
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A scored stretch of one item's text: characters [start, end)."""

    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Groups:
    """The same kind of table as the per-item columns, one row per group."""

    keys: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    schema: tuple[Column, ...] = ()


@dataclass(frozen=True)
class Timings:
    """Where the time of a served call went, in seconds, and how many items of other callers shared the run."""

    queued: float = 0.0
    ran: float = 0.0
    batched_with: int = 0


@dataclass(frozen=True)
class Scores:
    """The result of a scorer: typed per-item columns, and what belongs to groups or to the whole run.

    `columns` maps names to arrays of length n, the primary column first.
    """

    columns: Mapping[str, np.ndarray]
    groups: Groups | None = None
    summary: Mapping[str, Json] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()
    segments: tuple[tuple[Segment, ...], ...] = ()
    schema: tuple[Column, ...] = ()
    """The declared columns; filled in by the handle, methods leave it empty."""
    timings: Timings | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    @property
    def primary(self) -> np.ndarray:
        """The first column: higher means pick it."""
        return next(iter(self.columns.values()))

    def rows(self, start: int, stop: int) -> Scores:
        """The same result for items [start, stop) only; groups and summary stay with the whole run."""
        return replace(
            self,
            columns={name: values[start:stop] for name, values in self.columns.items()},
            flags=tuple(replace(flag, index=flag.index - start) for flag in self.flags if start <= flag.index < stop),
            segments=self.segments[start:stop],
            groups=None,
            summary={},
        )

    @staticmethod
    def concatenate(parts: Sequence[Scores]) -> Scores:
        """Per-item results of consecutive parts as one; at least one part."""
        if len(parts) == 1:
            return parts[0]
        flags: list[Flag] = []
        segments: list[tuple[Segment, ...]] = []
        start = 0
        for part in parts:
            flags += [replace(flag, index=flag.index + start) for flag in part.flags]
            segments += part.segments
            start += len(part)
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
        return replace(parts[0], columns=columns, flags=tuple(flags), segments=tuple(segments), groups=None, summary={})


# ---------------------------------------------------------------- hits and rankings


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of a document's text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One found document; `columns` holds further numbers, e.g. the scores of each stage."""

    id: str
    score: float
    columns: Mapping[str, float] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class SearchResults:
    """Hits per query, best first, and what the call used (model calls, tokens, seconds by stage …)."""

    results: tuple[tuple[Hit, ...], ...]
    usage: Mapping[str, float] = field(default_factory=dict)
    timings: Timings | None = None

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, row: int) -> tuple[Hit, ...]:
        return self.results[row]

    def __iter__(self) -> Iterator[tuple[Hit, ...]]:
        return iter(self.results)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate's place: its index in the given sequence, its id and score."""

    index: int
    id: str
    score: float


@dataclass(frozen=True)
class Ranking:
    """Candidates best first.  When fewer than asked are returned, `cut` says why.

    `scores` keeps one number per *given* candidate (NaN where the method gave none); `record` is a JSON-able
    report of the run, `usage` its counters.
    """

    ranked: tuple[Ranked, ...]
    scores: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    cut: str = ""
    usage: Mapping[str, float] = field(default_factory=dict)
    record: Mapping[str, Json] = field(default_factory=dict)
    timings: Timings | None = None

    def __len__(self) -> int:
        return len(self.ranked)

    def __iter__(self) -> Iterator[Ranked]:
        return iter(self.ranked)

    def __getitem__(self, row: int) -> Ranked:
        return self.ranked[row]

    @property
    def ids(self) -> list[str]:
        return [entry.id for entry in self.ranked]


# ---------------------------------------------------------------- decoding


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

    `context` holds documents for methods that read some; with `allowed`, the output is exactly one of these.
    """

    text: str | None = None
    messages: tuple[Message, ...] = ()
    context: tuple[Item, ...] = ()
    sampling: Sampling = Sampling()
    allowed: tuple[str, ...] = ()
    fields: Mapping[str, FieldValue] = field(default_factory=dict)


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


# ---------------------------------------------------------------- long work


@dataclass(frozen=True)
class Progress:
    """One step of a fit or an index; `total` 0 means unknown."""

    stage: str
    step: int = 0
    total: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
