"""What several test modules of this folder share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pickaxe
from pickaxe import MethodRef, catalog

sys.path.insert(0, str(Path(__file__).parent))

from drag_cases import DOCUMENTS, EXAMPLES, Scripted


@pytest.fixture
def scripted() -> Iterator[type[Scripted]]:
    Scripted.prompts, Scripted.prefer, Scripted.obedient = [], (), True
    Scripted.say = staticmethod(lambda text: " Riga")
    with catalog.register(Scripted, "scripted", "decoder"):
        yield Scripted


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> MethodRef:
    path = tmp_path_factory.mktemp("index") / "index"
    pickaxe.retriever("chronicles").index(DOCUMENTS, out=path)
    return MethodRef(name="chronicles", artifact=str(path))


@pytest.fixture(scope="module")
def fitted(index: MethodRef, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("fit") / "fit"
    pickaxe.decoder("drag", model="draft", retriever=index, k=3, m=2).fit(EXAMPLES, out=path)
    return str(path)
