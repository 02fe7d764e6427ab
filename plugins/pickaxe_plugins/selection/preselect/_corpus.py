"""The documents of a fit, kept on disk while their strengths are found out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

import numpy as np

BATCH = 1024


class Corpus:
    """Texts in a temporary file; ids, lengths and losses (NaN where not given) in memory."""

    def __init__(self, models: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by __exit__)
        self._starts: list[int] = []
        self._models = models
        self._losses: list[np.ndarray | None] = []
        self.ids: list[str] = []
        self.lengths: list[int] = []

    def __enter__(self) -> Corpus:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, identity: str, text: str, losses: np.ndarray | None) -> None:
        """One document; the corpus is read only after the last one was added."""
        self._starts.append(self._file.tell())
        self._file.write(json.dumps(text).encode() + b"\n")
        self.ids.append(identity)
        self.lengths.append(len(text))
        self._losses.append(losses)

    def losses(self) -> np.ndarray:
        """(n, M) float64, NaN in the rows that came without."""
        missing = np.full(self._models, np.nan)
        rows = [missing if row is None else row for row in self._losses]
        return np.array(rows).reshape(len(rows), self._models)

    def without_losses(self) -> np.ndarray:
        """Rows of the documents that came without losses."""
        return np.array([row for row, losses in enumerate(self._losses) if losses is None], np.int64)

    def texts(self, rows: Iterable[int]) -> Iterator[str]:
        """The texts of these rows, in this order."""
        for row in rows:
            self._file.seek(self._starts[row])
            yield json.loads(self._file.readline())

    def batches(self, rows: Sequence[int] | np.ndarray, size: int = BATCH) -> Iterator[list[str]]:
        for start in range(0, len(rows), size):
            yield list(self.texts(rows[start : start + size]))


def training_line(text: str, positive: bool) -> str:
    """A line of fastText training data: the text as it is, on one line."""
    return f"__label__{int(positive)} {one_line(text)}"


def one_line(text: str) -> str:
    return text.replace("\n", " ")
