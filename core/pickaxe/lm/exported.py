"""Decoders that were exported to ONNX elsewhere, in the usual layout.

Such a graph takes `input_ids`, `attention_mask`, mostly `position_ids`, and the past keys and values, and gives
logits at every position and all keys and values anew.  How far its mask and positions can be trusted differs from
one exporter to another, so each graph is tried out once, at its first opening (`exported_trial`).
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe.errors import MethodFailed, ModelMissing, Unmet
from pickaxe.lm.batch import Batch
from pickaxe.lm.cache import KV
from pickaxe.lm.exported_layout import (
    ExportedArchitecture,
    Layout,
    check_precision,
    find_export,
    model_folder,
    read_architecture,
    read_layout,
)
from pickaxe.lm.exported_trial import Habits, try_out
from pickaxe.lm.pace import Graph
from pickaxe.lm.sampling import logsumexp
from pickaxe.lm.weights import file_digest
from pickaxe.tokenizers import Tokenizer

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.lm.attention import Contexts
    from pickaxe.lm.engine import EngineSettings
    from pickaxe.lm.graph import Precision
    from pickaxe.models import ModelStore
    from pickaxe.session import Runtime

__all__ = ["ExportedNetwork", "Habits", "find_export", "open_exported"]

FORMAT = 1
"""Raised whenever the record of an opened graph changes."""
SPARE = 128
"""Tokens of free room per row that a grown cache gets beyond what the step needs."""
LOGITS_BYTES = 256 * 2**20
"""Bounds the logits of one run: the graph gives those of every position that it reads."""
HEAD_ROWS = 64
"""Positions whose probabilities exist at one time when tokens are scored."""


@dataclass(frozen=True)
class ExportedNetwork:
    """Runs an exported graph.  Its states are float32 logits (R, vocab).  Safe to use from several threads."""

    architecture: ExportedArchitecture
    digest: str
    graph: Path
    runtime: Runtime
    layout: Layout
    habits: Habits

    @functools.cached_property
    def _session(self) -> Graph:
        return Graph(self.runtime, self.graph)

    @property
    def folder(self) -> Path:
        return self.graph.parent

    @property
    def precision(self) -> Precision:
        """As stored."""
        return self.layout.precision

    @property
    def dtype(self) -> type[np.floating]:
        """Of keys and values."""
        return np.float16 if self.layout.half else np.float32

    @property
    def token_bytes(self) -> int:
        """Of the keys and values of one token."""
        arch = self.architecture
        return 2 * arch.layers * arch.kv_heads * arch.head_size * np.dtype(self.dtype).itemsize

    @property
    def most_states(self) -> int:
        return max(1, LOGITS_BYTES // (4 * self.architecture.vocab))

    def empty_states(self, count: int) -> np.ndarray:
        """Memory for the logits of that many positions."""
        return np.zeros((count, self.architecture.vocab), np.float32)

    # ------------------------------------------------------------ reading

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
        """Logits (len(rows), vocab) at flat positions `rows` of ids (B, T), and the longer cache.

        Row b brings `counts[b]` tokens, the rest of its ids is padding.  Raises `Unmet` for a bias or contexts,
        and for positions where the graph counts by itself.
        """
        usual = past.lengths[:, None] + np.arange(ids.shape[1])
        given = usual if positions is None else np.asarray(positions, dtype=np.int64)
        moved = (given != usual) & (np.arange(ids.shape[1]) < counts[:, None])
        self._check_asked(bias is not None, contexts is not None, bool(moved.any()))
        longer = past.extended(counts, int((past.lengths + counts).max(initial=0)), SPARE)
        piece = _Piece(self, ids, counts, past.lengths, given, rows, longer, self.empty_states(len(rows)))
        for group in self._groups(past.lengths, counts):
            piece.read(group, call)
        return piece.states, longer

    def _check_asked(self, bias: bool, contexts: bool, positions: bool) -> None:
        asked = {
            "an attention bias (token trees, packed prompts)": bias,
            "parallel contexts (`Contexts`)": contexts,
            "positions other than counted on": positions and not self.habits.positions,
        }
        for what, wanted in asked.items():
            if wanted:
                raise _not_allowed(self.graph, what)

    def _groups(self, lengths: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray]:
        """Rows with something to read that can share a run."""
        active = np.flatnonzero(counts)
        if self.habits.rows == "any":
            if len(active):
                yield active
        elif self.habits.rows == "like":
            for length in np.unique(lengths[active]):
                yield active[lengths[active] == length]
        else:
            yield from (np.array([row]) for row in active)

    def run(
        self,
        ids: np.ndarray,
        mask: np.ndarray,
        positions: np.ndarray,
        past: list[np.ndarray],
        keep: int | None = None,
        call: Call | None = None,
    ) -> tuple[np.ndarray | None, list[np.ndarray]]:
        """Logits (B, keep, vocab) at the last positions of ids (B, T), and all keys and values (B, heads, S, size).

        `mask` (B, S) tells slots that count from those that do not; `keep` 0: no logits; None: everywhere.
        """
        layout, width = self.layout, ids.shape[1]
        feeds = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        feeds |= dict(zip(layout.past, past, strict=True))
        if layout.positions:  # those of padding must still lie within the tables
            feeds["position_ids"] = np.clip(positions, 0, self.architecture.context - 1)
        if layout.branch:
            feeds["use_cache_branch"] = np.array([past[0].shape[2] > 0])
        keep = width if keep is None else keep
        if layout.keep:
            feeds[layout.keep] = np.array(max(1, keep), np.int64)
        names = [*layout.present, "logits"] if keep else layout.present
        with self._session.fastest(ids.size) as session:
            found = session.run(feeds, names, call)
        present = found[: len(layout.present)]
        if present[0].shape[2] != mask.shape[1]:
            raise Unmet(
                f"{self.graph.name} gives {present[0].shape[2]} slots of keys and values for {mask.shape[1]} that it "
                "was to read: it is not a decoder in the usual layout",
                metadata={"path": self.graph, "slots": present[0].shape[2], "expected": mask.shape[1]},
            )
        return (np.asarray(found[-1][:, -keep:], np.float32) if keep else None), present

    def bounds(self, settings: EngineSettings) -> EngineSettings:
        """Where one scale rounds all that a run reads, prompts are read in the same pieces whoever else is there."""
        if self.habits.rows == "alone":
            return replace(settings, chunk_beside=settings.chunk, prefix_bytes=0)
        return settings

    def batch(self, rows: int, capacity: int) -> Batch:
        """An empty batch."""
        return Batch(self, rows, capacity)

    # ------------------------------------------------------------ heads

    def logits(self, hidden: np.ndarray, call: Call | None = None) -> np.ndarray:
        """The states themselves."""
        return hidden

    def score(
        self, hidden: np.ndarray, targets: np.ndarray, call: Call | None = None, *, moments: bool = False
    ) -> np.ndarray:
        """float32 (1, R): log-probability of each target; with `moments` (3, R), also its mean and deviation."""
        scored = np.empty((3 if moments else 1, len(targets)), np.float32)
        for start in range(0, len(targets), HEAD_ROWS):
            part = slice(start, start + HEAD_ROWS)
            every = hidden[part] - logsumexp(hidden[part])[:, None]
            scored[0, part] = np.take_along_axis(every, targets[part, None], axis=1)[:, 0]
            if moments:
                weights = np.exp(every)
                mean = (weights * every).sum(axis=1)
                scored[1, part] = mean
                scored[2, part] = np.sqrt((weights * (every - mean[:, None]) ** 2).sum(axis=1))
            if call is not None:
                call.check()
        return scored


@dataclass
class _Piece:
    """One `read`: what it was given, and what it fills."""

    network: ExportedNetwork
    ids: np.ndarray
    counts: np.ndarray
    past: np.ndarray
    positions: np.ndarray
    rows: np.ndarray
    cache: KV
    states: np.ndarray

    def read(self, group: np.ndarray, call: Call | None) -> None:
        """The new tokens of these rows, so many at a time that their logits keep the bound."""
        start, end = 0, int(self.counts[group].max())
        most = max(1, self.network.most_states // len(group))
        while start < end:
            active = group[self.counts[group] > start]
            lengths = self.past[active] + start
            step = most if self.network.habits.pieces or not lengths.any() else 1
            stop = min(end, start + step)
            self._run(active, lengths, start, stop, call)
            start = stop

    def _run(self, active: np.ndarray, lengths: np.ndarray, start: int, stop: int, call: Call | None) -> None:
        reach = int(lengths.max())
        mask = np.ones((len(active), reach + stop - start), np.int64)
        mask[:, :reach] = np.arange(reach) < lengths[:, None]
        owner, place = np.divmod(self.rows, self.ids.shape[1])
        wanted = np.flatnonzero(np.isin(owner, active) & (place >= start) & (place < stop))
        first = int(place[wanted].min()) if len(wanted) else stop
        memory = self.cache.tensors
        logits, present = self.network.run(
            np.ascontiguousarray(self.ids[active, start:stop]),
            mask,
            self.positions[active, start:stop],
            [np.ascontiguousarray(tensor[active, :, :reach]) for tensor in memory],
            stop - first,
            call,
        )
        if logits is not None:
            self.states[wanted] = logits[np.searchsorted(active, owner[wanted]), place[wanted] - first]
        taken = np.minimum(self.counts[active], stop) - start
        for tensor, written in zip(memory, present, strict=True):
            for number, (row, length, count) in enumerate(zip(active, lengths, taken, strict=True)):
                tensor[row, :, length : length + count] = written[number, :, reach : reach + count]


# ---------------------------------------------------------------- opening


def open_exported(
    store: ModelStore, runtime: Runtime, name: str, graph: Path, precision: str, layers: int | None
) -> tuple[ExportedNetwork, Tokenizer]:
    """The exported decoder of this graph file; what is found out about it at its first opening is kept on disk."""
    if layers is not None:
        raise _not_allowed(graph, f"its first layers alone (layers={layers})")

    def describe(folder: Path) -> None:
        layout, files = read_layout(graph)
        architecture, digest = read_architecture(graph, layout), file_digest(files)
        check_precision(graph, layout.precision, precision)
        network = ExportedNetwork(architecture, digest, graph, runtime, layout, Habits("alone", True, False))
        habits = _tried(network)
        record = {"architecture": architecture.as_dict(), "layout": asdict(layout), "habits": asdict(habits)}
        (folder / "exported.json").write_text(json.dumps(record | {"digest": digest}))

    key = f"exported-{FORMAT}-{_mark(graph)}-{'gpu' if runtime.is_cuda else 'cpu'}"
    record = json.loads((store.converted(name, key, describe) / "exported.json").read_text())
    described: dict[str, Any] = record["layout"]
    layout = Layout(**described | {side: tuple(described[side]) for side in ("past", "present")})
    check_precision(graph, layout.precision, precision)
    architecture = ExportedArchitecture(**record["architecture"] | {"rope_factors": ()})
    tokenizer = Tokenizer.open(model_folder(graph))
    if tokenizer.vocab_size > architecture.vocab:
        raise Unmet(
            f"the tokenizer beside {graph.name} has {tokenizer.vocab_size} tokens, the graph only "
            f"{architecture.vocab}: they are of two models. Take tokenizer.json from the export itself",
            metadata={"path": graph, "tokenizer": tokenizer.vocab_size, "graph": architecture.vocab},
        )
    network = ExportedNetwork(architecture, record["digest"], graph, runtime, layout, Habits(**record["habits"]))
    return network, tokenizer


def _mark(graph: Path) -> str:
    """Changes when the graph, or a file beside it that may hold its weights or its description, does."""
    files = [graph, *sorted(graph.parent.glob(f"{graph.name}?data*")), model_folder(graph) / "config.json"]
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashlib.sha256(repr(stamps).encode()).hexdigest()[:16]


def _not_allowed(graph: Path, what: str) -> Unmet:
    return Unmet(
        f"{graph.name} is an exported ONNX graph, which does not take {what}: open the model's GGUF file or "
        "safetensors checkpoint instead",
        metadata={"path": graph, "missing": what},
    )


def _tried(network: ExportedNetwork) -> Habits:
    arch, layout = network.architecture, network.layout
    nothing = [np.zeros((1, arch.kv_heads, 0, arch.head_size), network.dtype) for _ in layout.past]
    try:
        habits = try_out(network.run, nothing, arch.vocab, layout.half)
    except MethodFailed as error:
        raise ModelMissing(
            f"{error.message}. Copy the export's files again; if they are whole, they need another release of "
            "onnxruntime",
            metadata={"path": network.graph},
        ) from error
    if habits is None:
        raise Unmet(
            f"{network.graph.name} gives other logits for a token on top of its own keys and values than for the whole "
            "text: it is not a decoder in the usual layout, or its export failed; export it again",
            metadata={"path": network.graph, "missing": "decoding with past keys and values"},
        )
    return habits
