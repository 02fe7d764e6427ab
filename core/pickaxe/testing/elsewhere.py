"""The method under test in a fresh interpreter: what it answers there, what its import pulls in."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pickaxe.testing.check import Failed

TIMEOUT = 300


def answers(target: str, roles: Mapping[str, str | None], blocked: Sequence[str] = ()) -> dict[str, Any]:
    """role → plain answer on the example, from an interpreter where `blocked` modules cannot be imported.

    `target` is a method's name or `file.py:Class`; `roles` maps each role to the artifact to open.
    """
    return _ask({"do": "answers", "target": target, "roles": dict(roles), "blocked": list(blocked)})


def imported(target: str, module: str) -> list[str]:
    """Top-level names of all modules that are loaded once the method's own module is."""
    return _ask({"do": "imported", "target": target, "module": module, "blocked": []})


def _ask(request: Mapping[str, Any]) -> Any:
    # Another hash seed, so that a result that depends on the order of a set differs.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "4711"}
    done = subprocess.run(
        [sys.executable, "-m", "pickaxe.testing.elsewhere"],
        input=json.dumps(request),
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise Failed(f"in a fresh interpreter: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _main() -> None:
    request = json.load(sys.stdin)
    for name in request["blocked"]:
        sys.modules[name] = None  # type: ignore[assignment]
    result = _answers(request) if request["do"] == "answers" else _imported(request)
    print("\n" + json.dumps(result))


def _answers(request: Mapping[str, Any]) -> dict[str, Any]:
    from pickaxe import catalog
    from pickaxe.testing.plain import plain
    from pickaxe.testing.subject import Subject, answer

    target = request["target"]
    subject = Subject.of(catalog.load_file(target) if ".py:" in target else target)
    with subject.offered():
        return {
            role: plain(answer(subject.open(role, artifact), role, subject.example))
            for role, artifact in request["roles"].items()
        }


def _imported(request: Mapping[str, Any]) -> list[str]:
    if ".py:" in request["target"]:
        from pickaxe import catalog

        catalog.load_file(request["target"])
    else:
        importlib.import_module(request["module"])
    return sorted({name.partition(".")[0] for name in sys.modules})


if __name__ == "__main__":
    _main()
