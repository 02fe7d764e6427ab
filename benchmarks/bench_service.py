"""What the service adds: 100 items of 500 characters to a trivial scorer, against a bare echo of the same message.

The echo parses the request and sends it back whole, as any grpc.aio service of two lines does.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from pickaxe import Item
from pickaxe.v1 import data_pb2, scorer_pb2

ITEMS = 100
CHARACTERS = 500
SECONDS = 3.0
ROUNDS = 5


def run() -> Iterator[dict[str, Any]]:
    request = scorer_pb2.ScoreRequest(
        use=data_pb2.MethodUse(method="length"),
        items=[data_pb2.Item(id=item.id, text=item.text) for item in _items()],
    ).SerializeToString()
    with _server("echo") as echo, _server("pickaxe") as served:
        targets = {"echo": (echo, "/bench.Echo/Echo"), "pickaxe": (served, "/pickaxe.v1.ScorerService/Score")}
        for callers in (1, 32):
            measured: dict[str, list[tuple[float, float]]] = {"echo": [], "pickaxe": []}
            for _ in range(ROUNDS):
                for name, (address, method) in targets.items():
                    measured[name].append(asyncio.run(_load(address, method, request, callers)))
            yield from _rows(callers, measured)


def _items() -> list[Item]:
    return [Item(f"item-{row}", ("words of an ordinary text " * 40)[:CHARACTERS]) for row in range(ITEMS)]


async def _load(address: str, method: str, request: bytes, callers: int) -> tuple[float, float]:
    """(median latency in ms, calls per second) over a fixed time."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(method)
        await call(request)
        times: list[float] = []
        until = time.perf_counter() + SECONDS

        async def caller() -> None:
            while (begin := time.perf_counter()) < until:
                await call(request)
                times.append(time.perf_counter() - begin)

        begin = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return statistics.median(times) * 1e3, len(times) / (time.perf_counter() - begin)


def _rows(callers: int, measured: dict[str, list[tuple[float, float]]]) -> Iterator[dict[str, Any]]:
    latency = {name: statistics.median(each for each, _ in values) for name, values in measured.items()}
    rate = {name: statistics.median(each for _, each in values) for name, values in measured.items()}
    shape = f"{ITEMS} items x {CHARACTERS} characters, {callers} caller{'s' if callers > 1 else ''}"
    yield {
        "name": f"latency, {shape}",
        "ours": latency["pickaxe"],
        "peer": latency["echo"],
        "ratio": latency["echo"] / latency["pickaxe"],
        "unit": "ms per call",
        "n": ROUNDS,
        "note": f"{latency['pickaxe'] / latency['echo']:.2f} times the echo's latency; aim at one caller: 1.5",
    }
    yield {
        "name": f"throughput, {shape}",
        "ours": rate["pickaxe"],
        "peer": rate["echo"],
        "ratio": rate["pickaxe"] / rate["echo"],
        "unit": "calls/s",
        "n": ROUNDS,
        "note": "aim at 32 callers: 0.6",
    }


@contextmanager
def _server(kind: str) -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-m", "benchmarks._servers", kind], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(30)
