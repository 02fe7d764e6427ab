"""The method under test with its example, opened through one door: this process or a server."""

from __future__ import annotations

import functools
import inspect
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from pickaxe import catalog
from pickaxe.data import Example, Item
from pickaxe.hooks import implemented
from pickaxe.host import Host
from pickaxe.method import Method
from pickaxe.testing.check import require

Door = Callable[[str, str, Mapping[str, Any], "str | None"], Any]
"""(name, role, parameters, artifact) → handle."""


@functools.cache
def kit_host() -> Host:
    """The host of all local checks: models are opened once for the whole run."""
    return Host(state=kit_folder() / "state")


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pickaxe-check-")


def kit_folder() -> Path:
    """A fresh folder that stays until this process ends."""
    return Path(tempfile.mkdtemp(dir=_folder().name))


class Subject:
    """A method class under a name, with the roles it fills, its example and what was made from that."""

    def __init__(self, name: str, kind: type[Method[Any]], roles: Sequence[str], *, installed: bool) -> None:
        self.name, self.kind, self.roles, self.installed = name, kind, tuple(roles), installed
        self._artifacts: dict[str, str] = {}
        self._scratches: list[Path] = []
        self._outcomes: dict[str, Any] = {}
        self.fit_steps = 0
        """How often the first fit told its progress."""

    @classmethod
    def of(cls, method: str | type[Method[Any]]) -> Subject:
        """By name from the catalogue, or a class that is offered for as long as a check runs."""
        if isinstance(method, str):
            return cls(method, catalog.load(method), catalog.roles(method), installed=True)
        hooks = implemented(method)
        roles = tuple(role for role, hook in catalog.ROLE_HOOK.items() if hook in hooks)
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", method.__name__).lower()
        return cls(name, method, roles, installed=False)

    def offered(self) -> AbstractContextManager[None]:
        """The block in which the catalogue knows the method."""
        return nullcontext() if self.installed else catalog.register(self.kind, self.name, *self.roles)

    @property
    def target(self) -> str:
        """What another process loads: the name, or `file.py:Class`."""
        return self.name if self.installed else f"{inspect.getsourcefile(self.kind)}:{self.kind.__qualname__}"

    @property
    def example(self) -> Example:
        return self.kind.example()

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.example.params)

    @property
    def trainable(self) -> bool:
        return "fit" in implemented(self.kind)

    def reads(self, kind: str, *fields: str) -> bool:
        """Whether the method reads a field of that kind (and name)."""
        return any(each.kind == kind and (not fields or each.name in fields) for each in self.kind.reads)

    # ------------------------------------------------------------ opening

    def door(self, name: str, role: str, params: Mapping[str, Any], artifact: str | None) -> Any:
        return kit_host().open(name, role, params, artifact)

    def open(self, role: str, artifact: str | None = None, **params: Any) -> Any:
        """A handle with the example's parameters."""
        return self.door(self.name, role, {**self.params, **params}, artifact)

    def ask(self, role: str, **params: Any) -> None:
        """Whatever makes this door look at the parameters."""
        self.open(role, None, **params)

    def handle(self, role: str) -> Any:
        """A handle that can answer: fitted and indexed on the example where the role needs it."""
        return self.open(role, self.artifact(role))

    def artifact(self, role: str) -> str | None:
        """The artifact that the role's example runs on: an index, a fit or none.  Made once."""
        if role == "retriever":
            return self._once("index", self._index)
        return self.fitted()

    def fitted(self) -> str | None:
        """The artifact of a fit on the example, for methods that use one."""
        if not self.trainable or self.kind.fitted == "never" or not self.example.examples:
            return None
        return self.first_fit()

    def first_fit(self) -> str:
        """The artifact of a fit on the example, made once: whoever changes it works on a copy."""
        return self._once("fit", self._first_fit)

    def _first_fit(self) -> str:
        path = self.scratch()
        self.fit_steps = sum(1 for _ in self.fitting(path))
        return str(path)

    def fit(self) -> str:
        """Fit on the example anew; the path of the artifact."""
        path = self.scratch()
        for _ in self.fitting(path):
            pass
        return str(path)

    def fitting(self, out: Path, *, example: Example | None = None, **options: Any) -> Iterator[Any]:
        """The progress of a fit on the example (or another) into `out`."""
        example = example or self.example
        handle = kit_host().open(self.name, self.roles[0], self.params)
        yield from handle.fitting(example.examples, out, validation=example.validation or None, **options)

    def _index(self) -> str:
        path = self.scratch()
        handle = kit_host().open(self.name, "retriever", self.params, self.fitted())
        for _ in handle.indexing(self.example.documents, path):
            pass
        return str(path)

    def _once(self, key: str, make: Callable[[], str]) -> str:
        if key not in self._artifacts:
            self._artifacts[key] = make()
        return self._artifacts[key]

    def scratch(self) -> Path:
        """A path in a fresh folder where nothing is yet; the folder leaves with the check that asked for it."""
        folder = kit_folder()
        self._scratches.append(folder)
        return folder / "artifact"

    def examine(self, check: Callable[[Any], None]) -> None:
        """Run one check, and drop what it made, but for the artifacts that later checks use again."""
        try:
            with self.offered():
                check(self)
        finally:
            self.tidy()

    def tidy(self) -> None:
        """Drop the folders of `scratch` that hold no artifact made once for all checks."""
        kept = {Path(path).parent for path in self._artifacts.values()}
        for folder in self._scratches:
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)
        self._scratches = [folder for folder in self._scratches if folder in kept]

    # ------------------------------------------------------------ answers

    def outcome(self, role: str) -> Any:
        """What the role answers on the example; asked once."""
        if role not in self._outcomes:
            self._outcomes[role] = answer(self.handle(role), role, self.example)
        return self._outcomes[role]


def answer(handle: Any, role: str, example: Example, **options: Any) -> Any:
    """What an opened method answers on an example."""
    match role:
        case "scorer":
            return handle.score(example.items, **options)
        case "retriever":
            return handle.search(example.queries, max(1, len(example.documents)), **options)
        case "reranker":
            return handle.rerank(example.query, example.candidates, **options)
        case "decoder":
            return handle.complete(example.prompts, **options)
    raise ValueError(f"no role is called {role!r}")


def enlarged(items: Sequence[Item], times: int) -> tuple[Item, ...]:
    """The items over and over, each with an id of its own."""
    return tuple(replace(item, id=f"{item.id}-{turn}") for turn in range(times) for item in items)


def with_text(item: Item, text: str) -> Item:
    """The item with another text."""
    require(item.text is not None, "the example's items have no text although the method reads one")
    return replace(item, text=text)


ODD_TEXTS = {
    "nul": "a\x00b",
    "right to left": "שלום עולם \u202eabc",
    "combining": "e\u0301\u0323 n\u0303 " + "\u0300" * 50,
    "emoji": "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🇪🇺",
    "blank": " \t\r\n\u00a0\u2028\u200b",
    "astral": "\U00010348 \U0010ffff \ufffe",
}
"""Texts that programs stumble over; all of them are valid UTF-8."""

LONG_TEXT = "The quick brown fox jumps over the lazy dog, again and again. " * 1650
"""About 100 kB."""
