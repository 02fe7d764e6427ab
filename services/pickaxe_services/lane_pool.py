"""Opened methods, kept by last use: the same method, parameters and artifact share one lane."""

from __future__ import annotations

import asyncio
import collections
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from pickaxe.call import Call
from pickaxe.errors import Overloaded
from pickaxe.handle import MethodHandle
from pickaxe.host import Host
from pickaxe_services.lanes import Lane
from pickaxe_services.records import Use
from pickaxe_services.settings import Settings
from pickaxe_services.workers import Workers, within

log = logging.getLogger("pickaxe.services")

Key = tuple[Any, ...]


class LanePool:
    """At most `max_open_methods` lanes; only lanes that no call holds are closed."""

    def __init__(self, host: Host, settings: Settings, workers: Workers) -> None:
        self._host, self._settings, self._workers = host, settings, workers
        self._lanes: collections.OrderedDict[Key, Lane] = collections.OrderedDict()
        self._known: dict[str, Key] = {}
        """What callers wrote (role, name, parameters, artifact) → the key of the lane it means."""
        self._opening: dict[str, asyncio.Future[MethodHandle]] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    @asynccontextmanager
    async def hold(self, role: str, use: Use, call: Call) -> AsyncIterator[Lane]:
        """The lane of that method, opened if need be and kept open inside the block.

        Raises what opening a method raises, and `Overloaded` when every lane is held.
        """
        written = json.dumps([role, use.method, use.params, use.artifact], sort_keys=True)
        lane = self._lanes.get(self._known.get(written, ()))
        if lane is None:
            handle = await self._open(written, role, use, call)
            lane = self._admit(written, handle)
        self._lanes.move_to_end(self._known[written])
        lane.users += 1
        try:
            yield lane
        finally:
            lane.users -= 1

    async def _open(self, written: str, role: str, use: Use, call: Call) -> MethodHandle:
        """Open in a thread, once for all who ask meanwhile."""
        opening = self._opening.get(written)
        if opening is None:
            worker = self._workers.start(f"open-{use.method}")
            opening = worker.submit(partial(self._host.open, use.method, role, use.params, use.artifact or None))
            worker.stop()
            self._opening[written] = opening
            opening.add_done_callback(partial(self._opened, written))
        return await within(asyncio.shield(opening), call)

    def _opened(self, written: str, opening: asyncio.Future[MethodHandle]) -> None:
        self._opening.pop(written, None)
        if not opening.cancelled():
            opening.exception()  # seen by those who still wait; perhaps nobody

    def _admit(self, written: str, handle: MethodHandle) -> Lane:
        settings = self._settings
        key = handle.opened.key
        lane = self._lanes.get(key)
        if lane is None:
            self._make_room()
            lane = Lane(
                handle,
                self._workers,
                capacity=settings.max_items_waiting,
                max_batch=settings.max_batch_items,
                width=settings.runs_per_method,
                hang_grace=settings.hang_grace,
            )
            self._lanes[key] = lane
        self._known[written] = key
        return lane

    def _make_room(self) -> None:
        if len(self._lanes) < self._settings.max_open_methods:
            return
        idle = next((key for key, lane in self._lanes.items() if not lane.users), None)
        if idle is None:
            raise Overloaded(
                f"all {len(self._lanes)} opened methods are in use",
                metadata={"open": len(self._lanes)},
                retry_after=1.0,
            )
        self._drop(idle)

    def _drop(self, key: Key) -> None:
        self._lanes.pop(key).close()
        self._known = {written: known for written, known in self._known.items() if known != key}

    def forget(self, artifact: str) -> None:
        """Close what was opened on an artifact of that name, as its own or through a parameter."""
        quoted = json.dumps(artifact)
        for key in {known for written, known in self._known.items() if quoted in written}:
            if key in self._lanes:
                self._drop(key)

    def close(self) -> None:
        for key in list(self._lanes):
            self._drop(key)
