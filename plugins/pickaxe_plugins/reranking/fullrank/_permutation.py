"""Reading an order out of what a model wrote, and writing one down."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

SEPARATOR = " > "


@dataclass(frozen=True)
class Parsed:
    """A permutation of 0 … n - 1, and what had to be mended to get it."""

    order: tuple[int, ...]
    missing: int = 0
    """Identifiers that were not written and were appended in their incoming order."""
    repeated: int = 0
    out_of_range: int = 0

    @property
    def sound(self) -> bool:
        """The text was a permutation as it stood."""
        return not (self.missing or self.repeated or self.out_of_range)


def parse_permutation(text: str, n: int) -> Parsed:
    """The order that `text` names by the identifiers 1 … n; never fails.

    Every run of digits, of any script, is an identifier and everything else separates.  The first mention counts.
    Runs that are no whole number (such as "²") leave the order as it was.
    """
    runs = ["".join(run) for digits, run in itertools.groupby(text, str.isdigit) if digits]
    try:
        named = [int(run) - 1 for run in runs]
    except ValueError:
        return Parsed(tuple(range(n)), missing=n)
    inside = [place for place in named if 0 <= place < n]
    order = list(dict.fromkeys(inside))
    rest = [place for place in range(n) if place not in set(order)]
    return Parsed((*order, *rest), len(rest), len(inside) - len(order), len(named) - len(inside))


def write_permutation(order: Sequence[int]) -> str:
    """The text of an order of 0 … n - 1: "[2] > [1] > …", identifiers from 1."""
    return SEPARATOR.join(f"[{place + 1}]" for place in order)
