"""Small methods registered for every test, and a server in a thread."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import service_methods

from pickaxe import catalog
from pickaxe_services import Client, LocalServer, Settings, connect


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with ExitStack() as stack:
        for name, (kind, role) in service_methods.METHODS.items():
            stack.enter_context(catalog.register(kind, name, role))
        service_methods.GATE.reset()
        yield
        service_methods.GATE.open()


Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """`with serve(max_jobs=2) as client:` a server with these settings, and a client of it."""

    @contextmanager
    def serving(*, client: dict[str, Any] | None = None, **given: Any) -> Iterator[Client]:
        settings = Settings(**{"port": 0, "root": tmp_path / "server", "hang_grace": 0.2, **given})
        with LocalServer(settings) as address, connect(address, **(client or {})) as connected:
            yield connected

    return serving


@pytest.fixture
def server(serve: Serve) -> Iterator[Client]:
    with serve() as client:
        yield client


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    """Take back what a test's `serve` set up: its handler would write to a stream that pytest has closed."""
    logger = logging.getLogger("pickaxe")
    before = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])
