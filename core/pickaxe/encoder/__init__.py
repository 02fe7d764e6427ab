"""Sentence embeddings on ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pickaxe.artifact import file_digest
from pickaxe.encoder import graph
from pickaxe.encoder.graph import Precision
from pickaxe.encoder.memory import VectorMemory
from pickaxe.errors import InvalidParams
from pickaxe.tokenizers import Tokenizer

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.models import ModelStore
    from pickaxe.session import Runtime, Session

BATCH_TOKENS = {"cpu": 768, "cuda": 16384}
"""Tokens of one run, padding included.  On a CPU a batch that stays in the cache is a fifth cheaper."""

CHUNK = 4096
"""Texts that are tokenised, and sorted by length, at a time."""


class Encoder:
    """A BERT-shaped sentence encoder.  Safe to use from several threads."""

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer,
        width: int,
        max_tokens: int,
        pooling: str,
        weights: Path,
        precision: Precision = "fp32",
    ) -> None:
        self._session = session
        self._precision = precision
        self._weights = weights
        self.tokenizer = tokenizer
        self.width = width
        """d, the length of a vector."""
        self.max_tokens = max_tokens
        """Longer texts are cut to this many tokens, the two around the text included."""
        self._pooling = pooling
        self._batch_tokens = BATCH_TOKENS["cuda" if session.runtime.is_cuda else "cpu"]
        self.memory = VectorMemory(self)
        """For texts that come again and again."""

    @classmethod
    def open(cls, store: ModelStore, runtime: Runtime, name: str = "encoder", precision: Precision = "fp32") -> Encoder:
        """The encoder of this alias, name or directory.  The first opening converts it to ONNX and keeps that.

        int8 rounds both sides of its products to 8 bits: half the time on a CPU, and slightly other vectors.
        """
        model = store.path(name)
        config = graph.read_config(model)
        key = kept_as(f"encoder-{graph.VERSION}", precision, runtime)
        converted = store.converted(name, key, lambda target: graph.build(model, target, precision))
        positions = int(config["max_position_embeddings"])
        trained = _read(model / "sentence_bert_config.json").get("max_seq_length") or positions
        first = _read(model / "1_Pooling" / "config.json").get("pooling_mode_cls_token")
        pooling = "first" if first or config.get("pickaxe_pooling") == "cls" else "mean"
        session = runtime.open(converted / graph.GRAPH)
        limit = min(trained, positions)
        weights = model / graph.WEIGHTS
        return cls(session, Tokenizer.open(model), config["hidden_size"], limit, pooling, weights, precision)

    @cached_property
    def digest(self) -> str:
        """Equal for two encoders exactly when they give the same vectors: weights, tokens, pooling and so on."""
        parts = [file_digest(self._weights), self.tokenizer.digest, self._pooling, str(self.max_tokens)]
        if self._precision != "fp32":
            parts.append(self._precision)
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def encode(
        self,
        texts: Sequence[str],
        call: Call | None = None,
        normalize: bool = True,
        max_tokens: int | None = None,
    ) -> np.ndarray:
        """Vectors of the texts, (n, d) float32: the mean over tokens of the last layer, of length 1.

        `normalize=False` leaves the length as it comes.  `max_tokens` cuts texts earlier than the model does.
        """
        limit = max(2, min(max_tokens or self.max_tokens, self.max_tokens))
        vectors = np.empty((len(texts), self.width), np.float32)
        for start in range(0, len(texts), CHUNK):
            rows = self.tokenizer.encode_batch(texts[start : start + CHUNK], add_special=True)
            # The last token closes the text for the model, so it stays when the text is cut.
            rows = [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in rows]
            vectors[start : start + len(rows)] = self.pooled(rows, call)
        return _unit(vectors) if normalize else vectors

    def pooled(self, rows: Sequence[Sequence[int]], call: Call | None = None) -> np.ndarray:
        """Vectors of token ids, (n, d) float32, as they come; rows are of 1 to `max_tokens` ids, framed by the caller.

        Rows of like length run together.
        """
        vectors = np.empty((len(rows), self.width), np.float32)
        lengths = np.fromiter(map(len, rows), np.int32, len(rows))
        for batch in batches(lengths, self._batch_tokens):
            if call is not None:
                call.check()
            vectors[batch] = self._run([rows[row] for row in batch], lengths[batch], call)
        return vectors

    def similarity(self, left: Sequence[str], right: Sequence[str], call: Call | None = None) -> np.ndarray:
        """Cosines of every left with every right text, (n, m) float32."""
        return self.encode(left, call) @ self.encode(right, call).T

    def _run(self, rows: Sequence[Sequence[int]], lengths: np.ndarray, call: Call | None) -> np.ndarray:
        used = np.arange(lengths.max()) < lengths[:, None]
        ids = np.zeros(used.shape, np.int32)
        ids[used] = np.concatenate(rows)
        pool = np.where(used, 1 / lengths[:, None], 0).astype(np.float32)
        if self._pooling == "first":
            pool = np.zeros_like(pool)
            pool[:, 0] = 1
        feeds = {"ids": ids, "lengths": lengths, "pool": pool[:, None, :]}
        if self._precision == "int8":
            feeds["mask"] = used.astype(np.int32)
        pooled: np.ndarray = self._session.run(feeds, call=call)[0]
        return pooled[:, 0]


def kept_as(key: str, precision: Precision, runtime: Runtime) -> str:
    """The key of a converted graph; raises `InvalidParams` for a precision that the runtime's device has not."""
    if precision == "fp32":
        return key
    if runtime.is_cuda:
        raise InvalidParams("precision", "is int8, which is for CPUs; leave it at fp32 on a GPU")
    return f"{key}-{precision}"


def batches(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Row numbers of batches of about equal length, each of at most `tokens` tokens with its padding.

    Longest first, so that memory is claimed once.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, tokens // int(lengths[order[start]]))
        yield order[start : start + count]
        start += count


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(norms, 1e-12)
    return unit


def _read(path: Path) -> dict[str, int]:
    content: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content
