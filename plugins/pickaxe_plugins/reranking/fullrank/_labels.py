"""Complete listwise labels: what a listwise decoder is trained to write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from pickaxe import Call, Item, Items, Ranking
from pickaxe.data import FieldValue
from pickaxe.errors import InvalidItems
from pickaxe_plugins.reranking.fullrank._permutation import write_permutation
from pickaxe_plugins.reranking.fullrank._windows import complete_order


class Teacher(Protocol):
    """Anything that reranks a window, e.g. `pickaxe.reranker(…)`."""

    def rerank(self, query: Item, candidates: Items, *, call: Call | None = None) -> Ranking: ...


def label_text(initial: Sequence[str], final: Sequence[str]) -> str:
    """The target "[3] > [1] > …" of the final order, in the numbering of the initial one.

    Raises `InvalidItems` unless both hold the same ids, each once.
    """
    place = {name: row for row, name in enumerate(initial)}
    if len(place) < len(initial) or len(final) != len(initial) or set(final) != set(place):
        raise InvalidItems("final", "must hold the ids of the initial list, each once")
    return write_permutation([place[name] for name in final])


def build_labels(
    examples: Iterable[Item], teacher: Teacher, *, window: int = 20, step: int = 10, call: Call | None = None
) -> Iterator[Item]:
    """Each example (text = query, field `passages` = texts in their incoming order) with its label added.

    `permutation` (n,) int64 holds the places of the passages, best first; `target` the text to train on; `passes`
    how many passes it took.  The teacher sees at most `window` passages at a time.
    """
    for example in examples:
        texts = example.get("passages")
        if not isinstance(texts, (list, tuple)) or not texts:
            raise InvalidItems(f"example {example.id!r}", "needs the field passages: the texts to order")
        candidates = Items(Item(str(row), text) for row, text in enumerate(texts))

        def rank_window(rows: Sequence[int], example: Item = example, candidates: Items = candidates) -> list[int]:
            shown = Items(candidates[row] for row in rows)
            order = [entry.index for entry in teacher.rerank(example, shown, call=call)]
            order += [place for place in range(len(rows)) if place not in set(order)]
            return [rows[place] for place in order]

        order, passes = complete_order(rank_window, len(candidates), window, step)
        label: dict[str, FieldValue] = {
            "permutation": np.array(order, np.int64),
            "target": write_permutation(order),
            "passes": passes,
        }
        yield Item(example.id, example.text, {**example.fields, **label})
