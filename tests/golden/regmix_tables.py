"""The published tables of RegMix as items."""

from __future__ import annotations

import csv
from pathlib import Path

from golden import FILES

from pickaxe import Item


def table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Column names without the first, and the rows."""
    with path.open(newline="") as stream:
        (_, *names), *rows = csv.reader(stream)
    return names, rows


def runs(name: str, folder: str = "51-regmix") -> tuple[tuple[str, ...], list[Item]]:
    """Domains in the order of the file, and the runs of e.g. "train_1m" as items."""
    part, size = name.split("_")
    domains, mixtures = table(FILES / folder / f"{part}_mixture_{size}.csv")
    targets, losses = table(FILES / folder / f"{part}_pile_loss_{size}.csv")
    measured = {row[0]: dict(zip(targets, map(float, row[1:]), strict=True)) for row in losses}
    items = [
        Item(
            row[0], fields={"mixture": dict(zip(domains, map(float, row[1:]), strict=True)), "losses": measured[row[0]]}
        )
        for row in mixtures
    ]
    return tuple(domains), items
