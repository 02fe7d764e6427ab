"""JobService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from pickaxe import catalog
from pickaxe.call import Call
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.v1 import job_pb2, job_pb2_grpc
from pickaxe_services.codec import admin
from pickaxe_services.jobs import Batches
from pickaxe_services.records import JobSpec, Part
from pickaxe_services.shared import Shared, page
from pickaxe_services.workers import within

_PARTS: dict[str, tuple[Part, ...]] = {"fit": ("examples", "validation", "unlabelled"), "index": ("documents",)}


class JobServicer(job_pb2_grpc.JobServiceServicer):
    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def StartJob(
        self, requests: AsyncIterator[job_pb2.StartJobRequest], context: Any
    ) -> job_pb2.StartJobResponse:
        self._shared.admit_long_work()
        first = await anext(aiter(requests), None)
        if first is None:
            raise InvalidParams("spec", "is missing: the first message says what the job is")
        spec = admin.read_job_spec(first)
        await self._check(spec, self._shared.call(context, spec.options))
        job = await self._shared.jobs.start(spec, _batches(requests, spec))
        return job_pb2.StartJobResponse(job=admin.write_job(job))

    async def _check(self, spec: JobSpec, call: Call) -> None:
        """Raise now what would otherwise fail the job later: unknown names, wrong parameters, a role not filled."""
        worker = self._shared.workers.start(f"check-{spec.use.method}")
        checking = worker.submit(partial(self._open, spec))
        worker.stop()
        await within(checking, call)

    def _open(self, spec: JobSpec) -> None:
        use = spec.use
        role = "retriever" if spec.kind == "index" else catalog.roles(use.method)[0]
        if spec.kind == "fit" and use.artifact:
            self._shared.artifacts.path(use.artifact)
        artifact = use.artifact if spec.kind == "index" else None
        handle = self._shared.host.open(use.method, role, use.params, artifact or None)
        handle.opened.require(spec.kind)
        if spec.base:
            handle.growing(spec.base)

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Any) -> job_pb2.GetJobResponse:
        return job_pb2.GetJobResponse(job=admin.write_job(self._shared.jobs.get(request.name)))

    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Any) -> job_pb2.ListJobsResponse:
        jobs, token = page(self._shared.jobs.listing(), request.page_size, request.page_token)
        return job_pb2.ListJobsResponse(jobs=[admin.write_job(job) for job in jobs], next_page_token=token)

    async def CancelJob(self, request: job_pb2.CancelJobRequest, context: Any) -> job_pb2.CancelJobResponse:
        return job_pb2.CancelJobResponse(job=admin.write_job(await self._shared.jobs.cancel(request.name)))

    async def WatchJob(self, request: job_pb2.WatchJobRequest, context: Any) -> AsyncIterator[job_pb2.WatchJobResponse]:
        async for job in self._shared.jobs.watch(request.name):
            yield job_pb2.WatchJobResponse(job=admin.write_job(job))


async def _batches(requests: AsyncIterator[job_pb2.StartJobRequest], spec: JobSpec) -> Batches:
    """The items, once and whole: gRPC may show a stream that its client broke off as one that ended."""
    async for request in requests:
        sent = admin.read_job_items(request)
        if sent is None:
            return
        part, items = sent
        if part not in _PARTS[spec.kind]:
            raise InvalidItems(part, f"has no place in a job of kind {spec.kind}")
        yield part, items
    raise InvalidItems("end", "is missing: the stream broke off before its last message, so nothing was started")
