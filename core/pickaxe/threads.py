"""Loops that run without the interpreter's lock, shared out over the cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from pickaxe.onnx_runtime import cores


def shared_out(work: Callable[[int, int], object], count: int, least: int = 1) -> None:
    """Call work(start, end) for equal parts of [0, count), one a core and of at least `least`; this thread takes one.

    Raises what a part raises, once all are done.
    """
    parts = max(1, min(cores(), count // least))
    shares = list(pairwise(count * part // parts for part in range(parts + 1)))
    if parts == 1:
        work(*shares[0])
        return
    with ThreadPoolExecutor(parts - 1) as pool:
        others = [pool.submit(work, *share) for share in shares[1:]]
        work(*shares[0])
        for other in others:
            other.result()
