"""The mix on disk: documents of both origins, their order, and the shards."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, get_args

import numpy as np

import pickaxe
from pickaxe import ArtifactWriter, Call, Item, Progress
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.io.items import item_to_json
from pickaxe_plugins.generation.wrap._chunks import Count
from pickaxe_plugins.generation.wrap._mix import Origin, interleaved, mixed

ORIGINS: tuple[Origin, ...] = get_args(Origin)
Place = tuple[Origin, int]
"""Which side, and which of its documents, counted from 0 as they were read."""


@dataclass(frozen=True)
class Plan:
    """How to mix.  `seed` None keeps the order of the documents; `weights` go by style."""

    ratio: tuple[float, float]
    epochs: int
    seed: int | None
    weights: Mapping[str, float]
    shard_tokens: int
    most_tokens: int | None


@dataclass
class Side:
    """What is known of the documents of one origin; their texts lie in the pools' file."""

    offsets: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    left_out: int = 0

    def order(self, origin: Origin, plan: Plan) -> list[int]:
        """Documents of all epochs; synthetic ones balanced by style within each."""
        found: list[int] = []
        for epoch in range(plan.epochs):
            places = np.arange(len(self.tokens))
            if plan.seed is not None:
                places = pickaxe.generator(plan.seed, "wrap", "order", origin, epoch).permutation(places)
            tokens, styles = [self.tokens[place] for place in places], [self.styles[place] for place in places]
            found += [int(places[row]) for row in interleaved(tokens, styles, plan.weights)]
        return found


class Pools:
    """Documents of both origins, kept in a nameless file until they are mixed."""

    def __init__(self, folder: Path, count: Count) -> None:
        self.sides: dict[Origin, Side] = {origin: Side() for origin in ORIGINS}
        self._folder, self._count = folder, count
        self._ids: dict[str, int] = {}
        self._file: IO[bytes]

    def __enter__(self) -> Pools:
        self._file = tempfile.TemporaryFile(dir=self._folder)  # closed by __exit__
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, item: Item, row: int) -> None:
        """Keep one document; raises `InvalidItems` for one without origin or text."""
        origin, text = item.fields.get("origin"), item.text or ""
        if origin not in ORIGINS:
            raise InvalidItems(
                f"examples[{row}].fields.origin", f"is {origin!r} (item {item.id!r}): it must be real or synthetic"
            )
        side = self.sides["real" if origin == "real" else "synthetic"]
        if item.fields.get("keep") is False:
            side.left_out += 1
            return
        if not text.split():
            raise InvalidItems(
                f"examples[{row}].text", f"is empty (item {item.id!r}): leave it out, or give it keep = false"
            )
        side.offsets.append(self._file.tell())
        side.tokens.append(max(1, self._count(text)))
        side.styles.append(str(item.fields.get("style", "")) if origin == "synthetic" else "")
        self._file.write(json.dumps(item_to_json(item), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")

    def row(self, place: Place) -> dict[str, Any]:
        """A document as a JSON object."""
        origin, index = place
        self._file.seek(self.sides[origin].offsets[index])
        row: dict[str, Any] = json.loads(self._file.readline().decode("utf-8", "surrogatepass"))
        return row

    def tokens(self, place: Place) -> int:
        return self.sides[place[0]].tokens[place[1]]

    def order(self, plan: Plan) -> list[Place]:
        """Documents in the order of the mix; raises `InvalidItems` when a side is empty."""
        for origin, side in self.sides.items():
            if not side.tokens:
                raise InvalidItems("examples", f"hold no {origin} document to mix ({side.left_out} have keep = false)")
        orders = {origin: side.order(origin, plan) for origin, side in self.sides.items()}
        lengths = {origin: [side.tokens[place] for place in orders[origin]] for origin, side in self.sides.items()}
        found: list[Place] = []
        total = 0
        for origin, place in mixed(lengths["real"], lengths["synthetic"], plan.ratio):
            total += lengths[origin][place]
            if plan.most_tokens is not None and total > plan.most_tokens:
                break
            found.append((origin, orders[origin][place]))
        if not found:
            raise InvalidParams("mix_tokens", f"is {plan.most_tokens}, less than the {total} of the first document")
        return found


def write_shards(
    pools: Pools, order: Sequence[Place], plan: Plan, out: ArtifactWriter, call: Call
) -> Generator[Progress, None, None]:
    """Write `mix-00000.jsonl` …, `order.npy` (n, 2; 1 for synthetic, and the document) and the manifest `mix.json`."""
    shards = []
    for number, places in enumerate(_sharded(pools, order, plan.shard_tokens)):
        call.check()
        name = f"mix-{number:05}.jsonl"
        with out.file(name).open("wb") as stream:
            for place in places:
                row = pools.row(place) | {"tokens": pools.tokens(place)}
                line = json.dumps(row, ensure_ascii=False, sort_keys=True)  # fields lose their order over gRPC
                stream.write(line.encode("utf-8", "surrogatepass") + b"\n")
        shards.append({"file": name, **_summary(pools, places)})
        yield Progress("mix", sum(shard["documents"] for shard in shards), len(order))
    out.write_array(
        "order.npy", np.array([(origin == "synthetic", place) for origin, place in order], np.int64).reshape(-1, 2)
    )
    manifest = {
        **_summary(pools, order),
        "ratio": list(plan.ratio),
        "epochs": plan.epochs,
        "styles": _styles(pools, order),
        "given": {origin: len(side.tokens) for origin, side in pools.sides.items()},
        "left_out": {origin: side.left_out for origin, side in pools.sides.items()},
        "shards": shards,
    }
    out.write_json("mix.json", manifest)
    out.notes |= {name: manifest[name] for name in ("documents", "tokens", "left_out")}


def _sharded(pools: Pools, order: Sequence[Place], most: int) -> Iterator[list[Place]]:
    """Consecutive documents until they have `most` tokens."""
    shard: list[Place] = []
    tokens = 0
    for place in order:
        shard.append(place)
        tokens += pools.tokens(place)
        if tokens >= most:
            yield shard
            shard, tokens = [], 0
    if shard:
        yield shard


def _summary(pools: Pools, places: Sequence[Place]) -> dict[str, Any]:
    tokens = {origin: sum(pools.tokens(place) for place in places if place[0] == origin) for origin in ORIGINS}
    return {
        "documents": len(places),
        "tokens": sum(tokens.values()),
        **{f"{origin}_tokens": tokens[origin] for origin in ORIGINS},
    }


def _styles(pools: Pools, order: Sequence[Place]) -> dict[str, int]:
    """Tokens of the mix by style."""
    found: Counter[str] = Counter()
    for origin, place in order:
        if origin == "synthetic":
            found[pools.sides[origin].styles[place]] += pools.tokens((origin, place))
    return dict(sorted(found.items()))
