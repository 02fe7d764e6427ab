"""`pickaxe jobs`: what a server fits and indexes."""

from __future__ import annotations

from typing import Any

import click

from pickaxe.jsonable import jsonable
from pickaxe_services import connect
from pickaxe_services.cli import console
from pickaxe_services.cli.failure import as_record
from pickaxe_services.records import Job


@click.group("jobs")
@click.option("--server", metavar="ADDR", default="127.0.0.1:50051", show_default=True, help="The server to ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per job or change.")
@click.pass_context
def command(ctx: click.Context, server: str, as_json: bool) -> None:
    """List, watch and cancel the jobs of a server.

    \b
      pickaxe jobs list
      pickaxe jobs --server 127.0.0.1:50051 watch jobs/0f3a
      pickaxe jobs cancel jobs/0f3a
    """
    client = ctx.with_resource(connect(server))
    ctx.obj = (client.jobs, as_json)


@command.command("list")
@click.pass_obj
def listing(given: tuple[Any, bool]) -> None:
    """All jobs, newest first."""
    jobs, as_json = given
    found = jobs.listing()
    if as_json:
        for job in found:
            console.emit(_record(job))
        return
    console.table(
        ["job", "kind", "method", "state", "progress", "artifact"],
        [(job.name, job.kind, job.use.method, job.state, _progress(job), job.artifact) for job in found],
    )


@command.command()
@click.argument("name")
@click.pass_obj
def get(given: tuple[Any, bool], name: str) -> None:
    """One job as it is now."""
    _show(given[0].get(name), given[1])


@command.command()
@click.argument("name")
@click.pass_obj
def watch(given: tuple[Any, bool], name: str) -> None:
    """Every change of a job until its end; fails the way the job failed."""
    jobs, as_json = given
    job = None
    for job in jobs.watch(name):
        _show(job, as_json)
    if job is not None and job.error is not None:
        raise job.error


@command.command()
@click.argument("name")
@click.pass_obj
def cancel(given: tuple[Any, bool], name: str) -> None:
    """End a job; it leaves no artifact."""
    _show(given[0].cancel(name), given[1])


def _show(job: Job, as_json: bool) -> None:
    if as_json:
        console.emit(_record(job))
    else:
        click.echo(f"{job.name}  {job.kind} {job.use.method}  {job.state}  {_progress(job)}{job.artifact}".rstrip())


def _progress(job: Job) -> str:
    step = job.progress
    if step is None:
        return ""
    return f"{step.stage} {step.step}/{step.total} " if step.total else f"{step.stage} {step.step} "


def _record(job: Job) -> dict[str, Any]:
    step = job.progress
    return {
        "name": job.name,
        "kind": job.kind,
        "method": job.use.method,
        "params": jsonable(dict(job.use.params)),
        "state": job.state,
        "progress": step and {"stage": step.stage, "step": step.step, "total": step.total},
        "artifact": job.artifact,
        "error": job.error and as_record(job.error),
    }
