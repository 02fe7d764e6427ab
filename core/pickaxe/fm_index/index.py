"""The index itself: what it is made of, its files, its queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe.errors import ArtifactCorrupt, InvalidItems, InvalidParams
from pickaxe.fm_index.huffman import shape
from pickaxe.fm_index.suffixes import dense, transformed
from pickaxe.threads import shared_out

if TYPE_CHECKING:
    from pickaxe.artifact import Artifact, ArtifactWriter

Pattern = Sequence[int] | np.ndarray | bytes

SHARE = 512
"""Patterns or places below which one more core does not pay."""


@dataclass(frozen=True, eq=False)
class FMIndex:
    """An index of a text of n symbols, integers of at least 0.

    A range [low, high) stands for the suffixes of the text, in their order, that begin with some string; there are
    n + 1 of them, the empty one first.  Reading goes from right to left: `extend` puts a symbol before the string,
    and `preceding` names the symbols that can be put there.  Index a reversed text to read from left to right.
    """

    symbols: np.ndarray
    """int64 (s,): the distinct symbols, rising; number i + 1 stands for symbols[i], 0 for the end of the text."""
    smaller: np.ndarray
    """int64 (s + 2,): how many suffixes begin with a smaller number."""
    paths: np.ndarray
    depths: np.ndarray
    children: np.ndarray
    starts: np.ndarray
    """int64 (nodes,): where the bits of a node of the wavelet tree begin."""
    before: np.ndarray
    """int64 (nodes,): ones before that place."""
    words: np.ndarray
    """uint64: the bits of all nodes."""
    marks: np.ndarray
    """uint64: a one for each suffix whose start is kept."""
    samples: np.ndarray
    """uint32: these starts, divided by the step."""
    rows: np.ndarray
    """uint32: places of the suffixes from which stretches of the text are read."""
    steps: np.ndarray
    """int64 (3,): length of the text, text positions from one kept start to the next, and from one row to the next."""

    @classmethod
    def build(cls, text: Sequence[int] | np.ndarray | bytes, *, step: int = 64, stride: int = 512) -> FMIndex:
        """Index a text.

        `step`: `locate` walks half as many symbols on average, and n / step starts of 4 bytes are kept; `stride` is
        the same for `extract`.  Raises `InvalidItems` for negative symbols or more than 2^31 - 2 of them.
        """
        from pickaxe.fm_index import kernels

        if step < 1 or stride < 1:
            raise InvalidParams("step", f"is {step} with stride {stride}; both must be at least 1")
        symbols, numbers = dense(_array(text))
        made = transformed(numbers, step, stride)
        counts = np.concatenate([[1], np.bincount(numbers, minlength=len(symbols) + 1)[1:]]).astype(np.int64)
        tree = shape(counts)
        starts = np.concatenate([[0], np.cumsum(tree.sizes)[:-1]]).astype(np.int64)
        words = _room(int(tree.sizes.sum()), kernels)
        kernels.plant(words, made.transform, tree.paths, tree.depths, tree.children, starts)
        marks = _room(len(numbers) + 1, kernels)
        kernels.put_all(marks, made.marked)
        return cls(
            symbols=symbols,
            smaller=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            paths=tree.paths,
            depths=tree.depths,
            children=tree.children,
            starts=starts,
            before=np.array([kernels.ones(words, start) for start in starts.tolist()], np.int64),
            words=words,
            marks=marks,
            samples=made.starts,
            rows=made.rows,
            steps=np.array([len(numbers), step, stride], np.int64),
        )

    # ------------------------------------------------------------ files

    def save(self, out: ArtifactWriter, prefix: str = "fm_") -> None:
        """Write one `.npy` file for each part."""
        for each in fields(self):
            out.write_array(f"{prefix}{each.name}.npy", getattr(self, each.name))

    @classmethod
    def open(cls, artifact: Artifact, prefix: str = "fm_") -> FMIndex:
        """The index in an artifact, mapped into memory; raises `ArtifactCorrupt` where parts do not fit together."""
        index = cls.of({each.name: artifact.read_array(f"{prefix}{each.name}.npy") for each in fields(cls)})
        if not index._sound():
            raise ArtifactCorrupt(
                f"the full-text index in {str(artifact.path)!r} does not hold together: index the documents again",
                metadata={"artifact": artifact.path},
            )
        return index

    @classmethod
    def of(cls, parts: Mapping[str, np.ndarray]) -> FMIndex:
        """From arrays by name; those that are mapped stay so."""
        return cls(**{each.name: np.asarray(parts[each.name]) for each in fields(cls)})

    def _sound(self) -> bool:
        """Whether no query can run beyond an array."""
        nodes, size = len(self.children), len(self)
        return (
            self.steps.shape == (3,) and self.children.shape == (nodes, 2) and nodes == max(1, len(self.symbols))
            and len(self.starts) == len(self.before) == nodes and len(self.smaller) == len(self.symbols) + 2
            and len(self.paths) == len(self.depths) == len(self.symbols) + 1 and self.smaller[-1] == size + 1
            and len(self.samples) == size // self.steps[1] + 1 and len(self.rows) == size // self.steps[2] + 1
            and len(self.marks) * 56 >= size and len(self.words) * 56 >= self.starts[-1] + size
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Of all parts."""
        return sum(getattr(self, each.name).nbytes for each in fields(self))

    def __len__(self) -> int:
        """Symbols of the text."""
        return int(self.steps[0])

    # ------------------------------------------------------------ ranges

    @property
    def everything(self) -> tuple[int, int]:
        """The range of the empty string."""
        return 0, len(self) + 1

    def numbers(self, symbols: Sequence[int] | np.ndarray | bytes) -> np.ndarray:
        """int64: the index's own numbers of symbols; 0 for those that are not in the text."""
        given = _array(symbols).astype(np.int64)
        if not len(self.symbols):
            return np.zeros(given.shape, np.int64)
        places = np.minimum(np.searchsorted(self.symbols, given), len(self.symbols) - 1)
        return np.where(self.symbols[places] == given, places + 1, 0)

    def extend(
        self, low: np.ndarray | Sequence[int], high: np.ndarray | Sequence[int], symbols: np.ndarray | Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ranges (m,) of these strings with one symbol (m,) before each; (0, 0) where that does not occur."""
        first, last = _ranges(low, high, len(self))
        chosen = self.numbers(symbols)
        if chosen.shape != first.shape:
            raise InvalidParams("symbols", f"are {chosen.shape}, the ranges {first.shape}")
        self._kernels.narrow_all(*self._search, chosen, first, last)
        return first, last

    def find(self, patterns: Iterable[Pattern]) -> tuple[np.ndarray, np.ndarray]:
        """The ranges (m,) of m patterns; (0, 0) for those that do not occur, everything for empty ones."""
        rows = [_array(pattern) for pattern in patterns]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        flat = np.concatenate(rows) if rows else np.empty(0, np.int64)
        return self.find_packed(flat, offsets)

    def find_packed(self, flat: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same for patterns flat[offsets[i] : offsets[i + 1]]."""
        low = np.zeros(len(offsets) - 1, np.int64)
        high = np.full(len(offsets) - 1, len(self) + 1, np.int64)
        numbers, places, find = self.numbers(flat), np.asarray(offsets, np.int64), self._kernels.find_all

        def work(start: int, end: int) -> None:
            find(*self._search, numbers, places[start : end + 1], low[start:end], high[start:end])

        shared_out(work, len(low), SHARE)
        return low, high

    def count(self, patterns: Iterable[Pattern]) -> np.ndarray:
        """int64 (m,): how often each pattern occurs; an empty one n + 1 times."""
        low, high = self.find(patterns)
        return high - low

    def preceding(
        self, low: np.ndarray | Sequence[int], high: np.ndarray | Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The symbols that stand before the strings of these ranges (m,), and how often.

        Returns (symbols, counts, offsets): those of range i are [offsets[i], offsets[i + 1]), in no order.  The
        start of the text has nothing before it, so counts of a range sum to its size, or one less.
        """
        first, last = _ranges(low, high, len(self))
        offsets = np.zeros(len(first) + 1, np.int64)
        room = int(np.minimum(last - first, len(self.symbols) + 1).sum()) + 1
        numbers, counts = self._kernels.before_ranges(*self._tree, first, last, offsets, room)
        real = numbers > 0
        kept = np.concatenate([[0], np.cumsum(real)])
        return self.symbols[numbers[real] - 1], counts[real], kept[offsets]

    # ------------------------------------------------------------ positions

    def locate(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        """int64: where the suffixes of these places start in the text."""
        given = np.ascontiguousarray(rows, np.int64)
        if given.size and (given.min() < 0 or given.max() > len(self)):
            raise InvalidParams("rows", f"must lie in [0, {len(self)}]")
        found = np.empty(len(given), np.int64)
        walk, step = self._kernels.locate_all, int(self.steps[1])

        def work(start: int, end: int) -> None:
            walk(*self._tree, self.smaller, self.marks, self.samples, step, given[start:end], found[start:end])

        shared_out(work, len(given), SHARE)
        return found

    def extract(self, start: int, stop: int) -> np.ndarray:
        """int64: the symbols [start, stop) of the text."""
        if not 0 <= start <= stop <= len(self):
            raise InvalidParams("start", f"[{start}, {stop}) is not within the text of {len(self)} symbols")
        stride = int(self.steps[2])
        after = -(-stop // stride)
        row, place = (int(self.rows[after]), after * stride) if after < len(self.rows) else (0, len(self))
        numbers = np.empty(stop - start, np.int64)
        self._kernels.extract(*self._tree, self.smaller, row, place - stop, numbers)
        return self.symbols[numbers - 1]

    # ------------------------------------------------------------ what the loops take

    @property
    def _kernels(self) -> Any:
        from pickaxe.fm_index import kernels

        return kernels

    @cached_property
    def _tree(self) -> tuple[np.ndarray, ...]:
        return self.words, self.starts, self.before, self.children

    @cached_property
    def _search(self) -> tuple[np.ndarray, ...]:
        return *self._tree, self.paths, self.depths, self.smaller


def _room(bits: int, kernels: Any) -> np.ndarray:
    """Blocks for so many bits, and one beyond, so that counting up to the last bit stays inside.

    Each lies in one line of the processor's cache, as it does in a mapped file.
    """
    size = (bits // kernels.BITS + 1) * kernels.WORDS
    words = np.zeros(size + kernels.WORDS, np.uint64)
    skip = -(words.ctypes.data // 8) % kernels.WORDS
    return words[skip : skip + size]


def _array(symbols: Pattern) -> np.ndarray:
    if isinstance(symbols, bytes):
        return np.frombuffer(symbols, np.uint8)
    found = np.asarray(symbols)
    if not found.size and found.ndim == 1:
        return found.astype(np.int64)
    if not np.issubdtype(found.dtype, np.integer):
        raise InvalidItems("symbols", f"are {found.dtype}; must be integers")
    return found


def _ranges(
    low: np.ndarray | Sequence[int], high: np.ndarray | Sequence[int], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Copies (m,) of both ends, checked."""
    first, last = np.array(low, np.int64, ndmin=1), np.array(high, np.int64, ndmin=1)
    if first.shape != last.shape or first.ndim != 1:
        raise InvalidParams("high", f"has shape {last.shape}, low {first.shape}; both must be (m,)")
    if first.size and (first.min() < 0 or last.max() > size + 1 or (first > last).any()):
        raise InvalidParams("low", f"and high must be ranges within [0, {size + 1}]")
    return first, last
