"""Start a server, make what the Node client needs on it, run the client, stop the server."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from pickaxe import Item
from pickaxe_services import connect
from pickaxe_services.server import LocalServer
from pickaxe_services.settings import Settings

TARGETS = [Item("t", "def volume(width, height, depth):\n    return width * height * depth\n")]
DOCUMENTS = [
    Item("sea", "The boat lay in the harbour until the tide came in."),
    Item("hill", "Sheep graze on the hill above the village."),
]


def main() -> int:
    with tempfile.TemporaryDirectory() as root, LocalServer(Settings(root=Path(root), port=0)) as address:
        server = connect(address)
        fitted = server.scorer("zip-fit").fit(TARGETS)
        index = server.retriever("chronicles", mode="bm25").index(DOCUMENTS)
        command = ["node", "client.mjs", address, fitted.artifact, index.artifact]
        return subprocess.run([str(part) for part in command], timeout=300, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
