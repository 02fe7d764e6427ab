"""DecoderService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

from pickaxe.handle import DecoderHandle
from pickaxe.v1 import decoder_pb2, decoder_pb2_grpc
from pickaxe_services.codec import roles
from pickaxe_services.pull import pull
from pickaxe_services.shared import Shared


class DecoderServicer(decoder_pb2_grpc.DecoderServiceServicer):
    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def Decode(
        self, request: decoder_pb2.DecodeRequest, context: Any
    ) -> AsyncIterator[decoder_pb2.DecodeResponse]:
        """Every stream steps in a thread of its own: the batching across streams is the language model's."""
        use, prompts, options = roles.read_decode_request(request)
        self._shared.admit(prompts, "prompts")
        call = self._shared.call(context, options)
        async with self._shared.lanes.hold("decoder", use, call) as lane:
            handle = lane.handle
            assert isinstance(handle, DecoderHandle)
            worker = self._shared.workers.start(f"decode-{handle.name}")
            async with aclosing(pull(partial(handle.decode, prompts, call=call), worker, call)) as chunks:
                async for chunk in chunks:
                    yield roles.write_chunk(chunk)
