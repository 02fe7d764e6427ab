"""What the service itself speaks about, as plain data: methods in use, jobs, artifacts, limits."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pickaxe.data import Progress
from pickaxe.errors import PickaxeError

JobKind = Literal["fit", "index"]
JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Part = Literal["examples", "validation", "unlabelled", "documents"]

FINAL: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Use:
    """Which method, with which parameters, on which artifact ("" or "artifacts/{id}")."""

    method: str
    params: Mapping[str, Any] = field(default_factory=dict)
    artifact: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """What one call may use; see `pickaxe.call.Call`."""

    seed: int = 0
    budget: int | None = None
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a job is to do."""

    kind: JobKind
    use: Use
    request_id: str = ""
    options: Options = Options()
    base: str = ""
    """The index that an index starts from, "artifacts/{id}"."""
    remove: tuple[str, ...] = ()
    """Ids of documents of the base that the new index lacks."""


@dataclass(frozen=True)
class Job:
    """A fit or an index on a server, as it stands."""

    name: str
    kind: JobKind
    use: Use
    state: JobState
    progress: Progress | None = None
    artifact: str = ""
    error: PickaxeError | None = None
    created: datetime.datetime | None = None
    started: datetime.datetime | None = None
    ended: datetime.datetime | None = None
    attempt: int = 1

    @property
    def final(self) -> bool:
        return self.state in FINAL


@dataclass(frozen=True)
class ArtifactInfo:
    """An artifact on a server."""

    name: str
    kind: str
    method: str
    method_version: int
    params: Mapping[str, Any]
    digest: str
    bytes: int
    created: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request and one server may hold."""

    items_per_request: int
    items_waiting: int
    message_bytes: int
    artifact_bytes: int
    jobs: int


@dataclass(frozen=True)
class ServerInfo:
    """What a server says about itself; `models` maps names to descriptions."""

    version: str
    providers: tuple[str, ...]
    limits: Limits
    models: Mapping[str, str] = field(default_factory=dict)
    resources: tuple[str, ...] = ()
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """A method as package metadata lists it."""

    name: str
    roles: tuple[str, ...]
    distribution: str
