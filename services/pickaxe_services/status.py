"""`PickaxeError` to `google.rpc.Status` and back, so that a client raises what the server raised.

Every status carries one `ErrorInfo` (domain `pickaxe.v1`), a `BadRequest` where fields are at fault and a
`RetryInfo` where trying again helps.  A status travels in the call's trailers, which clients bound at 8 KiB by
default: long messages and long lists are cut and say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from pickaxe import errors
from pickaxe.errors import PickaxeError, Violation, from_reason
from pickaxe_services.codec.values import write_duration

DOMAIN = "pickaxe.v1"
DETAILS = "grpc-status-details-bin"
REQUEST_ID = "request_id"
"""Key of `ErrorInfo.metadata`: the id under which the server logged the call."""

_MESSAGE_BYTES = 1000
_VIOLATION_BYTES = 1500
_METADATA_BYTES = 800


def to_status(error: PickaxeError, request_id: str = "") -> status_pb2.Status:
    """The status of an error, small enough for the trailers of any client."""
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=_shortened(error.message, _MESSAGE_BYTES))
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_bounded(error.metadata))
    if request_id:
        info.metadata[REQUEST_ID] = request_id
    status.details.add().Pack(info)
    if error.violations:
        status.details.add().Pack(_bad_request(error.violations))
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo(retry_delay=write_duration(error.retry_after))
        status.details.add().Pack(retry)
    return status


def _shortened(text: str, limit: int) -> str:
    raw = text.encode("utf-8", "replace")
    return raw.decode() if len(raw) <= limit else raw[: limit - 4].decode("utf-8", "ignore") + " …"


def _bounded(metadata: Mapping[str, str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    left = _METADATA_BYTES
    for key, value in metadata.items():
        short = _shortened(value, 200)
        left -= len(key) + len(short.encode())
        if left < 0:
            break
        kept[key] = short
    return kept


def _bad_request(violations: tuple[Violation, ...]) -> error_details_pb2.BadRequest:
    message = error_details_pb2.BadRequest()
    left = _VIOLATION_BYTES
    for row, violation in enumerate(violations):
        field, description = _shortened(violation.field, 200), _shortened(violation.description, 400)
        left -= len(field.encode()) + len(description.encode())
        if left < 0:
            message.field_violations.add(field="(more)", description=f"and {len(violations) - row} more")
            break
        message.field_violations.add(field=field, description=description)
    return message


def from_status(status: status_pb2.Status) -> PickaxeError | None:
    """The error that `to_status` wrote; None when the status is not pickaxe's."""
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for message in (info, bad_request, retry):
            detail.Unpack(message)  # fills the one of its type
    if info.domain != DOMAIN:
        return None
    metadata = dict(info.metadata)
    request_id = metadata.pop(REQUEST_ID, "")
    delay = retry.retry_delay
    error = from_reason(
        info.reason,
        status.message,
        metadata=metadata,
        violations=[Violation(each.field, each.description) for each in bad_request.field_violations],
        retry_after=delay.seconds + delay.nanos / 1e9 if retry.HasField("retry_delay") else None,
    )
    if request_id:
        error.add_note(f"request {request_id}")
    return error


def from_rpc_error(error: Any, address: str) -> PickaxeError:
    """What a `grpc.RpcError` says: the server's own error, or what the transport's code means."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS:
            try:
                found = from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                continue
            if found is not None:
                return found
    return _from_code(error.code(), error.details() or "", address)


def _from_code(code: grpc.StatusCode, details: str, address: str) -> PickaxeError:
    metadata = {"address": address, "code": code.name, "details": details}
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return errors.Unreachable(f"no server answers at {address}: {details}", metadata=metadata)
        case grpc.StatusCode.UNIMPLEMENTED:
            return errors.Unreachable(f"the server at {address} does not offer this call: {details}", metadata=metadata)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.DeadlineExceeded("the deadline passed before the work was done", metadata=metadata)
        case grpc.StatusCode.CANCELLED:
            return errors.Cancelled("the call was cancelled", metadata=metadata)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in details:
            return errors.TooLarge(f"the message is above the limit of {address}: {details}", metadata=metadata)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return errors.Overloaded(f"{address} is busy: {details}", metadata=metadata, retry_after=1.0)
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return errors.Unmet(f"{address} does not allow this call: {details}", metadata=metadata)
    return errors.MethodFailed(f"the call to {address} failed with {code.name}: {details}", metadata=metadata)
