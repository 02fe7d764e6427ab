"""What can be relied on in a decoder graph that somebody else exported: found out by running it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

TOKENS = 6
"""Of each of the two texts that a graph is tried with."""
SAME = {False: 1e-3, True: 2e-2}
"""By whether it computes in half precision: distance, as a share of the logits' size, that rounding may make."""
ALIKE = 0.2
"""The same between two ways to read a text of which one also rounds its activations to 8 bits."""


class Run(Protocol):
    """One run of a graph: see `ExportedNetwork.run`."""

    def __call__(
        self, ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, past: list[np.ndarray]
    ) -> tuple[np.ndarray | None, list[np.ndarray]]: ...


@dataclass(frozen=True)
class Habits:
    """How a graph behaves.

    `rows`: which rows may share a run without getting other logits than alone: "any" (slots can be masked, whatever
    the lengths), those of "like" length (fused attention that only counts its mask), or none, each "alone"
    (activations quantised with one scale for the whole batch).  `pieces`: several tokens at a time can be read
    on top of a past.  `positions`: `position_ids` are heeded.
    """

    rows: Literal["any", "like", "alone"]
    pieces: bool
    positions: bool


def try_out(run: Run, nothing: list[np.ndarray], vocab: int, half: bool) -> Habits | None:
    """Read two short texts in several ways that should all come to the same.

    `nothing`: keys and values (1, heads, 0, size) of no tokens.  None for a graph that does not go on from the keys
    and values that it gave.
    """
    trial = _Trial(run, nothing, np.random.default_rng(0).integers(0, vocab, (2, 1, TOKENS)), SAME[half])
    if not trial.goes_on():
        return None
    pieces = trial.reads_pieces()
    return Habits(trial.rows(pieces), pieces, trial.heeds_positions())


@dataclass
class _Trial:
    run: Run
    nothing: list[np.ndarray]
    texts: np.ndarray
    """(2, 1, TOKENS)"""
    same: float

    def goes_on(self) -> bool:
        return self._continues(TOKENS - 1)

    def reads_pieces(self) -> bool:
        return self._continues(2)

    def _continues(self, start: int) -> bool:
        """Whether the text gets the same logits in two pieces as in one."""
        text = self.texts[0]
        _, past = self._read(text[:, :start])
        return _near(self._read(text[:, start:], past)[0], self._read(text)[0][:, start:], ALIKE)

    def rows(self, pieces: bool) -> Literal["any", "like", "alone"]:
        count = 2 if pieces else 1
        if self._share(TOKENS - count, 1, count):
            return "any"
        return "like" if self._share(TOKENS - count, TOKENS - count, count) else "alone"

    def heeds_positions(self) -> bool:
        text = self.texts[0]
        apart = np.arange(TOKENS)[None] + (np.arange(TOKENS) >= 2)
        return not _near(self._read(text, positions=apart)[0], self._read(text)[0], self.same)

    def _share(self, first: int, second: int, count: int) -> bool:
        """Whether `count` tokens after so many of each text get the same logits in one run as in two.

        Slots that the second text does not use hold keys and values of the first.
        """
        long, short = self.texts
        pasts = [self._read(text[:, :length])[1] for text, length in ((long, first), (short, second))]
        ids = [text[:, length : length + count] for text, length in ((long, first), (short, second))]
        alone = np.concatenate([self._read(new, past)[0] for new, past in zip(ids, pasts, strict=True)])
        filled = [np.concatenate([of_long, of_long]) for of_long in pasts[0]]
        for both, of_short in zip(filled, pasts[1], strict=True):
            both[1:, :, :second] = of_short
        return _near(self._read(np.concatenate(ids), filled, np.array([first, second]))[0], alone, self.same)

    def _read(
        self,
        ids: np.ndarray,
        past: list[np.ndarray] | None = None,
        lengths: np.ndarray | None = None,
        positions: np.ndarray | None = None,
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        past = self.nothing if past is None else past
        width = past[0].shape[2]
        lengths = np.full(len(ids), width) if lengths is None else lengths
        mask = np.ones((len(ids), width + ids.shape[1]), np.int64)
        mask[:, :width] = np.arange(width) < lengths[:, None]
        counted = lengths[:, None] + np.arange(ids.shape[1])
        logits, present = self.run(ids, mask, counted if positions is None else positions, past)
        assert logits is not None
        return logits, present


def _near(found: np.ndarray, expected: np.ndarray, share: float) -> bool:
    distance, size = np.square(found - expected).mean(), np.square(expected - expected.mean()).mean()
    return bool(distance <= share**2 * size)
