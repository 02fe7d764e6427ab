"""Jobs on a server: start, watch, wait, cancel."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from pickaxe.call import Call
from pickaxe.data import Item
from pickaxe.errors import Cancelled, Draining, Unreachable
from pickaxe.handle.base import ItemLike, OnProgress, as_item
from pickaxe.v1 import job_pb2, job_pb2_grpc
from pickaxe_services.client.transport import Transport
from pickaxe_services.codec import admin
from pickaxe_services.records import Job, JobSpec, Part

BATCH = 256
RECONNECTS = 3


class Jobs:
    """Long work that goes on without its client."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = job_pb2_grpc.JobServiceStub(transport.channel)

    def start(
        self, spec: JobSpec, parts: Mapping[Part, Iterable[ItemLike] | None], *, timeout: float | None = None
    ) -> Job:
        """Send the items and queue the job.  A `request_id` in the spec makes this safe to repeat."""
        requests = _requests(spec, parts)
        answer = self._transport.upload(self._stub.StartJob, requests, self._transport.call(timeout, 0))
        return admin.read_job(answer.job)

    def get(self, name: str) -> Job:
        return admin.read_job(self._transport.unary(self._stub.GetJob, job_pb2.GetJobRequest(name=name)).job)

    def listing(self) -> list[Job]:
        """Newest first."""
        found: list[Job] = []
        token = ""
        while True:
            answer = self._transport.unary(self._stub.ListJobs, job_pb2.ListJobsRequest(page_token=token))
            found += map(admin.read_job, answer.jobs)
            token = answer.next_page_token
            if not token:
                return found

    def cancel(self, name: str) -> Job:
        return admin.read_job(self._transport.unary(self._stub.CancelJob, job_pb2.CancelJobRequest(name=name)).job)

    def watch(self, name: str, *, timeout: float | None = None) -> Iterator[Job]:
        """The job now and after every change, until it is final."""
        yield from self._watch(name, self._transport.call(timeout, 0))

    def _watch(self, name: str, call: Call) -> Iterator[Job]:
        request = job_pb2.WatchJobRequest(name=name)
        for answer in self._transport.stream(self._stub.WatchJob, request, call):
            yield admin.read_job(answer.job)

    def wait(
        self,
        name: str,
        *,
        timeout: float | None = None,
        call: Call | None = None,
        progress: OnProgress | None = None,
    ) -> Job:
        """The finished job.  Raises what it failed with; a lost connection is taken up again a few times."""
        call = call or self._transport.call(timeout, 0)
        for attempt in range(RECONNECTS + 1):
            try:
                return self._follow(name, call, progress)
            except (Draining, Unreachable):
                if attempt == RECONNECTS:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _follow(self, name: str, call: Call, progress: OnProgress | None) -> Job:
        job = None
        seen = None
        for job in self._watch(name, call):
            if progress is not None and job.progress is not None and job.progress != seen:
                progress(job.progress)
            seen = job.progress
        if job is None or not job.final:
            raise Unreachable(f"the watch of {name} at {self._transport.target} ended early")
        if job.error is not None:
            raise job.error
        if job.state == "cancelled":
            raise Cancelled(f"{name} was cancelled", metadata={"job": name})
        return job


def _requests(spec: JobSpec, parts: Mapping[Part, Iterable[ItemLike] | None]) -> Iterator[job_pb2.StartJobRequest]:
    yield admin.write_job_spec(spec)
    for part, values in parts.items():
        if values is None:
            continue
        items = (as_item(value, str(row)) for row, value in enumerate(values))
        offset, batch = 0, _next(items)
        while batch or offset == 0:  # a part that is given and empty is sent as such
            yield admin.write_job_items(part, batch, offset)
            offset += len(batch) or 1
            batch = _next(items)
    yield admin.write_end_of_items()


def _next(items: Iterator[Item]) -> tuple[Item, ...]:
    return tuple(islice(items, BATCH))


def new_request_id() -> str:
    return uuid.uuid4().hex
