"""Every class of error survives the way to the client and back."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from pickaxe import errors
from pickaxe.errors import VOCABULARY, PickaxeError, Violation, from_reason
from pickaxe_services.status import from_rpc_error, from_status, to_status


@pytest.mark.parametrize("reason", sorted(VOCABULARY))
def test_every_error_comes_back_as_it_was(reason: str) -> None:
    violations = (Violation("items[3].text", "is missing"), Violation("k", "é"))
    error = from_reason(reason, "what happened – é", metadata={"a": "1"}, violations=violations, retry_after=1.25)
    status = to_status(error, "id1")
    read = from_status(status_pb2.Status.FromString(status.SerializeToString()))
    assert type(read) is VOCABULARY[reason]
    assert (read.message, read.metadata, read.violations) == (error.message, error.metadata, error.violations)
    assert read.retry_after == 1.25
    assert read.__notes__ == ["request id1"]


def test_codes_are_those_of_google_rpc() -> None:
    for kind in VOCABULARY.values():
        assert to_status(from_reason(kind.reason, "m")).code == grpc.StatusCode[kind.code].value[0]


def test_statuses_stay_within_the_trailers_of_any_client() -> None:
    many = [Violation(f"items[{row}].fields.{'é' * 300}", "x" * 1000) for row in range(1000)]
    error = from_reason("ITEMS_INVALID", "é" * 5000, metadata={f"k{n}": "v" * 500 for n in range(50)}, violations=many)
    status = to_status(error, "id")
    percent_encoded = 3 * len(status.message.encode())
    assert percent_encoded + 4 * status.ByteSize() // 3 < 8000
    read = from_status(status)
    assert read is not None
    assert read.violations[-1].field == "(more)"
    assert int(read.violations[-1].description.split()[1]) == 1000 - (len(read.violations) - 1)


def test_statuses_of_others_are_not_ours() -> None:
    status = status_pb2.Status(code=5, message="m")
    assert from_status(status) is None
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="METHOD_UNKNOWN", domain="example.com"))
    assert from_status(status) is None


class Failed(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str, trailers: tuple[tuple[str, bytes], ...] = ()) -> None:
        self._parts = code, details, trailers

    def code(self) -> grpc.StatusCode:
        return self._parts[0]

    def details(self) -> str:
        return self._parts[1]

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return self._parts[2]


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("UNAVAILABLE", "connection refused", errors.Unreachable),
        ("UNIMPLEMENTED", "Method not found!", errors.Unreachable),
        ("DEADLINE_EXCEEDED", "", errors.DeadlineExceeded),
        ("CANCELLED", "", errors.Cancelled),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (5 vs. 4)", errors.TooLarge),
        ("RESOURCE_EXHAUSTED", "Concurrent RPC limit exceeded!", errors.Overloaded),
        ("PERMISSION_DENIED", "", errors.Unmet),
        ("UNKNOWN", "boom", errors.MethodFailed),
    ],
)
def test_what_the_transport_says_becomes_an_error_that_names_the_server(
    code: str, details: str, kind: type[PickaxeError]
) -> None:
    error = from_rpc_error(Failed(grpc.StatusCode[code], details), "host:1")
    assert type(error) is kind
    assert error.metadata["address"] == "host:1"


def test_unreadable_details_are_passed_over() -> None:
    trailers = (("grpc-status-details-bin", b"\xff\xff"),)
    assert type(from_rpc_error(Failed(grpc.StatusCode.NOT_FOUND, "m", trailers), "h")) is errors.MethodFailed
