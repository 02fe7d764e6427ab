"""`pickaxe jobs`: what a server is fitting and indexing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pickaxe.jsonable import jsonable
from pickaxe_services.cli import console
from pickaxe_services.cli.failure import as_record
from pickaxe_services.records import Job

F = TypeVar("F", bound=Callable[..., Any])


def _server(function: F) -> F:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object per job."),
        click.option(
            "--server",
            metavar="ADDR",
            envvar="PICKAXE_SERVER",
            default="127.0.0.1:50051",
            show_default=True,
            help="The server; also PICKAXE_SERVER.",
        ),
    ):
        function = option(function)
    return function


@click.group("jobs")
def command() -> None:
    """List, watch and cancel the fit and index jobs of a server.

    \b
      pickaxe jobs list --server 127.0.0.1:50051
      pickaxe jobs watch jobs/7f3a
    """


@command.command("list")
@_server
def listing(server: str, as_json: bool) -> None:
    """List all jobs, newest first."""
    from pickaxe_services import connect

    with connect(server) as client:
        jobs = client.jobs.listing()
    if as_json:
        for job in jobs:
            console.emit(as_object(job))
        return
    rows = [(job.name, job.kind, job.use.method, job.state, _step(job), job.artifact or "-") for job in jobs]
    console.table(("job", "kind", "method", "state", "progress", "artifact"), rows)


@command.command()
@click.argument("name")
@_server
def get(name: str, server: str, as_json: bool) -> None:
    """Show one job; fails as the job did."""
    from pickaxe_services import connect

    with connect(server) as client:
        _end(client.jobs.get(name), as_json)


@command.command()
@click.argument("name")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds after which to stop watching.")
@_server
def watch(name: str, timeout: float | None, server: str, as_json: bool) -> None:
    """Follow one job until it ends; fails as the job did."""
    from pickaxe_services import connect

    with connect(server) as client, console.bar(name, as_json) as bar:
        job: Job | None = None
        for job in client.jobs.watch(name, timeout=timeout):
            if as_json:
                console.emit(as_object(job))
            elif job.progress is not None:
                step = job.progress
                bar.update(step.step, step.total, f"{name}: {step.stage}", **step.metrics)
    if job is not None:
        _end(job, as_json, told=as_json)


@command.command()
@click.argument("name")
@_server
def cancel(name: str, server: str, as_json: bool) -> None:
    """Cancel one job; cancelling one that has ended changes nothing."""
    from pickaxe_services import connect

    with connect(server) as client:
        job = client.jobs.cancel(name)
    console.emit(as_object(job)) if as_json else print(f"{job.name} is {job.state}")


def as_object(job: Job) -> dict[str, Any]:
    """A job as a JSON object."""
    times = {name: getattr(job, name) for name in ("created", "started", "ended")}
    step = job.progress
    record: dict[str, Any] = jsonable(
        {
            "name": job.name,
            "kind": job.kind,
            "method": job.use.method,
            "params": dict(job.use.params),
            "state": job.state,
            "attempt": job.attempt,
            "artifact": job.artifact,
            "progress": None
            if step is None
            else {"stage": step.stage, "step": step.step, "total": step.total, "metrics": dict(step.metrics)},
            "error": None if job.error is None else as_record(job.error),
            **{name: moment.isoformat() if moment else None for name, moment in times.items()},
        }
    )
    return record


def _step(job: Job) -> str:
    if job.progress is None:
        return "-"
    total = f"/{job.progress.total}" if job.progress.total else ""
    return f"{job.progress.stage} {job.progress.step}{total}"


def _end(job: Job, as_json: bool, told: bool = False) -> None:
    if as_json and not told:
        console.emit(as_object(job))
    elif not as_json:
        console.fields(
            {
                "job": job.name,
                "kind": job.kind,
                "method": job.use.method,
                "state": job.state,
                "progress": _step(job),
                "artifact": job.artifact,
            }
        )
    if job.error is not None:
        raise job.error
