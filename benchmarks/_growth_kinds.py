"""How the two kinds of methods are run at a size: scorers fit and score, retrievers index and search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pickaxe
from benchmarks._growth_clock import Clock
from pickaxe import Item

Make = Callable[[int], Iterable[Item]]
Params = Callable[[], Mapping[str, Any]]

SMALL, MIDDLE, LARGE = ((10**low, 10 ** (low + 1), 10 ** (low + 2), 10 ** (low + 3)) for low in (1, 2, 3))


@dataclass(frozen=True)
class Growth:
    """A method, what it is given at each size, and how its stages grow by its card."""

    family: str
    inputs: str
    card: Mapping[str, str]
    """Of the time, by stage: a key of `GROWTH` in `_growth_table`."""
    run: Callable[[int, Path, Clock], None]
    """Makes inputs of that size (in that empty folder, what needs one) and measures each stage."""
    sizes: tuple[int, ...] = LARGE
    memory: str = "linear"
    """Of the highest memory, as the card says; "constant" where one batch is held besides what was fitted."""
    why: str = ""
    """Why the sizes end before a million."""


def scored(
    name: str, family: str, inputs: str, card: Mapping[str, str], items: Make, examples: Make | None = None,
    validation: Callable[[], Iterable[Item]] | None = None, params: Params = dict, **more: Any,
) -> Growth:  # fmt: skip
    """A scorer of `items(n)`, fitted on `examples(n)` first, if any; the fit counts where `card` has it."""

    def run(n: int, folder: Path, clock: Clock) -> None:
        given, handle = list(items(n)), pickaxe.scorer(name, **params())
        if examples is not None:
            shown = list(examples(n))
            held = None if validation is None else list(validation())
            with (clock if "fit" in card else Clock())("fit"):
                handle = handle.fit(shown, validation=held, out=folder / "fit")
        with clock("score"):
            for _ in handle.stream(given):
                pass

    return Growth(family, inputs, card, run, **more)


def searched(
    name: str, family: str, inputs: str, card: Mapping[str, str], documents: Make, queries: Callable[[], list[Item]],
    examples: Make | None = None, params: Params = dict, **more: Any,
) -> Growth:  # fmt: skip
    """A retriever of `documents(n)`, fitted on `examples(n)` first, if any; the fit counts where `card` has it."""

    def run(n: int, folder: Path, clock: Clock) -> None:
        given, asked, handle = list(documents(n)), queries(), pickaxe.retriever(name, **params())
        if examples is not None:
            shown = list(examples(n))
            with (clock if "fit" in card else Clock())("fit"):
                handle = handle.fit(shown, out=folder / "fit")
        with clock("index"):
            index = handle.index(given, out=folder / "index")
        with clock("search"):
            index.search(asked, 10)

    return Growth(family, inputs, card, run, **more)
