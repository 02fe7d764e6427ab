"""The error vocabulary: complete, stable, and the same after a journey."""

import copy
import pickle

import pytest

from pickaxe import errors
from pickaxe.errors import VOCABULARY, InvalidItems, InvalidParams, PickaxeError, UnknownMethod, Violation, from_reason

KINDS = sorted(VOCABULARY.values(), key=lambda kind: kind.reason)

REASONS = {
    "ALREADY_EXISTS", "ARTIFACT_CORRUPT", "ARTIFACT_MISMATCH", "ARTIFACT_UNKNOWN", "CANCELLED", "DEADLINE_EXCEEDED",
    "DOES_NOT_FIT", "DRAINING", "ITEMS_INVALID", "JOB_UNKNOWN", "METHOD_AMBIGUOUS", "METHOD_BROKEN", "METHOD_FAILED",
    "METHOD_UNKNOWN", "MODEL_MISSING", "PARAMS_INVALID", "PRECONDITION_UNMET", "QUEUE_FULL", "REQUEST_TOO_LARGE",
    "ROLE_NOT_FILLED", "RUNTIME_MISSING", "SERVER_RESTARTED", "UNREACHABLE",
}  # fmt: skip
"""Never renamed, never removed."""


def test_reasons_are_never_renamed() -> None:
    assert set(VOCABULARY) >= REASONS


def test_every_error_is_in_the_vocabulary() -> None:
    public = {kind for name, kind in vars(errors).items()
              if isinstance(kind, type) and issubclass(kind, PickaxeError) and not name.startswith("_")}  # fmt: skip
    assert public - {PickaxeError} == set(KINDS)


def make(kind: type[PickaxeError]) -> PickaxeError:
    if issubclass(kind, UnknownMethod):
        return UnknownMethod("zip-fti", ["zip-fit", "preselect"])
    if issubclass(kind, (InvalidParams, InvalidItems)):
        return kind([Violation("a", "is odd"), Violation("b[1]", "is missing")], metadata={"n": 3})
    return kind("it went wrong", metadata={"n": 3}, retry_after=1.5)


@pytest.mark.parametrize("kind", KINDS)
def test_error_survives_pickling_and_copying(kind: type[PickaxeError]) -> None:
    error = make(kind)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is kind
        assert (str(other), other.metadata, other.violations, other.retry_after) == (
            str(error), error.metadata, error.violations, error.retry_after,
        )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_error_is_made_again_from_its_reason(kind: type[PickaxeError]) -> None:
    error = make(kind)
    other = from_reason(
        error.reason, str(error), metadata=error.metadata, violations=error.violations, retry_after=error.retry_after
    )
    assert (type(other), str(other), other.violations) == (kind, str(error), error.violations)


@pytest.mark.parametrize("kind", KINDS)
def test_exit_codes_and_status_codes_are_set(kind: type[PickaxeError]) -> None:
    assert 1 <= kind.exit_code <= 130
    assert kind.code == kind.code.upper()
    assert kind.__doc__


def test_an_unknown_reason_is_a_failed_method() -> None:
    assert type(from_reason("FROM_THE_FUTURE", "x")) is errors.MethodFailed


def test_all_violations_are_told_and_many_are_cut() -> None:
    error = InvalidItems([Violation(f"items[{row}].text", "is missing") for row in range(25)])
    assert "items[0].text: is missing" in str(error)
    assert "and 5 more" in str(error)
    assert len(error.violations) == 25


def test_one_violation_may_be_given_as_two_strings() -> None:
    assert InvalidParams("k", "is odd").violations == (Violation("k", "is odd"),)


def test_near_names_are_offered() -> None:
    assert "did you mean zip-fit?" in str(make(UnknownMethod))
    assert "pickaxe methods" in str(UnknownMethod("q", ["zip-fit"]))
    assert make(UnknownMethod).metadata == {"method": "zip-fti", "near": "zip-fit"}
