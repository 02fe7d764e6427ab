"""RetrieverService."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pickaxe.errors import InvalidParams
from pickaxe.handle import RetrieverHandle
from pickaxe.v1 import retriever_pb2, retriever_pb2_grpc
from pickaxe_services.codec import roles
from pickaxe_services.shared import Shared


class RetrieverServicer(retriever_pb2_grpc.RetrieverServiceServicer):
    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def Search(self, request: retriever_pb2.SearchRequest, context: Any) -> retriever_pb2.SearchResponse:
        use, queries, k, options = roles.read_search_request(request)
        self._shared.admit(queries, "queries")
        if k < 1:
            raise InvalidParams("k", f"must be at least 1 (got {k})")
        call = self._shared.call(context, options)
        async with self._shared.lanes.hold("retriever", use, call) as lane:
            handle = lane.handle
            assert isinstance(handle, RetrieverHandle)
            found, timings = await lane.run(lambda call: handle.search(queries, k, call=call), len(queries), call)
        return roles.write_search_response(replace(found, timings=timings))
