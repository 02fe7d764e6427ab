"""Jobs end well, fail with their reason, stop when told, and outlive their server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

import pickaxe
from pickaxe import Artifact, Item, Progress
from pickaxe.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    InvalidItems,
    InvalidParams,
    MethodFailed,
    Overloaded,
    ServerRestarted,
    TooLarge,
    UnknownArtifact,
    UnknownJob,
    WrongRole,
)
from pickaxe.v1 import job_pb2_grpc
from pickaxe_services import Client, LocalServer, Settings, connect
from pickaxe_services.codec import admin
from pickaxe_services.records import Job, JobSpec, Use

SCRIPT = (sys.executable, str(Path(__file__).parent / "job_script.py"))


def spec(do: str, request_id: str = "", method: str = "t-job") -> JobSpec:
    return JobSpec("fit", Use(method, {"do": do}), request_id)


def until(client: Client, name: str, holds: Callable[[Job], bool]) -> Job:
    """The first state of the job for which that holds."""
    return next(job for job in client.jobs.watch(name, timeout=30) if holds(job))


@pytest.fixture
def jobs(serve: Any) -> Iterator[Client]:
    with serve(job_command=SCRIPT) as client:
        yield client


def test_a_fit_gives_a_handle_on_its_artifact(jobs: Client, tmp_path: Path) -> None:
    seen: list[Progress] = []
    examples = [Item(str(row), "x", {"n": row}) for row in range(700)]
    fitted = jobs.scorer("t-job").fit(examples, validation=["v"], out=tmp_path / "out", progress=seen.append, seed=5)
    assert fitted.score(["a"]).primary.tolist() == [700]
    assert (tmp_path / "out" / "count.json").read_text() == "700"
    assert Progress("read", 700, 700, {"validation": 1.0}) in seen or seen[-1].stage == "done"
    (job,) = jobs.jobs.listing()
    assert (job.state, job.artifact, job.attempt) == ("succeeded", fitted.artifact, 1)
    assert job.created is not None
    assert job.started is not None
    assert job.ended is not None
    assert job.created <= job.started <= job.ended
    assert not list((tmp_path / "server/jobs").glob("*/*.jsonl"))


def test_jobs_run_the_command_line(server: Client, tmp_path: Path) -> None:
    targets = ["the cat sat on the mat", "a dog ran in the park"]
    fitted = server.scorer("zip-fit").fit(targets, out=tmp_path / "out")
    local = pickaxe.scorer("zip-fit").fit(targets, out=tmp_path / "local")
    items = ["the cat ran", "0101001"]
    assert fitted.score(items).primary.tolist() == local.score(items).primary.tolist()
    assert Artifact.open(tmp_path / "out").digest == Artifact.open(tmp_path / "local").digest
    with pytest.raises(InvalidItems, match="is missing"):
        server.scorer("zip-fit").fit([Item("a")])


def test_a_failed_job_says_why_and_resumes_under_its_request_id(jobs: Client, tmp_path: Path) -> None:
    job = jobs.jobs.start(spec("fail", "again"), {"examples": ["a", "b"]})
    with pytest.raises(InvalidItems) as caught:
        jobs.jobs.wait(job.name)
    assert caught.value.metadata == {"a": "b"}
    assert caught.value.violations[0].field == "examples[0]"
    failed = jobs.jobs.get(job.name)
    assert (failed.state, failed.artifact) == ("failed", "")
    assert failed.error is not None
    resumed = jobs.jobs.start(spec("fail", "again"), {"examples": ["ignored: the first items count"]})
    assert (resumed.name, resumed.attempt) == (job.name, 2)
    done = jobs.jobs.wait(job.name)
    assert done.state == "succeeded"
    assert jobs.scorer("t-job", artifact=done.artifact).score(["x"]).primary.tolist() == [2]
    assert jobs.jobs.start(spec("fail", "again"), {}).state == "succeeded"


def test_a_crash_is_the_job_s_alone(jobs: Client) -> None:
    job = jobs.jobs.start(spec("crash"), {"examples": ["a"]})
    with pytest.raises(MethodFailed, match="code 9: Traceback: out of memory"):
        jobs.jobs.wait(job.name)
    assert jobs.scorer("t-length").score(["abc"]).primary.tolist() == [3]


def test_the_same_request_id_starts_one_job_of_one_kind(jobs: Client) -> None:
    first = jobs.jobs.start(spec("succeed", "one"), {"examples": ["a"]})
    assert jobs.jobs.start(spec("succeed", "one"), {"examples": ["a"]}).name == first.name
    with pytest.raises(AlreadyExists, match="stands for another job"):
        jobs.jobs.start(spec("fail", "one"), {"examples": ["a"]})
    assert len(jobs.jobs.listing()) == 1


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def hanging(client: Client, root: Path, request_id: str = "") -> tuple[Job, int]:
    job = client.jobs.start(spec("hang", request_id), {"examples": ["a"]})
    file = root / "artifacts/pid"
    deadline = time.monotonic() + 20
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return job, int(file.read_text())


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pickaxe_services.job_process.KILL_AFTER", 0.3)


def test_cancelling_kills_a_job_that_will_not_listen(jobs: Client, tmp_path: Path) -> None:
    job, pid = hanging(jobs, tmp_path / "server")
    assert until(jobs, job.name, lambda job: job.progress is not None).state == "running"
    assert jobs.jobs.cancel(job.name).state == "cancelled"
    assert gone(pid)
    with pytest.raises(Cancelled):
        jobs.jobs.wait(job.name)
    assert jobs.jobs.cancel(job.name).state == "cancelled"


def test_leaving_a_fit_cancels_its_job(jobs: Client) -> None:
    with pytest.raises(DeadlineExceeded):
        jobs.scorer("t-job", do="hang").fit(["a"], timeout=1.0)
    (job,) = jobs.jobs.listing()
    assert job.state == "cancelled"


def test_jobs_beyond_the_slots_wait_and_beyond_the_queue_are_refused(serve: Any, tmp_path: Path) -> None:
    with serve(job_command=SCRIPT, max_jobs=1, max_jobs_waiting=1) as client:
        first, _ = hanging(client, tmp_path / "server")
        second = client.jobs.start(spec("succeed"), {"examples": ["a"]})
        assert second.state == "queued"
        with pytest.raises(Overloaded, match="2 jobs wait"):
            client.jobs.start(spec("succeed"), {"examples": ["a"]})
        assert [job.name for job in client.jobs.listing()] == [second.name, first.name]
        client.jobs.cancel(first.name)
        assert client.jobs.wait(second.name).state == "succeeded"


def test_a_job_that_waits_can_be_cancelled(serve: Any, tmp_path: Path) -> None:
    with serve(job_command=SCRIPT) as client:
        hanging(client, tmp_path / "server")
        second = client.jobs.start(spec("succeed"), {"examples": ["a"]})
        assert client.jobs.cancel(second.name).state == "cancelled"


def test_the_end_of_a_server_ends_its_jobs_and_the_next_one_resumes_them(serve: Any, tmp_path: Path) -> None:
    settings = Settings(port=0, root=tmp_path / "server", job_command=SCRIPT)
    local = LocalServer(settings)
    with connect(local.__enter__()) as client:
        job, pid = hanging(client, tmp_path / "server", "survives")
        with ThreadPoolExecutor(1) as pool:
            watched = pool.submit(lambda: list(client.jobs.watch(job.name)))
            until(client, job.name, lambda job: job.state == "running")
            local.__exit__(None, None, None)
            assert isinstance(watched.result(10)[-1].error, ServerRestarted)
    assert gone(pid)
    with serve(job_command=SCRIPT) as client:
        kept = client.jobs.get(job.name)
        assert kept.state == "failed"
        assert isinstance(kept.error, ServerRestarted)
        again, _ = hanging(client, tmp_path / "server", "survives")
        assert (again.name, again.attempt) == (job.name, 2)


def test_a_server_that_was_killed_leaves_no_job_running(tmp_path: Path) -> None:
    root = tmp_path / "server"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    code = (
        "import service_methods, sys, pathlib\n"
        "from pickaxe import catalog\n"
        "from pickaxe_services import Settings, serve\n"
        f"with catalog.register(service_methods.Job, 't-job', 'scorer'):\n"
        f"    serve(Settings(port=0, root=pathlib.Path({str(root)!r}), job_command={SCRIPT!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    with process:
        with connect(process.stdout.readline().split()[-1]) as client:
            job, pid = hanging(client, root)
        process.kill()
    assert not gone(pid)
    with LocalServer(Settings(port=0, root=root)) as address, connect(address) as client:
        assert isinstance(client.jobs.get(job.name).error, ServerRestarted)
        deadline = time.monotonic() + 10
        while not gone(pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_what_is_wrong_with_a_job_is_said_before_it_starts(jobs: Client) -> None:
    start = jobs.jobs.start
    with pytest.raises(InvalidParams, match="nothing"):
        start(JobSpec("fit", Use("t-job", {"nothing": 1})), {"examples": ["a"]})
    with pytest.raises(WrongRole, match="'fit'"):
        start(JobSpec("fit", Use("t-length")), {"examples": ["a"]})
    with pytest.raises(WrongRole, match="no retriever"):
        start(JobSpec("index", Use("t-job")), {"documents": ["a"]})
    with pytest.raises(UnknownArtifact):
        start(JobSpec("fit", Use("t-job", artifact="artifacts/none")), {"examples": ["a"]})
    with pytest.raises(InvalidItems, match="no place in a job of kind fit"):
        start(JobSpec("fit", Use("t-job")), {"documents": ["a"]})
    with pytest.raises(InvalidItems, match=r"items\[256\]"):
        start(JobSpec("fit", Use("t-job")), {"examples": ["a"] * 256 + [3]})  # type: ignore[list-item]
    for use in (jobs.jobs.get, jobs.jobs.cancel, jobs.jobs.wait):
        with pytest.raises(UnknownJob):
            use("jobs/none")
    assert jobs.jobs.listing() == []


def test_spools_are_bounded_and_cleared(serve: Any, tmp_path: Path) -> None:
    with serve(job_command=SCRIPT, max_artifact_bytes=1000) as client, pytest.raises(TooLarge):
        client.jobs.start(spec("succeed"), {"examples": ["x" * 2000]})
    assert list((tmp_path / "server/jobs").iterdir()) == []


def test_a_stream_that_breaks_off_starts_nothing(jobs: Client) -> None:
    sent = [admin.write_job_spec(JobSpec("fit", Use("t-job"))), admin.write_job_items("examples", [Item("a", "b")], 0)]
    start = job_pb2_grpc.JobServiceStub(jobs._transport.channel).StartJob
    with pytest.raises(grpc.RpcError, match="the stream broke off before its last message"):
        start(iter(sent), timeout=10)
    assert jobs.jobs.listing() == []
    assert start(iter([*sent, admin.write_end_of_items()]), timeout=10).job.name
