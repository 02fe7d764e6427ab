"""Jobs: fits and indexes as subprocesses of the command line, with their state in `<root>/jobs/{id}/job.json`.

The same code runs as on the command line; a crash or a cancel cannot hurt the server, and memory goes back to the
system.  Items are spooled to JSON-lines files first, so no request has to hold them all.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from pickaxe.data import Items
from pickaxe.errors import AlreadyExists, Overloaded, PickaxeError, ServerRestarted, UnknownJob
from pickaxe.io.items import item_to_json
from pickaxe_services import job_files
from pickaxe_services.artifacts import ArtifactStore
from pickaxe_services.job_process import JobProcess
from pickaxe_services.records import Job, JobSpec, JobState, Part
from pickaxe_services.settings import Settings

log = logging.getLogger("pickaxe.services")

Batches = AsyncIterator[tuple[Part, Items]]


class _Tracked:
    """A job as this server knows it; `changed` is set once by the next change."""

    def __init__(self, spec: JobSpec, job: Job) -> None:
        self.spec, self.job = spec, job
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class JobManager:
    """Starts, queues, watches and ends jobs."""

    def __init__(self, settings: Settings, artifacts: ArtifactStore) -> None:
        self._settings, self._artifacts = settings, artifacts
        self.root = settings.directory / "jobs"
        self.root.mkdir(parents=True, exist_ok=True)
        self._slots = asyncio.Semaphore(settings.max_jobs)
        self._tracked: dict[str, _Tracked] = {}
        for left in self.root.glob(".incoming-*"):
            shutil.rmtree(left, ignore_errors=True)
        for spec, job in job_files.load_all(self.root):
            self._tracked[job.name] = _Tracked(spec, job)
            if not job.final:
                job_files.end_orphan(job.name)
                self._end(self._tracked[job.name], "failed", error=_restarted())

    # ------------------------------------------------------------ what callers ask

    async def start(self, spec: JobSpec, batches: Batches) -> Job:
        """Spool the items and queue the job.

        With a `request_id` that was used before, the job of that id; one that failed or was cancelled starts again
        with the items it had, after its last finished stage.
        """
        name = _name(spec)
        known = self._tracked.get(name)
        if known is not None:
            return self._again(known, spec)
        waiting = sum(not each.job.final for each in self._tracked.values())
        if waiting >= self._settings.max_jobs + self._settings.max_jobs_waiting:
            raise Overloaded(f"{waiting} jobs wait already", metadata={"waiting": waiting}, retry_after=30.0)
        await self._spool(name, batches)
        if (raced := self._tracked.get(name)) is not None:
            return self._again(raced, spec)
        tracked = _Tracked(spec, Job(name, spec.kind, spec.use, "queued", created=job_files.now()))
        self._tracked[name] = tracked
        self._queue(tracked)
        return tracked.job

    def get(self, name: str) -> Job:
        return self._find(name).job

    def listing(self) -> list[Job]:
        """Newest first."""
        jobs = [tracked.job for tracked in self._tracked.values()]
        return sorted(jobs, key=lambda job: (job.created or job_files.EPOCH, job.name), reverse=True)

    async def cancel(self, name: str) -> Job:
        """End the job with its whole process group; a finished one stays as it is."""
        tracked = self._find(name)
        if tracked.task is not None and not tracked.job.final:
            self._end(tracked, "cancelled")
            tracked.task.cancel()
            await asyncio.wait({tracked.task})
        return tracked.job

    async def watch(self, name: str) -> AsyncIterator[Job]:
        """The job now and after every change, until it is final; changes that come faster than read are merged."""
        tracked = self._find(name)
        while True:
            job, changed = tracked.job, tracked.changed
            yield job
            if job.final:
                return
            await changed.wait()

    async def close(self) -> None:
        """End every job; the unfinished ones can be started again under the same `request_id`."""
        running = [tracked for tracked in self._tracked.values() if tracked.task and not tracked.task.done()]
        for tracked in running:
            self._end(tracked, "failed", error=_restarted())
            assert tracked.task is not None
            tracked.task.cancel()
        if running:
            await asyncio.wait([tracked.task for tracked in running if tracked.task])

    # ------------------------------------------------------------ inside

    def _find(self, name: str) -> _Tracked:
        tracked = self._tracked.get(name)
        if tracked is None:
            raise UnknownJob(f"no job is called {name!r} on this server", metadata={"job": name})
        return tracked

    def _again(self, tracked: _Tracked, spec: JobSpec) -> Job:
        if replace(tracked.spec, options=spec.options) != spec:
            raise AlreadyExists(
                f"request id {spec.request_id!r} stands for another job ({tracked.job.kind} of "
                f"{tracked.spec.use.method}): choose a new one",
                metadata={"job": tracked.job.name},
            )
        if tracked.job.state in ("failed", "cancelled"):
            fresh = Job(tracked.job.name, spec.kind, spec.use, "queued", created=tracked.job.created)
            self._change(tracked, replace(fresh, attempt=tracked.job.attempt + 1))
            self._queue(tracked)
        return tracked.job

    async def _spool(self, name: str, batches: Batches) -> None:
        """Write the items beside where they belong, then move them there at once."""
        folder = job_files.folder(self.root, name)
        incoming = self.root / f".incoming-{uuid.uuid4().hex}"
        incoming.mkdir()
        written, rows = 0, 0
        try:
            async for part, items in batches:
                text = "".join(json.dumps(item_to_json(item), ensure_ascii=False) + "\n" for item in items)
                written += len(text)
                rows += len(items)
                job_files.check_size(written, self._settings)
                await asyncio.to_thread(_append, incoming / f"{part}.jsonl", text)
            if not folder.exists():
                os.replace(incoming, folder)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def _queue(self, tracked: _Tracked) -> None:
        self._save(tracked)
        tracked.task = asyncio.create_task(self._run(tracked))

    async def _run(self, tracked: _Tracked) -> None:
        async with self._slots:
            self._change(tracked, replace(tracked.job, state="running", started=job_files.now()))
            self._save(tracked)
            artifact = _artifact_name(tracked.job)
            try:
                await self._make(tracked, self._artifacts.root / artifact.removeprefix("artifacts/"))
            except PickaxeError as error:
                self._end(tracked, "failed", error=error)
            except Exception as error:
                log.exception("job %s could not be run", tracked.job.name)
                self._end(tracked, "failed", error=job_files.unexpected(error))
            else:
                self._end(tracked, "succeeded", artifact=artifact)
                job_files.drop_items(job_files.folder(self.root, tracked.job.name))

    async def _make(self, tracked: _Tracked, out: Path) -> None:
        if out.is_dir():
            return  # an earlier attempt finished it, but its server ended before it could say so
        spec = tracked.spec
        start_from = self._artifacts.path(spec.use.artifact) if spec.use.artifact else None
        folder = job_files.folder(self.root, tracked.job.name)
        base = self._artifacts.path(spec.base) if spec.base else None
        process = JobProcess(self._settings, spec, tracked.job.name, folder, out, start_from, base)
        async with aclosing(process.run()) as steps:
            async for progress in steps:
                self._change(tracked, replace(tracked.job, progress=progress))

    def _end(
        self, tracked: _Tracked, state: JobState, *, error: PickaxeError | None = None, artifact: str = ""
    ) -> None:
        if tracked.job.final:
            return
        ended = replace(tracked.job, state=state, error=error, artifact=artifact, ended=job_files.now())
        self._change(tracked, ended)
        self._save(tracked)

    def _change(self, tracked: _Tracked, job: Job) -> None:
        tracked.job = job
        changed, tracked.changed = tracked.changed, asyncio.Event()
        changed.set()

    def _save(self, tracked: _Tracked) -> None:
        job_files.save(self.root, tracked.spec, tracked.job)


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)


def _name(spec: JobSpec) -> str:
    if not spec.request_id:
        return f"jobs/{uuid.uuid4().hex[:16]}"
    seed = f"{spec.options.tenant}\0{spec.request_id}"
    return f"jobs/{hashlib.sha256(seed.encode()).hexdigest()[:16]}"


def _artifact_name(job: Job) -> str:
    method = re.sub(r"[^A-Za-z0-9-]", "", job.use.method)
    return f"artifacts/{method}-{job.name.removeprefix('jobs/')}"


def _restarted() -> ServerRestarted:
    return ServerRestarted(
        "the server ended while the job ran; start it again with the same request id to go on where it stopped"
    )
