"""Cross-encoders: models that read two texts at once, on ONNX Runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from pickaxe.artifact import file_digest
from pickaxe.cross_encoder import graph
from pickaxe.cross_encoder.networks import BertNetwork, ExportedNetwork, exported
from pickaxe.encoder import BATCH_TOKENS, CHUNK, batches, kept_as
from pickaxe.encoder.graph import Precision, read_config
from pickaxe.errors import Unmet
from pickaxe.tokenizers import Tokenizer

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.models import ModelStore
    from pickaxe.session import Runtime

__all__ = ["CrossEncoder"]


class Network(Protocol):
    """A graph and how it is fed."""

    outputs: int
    """Logits per pair; 0: only a run tells."""
    max_tokens: int
    files: tuple[Path, ...]
    """Weights, in an order that does not change."""
    name: str
    """What distinguishes it from another network of the same weights."""
    is_cuda: bool

    def run(self, ids: np.ndarray, segments: np.ndarray, lengths: np.ndarray, call: Call | None) -> np.ndarray:
        """Logits (B, outputs) of ids and segments (B, T) int32, padded with 0 from `lengths` (B,) int32 on."""


class Row(NamedTuple):
    """One pair as the model reads it."""

    ids: list[int]
    first: int
    """Tokens before the second segment."""


class CrossEncoder:
    """Scores pairs of texts.  Safe to use from several threads."""

    def __init__(self, network: Network, tokenizer: Tokenizer) -> None:
        self._network = network
        self.tokenizer = tokenizer
        self.max_tokens = network.max_tokens
        """Longer pairs are cut to this many tokens, those around the texts included."""
        self._around, self._segments = tokenizer.pair
        if len(self._around) < 2 or self.max_tokens <= len(self._around):
            raise Unmet("this model's tokenizer does not say how two texts are put together: it is no cross-encoder")
        self._batch_tokens = BATCH_TOKENS["cuda" if network.is_cuda else "cpu"]

    @classmethod
    def open(
        cls, store: ModelStore, runtime: Runtime, name: str = "cross-encoder", precision: Precision = "fp32"
    ) -> CrossEncoder:
        """The cross-encoder of this alias, name, directory or ONNX file; an ONNX file has the precision that it has.

        A directory holds `config.json`, `model.safetensors` (names of BertForSequenceClassification) and
        `tokenizer.json`, or an exported `model.onnx` (inputs `input_ids`, `attention_mask` and perhaps
        `token_type_ids`; its first output are the logits) with `tokenizer.json`.  Where config.json names another
        model under `words_from`, word embeddings and tokenizer are that one's.
        """
        model = store.path(name)
        if found := exported(model):
            network: Network = ExportedNetwork(runtime, found)
            folder = next((each for each in found.parents if (each / "tokenizer.json").is_file()), found.parent)
            return cls(network, Tokenizer.open(folder))
        shared = read_config(model).get("words_from")
        words = None if shared is None else store.path(shared)
        key = kept_as(f"cross-encoder-{graph.VERSION}", precision, runtime)
        converted = store.converted(name, key, lambda target: graph.build(model, target, words, precision))
        network = BertNetwork(runtime, model, converted / graph.GRAPH, words, precision)
        return cls(network, Tokenizer.open(words or model))

    @cached_property
    def digest(self) -> str:
        """Equal for two cross-encoders exactly when they give the same scores: weights, tokens, head and length."""
        files = " ".join(file_digest(path) for path in self._network.files)
        parts = (files, self.tokenizer.digest, self._network.name, str(self.max_tokens))
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def score(self, pairs: Sequence[tuple[str, str]], call: Call | None = None) -> np.ndarray:
        """Raw logits of the pairs: (n,) float32, or (n, outputs) for a model with several.

        Where a pair is too long its second text is cut, never the first; only when the first alone leaves no room,
        the longer of the two loses tokens until both fit.
        """
        found = np.empty((len(pairs), self._network.outputs), np.float32)
        for start in range(0, len(pairs), CHUNK):
            rows = self._rows(pairs[start : start + CHUNK])
            lengths = np.fromiter((len(row.ids) for row in rows), np.int32, len(rows))
            for batch in batches(lengths, self._batch_tokens):
                if call is not None:
                    call.check()
                logits = self._run([rows[row] for row in batch], lengths[batch], call)
                if not found.shape[1]:  # an exported graph need not say how many outputs it has
                    found = np.empty((len(pairs), logits.shape[1]), np.float32)
                found[start + batch] = logits
        return found if found.shape[1] > 1 else found.reshape(-1)

    def _rows(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        """Each different text is tokenised once: the first one is often the same query."""
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        tokens = dict(zip(texts, self.tokenizer.encode_batch(texts), strict=True))
        room = self.max_tokens - len(self._around)
        start, middle, end = self._around[:1], self._around[1:-1], self._around[-1:]
        rows = []
        for one, other in pairs:
            first, second = _fitting(tokens[one], tokens[other], room)
            rows.append(Row([*start, *first, *middle, *second, *end], len(start) + len(first) + len(middle)))
        return rows

    def _run(self, rows: Sequence[Row], lengths: np.ndarray, call: Call | None) -> np.ndarray:
        places = np.arange(lengths.max())
        used = places < lengths[:, None]
        ids = np.zeros(used.shape, np.int32)
        ids[used] = np.concatenate([row.ids for row in rows])
        firsts = np.array([row.first for row in rows])
        segments = np.where(used & (places >= firsts[:, None]), self._segments[-1], 0).astype(np.int32)
        return self._network.run(ids, segments, lengths, call)


def _fitting(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Both texts cut to `room` tokens together."""
    if len(first) + len(second) <= room:
        return first, second
    if len(first) < room:
        return first, second[: room - len(first)]
    shorter = min(len(first), len(second), room // 2)
    if len(second) <= room // 2:
        return first[: room - len(second)], second
    return first[: room - shorter], second[:shorter]
