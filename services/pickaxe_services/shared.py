"""What all servicers work with."""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pickaxe.call import Call
from pickaxe.errors import Draining, InvalidParams, TooLarge
from pickaxe.host import Host
from pickaxe_services.artifacts import ArtifactStore
from pickaxe_services.jobs import JobManager
from pickaxe_services.lane_pool import LanePool
from pickaxe_services.records import Options
from pickaxe_services.settings import Settings
from pickaxe_services.workers import Workers

T = TypeVar("T")

PAGE = 100
MAX_PAGE = 1000


class Phase(enum.Enum):
    """A server's life: it serves, announces its end while still serving, then refuses calls."""

    SERVING = "serving"
    LEAVING = "leaving"
    REFUSING = "refusing"


@dataclass
class Shared:
    """One server's parts."""

    settings: Settings
    host: Host
    workers: Workers
    lanes: LanePool
    artifacts: ArtifactStore
    jobs: JobManager
    phase: Phase = Phase.SERVING

    def call(self, context: Any, options: Options) -> Call:
        """The `Call` of a request: its deadline, or the longest the server allows."""
        remaining = context.time_remaining()
        longest = self.settings.longest_call
        seconds = longest if remaining is None or not math.isfinite(remaining) else min(remaining, longest)
        return Call(
            deadline=time.monotonic() + seconds, seed=options.seed, budget=options.budget, tenant=options.tenant
        )

    def admit(self, given: Sequence[object], what: str) -> None:
        """Raise `TooLarge` for more than one request may hold."""
        limit = self.settings.max_items_per_request
        if len(given) > limit:
            raise TooLarge(
                f"{len(given)} {what} are more than one request may hold ({limit}): split it or stream it",
                metadata={what: len(given), "limit": limit},
            )

    def admit_long_work(self) -> None:
        """Raise `Draining` for what would be cut off by the end of the server."""
        if self.phase is not Phase.SERVING:
            raise Draining("the server is shutting down and starts nothing new", retry_after=1.0)


def page(values: Sequence[T], size: int, token: str) -> tuple[Sequence[T], str]:
    """One page of a list and the token of the next; raises `InvalidParams` for a token nobody gave out."""
    if size < 0:
        raise InvalidParams("page_size", f"must be 0 or more (got {size})")
    if token and not (token.isascii() and token.isdigit()):
        raise InvalidParams("page_token", f"is not a token of this server (got {token!r})")
    start = int(token or 0)
    stop = start + min(size or PAGE, MAX_PAGE)
    return values[start:stop], str(stop) if stop < len(values) else ""
