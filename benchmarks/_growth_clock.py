"""Time and peak memory of the stages of one run, by the process that runs them."""

from __future__ import annotations

import gc
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Clock:
    """`with clock("index"): ...` measures a stage; a stage measured again keeps medians and its highest peak.

    Memory is the highest resident size during the stage, less what was resident when the first stage began: the
    interpreter, the libraries and the inputs.  Pages of mapped files that were read are part of it.
    """

    def __init__(self) -> None:
        self._measured: dict[str, list[dict[str, float]]] = {}
        self._base: float | None = None

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        gc.collect()
        forget_peak()
        if self._base is None:
            self._base = resident("VmRSS")
        wall, processor = time.perf_counter(), busy()
        yield
        taken = {"wall": time.perf_counter() - wall, "processor": busy() - processor}
        taken["memory"] = max(0.0, resident("VmHWM") - self._base)
        self._measured.setdefault(stage, []).append(taken)

    @property
    def wall(self) -> float:
        return sum(each["wall"] for runs in self._measured.values() for each in runs)

    def stages(self) -> dict[str, dict[str, Any]]:
        """Seconds of wall and processor, MiB and number of runs of each stage."""
        return {
            stage: {
                "wall": statistics.median(each["wall"] for each in runs),
                "processor": statistics.median(each["processor"] for each in runs),
                "memory": max(each["memory"] for each in runs),
                "runs": len(runs),
            }
            for stage, runs in self._measured.items()
        }


def busy() -> float:
    """Processor seconds of this process, with its threads, and of its children that ended."""
    used = os.times()
    return time.process_time() + used.children_user + used.children_system


def forget_peak() -> None:
    """Let the highest resident size begin anew; where the kernel cannot, it is that since the start."""
    if PEAK_RESET.exists():
        PEAK_RESET.write_text("5")


def resident(line: str) -> float:
    """MiB: the line VmRSS (now) or VmHWM (highest) of the process's status, or the highest so far without one."""
    if STATUS.exists():
        return next(int(each.split()[1]) for each in STATUS.read_text().splitlines() if each.startswith(line)) / 1024
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
