"""Entry points of the installed distributions, read straight from their `*.dist-info/entry_points.txt`.

`importlib.metadata` would do, but its import alone (e-mail parser, zip files) takes as long as two bare Python
starts, and `pickaxe methods` promises to be quick.  Entry points in zipped distributions are not seen.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

_SUFFIXES = (".dist-info", ".egg-info")


@dataclass(frozen=True, slots=True)
class Point:
    """One entry point: a name in a group that stands for `module:attribute`."""

    group: str
    name: str
    value: str
    distribution: str
    version: str

    def load(self) -> Any:
        """Import the module and take the attribute."""
        module, _, attribute = self.value.partition(":")
        names = filter(None, attribute.split("."))
        return reduce(getattr, names, importlib.import_module(module.strip()))


def points(prefix: str) -> Iterator[Point]:
    """Entry points of all groups that start with `prefix`; of two installations the first on the path counts."""
    seen: set[str] = set()
    for directory in dict.fromkeys(sys.path):
        for folder in _metadata(directory or os.curdir):
            stem = os.path.basename(folder).rpartition(".")[0]
            name, _, version = stem.partition("-")
            distribution = name.replace("_", "-").replace(".", "-").lower()
            if distribution not in seen:
                seen.add(distribution)
                yield from _read(folder, prefix, distribution, version)


def _metadata(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as found:
            return sorted(entry.path for entry in found if entry.name.endswith(_SUFFIXES))
    except OSError:  # the path may name folders that are not there, and zip files
        return []


def _read(folder: str, prefix: str, distribution: str, version: str) -> Iterator[Point]:
    try:
        with open(os.path.join(folder, "entry_points.txt"), encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except OSError:  # most distributions have none
        return
    group = ""
    for line in map(str.strip, lines):
        if line.startswith("["):
            group = line.strip("[]").strip()
        elif group.startswith(prefix) and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield Point(group, name.strip(), value.partition("[")[0].strip(), distribution, version)
