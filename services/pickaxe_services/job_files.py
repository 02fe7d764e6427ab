"""What jobs leave on disk: `<root>/jobs/{id}/job.json` and the spooled items beside it."""

from __future__ import annotations

import datetime
import json
import logging
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pickaxe.data import Progress
from pickaxe.errors import MethodFailed, PickaxeError, TooLarge, Violation, from_reason
from pickaxe_services.records import Job, JobSpec, Options, Use
from pickaxe_services.settings import Settings

log = logging.getLogger("pickaxe.services")

STATE = "job.json"
VARIABLE = "PICKAXE_JOB"
"""Environment variable of a job's process: the job's name."""
EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def folder(root: Path, name: str) -> Path:
    return root / name.removeprefix("jobs/")


def check_size(written: int, settings: Settings) -> None:
    limit = int(settings.max_artifact_bytes)
    if written > limit:
        raise TooLarge(f"a job's items take more than {limit} bytes", metadata={"limit": limit})


def drop_items(place: Path) -> None:
    """A finished job needs its items no more."""
    for path in place.glob("*.jsonl"):
        path.unlink()


def unexpected(error: Exception) -> MethodFailed:
    return MethodFailed(f"the job could not be run: {type(error).__name__}: {error}")


# ---------------------------------------------------------------- job.json


def save(root: Path, spec: JobSpec, job: Job) -> None:
    place = folder(root, job.name)
    temporary = place / f"{STATE}.tmp"
    temporary.write_text(json.dumps(_to_json(spec, job), indent=1), encoding="utf-8")
    os.replace(temporary, place / STATE)


def load_all(root: Path) -> Iterator[tuple[JobSpec, Job]]:
    """Every job on disk; one whose file cannot be read is left alone and logged."""
    for path in sorted(root.glob(f"*/{STATE}")):
        try:
            yield _from_json(json.loads(path.read_bytes()))
        except (ValueError, KeyError, TypeError) as error:
            log.error("%s cannot be read and is left alone: %s", path, error)


def _to_json(spec: JobSpec, job: Job) -> dict[str, Any]:
    progress, use = job.progress, spec.use
    return {
        "name": job.name,
        "kind": job.kind,
        "use": {"method": use.method, "params": dict(use.params), "artifact": use.artifact},
        "request_id": spec.request_id,
        "base": spec.base,
        "remove": spec.remove,
        "options": {"seed": spec.options.seed, "budget": spec.options.budget, "tenant": spec.options.tenant},
        "state": job.state,
        "progress": progress
        and {
            "stage": progress.stage,
            "step": progress.step,
            "total": progress.total,
            "metrics": dict(progress.metrics),
        },
        "artifact": job.artifact,
        "error": job.error and error_to_json(job.error),
        "created": _stamp(job.created),
        "started": _stamp(job.started),
        "ended": _stamp(job.ended),
        "attempt": job.attempt,
    }


def _from_json(record: Mapping[str, Any]) -> tuple[JobSpec, Job]:
    use = Use(**record["use"])
    growth = record.get("base", ""), tuple(record.get("remove", ()))  # jobs of earlier versions have none
    spec = JobSpec(record["kind"], use, record["request_id"], Options(**record["options"]), *growth)
    job = Job(
        record["name"],
        record["kind"],
        use,
        record["state"],
        Progress(**record["progress"]) if record["progress"] else None,
        record["artifact"],
        error_from_json(record["error"]) if record["error"] else None,
        _moment(record["created"]),
        _moment(record["started"]),
        _moment(record["ended"]),
        record["attempt"],
    )
    return spec, job


def _stamp(moment: datetime.datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _moment(stamp: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(stamp) if stamp else None


def error_to_json(error: PickaxeError) -> dict[str, Any]:
    """The form in which the command line writes an error as its last progress line."""
    return {
        "reason": error.reason,
        "message": error.message,
        "metadata": error.metadata,
        "violations": [{"field": each.field, "description": each.description} for each in error.violations],
    }


def error_from_json(record: Mapping[str, Any]) -> PickaxeError:
    return from_reason(
        record["reason"],
        record["message"],
        metadata=record.get("metadata") or {},
        violations=[Violation(each["field"], each["description"]) for each in record.get("violations") or ()],
    )


# ---------------------------------------------------------------- processes of an earlier server


def end_orphan(name: str) -> None:
    """Kill what an earlier server left running for this job, found by its environment."""
    wanted = f"{VARIABLE}={name}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue  # it ended meanwhile, or is not ours to read
