"""The catalogue, jobs and artifacts: what operators and long work exchange."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pickaxe.data import Example, InputField, Item, Items, Progress
from pickaxe.errors import InvalidItems, InvalidParams, PickaxeError
from pickaxe.method import Card
from pickaxe.v1 import artifact_pb2, catalog_pb2, job_pb2
from pickaxe_services.codec import roles, values
from pickaxe_services.records import ArtifactInfo, Job, JobSpec, Limits, Listed, Part, ServerInfo

# ---------------------------------------------------------------- catalogue

_ROLES = {
    "scorer": catalog_pb2.ROLE_SCORER,
    "retriever": catalog_pb2.ROLE_RETRIEVER,
    "reranker": catalog_pb2.ROLE_RERANKER,
    "decoder": catalog_pb2.ROLE_DECODER,
}
_ROLE_NAMES = {number: name for name, number in _ROLES.items()}
_SCOPES = {
    "item": catalog_pb2.SCOPE_ITEM,
    "group": catalog_pb2.SCOPE_GROUP,
    "pool": catalog_pb2.SCOPE_POOL,
}
_SCOPE_NAMES = {number: name for name, number in _SCOPES.items()}
_FITTED = {
    "never": catalog_pb2.FITTED_NEVER,
    "optional": catalog_pb2.FITTED_OPTIONAL,
    "required": catalog_pb2.FITTED_REQUIRED,
}
_FITTED_NAMES = {number: name for name, number in _FITTED.items()}


def read_list_request(request: catalog_pb2.ListMethodsRequest) -> tuple[str, bool, int, str]:
    """Role ("" for all), whether cards are wanted, page size and token."""
    full = request.view == catalog_pb2.METHOD_VIEW_FULL
    return _ROLE_NAMES.get(request.role, ""), full, request.page_size, request.page_token


def write_list_request(page_token: str) -> catalog_pb2.ListMethodsRequest:
    return catalog_pb2.ListMethodsRequest(page_token=page_token)


def write_list_response(methods: Iterable[catalog_pb2.Method], next_page_token: str) -> catalog_pb2.ListMethodsResponse:
    return catalog_pb2.ListMethodsResponse(methods=methods, next_page_token=next_page_token)


def write_listed(listed: Listed, error: PickaxeError | None = None) -> catalog_pb2.Method:
    return catalog_pb2.Method(
        name=listed.name,
        roles=[_ROLES[role] for role in listed.roles],
        distribution=listed.distribution,
        error=None if error is None else values.write_error(error),
    )


def read_listed(message: catalog_pb2.Method) -> Listed:
    return Listed(message.name, _read_roles(message), message.distribution)


def _read_roles(message: catalog_pb2.Method) -> tuple[str, ...]:
    return tuple(_ROLE_NAMES[role] for role in message.roles if role in _ROLE_NAMES)


def write_card(card: Card) -> catalog_pb2.Method:
    return catalog_pb2.Method(
        name=card.name,
        roles=[_ROLES[role] for role in card.roles],
        distribution=card.distribution,
        title=card.title,
        summary=card.summary,
        description=card.description,
        paper=card.paper,
        version=card.version,
        params_schema=values.write_struct(card.params_schema),
        scope=_SCOPES[card.scope],
        reads=_write_inputs(card.reads),
        fit_reads=_write_inputs(card.fit_reads),
        columns=roles.write_schema(card.columns),
        fitted=_FITTED[card.fitted],
        trainable=card.trainable,
        stages=card.stages,
        cost=card.cost,
        reproduced=card.reproduced,
        example=_write_example(card.example),
        grows=card.grows,
    )


def read_card(message: catalog_pb2.Method) -> Card:
    """The card; raises the error that the server met when it loaded the method."""
    if message.HasField("error"):
        raise values.read_error(message.error)
    return Card(
        name=message.name,
        roles=_read_roles(message),
        distribution=message.distribution,
        title=message.title,
        summary=message.summary,
        description=message.description,
        paper=message.paper,
        version=message.version,
        params_schema=values.read_struct(message.params_schema),
        scope=_SCOPE_NAMES.get(message.scope, "pool"),  # type: ignore[arg-type]
        reads=_read_inputs(message.reads),
        fit_reads=_read_inputs(message.fit_reads),
        columns=roles.read_schema(message.columns),
        fitted=_FITTED_NAMES.get(message.fitted, "never"),  # type: ignore[arg-type]
        trainable=message.trainable,
        stages=tuple(message.stages),
        cost=message.cost,
        reproduced=message.reproduced,
        example=_read_example(message.example),
        grows=message.grows,
    )


def _write_inputs(fields: Iterable[InputField]) -> list[catalog_pb2.InputField]:
    return [
        catalog_pb2.InputField(name=each.name, kind=each.kind, doc=each.doc, required=each.required) for each in fields
    ]


def _read_inputs(messages: Iterable[catalog_pb2.InputField]) -> tuple[InputField, ...]:
    return tuple(InputField(each.name, each.kind, each.doc, each.required) for each in messages)


_EXAMPLE_ITEMS = ("items", "examples", "validation", "documents", "queries", "candidates")


def _write_example(example: Example) -> catalog_pb2.Example:
    return catalog_pb2.Example(
        params=values.write_struct(example.params),
        ordered=example.ordered,
        query=None if example.query is None else values.write_item(example.query, "query"),
        prompts=values.write_prompts(example.prompts),
        **{name: values.write_items(getattr(example, name), name) for name in _EXAMPLE_ITEMS},
    )


def _read_example(message: catalog_pb2.Example) -> Example:
    parts: dict[str, Any] = {name: tuple(values.read_items(getattr(message, name), name)) for name in _EXAMPLE_ITEMS}
    return Example(
        params=values.read_struct(message.params),
        ordered=message.ordered,
        query=values.read_item(message.query, "query") if message.HasField("query") else None,
        prompts=tuple(values.read_prompts(message.prompts)),
        **parts,
    )


def write_server(info: ServerInfo) -> catalog_pb2.GetServerResponse:
    limits = info.limits
    return catalog_pb2.GetServerResponse(
        version=info.version,
        providers=info.providers,
        limits=catalog_pb2.Limits(
            max_items_per_request=limits.items_per_request,
            max_items_waiting=limits.items_waiting,
            max_message_bytes=limits.message_bytes,
            max_artifact_bytes=limits.artifact_bytes,
            max_jobs=limits.jobs,
        ),
        models=[catalog_pb2.Model(name=name, description=description) for name, description in info.models.items()],
        resources=info.resources,
        draining=info.draining,
    )


def read_server(message: catalog_pb2.GetServerResponse) -> ServerInfo:
    limits = message.limits
    return ServerInfo(
        version=message.version,
        providers=tuple(message.providers),
        limits=Limits(
            limits.max_items_per_request,
            limits.max_items_waiting,
            limits.max_message_bytes,
            limits.max_artifact_bytes,
            limits.max_jobs,
        ),
        models={model.name: model.description for model in message.models},
        resources=tuple(message.resources),
        draining=message.draining,
    )


# ---------------------------------------------------------------- jobs

_JOB_KINDS = {"fit": job_pb2.Job.KIND_FIT, "index": job_pb2.Job.KIND_INDEX}
_JOB_KIND_NAMES = {number: name for name, number in _JOB_KINDS.items()}
_STATES = {
    "queued": job_pb2.Job.STATE_QUEUED,
    "running": job_pb2.Job.STATE_RUNNING,
    "succeeded": job_pb2.Job.STATE_SUCCEEDED,
    "failed": job_pb2.Job.STATE_FAILED,
    "cancelled": job_pb2.Job.STATE_CANCELLED,
}
_STATE_NAMES = {number: name for name, number in _STATES.items()}
_PARTS: Mapping[Part, Any] = {
    "examples": job_pb2.ItemSet.PART_EXAMPLES,
    "validation": job_pb2.ItemSet.PART_VALIDATION,
    "unlabelled": job_pb2.ItemSet.PART_UNLABELLED,
    "documents": job_pb2.ItemSet.PART_DOCUMENTS,
}
_PART_NAMES = {number: name for name, number in _PARTS.items()}


def write_job_spec(spec: JobSpec) -> job_pb2.StartJobRequest:
    return job_pb2.StartJobRequest(
        spec=job_pb2.JobSpec(
            kind=_JOB_KINDS[spec.kind],
            use=values.write_use(spec.use),
            request_id=spec.request_id,
            options=values.write_options(spec.options),
            base_artifact=spec.base,
            remove_ids=spec.remove,
        )
    )


def read_job_spec(request: job_pb2.StartJobRequest) -> JobSpec:
    if request.WhichOneof("part") != "spec":
        raise InvalidParams("spec", "must come first: the first message says what the job is")
    kind = _JOB_KIND_NAMES.get(request.spec.kind)
    if kind is None:
        raise InvalidParams("spec.kind", "must be FIT or INDEX")
    spec = request.spec
    if kind != "index" and (spec.base_artifact or spec.remove_ids):
        raise InvalidParams("spec.base_artifact", "and remove_ids are for jobs of kind INDEX")
    if spec.remove_ids and not spec.base_artifact:
        raise InvalidParams("spec.remove_ids", "need a base_artifact to remove documents from")
    return JobSpec(
        kind,  # type: ignore[arg-type]
        values.read_use(spec.use),
        spec.request_id,
        values.read_options(spec.options),
        spec.base_artifact,
        tuple(spec.remove_ids),
    )


def write_job_items(part: Part, items: Iterable[Item], offset: int) -> job_pb2.StartJobRequest:
    written = [values.write_item(item, f"{part}[{row}]") for row, item in enumerate(items, offset)]
    return job_pb2.StartJobRequest(items=job_pb2.ItemSet(part=_PARTS[part], items=written))


def write_end_of_items() -> job_pb2.StartJobRequest:
    return job_pb2.StartJobRequest(end=job_pb2.EndOfItems())


def read_job_items(request: job_pb2.StartJobRequest) -> tuple[Part, Items] | None:
    """The items of one message; None for the last message."""
    if request.WhichOneof("part") == "end":
        return None
    if request.WhichOneof("part") != "items":
        raise InvalidItems("items", "must follow: after the first message the stream carries items only")
    part = _PART_NAMES.get(request.items.part)
    if part is None:
        raise InvalidItems("items.part", "must be EXAMPLES, VALIDATION, UNLABELLED or DOCUMENTS")
    return part, values.read_items(request.items.items, part)


def write_job(job: Job) -> job_pb2.Job:
    progress = job.progress
    return job_pb2.Job(
        name=job.name,
        kind=_JOB_KINDS[job.kind],
        use=values.write_use(job.use),
        state=_STATES[job.state],
        progress=None
        if progress is None
        else job_pb2.Progress(stage=progress.stage, step=progress.step, total=progress.total, metrics=progress.metrics),
        artifact=job.artifact,
        error=None if job.error is None else values.write_error(job.error),
        create_time=values.write_time(job.created),
        start_time=values.write_time(job.started),
        end_time=values.write_time(job.ended),
        attempt=job.attempt,
    )


def read_job(message: job_pb2.Job) -> Job:
    done = message.progress
    return Job(
        name=message.name,
        kind=_JOB_KIND_NAMES.get(message.kind, "fit"),  # type: ignore[arg-type]
        use=values.read_use(message.use),
        state=_STATE_NAMES.get(message.state, "queued"),  # type: ignore[arg-type]
        progress=Progress(done.stage, done.step, done.total, dict(done.metrics))
        if message.HasField("progress")
        else None,
        artifact=message.artifact,
        error=values.read_error(message.error) if message.HasField("error") else None,
        created=values.read_time(message.create_time) if message.HasField("create_time") else None,
        started=values.read_time(message.start_time) if message.HasField("start_time") else None,
        ended=values.read_time(message.end_time) if message.HasField("end_time") else None,
        attempt=message.attempt,
    )


# ---------------------------------------------------------------- artifacts

_ARTIFACT_KINDS = {"fit": artifact_pb2.Artifact.KIND_FIT, "index": artifact_pb2.Artifact.KIND_INDEX}
_ARTIFACT_KIND_NAMES = {number: name for name, number in _ARTIFACT_KINDS.items()}


def write_artifact(info: ArtifactInfo) -> artifact_pb2.Artifact:
    return artifact_pb2.Artifact(
        name=info.name,
        kind=_ARTIFACT_KINDS.get(info.kind, artifact_pb2.Artifact.KIND_UNSPECIFIED),
        method=info.method,
        method_version=info.method_version,
        params=values.write_struct(info.params),
        digest=info.digest,
        bytes=info.bytes,
        create_time=values.write_time(info.created),
    )


def read_artifact(message: artifact_pb2.Artifact) -> ArtifactInfo:
    return ArtifactInfo(
        message.name,
        _ARTIFACT_KIND_NAMES.get(message.kind, ""),
        message.method,
        message.method_version,
        values.read_struct(message.params),
        message.digest,
        message.bytes,
        values.read_time(message.create_time) if message.HasField("create_time") else None,
    )
