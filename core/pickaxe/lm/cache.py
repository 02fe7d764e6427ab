"""Keys and values of tokens that a model has read: what it need not read again."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pickaxe.errors import ArtifactCorrupt, InvalidParams
from pickaxe.extras import require

if TYPE_CHECKING:
    from pickaxe.lm.weights import Architecture
    from pickaxe.session import Binding, Session

Tensors = list[np.ndarray]
"""Key and value of layer 0, key and value of layer 1, …: (rows, kv_heads, capacity, head_size) each."""


class _Buffer:
    """Memory that several `KV` may look at; who may write where follows from who is still alive."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.views: weakref.WeakSet[KV] = weakref.WeakSet()
        self.lock = threading.RLock()
        self.native: list[Any] | None = None
        """The tensors as ONNX Runtime's values; on a GPU these are copies."""
        self.bindings: dict[Any, Binding] = {}
        """The native values tied to the graphs that ran on them, by session."""
        self.stale = False
        """The native values hold tokens that the tensors lack."""

    def fetch(self) -> Tensors:
        """The tensors, brought up to date first."""
        with self.lock:
            if self.stale and self.native is not None:
                for tensor, value in zip(self.tensors, self.native, strict=True):
                    tensor[...] = value.numpy()
                self.stale = False
        return self.tensors


class KV:
    """Keys (after rotary) and values of one or several rows of tokens.

    Row r uses slots `[0, lengths[r])`; slots beyond are free room.  To a caller a `KV` never changes: all
    operations return another one.  Appending writes into the free room when no other living `KV` has its
    tokens there, and copies otherwise, so drop what you no longer need (`kv = kv.truncate(n)`).
    """

    def __init__(self, tensors: Tensors | _Buffer, lengths: Sequence[int] | np.ndarray) -> None:
        self._buffer = tensors if isinstance(tensors, _Buffer) else _Buffer(tensors)
        self.lengths = np.asarray(lengths, dtype=np.int64)
        with self._buffer.lock:
            self._buffer.views.add(self)

    @classmethod
    def empty(cls, architecture: Architecture, rows: int, capacity: int, dtype: type[np.floating] = np.float32) -> KV:
        """Room for `capacity` tokens in each row, none used."""
        shape = (rows, architecture.kv_heads, capacity, architecture.head_size)
        return cls([np.zeros(shape, dtype) for _ in range(2 * architecture.layers)], np.zeros(rows))

    # ------------------------------------------------------------ looking

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def layers(self) -> int:
        return len(self._buffer.tensors) // 2

    @property
    def width(self) -> int:
        """Slots of the longest row."""
        return int(self.lengths.max(initial=0))

    @property
    def capacity(self) -> int:
        return int(self._buffer.tensors[0].shape[2])

    @property
    def tensors(self) -> Tensors:
        """The memory itself, with its free room.  To be read only: a GPU may hold a copy."""
        return self._buffer.fetch()

    @property
    def token_bytes(self) -> int:
        """Of one token in one row."""
        return self.nbytes // max(1, self.rows * self.capacity)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._buffer.tensors)

    def native(self, make: Callable[[np.ndarray], Any]) -> list[Any]:
        """The memory as ONNX Runtime's values, made once."""
        with self._buffer.lock:
            if self._buffer.native is None:
                self._buffer.native = [make(tensor) for tensor in self._buffer.tensors]
            return self._buffer.native

    def bound(self, session: Session, bind: Callable[[], Binding]) -> Binding:
        """What ties the memory to a graph, made once: tying takes as long as a tenth of a short run."""
        with self._buffer.lock:
            if session not in self._buffer.bindings:
                self._buffer.bindings[session] = bind()
            return self._buffer.bindings[session]

    def written_apart(self) -> None:
        """Say that the native values, which do not share the tensors' memory, were written to."""
        self._buffer.stale = True

    def keys(self, layer: int) -> np.ndarray:
        """(rows, kv_heads, width, head_size), rotated; slots at or beyond a row's length hold anything."""
        return self.tensors[2 * layer][:, :, : self.width]

    def values(self, layer: int) -> np.ndarray:
        """(rows, kv_heads, width, head_size); slots at or beyond a row's length hold anything."""
        return self.tensors[2 * layer + 1][:, :, : self.width]

    # ------------------------------------------------------------ growing

    def extended(self, counts: np.ndarray, reach: int, spare: int = 0) -> KV:
        """A cache with `counts` more tokens per row, still to be written, and free memory up to slot `reach`.

        It lies in this cache's free room unless another living cache has tokens there; then it is a copy with
        room for `spare` tokens beyond, so that the next steps need none.
        """
        with self._buffer.lock:  # of two threads that extend the same prefix, one gets the room
            others = (view for view in self._buffer.views if view is not self)
            if reach <= self.capacity and not any((view.lengths > self.lengths).any() for view in others):
                return KV(self._buffer, self.lengths + counts)
        copy = self.resized(reach + spare)
        return KV(copy._buffer, self.lengths + counts)

    # ------------------------------------------------------------ reshaping

    def tile(self, n: int) -> KV:
        """Each row n times: row r becomes rows r * n to r * n + n - 1."""
        return self.gather(np.repeat(np.arange(self.rows), n))

    def gather(self, rows: Sequence[int] | np.ndarray) -> KV:
        """These rows in this order; a row may come more than once."""
        chosen = np.asarray(rows, dtype=np.int64)
        return self._copy(chosen, int(self.lengths[chosen].max(initial=0)))

    def take(self, slots: np.ndarray) -> KV:
        """The tokens at these slots of each row, (k,) or (rows, k): e.g. the accepted path of a token tree."""
        index = np.broadcast_to(np.asarray(slots, dtype=np.int64), (self.rows, np.shape(slots)[-1]))
        if index.size and (index.min() < 0 or (index.max(axis=1) >= self.lengths).any()):
            raise InvalidParams("slots", f"must lie within the rows' lengths {self.lengths.tolist()}")
        picked = [np.take_along_axis(tensor, index[:, None, :, None], axis=2) for tensor in self.tensors]
        return KV(picked, np.full(self.rows, index.shape[1]))

    def truncate(self, lengths: int | np.ndarray) -> KV:
        """Only the first tokens of each row; shares this cache's memory."""
        return KV(self._buffer, np.minimum(self.lengths, lengths))

    def left_pad(self, width: int | None = None) -> KV:
        """Every row moved to end at slot `width` (default: the longest row); the slots before hold zeros.

        All lengths become `width`: the padding must be masked by a bias.
        """
        width = self.width if width is None else width
        if width < self.width:
            raise InvalidParams("width", f"is {width}, but the longest row has {self.width} tokens")
        padded = []
        for tensor in self.tensors:
            moved = np.zeros((*tensor.shape[:2], width, tensor.shape[3]), tensor.dtype)
            for row, length in enumerate(self.lengths):
                moved[row, :, width - length :] = tensor[row, :, :length]
            padded.append(moved)
        return KV(padded, np.full(self.rows, width))

    @staticmethod
    def concatenate(parts: Sequence[KV], axis: Literal["rows", "tokens"] = "rows") -> KV:
        """Caches one below the other, or (same number of rows) the tokens of one after those of another."""
        if axis == "rows":
            width = max(part.width for part in parts)
            wide = [part._copy(np.arange(part.rows), width) for part in parts]
            joined = [np.concatenate(layers) for layers in zip(*(part.tensors for part in wide), strict=True)]
            return KV(joined, np.concatenate([part.lengths for part in parts]))
        if len({part.rows for part in parts}) != 1:
            raise InvalidParams("parts", f"have {[part.rows for part in parts]} rows; tokens join row by row")
        lengths = np.sum([part.lengths for part in parts], axis=0)
        result = parts[0]._copy(np.arange(parts[0].rows), int(lengths.max()))
        for part in parts[1:]:
            for target, source in zip(result.tensors, part.tensors, strict=True):
                for row, (start, length) in enumerate(zip(result.lengths, part.lengths, strict=True)):
                    target[row, :, start : start + length] = source[row, :, :length]
            result = KV(result._buffer, result.lengths + part.lengths)
        return result

    def resized(self, capacity: int) -> KV:
        """A copy with room for that many tokens per row in all."""
        return self._copy(np.arange(self.rows), capacity)

    def _copy(self, rows: np.ndarray, capacity: int) -> KV:
        lengths = self.lengths[rows]
        width = int(lengths.max(initial=0))
        copies = []
        for tensor in self.tensors:
            copy = np.zeros((len(rows), tensor.shape[1], capacity, tensor.shape[3]), tensor.dtype)
            copy[:, :, :width] = tensor[rows, :, :width]
            copies.append(copy)
        return KV(copies, lengths)

    # ------------------------------------------------------------ keeping

    def save(self, path: Path, metadata: dict[str, str] | None = None) -> None:
        """Write a safetensors file; put what the cache depends on (model digest, token ids) into `metadata`."""
        stored = {"lengths": self.lengths}
        for layer in range(self.layers):
            stored[f"key.{layer}"] = np.ascontiguousarray(self.keys(layer))
            stored[f"value.{layer}"] = np.ascontiguousarray(self.values(layer))
        require("safetensors.numpy", extra="cpu").save_file(stored, str(path), metadata)

    @staticmethod
    def load(path: Path) -> KV:
        """The cache of a file that `save` wrote; raises `ArtifactCorrupt`."""
        safetensors = require("safetensors", extra="cpu")
        try:
            stored = require("safetensors.numpy", extra="cpu").load_file(str(path))
            layers = (len(stored) - 1) // 2
            tensors = [stored[f"{kind}.{layer}"] for layer in range(layers) for kind in ("key", "value")]
            return KV(tensors, stored["lengths"])
        except (safetensors.SafetensorError, KeyError, OSError) as error:
            raise ArtifactCorrupt(f"{path} is not a saved cache: {error}", metadata={"path": path}) from error


def rotate(keys: np.ndarray, positions: np.ndarray, architecture: Architecture, inverse: bool = False) -> np.ndarray:
    """Apply the rotary embedding to keys (…, tokens, head_size) at positions (tokens,), or take it off.

    Takes a cache's keys to before rotary and back; also moves keys from one position to another.
    """
    angles = np.asarray(positions)[:, None] * architecture.inverse_frequencies()
    cos, sin = np.cos(angles), np.sin(angles) * (-1.0 if inverse else 1.0)
    half = architecture.head_size // 2
    first, second = (
        (slice(0, None, 2), slice(1, None, 2)) if architecture.rope_interleaved else (slice(half), slice(half, None))
    )
    rotated = np.empty_like(keys)
    rotated[..., first] = keys[..., first] * cos - keys[..., second] * sin
    rotated[..., second] = keys[..., first] * sin + keys[..., second] * cos
    return rotated
