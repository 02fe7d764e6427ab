"""Keys and values of contexts: read apart, kept for later requests, put one after the other."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pickaxe.errors import ArtifactCorrupt
from pickaxe.extras import require
from pickaxe.lm import KV

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.lm import LM

SUFFIX = ".safetensors"
FORMAT = "1"
"""Raised whenever what is kept, or what it depends on, changes."""


def encode(lm: LM, prefix: KV, contexts: Sequence[Sequence[int]], batch: int, call: Call | None = None) -> list[KV]:
    """Keys and values of each context alone, read after the prefix (one row) without sight of the others.

    Their positions go on from the prefix, the same for all.  `batch` of them, of like length, are read together.
    """
    found: dict[int, KV] = {}
    order = sorted(range(len(contexts)), key=lambda place: len(contexts[place]))
    for begin in range(0, len(order), batch):
        if call is not None:
            call.check()
        places = order[begin : begin + batch]
        lengths = [len(contexts[place]) for place in places]
        ids = np.zeros((len(places), max(lengths)), np.int64)
        for row, place in enumerate(places):
            ids[row, : lengths[row]] = contexts[place]
        _, cache = lm.forward(ids, lengths=lengths, past=prefix.tile(len(places)), logits_at="none", call=call)
        for row, place in enumerate(places):
            own = slice(prefix.width, prefix.width + lengths[row])
            found[place] = KV([tensor[row : row + 1, :, own].copy() for tensor in cache.tensors], [lengths[row]])
    return [found[place] for place in range(len(contexts))]


def assemble(parts: Sequence[KV], spare: int) -> KV:
    """The tokens of all parts (one row each) one after the other, with room for `spare` more."""
    total = sum(part.width for part in parts)
    tensors = []
    for sources in zip(*(part.tensors for part in parts), strict=True):
        _, heads, _, size = sources[0].shape
        joined = np.empty((1, heads, total + spare, size), sources[0].dtype)
        begin = 0
        for source, part in zip(sources, parts, strict=True):
            joined[:, :, begin : begin + part.width] = source[:, :, : part.width]
            begin += part.width
        joined[:, :, total:] = 0
        tensors.append(joined)
    return KV(tensors, [total])


@dataclass(frozen=True)
class Held:
    """What a request reads: the prefix, its contexts in order, their keys, and which were there before."""

    prefix: KV
    contexts: list[KV]
    keys: list[str]
    reused: list[bool]


class Shelf:
    """Keys and values of contexts under a hash of all that they depend on: model, prefix and context.

    They stay in memory as long as this object and, with a `folder`, on disk; either holds `limit` bytes at most and
    gives up what was used longest ago.
    """

    def __init__(self, lm: LM, folder: Path | None, limit: int = 0) -> None:
        self._lm = lm
        self._folder = folder
        self._limit = limit
        self._memory: dict[str, KV] = {}

    def read(self, prefix: list[int], contexts: list[list[int]], batch: int, call: Call) -> Held:
        """Keys and values of the prefix and of each context, taken from the shelf or read and put there."""
        lead = self._get(prefix, [])
        if lead is None:
            _, lead = self._lm.forward([prefix], logits_at="none", call=call)
            self._put(prefix, [], lead)
        keys = [self.key(prefix, ids) for ids in contexts]
        held: dict[str, KV | None] = {key: self._get(prefix, ids) for key, ids in zip(keys, contexts, strict=True)}
        reused = [held[key] is not None for key in keys]
        missing = {key: ids for key, ids in zip(keys, contexts, strict=True) if held[key] is None}
        fresh = encode(self._lm, lead, list(missing.values()), batch, call)
        for (key, ids), read in zip(missing.items(), fresh, strict=True):
            held[key] = read
            self._put(prefix, ids, read)
        return Held(lead, [cache for key in keys if (cache := held[key]) is not None], keys, reused)

    def key(self, prefix: list[int], ids: list[int]) -> str:
        """Name of a context after this prefix, for this model in this precision."""
        return hashlib.sha256(repr(sorted(self._identity(prefix, ids).items())).encode()).hexdigest()[:40]

    def _identity(self, prefix: list[int], ids: list[int]) -> dict[str, str]:
        return {
            "format": FORMAT,
            "model": self._lm.digest,
            "precision": self._lm.network.precision,
            "prefix": hashlib.sha256(np.asarray(prefix, np.int64).tobytes()).hexdigest(),
            "context": hashlib.sha256(np.asarray(ids, np.int64).tobytes()).hexdigest(),
        }

    # ------------------------------------------------------------ taking and putting

    def _get(self, prefix: list[int], ids: list[int]) -> KV | None:
        key = self.key(prefix, ids)
        found = self._memory.pop(key, None) or self._load(key, self._identity(prefix, ids), len(ids or prefix))
        if found is not None:
            self._remember(key, found)
        return found

    def _put(self, prefix: list[int], ids: list[int], cache: KV) -> None:
        key = self.key(prefix, ids)
        self._remember(key, cache)
        if self._folder is not None and cache.nbytes <= self._limit:
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = self._folder / f".{key}.{os.getpid()}.{threading.get_ident()}"
            cache.save(draft, self._identity(prefix, ids))
            os.replace(draft, self._folder / f"{key}{SUFFIX}")
            self._trim(self._folder)

    def _remember(self, key: str, cache: KV) -> None:
        self._memory[key] = cache
        total = sum(each.nbytes for each in self._memory.values())
        for oldest in list(self._memory):
            if total <= self._limit:
                return
            total -= self._memory.pop(oldest).nbytes

    def _load(self, key: str, identity: dict[str, str], length: int) -> KV | None:
        if self._folder is None or not (path := self._folder / f"{key}{SUFFIX}").is_file():
            return None
        if (found := _loaded(path, identity)) is None or found.lengths.tolist() != [length]:
            warnings.warn(
                f"the kept context {key} is damaged, or was made with another model or prefix: it is read again",
                RuntimeWarning,
                stacklevel=2,
            )
            path.unlink(missing_ok=True)
            return None
        with suppress(FileNotFoundError):  # another process made room
            os.utime(path)
        return found

    def _trim(self, folder: Path) -> None:
        """Delete what was used longest ago, until the rest is within the limit."""
        files = []
        for path in folder.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):  # another process made room
                files.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._limit:
                return
            path.unlink(missing_ok=True)
            total -= size


def _loaded(path: Path, identity: dict[str, str]) -> KV | None:
    """The cache in the file, if it is whole and what it should be."""
    safetensors = require("safetensors", extra="cpu")
    try:
        with safetensors.safe_open(path, "numpy") as stored:
            if stored.metadata() != identity:
                return None
        return KV.load(path)
    except (safetensors.SafetensorError, ArtifactCorrupt, OSError):
        return None
