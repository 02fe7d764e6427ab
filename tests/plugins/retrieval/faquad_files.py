"""FaQuAD: questions in Portuguese, the passages that answer them, and embeddings of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILES = Path(__file__).parents[2] / "golden" / "files" / "30-faquad-pt"


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FILES / name).read_text(encoding="utf-8").splitlines()]
