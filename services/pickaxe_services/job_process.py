"""One job's subprocess: the command line's fit or index, its progress read line by line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from pickaxe.data import Progress
from pickaxe.errors import MethodFailed, PickaxeError
from pickaxe_services import job_files
from pickaxe_services.records import JobSpec
from pickaxe_services.settings import Settings

log = logging.getLogger("pickaxe.services")

LINE_BYTES = 4 * 2**20
KILL_AFTER = 5.0
"""Seconds between asking a process to end and killing its group."""


class JobProcess:
    """Runs once.  The process has a group of its own, which ends with it."""

    def __init__(
        self,
        settings: Settings,
        spec: JobSpec,
        name: str,
        folder: Path,
        out: Path,
        start_from: Path | None,
        base: Path | None = None,
    ) -> None:
        self._settings, self._spec, self._name = settings, spec, name
        self._folder, self._out, self._start_from, self._base = folder, out, start_from, base
        self._error: PickaxeError | None = None

    def command(self) -> list[str]:
        spec = self._spec
        command = [*self._settings.job_command, spec.kind, spec.use.method]
        for part in ("examples", "validation", "unlabelled", "documents"):
            if (file := self._folder / f"{part}.jsonl").exists():
                command += [f"--{part}", str(file)]
        command += ["--params", json.dumps(spec.use.params), "--seed", str(spec.options.seed)]
        command += ["--state", str(self._settings.directory / "state")]
        if spec.options.budget is not None:
            command += ["--budget", str(spec.options.budget)]
        if self._start_from is not None:
            command += ["--init-from" if spec.kind == "fit" else "--artifact", str(self._start_from)]
        if self._base is not None:
            command += ["--base", str(self._base)]
        if spec.remove:
            gone = self._folder / "remove.json"
            gone.write_text(json.dumps(spec.remove), encoding="utf-8")
            command += ["--remove-ids", str(gone)]
        return [*command, "--out", str(self._out), "--progress", "jsonl"]

    async def run(self) -> AsyncGenerator[Progress, None]:
        """Progress until the process ends.  Raises the error it reported, or `MethodFailed`; leaving ends it."""
        with (self._folder / "stderr.log").open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *self.command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=LINE_BYTES,
                start_new_session=True,
                env={**os.environ, **self._settings.environment(), job_files.VARIABLE: self._name},
            )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                progress = self._read(line)
                if progress is not None:
                    yield progress
            code = await process.wait()
        finally:
            await _end(process)
        if self._error is not None:
            raise self._error
        if code != 0 or not self._out.is_dir():
            raise MethodFailed(
                f"the job's process ended with code {code}: {_last_line(self._folder / 'stderr.log')}",
                metadata={"exit_code": code, "job": self._name},
            )

    def _read(self, line: bytes) -> Progress | None:
        """A line's progress; an error is kept, and anything else that a library printed is ignored."""
        try:
            record: Any = json.loads(line)
            if "error" in record:
                self._error = job_files.error_from_json(record["error"])
                return None
            metrics = {str(key): float(value) for key, value in (record.get("metrics") or {}).items()}
            return Progress(str(record["stage"]), int(record.get("step", 0)), int(record.get("total", 0)), metrics)
        except (ValueError, TypeError, KeyError, AttributeError):
            log.info("job %s printed: %.200r", self._name, line)
            return None


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the process's group, gently first; also when the waiting task is cancelled again."""
    try:
        if process.returncode is None:
            _signal(process.pid, signal.SIGTERM)
            async with asyncio.timeout(KILL_AFTER):
                await process.wait()
    except TimeoutError:
        log.warning("process %d did not end when asked and is killed", process.pid)
    finally:
        _signal(process.pid, signal.SIGKILL)  # whatever is left of the group
    await process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return  # nothing of the group is left


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it wrote no error"
