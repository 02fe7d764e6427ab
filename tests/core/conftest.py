"""The handle of a method that answers whatever a test wants."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from any_method import Any_

import pickaxe
from pickaxe import catalog


@pytest.fixture
def handle() -> Iterator[Any]:
    """A function (role, answer) → the handle of a method that answers so."""
    with catalog.register(Any_, "any", "scorer", "retriever", "reranker", "decoder"):

        def make(role: str, answer: Any) -> Any:
            made = getattr(pickaxe, role)("any")
            made.opened.method.answer = answer if callable(answer) else lambda **_: answer
            return made

        yield make
