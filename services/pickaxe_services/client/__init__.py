"""The client: the embedded API's functions, carried out by a server.

    from pickaxe_services import connect
    with connect("127.0.0.1:50051") as server:
        scores = server.scorer("zip-fit", level=6).fit(targets).score(items)

Handles have the methods, data classes and exceptions of the embedded ones.  Opening one asks the server nothing:
what is wrong with a name or with parameters is raised by the first call.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from pickaxe.method import Card
from pickaxe.v1 import catalog_pb2, catalog_pb2_grpc
from pickaxe_services.client.artifacts import Artifacts
from pickaxe_services.client.handles import RemoteDecoder, RemoteReranker, RemoteRetriever, RemoteScorer
from pickaxe_services.client.jobs import Jobs
from pickaxe_services.client.transport import TLS, Transport
from pickaxe_services.codec import admin
from pickaxe_services.records import ServerInfo, Use

__all__ = [
    "TLS",
    "Artifacts",
    "Client",
    "Jobs",
    "RemoteDecoder",
    "RemoteReranker",
    "RemoteRetriever",
    "RemoteScorer",
    "connect",
]


def connect(
    target: str,
    *,
    timeout: float | None = None,
    tls: TLS | None = None,
    retries: int = 5,
    tenant: str = "",
) -> Client:
    """A client of the server at `target`: host:port, unix:PATH, dns:///name, or ipv4:a:1,b:2 for several.

    `timeout` (seconds) bounds every call that is given none of its own; `retries` is how often an overloaded server
    is asked again.  No connection is made before the first call; a dead server raises `Unreachable`.
    """
    return Client(Transport(target, tls=tls, timeout=timeout, retries=retries, tenant=tenant))


class Client:
    """One connection, safe to share between threads."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._catalog = catalog_pb2_grpc.CatalogServiceStub(transport.channel)
        self._health: Any = health_pb2_grpc.HealthStub(transport.channel)
        self.jobs = Jobs(transport)
        self.artifacts = Artifacts(transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    @property
    def target(self) -> str:
        return self._transport.target

    def scorer(self, name: str, *, artifact: str = "", **params: Any) -> RemoteScorer:
        return RemoteScorer(self, self._transport, Use(name, params, artifact))

    def retriever(self, name: str, *, artifact: str = "", **params: Any) -> RemoteRetriever:
        return RemoteRetriever(self, self._transport, Use(name, params, artifact))

    def reranker(self, name: str, *, artifact: str = "", **params: Any) -> RemoteReranker:
        return RemoteReranker(self, self._transport, Use(name, params, artifact))

    def decoder(self, name: str, *, artifact: str = "", **params: Any) -> RemoteDecoder:
        return RemoteDecoder(self, self._transport, Use(name, params, artifact))

    def methods(self) -> Mapping[str, tuple[tuple[str, ...], str]]:
        """name → (roles, "distribution version") of every method the server offers."""
        found: dict[str, tuple[tuple[str, ...], str]] = {}
        token = ""
        while True:
            answer = self._transport.unary(self._catalog.ListMethods, admin.write_list_request(token))
            for listed in map(admin.read_listed, answer.methods):
                found[listed.name] = (listed.roles, listed.distribution)
            token = answer.next_page_token
            if not token:
                return found

    def show(self, name: str) -> Card:
        """Everything a method says about itself."""
        request = catalog_pb2.GetMethodRequest(name=name)
        return admin.read_card(self._transport.unary(self._catalog.GetMethod, request).method)

    def server(self) -> ServerInfo:
        """Version, limits, models and resources of the server."""
        return admin.read_server(self._transport.unary(self._catalog.GetServer, catalog_pb2.GetServerRequest()))

    def health(self, service: str = "") -> str:
        """ "SERVING", "NOT_SERVING" or "SERVICE_UNKNOWN"; `service` is a full name such as pickaxe.v1.ScorerService."""
        request = health_pb2.HealthCheckRequest(service=service)
        status = self._transport.unary(self._health.Check, request).status
        return health_pb2.HealthCheckResponse.ServingStatus.Name(status)
