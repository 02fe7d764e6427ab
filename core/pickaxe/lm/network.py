"""A converted model on a runtime: token ids in, hidden states and keys/values out, heads on top."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from pickaxe.errors import InvalidParams
from pickaxe.lm.attention import Contexts, is_spelled_out, spelled_feeds
from pickaxe.lm.batch import Batch
from pickaxe.lm.cache import KV
from pickaxe.lm.device_batch import DeviceBatch
from pickaxe.lm.exported import find_export, open_exported
from pickaxe.lm.graph import FORMAT, Precision, build
from pickaxe.lm.pace import Graph
from pickaxe.lm.weights import Architecture, open_checkpoint
from pickaxe.onnx_runtime import operator_takes
from pickaxe.tokenizers import Tokenizer

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.lm.engine import EngineSettings
    from pickaxe.models import ModelStore
    from pickaxe.session import Binding, Runtime, Session

SPARE = 128
"""Tokens of free room per row that a grown cache gets beyond what the step needs."""
CHUNK = 512
"""Most tokens per row in one run: bounds the memory of attention, and how long a cancelled call goes on."""
FOUR_BITS = 6.0
"""Bits per weight below which a file counts as one of 4-bit weights (with their scales: 4.5 to 5.5)."""
HEAD_ROWS = 256
"""Positions whose vocabulary-wide tensors exist at one time when only log-probabilities are wanted."""


class Network(Protocol):
    """What runs a model, safe to use from several threads: `OwnNetwork`, or `ExportedNetwork` for foreign graphs.

    `read` gives *states*, something per position; `logits` and `score` are made from them.
    """

    @property
    def architecture(self) -> Architecture: ...
    @property
    def digest(self) -> str: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def folder(self) -> Path: ...
    @property
    def runtime(self) -> Runtime: ...
    @property
    def dtype(self) -> type[np.floating]: ...
    @property
    def token_bytes(self) -> int: ...
    @property
    def most_states(self) -> int:
        """More states than this should not be asked for at a time: they are large."""
        ...

    def bounds(self, settings: EngineSettings) -> EngineSettings:
        """The engine's settings, narrowed to what keeps its promises with this network."""
        ...

    def empty_states(self, count: int) -> np.ndarray: ...
    def read(
        self,
        ids: np.ndarray,
        counts: np.ndarray,
        past: KV,
        rows: np.ndarray,
        *,
        positions: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        contexts: Contexts | None = None,
        call: Call | None = None,
    ) -> tuple[np.ndarray, KV]: ...
    def batch(self, rows: int, capacity: int) -> Batch | DeviceBatch: ...
    def logits(self, hidden: np.ndarray, call: Call | None = None) -> np.ndarray: ...
    def score(
        self, hidden: np.ndarray, targets: np.ndarray, call: Call | None = None, *, moments: bool = False
    ) -> np.ndarray: ...


@dataclass(frozen=True)
class OwnNetwork:
    """Runs the graphs that were written for one model.  Its states are hidden states (R, width)."""

    architecture: Architecture
    digest: str
    precision: Precision
    folder: Path
    runtime: Runtime
    ragged: bool

    @functools.cached_property
    def _body(self) -> Graph:
        return Graph(self.runtime, self.folder / "body.onnx")

    @functools.cached_property
    def _biased(self) -> Graph:
        return Graph(self.runtime, self.folder / "biased.onnx")

    @functools.cached_property
    def _over_contexts(self) -> Graph:
        return Graph(self.runtime, self.folder / "contexts.onnx")

    @functools.cached_property
    def _logits(self) -> Session:
        return self.runtime.open(self.folder / "logits.onnx")

    @functools.cached_property
    def _score(self) -> Session:
        return self.runtime.open(self.folder / "score.onnx")

    @functools.cached_property
    def _moments(self) -> Session:
        return self.runtime.open(self.folder / "moments.onnx")

    @property
    def dtype(self) -> type[np.floating]:
        """Of hidden states, keys and values."""
        return np.float16 if self.precision == "fp16" else np.float32

    @property
    def token_bytes(self) -> int:
        """Of the keys and values of one token."""
        arch = self.architecture
        return 2 * arch.layers * arch.kv_heads * arch.head_size * np.dtype(self.dtype).itemsize

    @property
    def most_states(self) -> int:
        """None that matters: a hidden state is small."""
        return 2**31

    def bounds(self, settings: EngineSettings) -> EngineSettings:
        """As they are."""
        return settings

    def empty_states(self, count: int) -> np.ndarray:
        """Memory for that many hidden states."""
        return np.empty((count, self.architecture.width), self.dtype)

    # ------------------------------------------------------------ the body

    def read(
        self,
        ids: np.ndarray,
        counts: np.ndarray,
        past: KV,
        rows: np.ndarray,
        *,
        positions: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        contexts: Contexts | None = None,
        call: Call | None = None,
    ) -> tuple[np.ndarray, KV]:
        """Hidden states (len(rows), width) at flat positions `rows` of ids (B, T), and the longer cache.

        Row b brings `counts[b]` tokens, the rest of its ids is padding.  `bias` (1 or B, 1, T, S) is added to
        the attention scores on top of the causal mask; S counts the slots from the cache's first to the last
        one written.  With `contexts` there is none; `past` holds them.
        """
        if positions is None:
            positions = past.lengths[:, None] + np.arange(ids.shape[1])
        if contexts is not None or (bias is not None and is_spelled_out("biased", self.dtype)):
            return self._read_spelled_out(ids, counts, past, rows, positions, bias, contexts, call)
        uneven = (len(ids) > 1 and ids.shape[1] > 1) or (counts != ids.shape[1]).any()
        if not self.ragged and uneven and past.width:
            return self._read_row_by_row(ids, counts, past, rows, positions, bias, call)
        graph = self._body if bias is None else self._biased
        longer = past.extended(counts, past.width + ids.shape[1], SPARE)
        total = past.width + ids.shape[1]
        feeds: dict[str, np.ndarray] = {
            "input_ids": ids,
            "position_ids": np.ascontiguousarray(positions, dtype=np.int64),
            "rows": rows,
            "seqlens_k": (longer.lengths - 1).astype(np.int32),
            "total_sequence_length": np.array(total, np.int32),
        }
        if self.ragged:
            feeds["query_seqlens"] = counts.astype(np.int32)
        if bias is not None:
            feeds["attention_bias"] = np.ascontiguousarray(bias, dtype=self.dtype)
        return self._run(graph, feeds, longer, call), longer

    def _read_spelled_out(
        self,
        ids: np.ndarray,
        counts: np.ndarray,
        past: KV,
        rows: np.ndarray,
        positions: np.ndarray,
        bias: np.ndarray | None,
        contexts: Contexts | None,
        call: Call | None,
    ) -> tuple[np.ndarray, KV]:
        longer = past.extended(counts, past.width + ids.shape[1], SPARE)
        sizes = past.lengths, ids.shape[1], longer.capacity, self.architecture
        feeds = {
            "input_ids": ids,
            "position_ids": np.ascontiguousarray(positions, dtype=np.int64),
            "rows": rows,
            **(spelled_feeds(*sizes, bias) if contexts is None else contexts.feeds(*sizes)),
        }
        return self._run(self._biased if contexts is None else self._over_contexts, feeds, longer, call), longer

    def _run(self, graph: Graph, feeds: dict[str, np.ndarray], cache: KV, call: Call | None) -> np.ndarray:
        """Run with past and present in the memory of `cache`; returns the hidden states."""
        hidden = self.empty_states(len(feeds["rows"]))
        with graph.fastest(feeds["input_ids"].size) as session:
            target = session.ort_value(hidden)
            binding = cache.bound(session, lambda: self._bind(session, cache))
            for name, value in feeds.items():
                binding.feed(name, value)
            binding.target("hidden", target)
            binding.run(call)
        if not self.runtime.shares_memory:
            cache.written_apart()
            hidden[...] = target.numpy()
        return hidden

    def _bind(self, session: Session, cache: KV) -> Binding:
        tensors = cache.native(session.ort_value)
        given = dict(zip(self.cache_names("past"), tensors, strict=True))
        written = dict(zip(self.cache_names("present"), tensors, strict=True))
        return session.bind(given, written)

    def cache_names(self, time: Literal["past", "present"]) -> list[str]:
        """What the graphs call the keys and values of each layer."""
        layers = range(self.architecture.layers)
        return [f"{time}_{kind}.{layer}" for layer in layers for kind in ("key", "value")]

    def _read_row_by_row(
        self,
        ids: np.ndarray,
        counts: np.ndarray,
        past: KV,
        rows: np.ndarray,
        positions: np.ndarray,
        bias: np.ndarray | None,
        call: Call | None,
    ) -> tuple[np.ndarray, KV]:
        """For an ONNX Runtime whose attention refuses several tokens on top of a cache for several rows."""
        hidden = self.empty_states(len(rows))
        caches = []
        for row in range(len(ids)):
            count = int(counts[row])
            if not count:
                caches.append(past.gather([row]))
                continue
            mine = rows // ids.shape[1] == row
            own = bias if bias is None or len(bias) == 1 else bias[row : row + 1]
            states, cache = self.read(
                ids[row : row + 1, :count],
                counts[row : row + 1],
                past.gather([row]),
                rows[mine] % ids.shape[1],
                positions=positions[row : row + 1, :count],
                bias=own if own is None else own[:, :, :count, : int(past.lengths[row]) + count],
                call=call,
            )
            hidden[mine] = states
            caches.append(cache)
        return hidden, KV.concatenate(caches)

    # ------------------------------------------------------------ many rows, token by token

    def batch(self, rows: int, capacity: int) -> Batch | DeviceBatch:
        """An empty batch.  On a GPU there is one at a time: memory that was captured is used again."""
        if not self.runtime.is_cuda:
            return Batch(self, rows, capacity)
        if rows not in self._device_batches:
            self._device_batches[rows] = DeviceBatch(self, rows, capacity)
        self._device_batches[rows].clear()
        return self._device_batches[rows]

    @functools.cached_property
    def _device_batches(self) -> dict[int, DeviceBatch]:
        return {}

    # ------------------------------------------------------------ heads

    def logits(self, hidden: np.ndarray, call: Call | None = None) -> np.ndarray:
        """(R, width) -> float32 (R, vocab)."""
        if not len(hidden):
            return np.empty((0, self.architecture.vocab), np.float32)
        return self._logits.run({"hidden": hidden}, call=call)[0]

    def score(
        self, hidden: np.ndarray, targets: np.ndarray, call: Call | None = None, *, moments: bool = False
    ) -> np.ndarray:
        """float32 (1, R): log-probability of each target; with `moments` (3, R), also its mean and deviation.

        Mean and standard deviation are those of log p(t) for t drawn from the model's distribution p.
        """
        session = self._moments if moments else self._score
        parts = []
        for start in range(0, len(targets), HEAD_ROWS):
            stop = start + HEAD_ROWS
            parts.append(session.run({"hidden": hidden[start:stop], "targets": targets[start:stop]}, call=call))
        if not parts:
            return np.empty((3 if moments else 1, 0), np.float32)
        return np.stack([np.concatenate(column) for column in zip(*parts, strict=True)])


def open_network(
    store: ModelStore, runtime: Runtime, name: str, precision: str = "auto", layers: int | None = None
) -> tuple[Network, Tokenizer]:
    """The model of this name, converted on first use (which takes seconds and is kept on disk).

    With `layers`, only its first ones, followed by its norm and head.
    """
    if (export := find_export(store.path(name), precision, runtime.is_cuda)) is not None:
        return open_exported(store, runtime, name, export, precision, layers)
    chosen: Precision
    if precision == "auto":
        chosen = "fp16" if runtime.is_cuda else _as_stored(store, name)
    elif precision in ("int4", "int8", "fp32", "fp16"):
        chosen = precision  # type: ignore[assignment]
    else:
        raise InvalidParams("precision", f"is {precision!r}; use auto, int4, int8, fp32 or fp16")
    if chosen == "fp16" and not runtime.is_cuda:
        raise InvalidParams("precision", "is fp16, which needs a GPU; use int8 or fp32 on a CPU")
    ragged = takes_query_lengths()
    key = f"{chosen}-{'ragged' if ragged else 'even'}-{FORMAT}" + (f"-first{layers}" if layers is not None else "")

    def convert(folder: Path) -> None:
        path = store.path(name)
        checkpoint = open_checkpoint(path)
        architecture, digest = checkpoint.architecture, checkpoint.digest
        if layers is not None:
            if not 1 <= layers <= architecture.layers:
                raise InvalidParams("layers", f"is {layers}; model {name!r} has {architecture.layers}")
            architecture, digest = replace(architecture, layers=layers), f"{digest}-first{layers}"
        build(architecture, checkpoint.tensors, chosen, folder, ragged=ragged)
        tokenizer_of(store, path).save(folder)
        record = {"architecture": architecture.as_dict(), "digest": digest}
        (folder / "network.json").write_text(json.dumps(record))

    folder = store.converted(name, key, convert)
    record = json.loads((folder / "network.json").read_text())
    described = record["architecture"] | {"rope_factors": tuple(record["architecture"]["rope_factors"])}
    network = OwnNetwork(Architecture(**described), record["digest"], chosen, folder, runtime, ragged)
    return network, Tokenizer.open(folder)


def _as_stored(store: ModelStore, name: str) -> Precision:
    """int4 for weights that are stored in 4 bits, which it keeps as they are, and int8 for all others."""

    def describe(folder: Path) -> None:
        record = {"bits": open_checkpoint(store.path(name)).bits}
        (folder / "stored.json").write_text(json.dumps(record))

    stored = json.loads((store.converted(name, "stored-1", describe) / "stored.json").read_text())
    return "int4" if stored["bits"] < FOUR_BITS else "int8"


def tokenizer_of(store: ModelStore, path: Path) -> Tokenizer:
    """The tokenizer beside the weights, or of the model that config.json names under `tokenizer_from`."""
    config = path / "config.json"
    if config.is_file() and (other := json.loads(config.read_text()).get("tokenizer_from")):
        return Tokenizer.open(store.path(other))
    return Tokenizer.open(path)


@functools.cache
def takes_query_lengths() -> bool:
    """Whether this ONNX Runtime's grouped attention takes `query_seqlens` (1.32 does)."""
    return operator_takes("GroupQueryAttention", "query_seqlens")
