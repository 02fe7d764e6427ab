"""What stands before every call: parsing, limits, the error vocabulary, one log line.

gRPC would answer a malformed message with UNKNOWN and a Python class name, so messages are parsed here.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from pickaxe.durable import is_full_disk
from pickaxe.errors import Draining, InvalidItems, MethodFailed, PickaxeError, TooLarge, Unmet
from pickaxe_services.status import DETAILS, to_status

PREFIX = "/pickaxe.v1."
REQUEST_ID_HEADER = "x-request-id"

log = logging.getLogger("pickaxe.services")
calls = logging.getLogger("pickaxe.calls")


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of pickaxe's own services; health and reflection pass untouched."""

    def __init__(self, max_message_bytes: int, refusing: Callable[[], bool]) -> None:
        self._max_message_bytes = max_message_bytes
        self._refusing = refusing
        self._handlers: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        method = details.method
        if method in self._handlers:
            return self._handlers[method]
        handler: Any = await continuation(details)
        if handler is None or not method.startswith(PREFIX):
            return handler
        parse = _Parser(handler.request_deserializer, self._max_message_bytes)
        self._handlers[method] = _wrapped(handler, parse, lambda context: _Watch(method, context, self._refusing))
        return self._handlers[method]


class _Parser:
    """Bytes of a message to the message."""

    def __init__(self, deserialize: Callable[[bytes], Any], limit: int) -> None:
        self._deserialize, self._limit = deserialize, limit

    def __call__(self, raw: bytes) -> Any:
        if len(raw) > self._limit:
            raise TooLarge(
                f"the message has {len(raw)} bytes, the limit is {self._limit}: split it or stream it",
                metadata={"bytes": len(raw), "limit": self._limit},
            )
        try:
            return self._deserialize(raw)
        except DecodeError:
            raise InvalidItems("request", "is not a valid protobuf message of this call") from None

    async def each(self, raws: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for raw in raws:
            yield self(raw)


class _Watch:
    """One call: refuses while draining, turns exceptions into statuses, writes the log line."""

    def __init__(self, method: str, context: Any, refusing: Callable[[], bool]) -> None:
        self._method = method
        self._refusing = refusing
        given = dict(context.invocation_metadata() or ()).get(REQUEST_ID_HEADER, "")
        accepted = isinstance(given, str) and re.fullmatch(r"[\w.-]{1,64}", given)
        self._id = str(given) if accepted else uuid.uuid4().hex[:16]

    @asynccontextmanager
    async def around(self, context: Any) -> AsyncIterator[None]:
        begun, code, peer = time.perf_counter(), "OK", context.peer()
        try:
            if self._refusing():
                raise Draining("the server is shutting down", retry_after=1.0)
            yield
        except PickaxeError as error:
            code = error.code
            if code == "INTERNAL":
                log.exception("request %s failed", self._id)
            await self._abort(context, error)
        except (asyncio.CancelledError, GeneratorExit):
            code = "CANCELLED"
            raise
        except Exception as error:
            log.exception("request %s failed", self._id)
            failure: PickaxeError = MethodFailed(
                f"the server failed ({type(error).__name__}); its log has request {self._id}"
            )
            if is_full_disk(error):
                failure = Unmet("the server has no space left on its disk: whoever runs it must free some")
            code = failure.code
            await self._abort(context, failure)
        finally:
            seconds = time.perf_counter() - begun
            calls.info(
                "%s %s %.4fs request=%s peer=%s", self._method, code, seconds, self._id, peer,
                extra={"method": self._method, "code": code, "seconds": seconds, "request": self._id},
            )  # fmt: skip

    async def _abort(self, context: Any, error: PickaxeError) -> None:
        status = to_status(error, self._id)
        details = ((DETAILS, status.SerializeToString()),)
        await context.abort(grpc.StatusCode[error.code], status.message, details)


def _wrapped(handler: Any, parse: _Parser, watch: Callable[[Any], _Watch]) -> Any:
    """The handler again, of the same cardinality, with parsing and errors inside a watch of each call."""
    requests = parse.each if handler.request_streaming else parse
    if handler.response_streaming:
        inner = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def stream(request: Any, context: Any) -> None:
            # Written rather than yielded: a cancel is raised in here, and closes the handler's generator at once.
            async with watch(context).around(context), aclosing(inner(requests(request), context)) as responses:
                async for response in responses:
                    await context.write(response)

        make = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        )
        return make(stream, None, handler.response_serializer)

    single = handler.stream_unary if handler.request_streaming else handler.unary_unary

    async def unary(request: Any, context: Any) -> Any:
        async with watch(context).around(context):
            return await single(requests(request), context)

    make_unary = (
        grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
    )
    return make_unary(unary, None, handler.response_serializer)
