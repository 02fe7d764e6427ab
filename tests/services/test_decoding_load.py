"""Many streams of tokens at once over gRPC, some of their callers slow, gone or short of time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import pickaxe
from pickaxe import Call, Prompt, Sampling
from pickaxe.errors import Cancelled, DeadlineExceeded

PARAMS = {"model": "draft", "temperature": 0.9}
SLOW, CANCELLED, LATE = 3, 5, 7


def prompt(place: int, tokens: int = 40) -> Prompt:
    return Prompt(f"Story number {place}: once upon a time", sampling=Sampling(max_tokens=tokens, seed=place))


def texts(chunks: Any) -> list[tuple[int, ...]]:
    return [chunk.token_ids for chunk in chunks]


@pytest.mark.usefixtures("_registered")
def test_sixteen_callers_at_once_each_get_what_they_get_alone(serve):
    alone = [texts(pickaxe.decoder("repeated-sampling", **PARAMS).decode(prompt(place))) for place in range(16)]
    with serve() as client:
        decoder = client.decoder("repeated-sampling", **PARAMS)
        decoder.complete(prompt(0, 1))

        def caller(place: int) -> Any:
            call = Call()
            if place == LATE:
                with pytest.raises(DeadlineExceeded):
                    decoder.complete(prompt(place, 1500), timeout=0.2)
                return "late"
            chunks = decoder.decode(prompt(place, 1500 if place == CANCELLED else 40), call=call)
            if place == CANCELLED:
                with ThreadPoolExecutor(1) as pool:
                    running = pool.submit(list, chunks)
                    time.sleep(0.2)
                    call.cancel()
                    with pytest.raises(Cancelled):
                        running.result()
                return "cancelled"
            found = []
            for chunk in chunks:
                found.append(chunk.token_ids)
                time.sleep(0.3 if place == SLOW else 0)
            return found

        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(caller, range(16)))
    expected: list[Any] = list(alone)
    expected[CANCELLED], expected[LATE] = "cancelled", "late"
    assert found == expected
