"""Golden cases: one JSON file a paper, read from here or from `PICKAXE_GOLDEN_DIR`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILES = HERE / "files"
"""Larger inputs that golden files name; they do not move with `PICKAXE_GOLDEN_DIR`."""


def directory() -> Path:
    return Path(os.environ.get("PICKAXE_GOLDEN_DIR", HERE / "data"))


def golden(name: str) -> Any:
    """The cases of e.g. "20-zip-fit"."""
    return json.loads((directory() / f"{name}.json").read_text(encoding="utf-8"))


def understood(case: dict[str, Any], *known: str) -> dict[str, Any]:
    """The case itself, once every key of it is one that the test looks at; fails otherwise."""
    unknown = set(case) - set(known)
    assert not unknown, f"golden case holds {sorted(unknown)}, this test understands {sorted(known)}"
    return case
