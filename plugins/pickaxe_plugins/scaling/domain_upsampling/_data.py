"""Documents as token streams, and benchmarks as rows to be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pickaxe import Item
from pickaxe.errors import InvalidItems
from pickaxe.randomness import generator
from pickaxe.tokenizers import Tokenizer

END = 0
"""The token before every document: `vocabulary.learn` gives it this id."""


@dataclass(frozen=True)
class Document:
    domain: str
    group: str
    text: str


def documents(items: Iterable[Item]) -> list[Document]:
    """Texts with their domain and group; raises `InvalidItems` for a domain in two groups."""
    found: list[Document] = []
    groups: dict[str, str] = {}
    for row, item in enumerate(items):
        domain, group = str(item.get("domain")), str(item.get("group") or item.get("domain"))
        if groups.setdefault(domain, group) != group:
            raise InvalidItems(
                f"examples[{row}].fields.group",
                f"is {group!r}, domain {domain!r} was in {groups[domain]!r} before (item {item.id!r})",
            )
        found.append(Document(domain, group, item.text or ""))
    return found


class Streams:
    """The tokens of every domain, documents in one seeded order, read in sequences round and round."""

    def __init__(self, tokens: Sequence[Sequence[np.ndarray]], length: int, seed: int) -> None:
        """`tokens[d]` are the documents of domain d, each beginning with END."""
        self.length = length
        self._streams = []
        for domain, texts in enumerate(tokens):
            order = generator(seed, "domain-upsampling", "order", domain).permutation(len(texts))
            self._streams.append(np.concatenate([texts[place] for place in order]))

    def batch(self, domains: np.ndarray, ordinals: np.ndarray) -> np.ndarray:
        """Sequences (B, length + 1) int32: the `ordinals[b]`-th one of domain `domains[b]`."""
        rows = np.empty((len(domains), self.length + 1), np.int32)
        steps = np.arange(self.length + 1)
        for row, (domain, ordinal) in enumerate(zip(domains.tolist(), ordinals.tolist(), strict=True)):
            stream = self._streams[domain]
            rows[row] = stream[(ordinal * self.length + steps) % len(stream)]
        return rows


@dataclass(frozen=True)
class Benchmark:
    """Rows that a model reads: `ids` (R, length + 1), `weights` (R, length) 1 where the next token counts.

    "loss": the mean over those tokens, in nats, lower is better.  "choice": `parts` (R,) numbers the question of
    each row, `right` (R,) marks the right one; the share of questions whose right choice has the highest mean log-prob.
    """

    name: str
    kind: Literal["loss", "choice"]
    ids: np.ndarray
    weights: np.ndarray
    parts: np.ndarray
    right: np.ndarray

    @property
    def sign(self) -> int:
        return 1 if self.kind == "choice" else -1

    def value(self, logprobs: np.ndarray) -> float:
        """From the summed log-probs (R,) of the tokens that count."""
        counts = self.weights.sum(1)
        if self.kind == "loss":
            return float(-logprobs.sum() / counts.sum())
        means = logprobs / counts
        questions = np.unique(self.parts)
        hits = [bool(self.right[rows][np.argmax(means[rows])]) for rows in (self.parts == q for q in questions)]
        return float(np.mean(hits))


def benchmarks(items: Iterable[Item], tokenizer: Tokenizer, length: int) -> list[Benchmark]:
    """The validation items by their field `benchmark`, in the order of names; raises `InvalidItems`."""
    gathered: dict[str, list[tuple[int, Item]]] = {}
    for row, item in enumerate(items):
        gathered.setdefault(str(item.get("benchmark") or item.get("domain") or "validation"), []).append((row, item))
    if not gathered:
        raise InvalidItems("validation", "is empty: give texts, or questions with `choices`, with a field `benchmark`")
    return [_benchmark(name, gathered[name], tokenizer, length) for name in sorted(gathered)]


def _benchmark(name: str, members: Sequence[tuple[int, Item]], tokenizer: Tokenizer, length: int) -> Benchmark:
    asked = {item.get("choices") is not None for _, item in members}
    if len(asked) > 1:
        raise InvalidItems(f"validation[{members[0][0]}]", f"benchmark {name!r} mixes texts and questions with choices")
    rows: list[tuple[list[int], int, int, bool]] = []  # ids, first that counts, question, right
    for row, item in members:
        if asked == {True}:
            rows += _choices(item, row, tokenizer, length)
        else:
            ids = [END, *tokenizer.encode(item.text or "")]
            rows += [(ids[start : start + length + 1], 1, row, False) for start in range(0, len(ids) - 1, length)]
    if not rows:
        raise InvalidItems(f"validation[{members[0][0]}].text", f"benchmark {name!r} has no text at all")
    table, weights = np.zeros((len(rows), length + 1), np.int32), np.zeros((len(rows), length), np.float32)
    for place, (ids, first, _, _) in enumerate(rows):
        table[place, : len(ids)] = ids
        weights[place, first - 1 : len(ids) - 1] = 1
    parts, right = np.array([each[2] for each in rows]), np.array([each[3] for each in rows])
    return Benchmark(name, "choice" if asked == {True} else "loss", table, weights, parts, right)


def _choices(item: Item, row: int, tokenizer: Tokenizer, length: int) -> list[tuple[list[int], int, int, bool]]:
    """A row a choice: the end of the question as far as there is room, then the choice."""
    choices, answer = item.get("choices"), item.get("answer")
    if not isinstance(choices, (list, tuple)) or len(choices) < 2:
        raise InvalidItems(f"validation[{row}].fields.choices", f"must be two texts or more (item {item.id!r})")
    if not isinstance(answer, (int, np.integer)) or not 0 <= answer < len(choices):
        raise InvalidItems(
            f"validation[{row}].fields.answer", f"is {answer!r}, wanted 0 to {len(choices) - 1} (item {item.id!r})"
        )
    question, rows = [END, *tokenizer.encode(item.text or "")], []
    for place, choice in enumerate(choices):
        ids = tokenizer.encode(str(choice))[:length]
        if not len(ids):
            raise InvalidItems(f"validation[{row}].fields.choices[{place}]", f"is empty (item {item.id!r})")
        kept = question[-(length + 1 - len(ids)) :]
        rows.append(([*kept, *ids], len(kept), row, place == answer))
    return rows


def by_domain(found: Sequence[Document], tokenizer: Tokenizer) -> Mapping[str, list[np.ndarray]]:
    """Domain -> its documents as ids, END first; domains in the order of their names."""
    tokens: dict[str, list[np.ndarray]] = {name: [] for name in sorted({each.domain for each in found})}
    for each in found:
        tokens[each.domain].append(np.array([END, *tokenizer.encode(each.text)], np.int32))
    return tokens
