"""A server as a process: how it ends, what it logs, how it is secured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pickaxe.errors import Draining, PickaxeError, Unreachable
from pickaxe_services import TLS, Client, LocalServer, Settings, connect

SCRIPT = Path(__file__).parent / "server_script.py"


class Process:
    """A running server, its address and, once it ended, its log."""

    def __init__(self, root: Path, *settings: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(root), *settings],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SCRIPT.parent)},
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().split()[-1]

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        return self.process.communicate(timeout=60)[1]


@contextmanager
def running(root: Path, *settings: str) -> Iterator[Process]:
    process = Process(root, *settings)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.communicate()


def test_sigterm_under_load_loses_no_accepted_call(tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    stop = threading.Event()

    def load(client: Client) -> None:
        while not stop.is_set():
            try:
                client.scorer("t-length").score(["abc"])
            except PickaxeError as error:
                outcomes[type(error).__name__] += 1
                if isinstance(error, Unreachable):
                    return
            else:
                outcomes["answered"] += 1

    with running(tmp_path, "drain_wait=0.5", "drain_grace=20") as server, connect(server.address) as client:
        with ThreadPoolExecutor(9) as pool:
            stream = client.decoder("t-words", pause=0.2).decode(" ".join(["word"] * 10))
            next(stream)
            callers = [pool.submit(load, client) for _ in range(8)]
            time.sleep(0.3)
            log = server.end()
            stop.set()
            for caller in callers:
                caller.result(30)
            assert len(list(stream)) == 9 + 2
        assert server.process.returncode == 0
    assert outcomes["answered"] > 20
    assert set(outcomes) <= {"answered", "Draining", "Unreachable"}
    lines = [line for line in log.splitlines() if "ScorerService/Score " in line]
    assert Counter(line.split("/Score ")[1].split()[0] for line in lines if " OK " in line) == {
        "OK": outcomes["answered"]
    }
    assert not [line for line in lines if "CANCELLED" in line]


def test_a_leaving_server_says_so_serves_on_and_starts_nothing_long(tmp_path: Path) -> None:
    with running(tmp_path, "drain_wait=2") as server, connect(server.address, retries=0) as client:
        assert client.health() == "SERVING"
        with grpc.insecure_channel(server.address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            server.process.send_signal(signal.SIGTERM)
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert client.server().draining
        assert client.scorer("t-length").score(["abc"]).primary.tolist() == [3]
        with pytest.raises(Draining):
            client.scorer("t-mean").fit(["a"])
        server.process.communicate(timeout=30)
        with pytest.raises((Draining, Unreachable)):
            client.scorer("t-length").score(["abc"])


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with running(tmp_path, "drain_wait=60") as server:
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        begun = time.monotonic()
        server.end(signal.SIGINT)
        assert time.monotonic() - begun < 30


def test_one_log_line_per_call_carries_the_request_id_and_traces_stay_in_the_log(tmp_path: Path) -> None:
    with running(tmp_path, "log_format=json", "drain_wait=0") as server:
        with connect(server.address) as client, pytest.raises(PickaxeError) as caught:
            client.scorer("t-broken", how="surrogate").score(["a"])
        lines = [json.loads(line) for line in server.end().splitlines()]
    request_id = caught.value.__notes__[0].removeprefix("request ")
    (call,) = [line for line in lines if line["logger"] == "pickaxe.calls"]
    assert (call["method"], call["code"], call["request"]) == (
        "/pickaxe.v1.ScorerService/Score",
        "INTERNAL",
        request_id,
    )
    assert any("traceback" in line and request_id in line["message"] for line in lines)
    assert "Traceback" not in caught.value.message


def test_a_callers_own_request_id_is_kept_when_it_is_harmless(tmp_path: Path) -> None:
    with running(tmp_path, "drain_wait=0") as server:
        with grpc.insecure_channel(server.address) as channel:
            call = channel.unary_unary("/pickaxe.v1.CatalogService/GetServer")
            call(b"", metadata=[("x-request-id", "mine-1")], timeout=10)
            call(b"", metadata=[("x-request-id", "evil id=" + "x" * 100)], timeout=10)
        log = server.end()
    assert "request=mine-1" in log
    assert "evil" not in log


class Files:
    """Certificates of one test, as files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.authority = trustme.CA()
        self.ca = root / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)

    def issue(self, name: str, authority: trustme.CA | None = None) -> tuple[Path, Path]:
        issued = (authority or self.authority).issue_cert("localhost", "127.0.0.1")
        cert, key = self.root / f"{name}.pem", self.root / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return cert, key


def test_tls_serves_those_who_trust_it(tmp_path: Path) -> None:
    files = Files(tmp_path)
    cert, key = files.issue("server")
    settings = Settings(port=0, root=tmp_path / "r", tls_cert=cert, tls_key=key)
    with LocalServer(settings) as address:
        with connect(address, tls=TLS(ca=files.ca)) as client:
            assert client.health() == "SERVING"
        with connect(address) as plain, pytest.raises(Unreachable):
            plain.health()


def test_client_certificates_are_asked_for_when_a_client_ca_is_given(tmp_path: Path) -> None:
    files = Files(tmp_path)
    cert, key = files.issue("server")
    settings = Settings(port=0, root=tmp_path / "r", tls_cert=cert, tls_key=key, tls_client_ca=files.ca)
    own, foreign = files.issue("client"), files.issue("foreign", trustme.CA())
    with LocalServer(settings) as address:
        with connect(address, tls=TLS(files.ca, *own)) as client:
            assert client.scorer("t-length").score(["abc"]).primary.tolist() == [3]
        for tls in (TLS(files.ca), TLS(files.ca, *foreign)):
            with connect(address, tls=tls) as client, pytest.raises(Unreachable):
                client.health()


def test_new_certificates_show_without_a_restart(tmp_path: Path) -> None:
    files = Files(tmp_path)
    cert, key = files.issue("server")
    settings = Settings(port=0, root=tmp_path / "r", tls_cert=cert, tls_key=key)
    with LocalServer(settings) as address:
        renewed = Files(tmp_path)
        renewed.issue("server")
        for path in (cert, key):
            os.utime(path, (1, 1))
        with connect(address, tls=TLS(ca=renewed.ca)) as client:
            assert client.health() == "SERVING"
