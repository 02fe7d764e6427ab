"""The gRPC service, its Python client and the command line.

Names are resolved when first used, so that the command line starts without gRPC.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Client": "pickaxe_services.client",
    "TLS": "pickaxe_services.client",
    "connect": "pickaxe_services.client",
    "LocalServer": "pickaxe_services.server",
    "Server": "pickaxe_services.server",
    "serve": "pickaxe_services.server",
    "Settings": "pickaxe_services.settings",
}

__all__ = ["TLS", "Client", "LocalServer", "Server", "Settings", "connect", "serve"]

if TYPE_CHECKING:
    from pickaxe_services.client import TLS, Client, connect
    from pickaxe_services.server import LocalServer, Server, serve
    from pickaxe_services.settings import Settings


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pickaxe_services' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
