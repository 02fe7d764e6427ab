"""16 streams of spectr at once over gRPC: how even they are, also beside a slow, a cancelled and a late caller."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.bench_spectr import SURE
from pickaxe import Call, Prompt, Sampling
from pickaxe.errors import Cancelled, DeadlineExceeded

CALLERS, TOKENS = 16, 32
SLOW, CANCELLED, LATE = 3, 5, 7
ODD = (SLOW, CANCELLED, LATE)


def run() -> Iterator[dict[str, Any]]:
    from pickaxe_services import LocalServer, Settings, connect

    with tempfile.TemporaryDirectory() as root:
        settings = Settings(port=0, root=Path(root))
        with LocalServer(settings) as address, connect(address) as client:
            decoder = client.decoder("spectr", temperature=0.9, **SURE)
            alone = [Caller(decoder, place).stream() for place in range(CALLERS)]
            alike, _ = together(decoder, odd=False)
            beside, ended = together(decoder, odd=True)
    yield from rows(alone, alike, beside, ended)


class Caller:
    """Streams one answer; `seconds` says how long it took, `tokens` what came."""

    def __init__(self, decoder: Any, place: int) -> None:
        self.decoder, self.place = decoder, place
        self.seconds = 0.0
        self.tokens: list[int] = []

    def stream(self, pause: float = 0.0, tokens: int = TOKENS, call: Call | None = None) -> Caller:
        text = f"Story number {self.place}: once upon a time"
        prompt = Prompt(text, sampling=Sampling(max_tokens=tokens, seed=self.place))
        begin = time.perf_counter()
        for chunk in self.decoder.decode(prompt, call=call):
            self.tokens += chunk.token_ids
            time.sleep(pause)
        self.seconds = time.perf_counter() - begin
        return self


def together(decoder: Any, odd: bool) -> tuple[list[Caller], float]:
    """All callers at once; how long the cancelled one's stream went on after it was cancelled."""
    ended = 0.0

    def one(place: int) -> Caller:
        nonlocal ended
        caller = Caller(decoder, place)
        if not odd or place not in ODD:
            return caller.stream()
        if place == SLOW:
            return caller.stream(pause=1.0)
        if place == LATE:
            try:
                return caller.stream(tokens=1500, call=Call(timeout=2.0))
            except DeadlineExceeded:
                return caller
        call, at = Call(), [0.0]

        def cancel() -> None:
            at[0] = time.perf_counter()
            call.cancel()

        timer = threading.Timer(5.0, cancel)
        timer.start()
        try:
            return caller.stream(tokens=1500, call=call)
        except Cancelled:
            ended = time.perf_counter() - at[0]
            return caller

    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(one, range(CALLERS))), ended


def rows(alone: list[Caller], alike: list[Caller], beside: list[Caller], ended: float) -> Iterator[dict[str, Any]]:
    usual = [place for place in range(CALLERS) if place not in ODD]
    pace = statistics.median(each.seconds / len(each.tokens) for each in alone)
    shared = [each.seconds / len(each.tokens) for each in alike]
    note = f"seconds a token, slowest caller; peer: {CALLERS} times the median caller alone"
    yield row("16 alike", max(shared), CALLERS * pace, note)
    note = "the slowest of the 13 others; peer: the slowest of 16 alike"
    mixed = [beside[place].seconds / len(beside[place].tokens) for place in usual]
    yield row("one slow, one cancelled, one late", max(mixed), max(shared), note)
    note = (
        f"until the cancelled stream ended; peer: a round of everybody; it had {len(beside[CANCELLED].tokens)} tokens"
    )
    yield row("cancelled", ended, CALLERS * pace * 1.5, note)
    equal = sum(each[place].tokens == alone[place].tokens for each in (alike, beside) for place in (*usual, SLOW))
    yield {"name": "spectr streams: texts as alone", "ours": equal, "peer": 2 * (len(usual) + 1), "ratio": None,
           "unit": "texts", "n": CALLERS, "note": "of the two runs, the slow caller's too"}  # fmt: skip


def row(name: str, ours: float, peer: float, note: str) -> dict[str, Any]:
    return {"name": f"spectr streams: {name}", "ours": ours, "peer": peer, "ratio": peer / ours, "unit": "s",
            "n": CALLERS, "note": note}  # fmt: skip
