"""Artifacts on a server."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from pickaxe.artifact import Artifact
from pickaxe.errors import AlreadyExists
from pickaxe.v1 import artifact_pb2, artifact_pb2_grpc
from pickaxe_services.client.transport import Transport
from pickaxe_services.codec import admin
from pickaxe_services.records import ArtifactInfo
from pickaxe_services.tarstream import pack, unpack


class Artifacts:
    """List, fetch, send and delete."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = artifact_pb2_grpc.ArtifactServiceStub(transport.channel)

    def listing(self, method: str = "") -> list[ArtifactInfo]:
        """All artifacts, or one method's, newest first."""
        found: list[ArtifactInfo] = []
        token = ""
        while True:
            request = artifact_pb2.ListArtifactsRequest(method=method, page_token=token)
            answer = self._transport.unary(self._stub.ListArtifacts, request)
            found += map(admin.read_artifact, answer.artifacts)
            token = answer.next_page_token
            if not token:
                return found

    def get(self, name: str) -> ArtifactInfo:
        request = artifact_pb2.GetArtifactRequest(name=name)
        return admin.read_artifact(self._transport.unary(self._stub.GetArtifact, request).artifact)

    def delete(self, name: str) -> None:
        self._transport.unary(self._stub.DeleteArtifact, artifact_pb2.DeleteArtifactRequest(name=name))

    def download(
        self, name: str, out: str | os.PathLike[str], *, overwrite: bool = False, timeout: float | None = None
    ) -> Artifact:
        """Fetch an artifact to the directory `out`, which appears whole or not at all."""
        target = Path(out)
        if target.exists() and not overwrite:
            raise AlreadyExists(f"{str(out)!r} exists: choose another path, or overwrite", metadata={"path": out})
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        request = artifact_pb2.DownloadArtifactRequest(name=name)
        try:
            with tempfile.TemporaryFile(dir=target.parent) as stream:
                for piece in self._transport.stream(
                    self._stub.DownloadArtifact, request, self._transport.call(timeout, 0)
                ):
                    stream.write(piece.data)
                stream.seek(0)
                unpack(stream, fresh)
            if target.exists():
                shutil.rmtree(target)
            os.replace(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return Artifact.open(target, verify=False)

    def upload(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> ArtifactInfo:
        """Send an artifact; the answer holds the name that the server gave it."""
        artifact = Artifact.open(path)

        def pieces() -> Iterator[artifact_pb2.UploadArtifactRequest]:
            for piece in pack(artifact):
                yield artifact_pb2.UploadArtifactRequest(data=piece)

        answer = self._transport.upload(self._stub.UploadArtifact, pieces(), self._transport.call(timeout, 0))
        return admin.read_artifact(answer.artifact)
