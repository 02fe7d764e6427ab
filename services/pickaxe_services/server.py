"""The server: build, start, announce, drain.

The end of a server loses no call: it says NOT_SERVING, goes on serving for `drain_wait` seconds so that balancers
look away, then refuses new calls with `Draining`, gives running ones `drain_grace` seconds, and only then cancels.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from types import TracebackType

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pickaxe import catalog
from pickaxe.call import Call
from pickaxe.errors import Unmet
from pickaxe.v1 import (
    artifact_pb2,
    artifact_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    decoder_pb2,
    decoder_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    reranker_pb2,
    reranker_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
    scorer_pb2,
    scorer_pb2_grpc,
)
from pickaxe_services import logs
from pickaxe_services.artifact import ArtifactServicer
from pickaxe_services.artifacts import ArtifactStore
from pickaxe_services.catalog import CatalogServicer
from pickaxe_services.decoder import DecoderServicer
from pickaxe_services.interceptors import CallInterceptor
from pickaxe_services.job import JobServicer
from pickaxe_services.jobs import JobManager
from pickaxe_services.lane_pool import LanePool
from pickaxe_services.records import Use
from pickaxe_services.reranker import RerankerServicer
from pickaxe_services.retriever import RetrieverServicer
from pickaxe_services.scorer import ScorerServicer
from pickaxe_services.settings import Settings
from pickaxe_services.shared import Phase, Shared
from pickaxe_services.tls import server_credentials
from pickaxe_services.workers import Workers

log = logging.getLogger("pickaxe.services")

_SERVICES = (
    (catalog_pb2, catalog_pb2_grpc.add_CatalogServiceServicer_to_server, CatalogServicer),
    (scorer_pb2, scorer_pb2_grpc.add_ScorerServiceServicer_to_server, ScorerServicer),
    (retriever_pb2, retriever_pb2_grpc.add_RetrieverServiceServicer_to_server, RetrieverServicer),
    (reranker_pb2, reranker_pb2_grpc.add_RerankerServiceServicer_to_server, RerankerServicer),
    (decoder_pb2, decoder_pb2_grpc.add_DecoderServiceServicer_to_server, DecoderServicer),
    (job_pb2, job_pb2_grpc.add_JobServiceServicer_to_server, JobServicer),
    (artifact_pb2, artifact_pb2_grpc.add_ArtifactServiceServicer_to_server, ArtifactServicer),
)
NAMES = tuple(
    service.full_name for module, _, _ in _SERVICES for service in module.DESCRIPTOR.services_by_name.values()
)


def _options(settings: Settings) -> list[tuple[str, int]]:
    """Transport limits.  The message limit lies above the service's own, whose refusal carries details.

    Streams per connection are bounded against floods, but well above the calls one client keeps open at once.
    """
    return [
        ("grpc.max_receive_message_length", min(2 * int(settings.max_message_bytes), 2**31 - 1)),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", settings.max_streams),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_connection_idle_ms", 300_000),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.so_reuseport", 0),
    ]


class Server:
    """One server on one event loop.  `await start()`, then `await stop()`."""

    def __init__(self, settings: Settings) -> None:
        settings.check()
        self.settings = settings
        self.port = settings.port
        self._health = health.aio.HealthServicer()
        self._shared: Shared | None = None
        self._server: grpc.aio.Server | None = None
        self._hurry, self._ended = asyncio.Event(), asyncio.Event()

    @property
    def address(self) -> str:
        """Where clients on this machine reach it."""
        if self.settings.host.startswith("unix:"):
            return self.settings.host
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.settings.host, self.settings.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def phase(self) -> Phase:
        return Phase.REFUSING if self._shared is None else self._shared.phase

    async def start(self) -> None:
        """Bind, open what is to be preloaded, then say SERVING."""
        settings = self.settings
        shared = self._shared = self._build()
        interceptor = CallInterceptor(int(settings.max_message_bytes), lambda: shared.phase is Phase.REFUSING)
        server = self._server = grpc.aio.server(interceptors=[interceptor], options=_options(settings))
        for _, add, servicer in _SERVICES:
            add(servicer(shared), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        await self._announce(health_pb2.HealthCheckResponse.NOT_SERVING)
        self.port = self._bind(server)
        await server.start()
        await self._preload(shared)
        await self._announce(health_pb2.HealthCheckResponse.SERVING)
        log.info("serving at %s", self.address)

    def _build(self) -> Shared:
        settings = self.settings
        host = settings.make_host()
        workers = Workers(settings.max_threads)
        artifacts = ArtifactStore(settings.artifacts, int(settings.max_artifact_bytes))
        return Shared(
            settings,
            host,
            workers,
            LanePool(host, settings, workers),
            artifacts,
            JobManager(settings, artifacts),
        )

    def _bind(self, server: grpc.aio.Server) -> int:
        credentials = server_credentials(self.settings)
        address = self.settings.address
        try:
            if credentials is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise Unmet(
                f"cannot listen on {address}: is the port in use, or the address not this machine's? ({error})",
                metadata={"address": address},
            ) from None

    async def _preload(self, shared: Shared) -> None:
        for name in self.settings.preload:
            for role in catalog.roles(name):
                async with shared.lanes.hold(role, Use(name), Call()):
                    log.info("opened %s as a %s", name, role)

    async def _announce(self, status: int) -> None:
        for name in ("", *NAMES):
            await self._health.set(name, status)

    async def stop(self, *, wait: float | None = None, grace: float | None = None) -> None:
        """Drain and end.  Without arguments the settings' waits apply; `hurry` cuts them short."""
        server, shared = self._server, self._shared
        if server is None or shared is None:
            return
        self._server = None
        wait = self.settings.drain_wait if wait is None else wait
        shared.phase = Phase.LEAVING
        await self._announce(health_pb2.HealthCheckResponse.NOT_SERVING)
        log.info("leaving: calls are refused in %.1f s", wait)
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({hurried}, timeout=wait)
        shared.phase = Phase.REFUSING
        jobs = asyncio.create_task(shared.jobs.close())
        stopping = asyncio.create_task(server.stop(self.settings.drain_grace if grace is None else grace))
        await asyncio.wait({stopping, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not stopping.done():
            await server.stop(0)
        await asyncio.gather(stopping, jobs)
        shared.lanes.close()
        shared.host.close()
        self._ended.set()
        log.info("ended")

    async def wait(self) -> None:
        """Until `stop` has ended the server."""
        await self._ended.wait()

    def hurry(self) -> None:
        """Let a `stop` that waits go on at once, cancelling the calls that still run."""
        self._hurry.set()


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once."""
    logs.configure(settings.log_format)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    server = Server(settings)
    asked = asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            server.hurry()
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    await server.start()
    print(f"pickaxe serves at {server.address}", flush=True)
    await asked.wait()
    await server.stop()


class LocalServer:
    """A server in a thread of this process, for tests and notebooks: `with LocalServer(settings) as address:`."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.server = Server(settings or Settings(port=0))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pickaxe-server", daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result()
        except BaseException:
            self._end_loop()
            raise
        return self.server.address

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(wait=0, grace=1.0), self._loop).result()
        self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
