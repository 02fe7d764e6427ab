"""Two servers in processes of their own: a bare grpc.aio echo, and pickaxe with a trivial scorer."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import grpc
import numpy as np

from pickaxe import Column, Items, Method, Scores, catalog, hookimpl
from pickaxe.v1 import scorer_pb2


class Length(Method):
    """Number of characters: next to no work."""

    scope = "item"
    columns = (Column("length", "Characters."),)

    @hookimpl
    def score(self, items: Items) -> Scores:
        return Scores({"length": np.array([len(text) for text in items.texts()], np.float32)})


async def echo() -> None:
    async def same(request: scorer_pb2.ScoreRequest, _: grpc.aio.ServicerContext) -> scorer_pb2.ScoreRequest:
        return request

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    request = scorer_pb2.ScoreRequest
    handler = grpc.unary_unary_rpc_method_handler(same, request.FromString, request.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def served() -> None:
    from pickaxe_services.server import Server
    from pickaxe_services.settings import Settings

    with tempfile.TemporaryDirectory() as root, catalog.register(Length, "length", "scorer"):
        server = Server(Settings(root=Path(root), port=0))
        await server.start()
        print(server.address, flush=True)
        await server.wait()


if __name__ == "__main__":
    asyncio.run({"echo": echo, "pickaxe": served}[sys.argv[1]]())
