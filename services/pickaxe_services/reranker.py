"""RerankerService."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pickaxe.handle import RerankerHandle
from pickaxe.v1 import reranker_pb2, reranker_pb2_grpc
from pickaxe_services.codec import roles
from pickaxe_services.shared import Shared


class RerankerServicer(reranker_pb2_grpc.RerankerServiceServicer):
    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def Rerank(self, request: reranker_pb2.RerankRequest, context: Any) -> reranker_pb2.RerankResponse:
        use, query, candidates, top_n, options = roles.read_rerank_request(request)
        self._shared.admit(candidates, "candidates")
        call = self._shared.call(context, options)
        async with self._shared.lanes.hold("reranker", use, call) as lane:
            handle = lane.handle
            assert isinstance(handle, RerankerHandle)
            ranking, timings = await lane.run(
                lambda call: handle.rerank(query, candidates, top_n, call=call), len(candidates), call
            )
        return roles.write_rerank_response(replace(ranking, timings=timings))
