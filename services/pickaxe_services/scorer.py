"""ScorerService."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from pickaxe.call import Call
from pickaxe.data import Item, Items
from pickaxe.errors import InvalidParams, TooLarge
from pickaxe.v1 import scorer_pb2, scorer_pb2_grpc
from pickaxe_services.codec import roles
from pickaxe_services.lanes import Lane
from pickaxe_services.records import Options
from pickaxe_services.shared import Shared


class ScorerServicer(scorer_pb2_grpc.ScorerServiceServicer):
    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def Score(self, request: scorer_pb2.ScoreRequest, context: Any) -> scorer_pb2.ScoreResponse:
        use, items, options = roles.read_score_request(request)
        self._shared.admit(items, "items")
        call = self._shared.call(context, options)
        async with self._shared.lanes.hold("scorer", use, call) as lane:
            return roles.write_score_response(await lane.score(items, options, call))

    async def ScoreStream(
        self, requests: AsyncIterator[scorer_pb2.ScoreStreamRequest], context: Any
    ) -> AsyncIterator[scorer_pb2.ScoreStreamResponse]:
        first = await anext(aiter(requests), None)
        if first is None:
            raise InvalidParams("open", "is missing: the first message of the stream names the method")
        use, options = roles.read_stream_open(first)
        call = self._stream_call(context, options)
        async with self._shared.lanes.hold("scorer", use, self._shared.call(context, options)) as lane:
            if lane.handle.opened.method.scope == "item":
                answers = self._by_batch(lane, requests, options, call)
            else:
                answers = self._as_pool(lane, requests, options, call)
            async for answer in answers:
                yield answer

    def _stream_call(self, context: Any, options: Options) -> Call:
        """A stream may last as long as its caller allows; `longest_call` bounds each run, not the stream."""
        remaining = context.time_remaining()
        return Call(timeout=remaining, seed=options.seed, budget=options.budget, tenant=options.tenant)

    def _run_call(self, stream: Call) -> Call:
        longest = time.monotonic() + self._shared.settings.longest_call
        deadline = longest if stream.deadline is None else min(longest, stream.deadline)
        return Call(deadline=deadline, seed=stream.seed, budget=stream.budget, tenant=stream.tenant)

    async def _by_batch(
        self, lane: Lane, requests: AsyncIterator[scorer_pb2.ScoreStreamRequest], options: Options, stream: Call
    ) -> AsyncIterator[scorer_pb2.ScoreStreamResponse]:
        """One answer per batch.  The next batch is read once this one is answered: HTTP/2 holds the caller back."""
        offset = 0
        async for request in requests:
            items = roles.read_stream_batch(request)
            self._shared.admit(items, "items")
            scores = await lane.score(items, options, self._run_call(stream), patient=True, start=offset)
            yield roles.write_stream_response(scores, offset)
            offset += len(items)

    async def _as_pool(
        self, lane: Lane, requests: AsyncIterator[scorer_pb2.ScoreStreamRequest], options: Options, stream: Call
    ) -> AsyncIterator[scorer_pb2.ScoreStreamResponse]:
        gathered: list[Item] = []
        limit = self._shared.settings.max_items_per_pool
        async for request in requests:
            gathered.extend(roles.read_stream_batch(request))
            if len(gathered) > limit:
                raise TooLarge(
                    f"more than {limit} items are more than one stream may gather for a method of scope "
                    f"{lane.handle.opened.method.scope}",
                    metadata={"limit": limit},
                )
        scores = await lane.score(Items(gathered), options, self._run_call(stream), patient=True)
        yield roles.write_stream_response(scores, 0)
