"""CatalogService."""

from __future__ import annotations

import asyncio
from typing import Any

from pickaxe import catalog
from pickaxe.errors import PickaxeError, RuntimeMissing
from pickaxe.v1 import catalog_pb2, catalog_pb2_grpc
from pickaxe.version import __version__
from pickaxe_services.codec import admin
from pickaxe_services.records import Listed, ServerInfo
from pickaxe_services.shared import Phase, Shared, page


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def ListMethods(
        self, request: catalog_pb2.ListMethodsRequest, context: Any
    ) -> catalog_pb2.ListMethodsResponse:
        role, full, size, token = admin.read_list_request(request)
        found = [
            Listed(name, roles, distribution)
            for name, (roles, distribution) in sorted(catalog.table().items())
            if role in ("", *roles)
        ]
        chosen, following = page(found, size, token)
        write = _written_in_full if full else admin.write_listed
        methods = [await asyncio.to_thread(write, listed) for listed in chosen] if full else map(write, chosen)
        return admin.write_list_response(methods, following)

    async def GetMethod(self, request: catalog_pb2.GetMethodRequest, context: Any) -> catalog_pb2.GetMethodResponse:
        card = await asyncio.to_thread(catalog.describe, request.name)
        return catalog_pb2.GetMethodResponse(method=admin.write_card(card))

    async def GetServer(self, request: catalog_pb2.GetServerRequest, context: Any) -> catalog_pb2.GetServerResponse:
        settings = self._shared.settings
        models, providers = await asyncio.to_thread(lambda: (self._models(), self._providers()))
        return admin.write_server(
            ServerInfo(
                version=__version__,
                providers=providers,
                limits=settings.limits,
                models=models,
                resources=tuple(sorted(settings.resources)),
                draining=self._shared.phase is not Phase.SERVING,
            )
        )

    def _models(self) -> dict[str, str]:
        store = self._shared.host.models
        return {entry.alias or entry.name: f"{entry.kind}, {entry.source}" for entry in store.list() if entry.present}

    def _providers(self) -> tuple[str, ...]:
        """What models run on here; nothing where the ONNX runtime is not installed."""
        try:
            return tuple(self._shared.host.runtime.providers)
        except RuntimeMissing:
            return ()


def _written_in_full(listed: Listed) -> catalog_pb2.Method:
    """The card, or for a method that cannot be loaded its line and the reason."""
    try:
        return admin.write_card(catalog.describe(listed.name))
    except PickaxeError as error:
        return admin.write_listed(listed, error)
