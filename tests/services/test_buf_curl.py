"""The README's `buf curl` lines work against a server's reflection, without any generated code."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from google.rpc import error_details_pb2

from pickaxe_services import Client

BUF = Path(sys.executable).parent / "buf"


def curl(server: Client, method: str, request: object, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *flags]
    if request is not None:
        command += ["-d", json.dumps(request)]
    url = f"http://{server.target}" + (f"/pickaxe.v1.{method}" if method else "")
    return subprocess.run([*command, url], capture_output=True, text=True, timeout=60, check=False)


def test_methods_are_listed_through_reflection(server: Client) -> None:
    listed = curl(server, "", None, "--list-methods").stdout.split()
    assert "pickaxe.v1.ScorerService/Score" in listed
    assert "grpc.health.v1.Health/Check" in listed
    answer = json.loads(curl(server, "CatalogService/ListMethods", {}).stdout)
    assert "zip-fit" in [method["name"] for method in answer["methods"]]


def test_scores_come_back_as_json(server: Client) -> None:
    done = curl(server, "ScorerService/Score", {"use": {"method": "t-length"}, "items": [{"id": "a", "text": "four"}]})
    assert json.loads(done.stdout)["scores"]["columns"][0]["float32s"]["values"] == [4]


@pytest.mark.parametrize(
    ("use", "code", "reason"),
    [
        ({"method": "zip-fitt"}, "not_found", "METHOD_UNKNOWN"),
        ({"method": "zip-fit", "params": {"level": 99}}, "invalid_argument", "PARAMS_INVALID"),
    ],
)
def test_errors_are_told_with_their_details(server: Client, use: object, code: str, reason: str) -> None:
    done = curl(server, "ScorerService/Score", {"use": use})
    error = json.loads(done.stderr)
    assert error["code"] == code
    info = next(detail for detail in error["details"] if detail["type"] == "google.rpc.ErrorInfo")
    assert error_details_pb2.ErrorInfo.FromString(base64.b64decode(info["value"] + "==")).reason == reason
