"""ArtifactService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

from pickaxe.v1 import artifact_pb2, artifact_pb2_grpc
from pickaxe_services.codec import admin
from pickaxe_services.pull import pull
from pickaxe_services.records import Options
from pickaxe_services.shared import Shared, page


class ArtifactServicer(artifact_pb2_grpc.ArtifactServiceServicer):
    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def ListArtifacts(
        self, request: artifact_pb2.ListArtifactsRequest, context: Any
    ) -> artifact_pb2.ListArtifactsResponse:
        found = await asyncio.to_thread(self._shared.artifacts.listing, request.method)
        chosen, token = page(found, request.page_size, request.page_token)
        return artifact_pb2.ListArtifactsResponse(
            artifacts=[admin.write_artifact(info) for info in chosen], next_page_token=token
        )

    async def GetArtifact(
        self, request: artifact_pb2.GetArtifactRequest, context: Any
    ) -> artifact_pb2.GetArtifactResponse:
        info = self._shared.artifacts.get(request.name)
        return artifact_pb2.GetArtifactResponse(artifact=admin.write_artifact(info))

    async def DeleteArtifact(
        self, request: artifact_pb2.DeleteArtifactRequest, context: Any
    ) -> artifact_pb2.DeleteArtifactResponse:
        await asyncio.to_thread(self._shared.artifacts.delete, request.name)
        self._shared.lanes.forget(request.name)
        return artifact_pb2.DeleteArtifactResponse()

    async def DownloadArtifact(
        self, request: artifact_pb2.DownloadArtifactRequest, context: Any
    ) -> AsyncIterator[artifact_pb2.DownloadArtifactResponse]:
        call = self._shared.call(context, Options())
        worker = self._shared.workers.start("download")
        async with aclosing(pull(partial(self._shared.artifacts.pack, request.name), worker, call)) as pieces:
            async for piece in pieces:
                yield artifact_pb2.DownloadArtifactResponse(data=piece)

    async def UploadArtifact(
        self, requests: AsyncIterator[artifact_pb2.UploadArtifactRequest], context: Any
    ) -> artifact_pb2.UploadArtifactResponse:
        self._shared.admit_long_work()
        with self._shared.artifacts.incoming() as incoming:
            async for request in requests:
                await asyncio.to_thread(incoming.add, request.data)
            info = await asyncio.to_thread(incoming.commit)
        return artifact_pb2.UploadArtifactResponse(artifact=admin.write_artifact(info))
