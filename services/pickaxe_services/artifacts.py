"""The artifacts of one server: directories under `<root>/artifacts`, named `artifacts/{id}`."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pickaxe.artifact import MANIFEST, Artifact
from pickaxe.errors import PickaxeError, TooLarge, UnknownArtifact
from pickaxe_services.records import ArtifactInfo
from pickaxe_services.tarstream import pack, unpack

_NAME = re.compile(r"artifacts/([A-Za-z0-9][A-Za-z0-9_.-]*)")
_HIDDEN = (".incoming-", ".deleted-")


class ArtifactStore:
    """Lists, checks in, hands out and deletes artifacts.  Everything becomes visible, or vanishes, by one rename."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root, self.max_bytes = root, max_bytes
        root.mkdir(parents=True, exist_ok=True)
        for left in root.iterdir():
            if left.name.startswith(_HIDDEN):
                shutil.rmtree(left, ignore_errors=True)

    def path(self, name: str) -> Path:
        """The directory; raises `UnknownArtifact`."""
        match = _NAME.fullmatch(name)
        if match is None or not (self.root / match[1] / MANIFEST).is_file():
            raise UnknownArtifact(f"no artifact is called {name!r} on this server", metadata={"artifact": name})
        return self.root / match[1]

    def get(self, name: str) -> ArtifactInfo:
        return _info(Artifact.open(self.path(name), verify=False))

    def listing(self, method: str = "") -> list[ArtifactInfo]:
        """Every artifact that can be read, newest first."""
        found = []
        for path in self.root.iterdir():
            if _NAME.fullmatch(f"artifacts/{path.name}") and (path / MANIFEST).is_file():
                try:
                    found.append(_info(Artifact.open(path, verify=False)))
                except PickaxeError:
                    continue  # damaged: named by `get`, left out here
        chosen = [info for info in found if method in ("", info.method)]
        return sorted(chosen, key=lambda info: (info.created or _EPOCH, info.name), reverse=True)

    def delete(self, name: str) -> None:
        """What is open on it goes on working until it is closed."""
        doomed = self.root / f".deleted-{uuid.uuid4().hex}"
        os.replace(self.path(name), doomed)
        shutil.rmtree(doomed)

    def pack(self, name: str) -> Iterator[bytes]:
        return pack(Artifact.open(self.path(name)))

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """Room for an upload, cleared away afterwards."""
        room = self.root / f".incoming-{uuid.uuid4().hex}"
        room.mkdir()
        try:
            with (room / "tar").open("w+b") as stream:
                yield Incoming(self, room, stream)
        finally:
            shutil.rmtree(room)


class Incoming:
    """One upload: pieces are added, then it is checked and becomes an artifact."""

    def __init__(self, store: ArtifactStore, room: Path, stream: BinaryIO) -> None:
        self._store, self._room, self._stream = store, room, stream
        self._bytes = 0

    def add(self, piece: bytes) -> None:
        """Raises `TooLarge` above the server's limit."""
        self._bytes += len(piece)
        if self._bytes > self._store.max_bytes:
            raise TooLarge(
                f"an artifact of more than {self._store.max_bytes} bytes is above the server's limit",
                metadata={"limit": self._store.max_bytes},
            )
        self._stream.write(piece)

    def commit(self) -> ArtifactInfo:
        """Raises `ArtifactCorrupt` when the tar is not a whole artifact."""
        self._stream.seek(0)
        artifact = unpack(self._stream, self._room / "files")
        method = re.sub(r"[^a-z0-9]", "", artifact.manifest["method"][:40].lower()) or "artifact"
        name = f"{method}-{uuid.uuid4().hex[:12]}"
        os.replace(artifact.path, self._store.root / name)
        return self._store.get(f"artifacts/{name}")


_EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC)


def _info(artifact: Artifact) -> ArtifactInfo:
    manifest = artifact.manifest
    stamp = (artifact.path / MANIFEST).stat().st_mtime
    return ArtifactInfo(
        name=f"artifacts/{artifact.path.name}",
        kind=artifact.kind,
        method=manifest["method"],
        method_version=manifest["method_version"],
        params=manifest["params"],
        digest=artifact.digest,
        bytes=artifact.bytes,
        created=datetime.datetime.fromtimestamp(stamp, datetime.UTC),
    )
