"""fastText classifiers (arXiv:1607.01759) behind one wrapper."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pickaxe.errors import ArtifactCorrupt, InvalidItems, InvalidParams, MethodFailed, UnknownArtifact, Unmet
from pickaxe.extras import require

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.fasttext_model.scan import Scan

PREFIX = "__label__"
"""What a line of training data writes before a label; labels may be named with or without it."""

_BATCH = 1024


class FastText:
    """A trained supervised model.  Made by `train` or `load`."""

    def __init__(self, model: Any, path: Path | None = None) -> None:
        self._model = model
        self._path = path
        """The file that holds just this model."""

    @classmethod
    def train(
        cls,
        lines: str | os.PathLike[str],
        out: str | os.PathLike[str] | None = None,
        *,
        epoch: int = 5,
        lr: float = 0.1,
        dim: int = 100,
        word_ngrams: int = 1,
        bucket: int = 2_000_000,
        min_count: int = 1,
        min_chars: int = 0,
        max_chars: int = 0,
        loss: Literal["softmax", "ova", "hs", "ns"] = "softmax",
        thread: int = 1,
        seed: int = 0,
    ) -> FastText:
        """Learn from a file of lines `__label__NAME text`, and save to `out` when it is given.

        With `thread=1` equal inputs and seed give equal bytes.  `min_chars`, `max_chars`: lengths of character
        n-grams, 0 for none.  Raises `InvalidItems` when the file holds nothing to learn from, `MethodFailed`
        when training diverges.
        """
        library = require("fasttext", extra="fasttext")
        settings: dict[str, object] = {
            "epoch": epoch,
            "lr": lr,
            "dim": dim,
            "wordNgrams": word_ngrams,
            "bucket": bucket,
        }
        settings |= {"minCount": min_count, "minn": min_chars, "maxn": max_chars, "loss": loss}
        settings |= {"thread": thread, "seed": seed, "verbose": 0, "label": PREFIX}
        try:
            model = cls(library.train_supervised(input=os.fspath(lines), **settings))
        except ValueError as error:
            raise InvalidItems("examples", f"give fastText nothing to learn from: {error}") from error
        except RuntimeError as error:
            raise MethodFailed(f"fastText training failed: {error}; a smaller learning rate may help") from error
        if out is not None:
            model.save(out)
        return model

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FastText:
        """Read a `.bin` or `.ftz` file."""
        if not Path(path).is_file():
            raise UnknownArtifact(f"no fastText model at {os.fspath(path)!r}", metadata={"path": path})
        library = require("fasttext", extra="fasttext")
        try:
            return cls(library.load_model(os.fspath(path)), Path(path))
        except ValueError as error:
            raise ArtifactCorrupt(f"not a fastText model: {error}", metadata={"path": path}) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        self._model.save_model(os.fspath(path))

    def quantise(self, lines: str | os.PathLike[str] | None = None, *, cutoff: int = 0, retrain: bool = False) -> None:
        """Compress in place by product quantisation, to be saved as `.ftz`.

        `cutoff` keeps only so many words and n-grams; `retrain` (needs the training `lines`) tunes the rest.
        """
        source = "" if lines is None else os.fspath(lines)
        self._model.quantize(input=source, cutoff=cutoff, retrain=retrain, qnorm=True, verbose=0)
        self._path = None
        for gone in ("words", "_scan"):  # a cutoff drops words
            self.__dict__.pop(gone, None)

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """As they are stored, with prefix, in the model's order."""
        return tuple(self._model.get_labels())

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """The vocabulary, most frequent first."""
        return tuple(self._model.get_words())

    def label(self, name: str) -> str:
        """The stored form of a label named with or without prefix; raises `InvalidParams`."""
        for stored in (name, PREFIX + name):
            if stored in self.labels:
                return stored
        known = ", ".join(self.labels[:10])
        raise InvalidParams("label", f"{name!r} is not one of the model's: {known}")

    # ------------------------------------------------------------ prediction

    def predict(
        self, texts: Sequence[str], k: int = -1, call: Call | None = None
    ) -> tuple[list[list[str]], np.ndarray]:
        """The `k` likeliest labels of each text (-1: all), and their probabilities (n, k) float32, best first.

        A model with a tree or sampled loss may give fewer labels for a text: then the row ends in zeros.
        """
        labels: list[list[str]] = []
        rows: list[np.ndarray] = []
        for some_labels, some_rows in self._predictions(texts, k, call):
            labels += some_labels
            rows += some_rows
        probabilities = np.zeros((len(texts), len(self.labels) if k < 0 else min(k, len(self.labels))), np.float32)
        for row, values in enumerate(rows):
            probabilities[row, : len(values)] = np.minimum(values, 1)  # fastText adds 1e-5 against log 0
        return labels, probabilities

    def probability(self, texts: Sequence[str], label: str, call: Call | None = None) -> np.ndarray:
        """The probability of one label for each text, (n,) float32.

        A model from a file looks at the texts on all cores (see `scan`); equal to `predict` within 1e-6.
        """
        stored, scan = self.label(label), self._scan
        if scan is not None:
            column = self.labels.index(stored)
            parts = [scan.probabilities(some)[:, column] for some in _batches(texts, call)]
            return np.concatenate(parts) if parts else np.zeros(0, np.float32)
        labels, probabilities = self.predict(texts, -1, call)
        places = (names.index(stored) if stored in names else None for names in labels)
        values = (0.0 if place is None else row[place] for row, place in zip(probabilities, places, strict=True))
        return np.fromiter(values, np.float32, len(texts))

    def _predictions(
        self, texts: Sequence[str], k: int, call: Call | None
    ) -> Iterator[tuple[list[list[str]], list[np.ndarray]]]:
        for some in _batches(texts, call):
            # Lists only: with numpy 2, fastText cannot predict a single string.
            yield self._model.predict([_line(text) for text in some], k=k)

    @functools.cached_property
    def _scan(self) -> Scan | None:
        from pickaxe.fasttext_model.scan import Scan

        return None if self._path is None else Scan.open(self._path)

    # ------------------------------------------------------------ vectors, for explanations

    def word_vectors(self, words: Sequence[str]) -> np.ndarray:
        """Input vectors (n, dim) float32: the mean over a word and its character n-grams, as the model adds it.

        Zero for an unknown word of a model without n-grams.
        """
        vectors = np.zeros((len(words), self._model.get_dimension()), np.float32)
        for row, word in enumerate(words):
            # Not get_word_vector(): fasttext-community scales its result to length 1.
            _, parts = self._model.get_subwords(_line(word))
            if len(parts):
                vectors[row] = np.mean([self._model.get_input_vector(part) for part in parts], axis=0)
        return vectors

    def label_vectors(self) -> np.ndarray:
        """Output vectors (labels, dim) float32, in the order of `labels`.

        A text's logits are these times the mean of its words' (and n-grams') vectors.
        """
        if self._model.is_quantized():
            raise Unmet("a quantised fastText model gives no label vectors: use the model before quantise()")
        matrix: np.ndarray = self._model.get_output_matrix()
        return matrix


def _batches(texts: Sequence[str], call: Call | None) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), _BATCH):
        if call is not None:
            call.check()
        yield texts[start : start + _BATCH]


def _line(text: str) -> str:
    """One line that UTF-8 can encode, as fastText wants it."""
    return text.replace("\n", " ").encode("utf-8", "replace").decode("utf-8")
