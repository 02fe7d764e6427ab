"""The error vocabulary: the same classes in process, on the command line and over gRPC.

Each class fixes a machine-readable `reason`, the name of its gRPC status `code` and the `exit_code` of the
command line.  `metadata` holds every value that the message names, as strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with one field, e.g. `Violation("items[3].text", "is missing")`."""

    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}"


class PickaxeError(Exception):
    """Base of everything pickaxe raises on purpose."""

    reason = "METHOD_FAILED"
    code = "INTERNAL"
    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, object] | None = None,
        violations: Iterable[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = {key: str(value) for key, value in (metadata or {}).items()}
        self.violations = tuple(violations)
        self.retry_after = retry_after
        """Seconds after which trying again may help; None when it will not."""

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.metadata, self.violations, self.retry_after)


def _rebuild(
    kind: type[PickaxeError],
    message: str,
    metadata: Mapping[str, str],
    violations: Sequence[Violation],
    retry_after: float | None,
) -> PickaxeError:
    error = kind.__new__(kind)
    PickaxeError.__init__(error, message, metadata=metadata, violations=violations, retry_after=retry_after)
    return error


class _Violations(PickaxeError):
    """An error made of field violations; says all of them at once."""

    subject = "input"

    def __init__(
        self,
        violations: Iterable[Violation] | str,
        description: str | None = None,
        *,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        if isinstance(violations, str):
            violations = [Violation(violations, description or "is invalid")]
        found = tuple(violations)
        shown = "; ".join(str(violation) for violation in found[:20])
        if len(found) > 20:
            shown += f"; and {len(found) - 20} more"
        super().__init__(f"invalid {self.subject}: {shown}", metadata=metadata, violations=found)


class InvalidParams(_Violations):
    """Parameters that the method's schema refuses."""

    reason, code, exit_code = "PARAMS_INVALID", "INVALID_ARGUMENT", 2
    subject = "parameters"


class InvalidItems(_Violations):
    """Items, documents, queries or prompts that cannot be used; fields read `items[3].fields.pair`."""

    reason, code, exit_code = "ITEMS_INVALID", "INVALID_ARGUMENT", 3
    subject = "items"


class TooLarge(PickaxeError):
    """A request above the server's limits: split it or stream it."""

    reason, code, exit_code = "REQUEST_TOO_LARGE", "INVALID_ARGUMENT", 3


class UnknownMethod(PickaxeError):
    """No installed distribution offers a method of this name."""

    reason, code, exit_code = "METHOD_UNKNOWN", "NOT_FOUND", 4

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        import difflib

        near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(near)}?" if near else "; `pickaxe methods` lists them"
        super().__init__(f"no method is called {name!r}{hint}", metadata={"method": name, "near": ",".join(near)})


class NameConflict(PickaxeError):
    """Two distributions offer a method of the same name in the same role."""

    reason, code, exit_code = "METHOD_AMBIGUOUS", "FAILED_PRECONDITION", 5


class BrokenMethod(PickaxeError):
    """A listed method cannot be imported or does not follow the contract."""

    reason, code, exit_code = "METHOD_BROKEN", "FAILED_PRECONDITION", 5


class WrongRole(PickaxeError):
    """The method exists but does not fill this role."""

    reason, code, exit_code = "ROLE_NOT_FILLED", "UNIMPLEMENTED", 4


class UnknownArtifact(PickaxeError):
    """No artifact at this path or of this name."""

    reason, code, exit_code = "ARTIFACT_UNKNOWN", "NOT_FOUND", 4


class UnknownJob(PickaxeError):
    """No job of this name."""

    reason, code, exit_code = "JOB_UNKNOWN", "NOT_FOUND", 4


class ArtifactMismatch(PickaxeError):
    """The artifact is of another method or version, or the method needs one and got none."""

    reason, code, exit_code = "ARTIFACT_MISMATCH", "FAILED_PRECONDITION", 5


class ArtifactCorrupt(PickaxeError):
    """The artifact's files are incomplete or differ from their digests."""

    reason, code, exit_code = "ARTIFACT_CORRUPT", "FAILED_PRECONDITION", 5


class RuntimeMissing(PickaxeError):
    """A library is not installed; the message says what to install."""

    reason, code, exit_code = "RUNTIME_MISSING", "FAILED_PRECONDITION", 5


class ModelMissing(PickaxeError):
    """A model is not on this machine; the message says how to get it."""

    reason, code, exit_code = "MODEL_MISSING", "FAILED_PRECONDITION", 5


class Unmet(PickaxeError):
    """The call needs something that was not set up: a second model, a resource, a calibration."""

    reason, code, exit_code = "PRECONDITION_UNMET", "FAILED_PRECONDITION", 5


class AlreadyExists(PickaxeError):
    """The output exists already and would be overwritten."""

    reason, code, exit_code = "ALREADY_EXISTS", "ALREADY_EXISTS", 5


class DoesNotFit(PickaxeError):
    """The work can never fit the model's context or the memory budget; the numbers are in the metadata."""

    reason, code, exit_code = "DOES_NOT_FIT", "RESOURCE_EXHAUSTED", 6


class Overloaded(PickaxeError):
    """The queue is full; `retry_after` says when to come back."""

    reason, code, exit_code = "QUEUE_FULL", "RESOURCE_EXHAUSTED", 7


class Draining(PickaxeError):
    """The server is shutting down; another replica may answer."""

    reason, code, exit_code = "DRAINING", "UNAVAILABLE", 7


class ServerRestarted(PickaxeError):
    """The server ended while the job ran; starting the same job again resumes it."""

    reason, code, exit_code = "SERVER_RESTARTED", "ABORTED", 7


class Unreachable(PickaxeError):
    """No server answers at this address."""

    reason, code, exit_code = "UNREACHABLE", "UNAVAILABLE", 7


class Cancelled(PickaxeError):
    """The caller gave up."""

    reason, code, exit_code = "CANCELLED", "CANCELLED", 130


class DeadlineExceeded(PickaxeError):
    """The deadline passed before the work was done."""

    reason, code, exit_code = "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", 8


class MethodFailed(PickaxeError):
    """A method raised something unexpected or returned nonsense."""

    reason, code, exit_code = "METHOD_FAILED", "INTERNAL", 1


VOCABULARY: Mapping[str, type[PickaxeError]] = {
    kind.reason: kind
    for kind in (
        InvalidParams, InvalidItems, TooLarge, UnknownMethod, NameConflict, BrokenMethod, WrongRole,
        UnknownArtifact, UnknownJob, ArtifactMismatch, ArtifactCorrupt, RuntimeMissing, ModelMissing, Unmet,
        AlreadyExists, DoesNotFit, Overloaded, Draining, ServerRestarted, Unreachable, Cancelled, DeadlineExceeded,
        MethodFailed,
    )
}  # fmt: skip
"""Reason → class.  Reasons are never renamed."""


def from_reason(
    reason: str,
    message: str,
    *,
    metadata: Mapping[str, str] | None = None,
    violations: Iterable[Violation] = (),
    retry_after: float | None = None,
) -> PickaxeError:
    """The error of that reason as it was raised elsewhere (another process, a server)."""
    kind = VOCABULARY.get(reason, MethodFailed)
    return _rebuild(kind, message, metadata or {}, tuple(violations), retry_after)
