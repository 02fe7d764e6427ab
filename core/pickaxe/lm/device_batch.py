"""A batch whose keys and values stay in the memory of a GPU, decoded by captured graphs.

A step launches some 400 kernels of a few microseconds each, so that the launches take longer than the work; a
captured graph launches them all at once.  It is captured per number of rows, and has its addresses burnt in: all
tensors of a step are made once and written to in place.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe.lm.cache import KV
from pickaxe.lm.outcome import Outcome

if TYPE_CHECKING:
    from pickaxe.lm.network import OwnNetwork
    from pickaxe.session import Binding

LEAST = 512
"""Slots per row that a batch has room for at first."""


class DeviceBatch:
    """Up to `rows` sequences, as `Batch` has them: row numbers are dense, `[0, active)`.

    A row keeps the place in memory that it got, the lowest free one; steps run over all places up to the highest
    one in use.  Places that are free, or whose rows do not move, write one token that nobody reads.
    """

    def __init__(self, network: OwnNetwork, rows: int, capacity: int = LEAST) -> None:
        self._network, self._rows = network, rows
        self._memory = _Memory(network, rows, max(LEAST, capacity))
        self._lengths = np.zeros(rows, np.int64)
        self._places: list[int] = []
        self._free = list(range(rows))

    @property
    def active(self) -> int:
        return len(self._places)

    @property
    def full(self) -> bool:
        return not self._free

    def clear(self) -> None:
        """Remove all rows; the memory and what was captured stay."""
        self._places, self._free = [], list(range(self._rows))
        self._lengths[:] = 0

    def join(self, prompt: KV, row: int = 0) -> int:
        """Add this row of `prompt`; returns its number here."""
        length = int(prompt.lengths[row])
        self._reserve(length + 1)
        place = heapq.heappop(self._free)
        self._memory.write(place, prompt, row)
        self._lengths[place] = length
        self._places.append(place)
        return self.active - 1

    def leave(self, row: int) -> int:
        """Remove a row: the last one takes its number.  Returns the number which that one had."""
        heapq.heappush(self._free, self._places[row])
        self._lengths[self._places[row]] = 0
        self._places[row] = self._places[-1]
        self._places.pop()
        return self.active

    def step(self, tokens: Sequence[int], going: Sequence[bool] | None = None) -> Outcome:
        """Append one token to every active row, or only to those `going` on; what may follow those that moved."""
        places = np.array(self._places)
        moving = places if going is None else places[np.asarray(going, bool)]
        self._reserve(int(self._lengths.max()) + 1)
        ids = np.zeros(self._rows, np.int64)
        ids[places] = tokens
        outcome = self._memory.step(ids, self._lengths, int(places.max()) + 1, moving)
        self._lengths[moving] += 1
        return outcome

    def _reserve(self, length: int) -> None:
        """Room for rows of this length: at least twice what there was, since all is captured anew."""
        capacity = self._memory.capacity
        if length <= capacity:
            return
        wanted = max(length, min(2 * capacity, self._network.architecture.context))
        wider = _Memory(self._network, self._rows, wanted)
        rows = KV(self._memory.read(), self._lengths)
        for place in self._places:
            wider.write(place, rows, place)
        self._memory = wider  # only now: on a CPU `rows` looks at the old memory


@dataclass(frozen=True)
class _Captured:
    """A graph over the first `count` places, with the tensors that it reads and writes."""

    number: int
    count: int
    binding: Binding
    given: dict[str, Any]
    made: dict[str, Any]


class _Memory:
    """Keys and values of all places, and the graphs that work on them."""

    def __init__(self, network: OwnNetwork, rows: int, capacity: int) -> None:
        arch = network.architecture
        self.capacity = capacity
        self._network, self._rows = network, rows
        self._step = network.runtime.open(network.folder / "step.onnx", provider_options={"enable_cuda_graph": "1"})
        self._join = network.runtime.open(network.folder / "join.onnx")
        self._shape = (rows, arch.kv_heads, capacity, arch.head_size)
        # Zeros: what no token was written to may be read, and must be numbers.
        self._tensors = [self._step.ort_value(np.zeros(self._shape, network.dtype)) for _ in range(2 * arch.layers)]
        self._graphs: dict[int, _Captured] = {}
        # A graph belongs to the thread that captured it, and steps are led by the threads of callers.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pickaxe-steps")

    def read(self) -> list[np.ndarray]:
        """The tensors in host memory."""
        return [tensor.numpy() for tensor in self._tensors]

    def write(self, place: int, prompt: KV, row: int) -> None:
        """Copy a row of `prompt` to this place, from wherever it lies."""
        arch, length = self._network.architecture, int(prompt.lengths[row])
        slots = np.empty((arch.kv_heads, length, 3), np.int64)
        slots[..., 0], slots[..., 1], slots[..., 2] = place, np.arange(arch.kv_heads)[:, None], np.arange(length)
        names = [f"{kind}.{layer}" for layer in range(arch.layers) for kind in ("key", "value")]
        read = dict(zip(names, prompt.native(self._join.ort_value), strict=True))
        memory = dict(zip(names, self._tensors, strict=True))
        feeds = {"row": np.array([row]), "tokens": np.array([length]), "slots": slots}
        feeds |= {f"prompt_{name}": value for name, value in read.items()}
        feeds |= {f"memory_{name}": value for name, value in memory.items()}
        self._join.bind(feeds, {f"joined_{name}": value for name, value in memory.items()}).run()

    def step(self, ids: np.ndarray, lengths: np.ndarray, reach: int, wanted: np.ndarray) -> Outcome:
        """A token for each of the first `reach` places on top of so many; what may follow at those `wanted`."""
        count = min(1 << (reach - 1).bit_length(), self._rows)
        if count not in self._graphs:
            self._graphs[count] = self._graph(count)
        graph = self._graphs[count]
        graph.given["input_ids"].update_inplace(ids[:count, None])
        graph.given["position_ids"].update_inplace(lengths[:count, None])
        graph.given["seqlens_k"].update_inplace(lengths[:count].astype(np.int32))
        self._thread.submit(graph.binding.run, captured=graph.number).result()
        best, peak, total = (graph.made[name].numpy()[wanted] for name in ("best", "peak", "total"))
        return Outcome(best, peak, total.astype(np.float64), lambda: graph.made["logits"].numpy()[wanted])

    def _graph(self, count: int) -> _Captured:
        session, network = self._step, self._network
        given = {
            "input_ids": session.ort_value(np.zeros((count, 1), np.int64)),
            "position_ids": session.ort_value(np.zeros((count, 1), np.int64)),
            "seqlens_k": session.ort_value(np.zeros(count, np.int32)),
            "total_sequence_length": session.ort_value(np.array(self.capacity, np.int32), on_host=True),
        }
        if network.ragged:
            given["query_seqlens"] = session.ort_value(np.ones(count, np.int32))
        made = {name: session.empty((count,), kind) for name, kind in _PER_ROW.items()}
        made["logits"] = session.empty((count, network.architecture.vocab), np.float32)
        binding = session.bind(given, made)
        shape = (count, *self._shape[1:])
        for name, tensor in zip(network.cache_names("past"), self._tensors, strict=True):
            binding.feed_part(name, tensor, shape)
        for name, tensor in zip(network.cache_names("present"), self._tensors, strict=True):
            binding.target_part(name, tensor, shape)
        return _Captured(next(session.graph_numbers), count, binding, given, made)


_PER_ROW = {"best": np.int64, "peak": np.float32, "total": np.float32}
