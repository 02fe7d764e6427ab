"""Real and synthetic documents in one stream, balanced by tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

Origin = Literal["real", "synthetic"]


def mixed(
    real: Sequence[int], synthetic: Sequence[int], ratio: tuple[float, float] = (1, 1)
) -> Iterator[tuple[Origin, int]]:
    """Sides and places of the documents in the order of the mix, given their tokens; ratio is real to synthetic.

    The next document is real if real tokens so far * synthetic share <= synthetic tokens so far * real share, else
    synthetic.  It ends as soon as either side has none left; at 1:1 the sides then never differ by more than the
    longest document.
    """
    place = {"real": 0, "synthetic": 0}
    tokens = {"real": 0, "synthetic": 0}
    while place["real"] < len(real) and place["synthetic"] < len(synthetic):
        origin: Origin = "real" if tokens["real"] * ratio[1] <= tokens["synthetic"] * ratio[0] else "synthetic"
        index = place[origin]
        yield origin, index
        place[origin] += 1
        tokens[origin] += (real if origin == "real" else synthetic)[index]


def interleaved(tokens: Sequence[int], kinds: Sequence[str], weights: Mapping[str, float]) -> list[int]:
    """Places of documents of several kinds so that the kinds' tokens go by their weights (1 where none is given).

    The next document is of the kind with the fewest tokens so far for its weight, the one met first among equals;
    documents of one kind keep their order.  Kinds that have none left drop out.
    """
    queues: dict[str, list[int]] = {}
    for place, kind in enumerate(kinds):
        queues.setdefault(kind, []).append(place)
    used = dict.fromkeys(queues, 0.0)
    heads = dict.fromkeys(queues, 0)
    order = []
    for _ in tokens:
        kind = min((kind for kind in queues if heads[kind] < len(queues[kind])), key=lambda kind: used[kind])
        place = queues[kind][heads[kind]]
        order.append(place)
        heads[kind] += 1
        used[kind] += tokens[place] / weights.get(kind, 1.0)
    return order
