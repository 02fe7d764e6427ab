"""Which checks a method has, and running them: one by one, all at once, or as pytest tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pickaxe.errors import PickaxeError
from pickaxe.method import Method
from pickaxe.testing import anyrole, decoder, fit, reranker, retriever, scorer  # noqa: F401  they enter their checks
from pickaxe.testing.check import SPECS, Check, Spec
from pickaxe.testing.subject import Subject


def checks(method: str | type[Method[Any]], *, wire: bool | str = False) -> Iterator[Check]:
    """The checks of a method, given by its name or as a class that need not be installed.

    With `wire`, those that make sense over gRPC run once more as `wire.<id>`: through a server started in this
    process, or through the one at the address given.  A method that cannot be loaded has one check, `anyrole.loads`.
    """
    try:
        subject = Subject.of(method)
    except PickaxeError:
        yield Check("anyrole.loads", lambda: _loads(method), anyrole.loads.__doc__ or "")
        return
    yield from (_bound(spec, spec.id, subject) for spec in SPECS if spec.applies(subject))
    if wire:
        from pickaxe.testing.wire import remote_checks

        yield from remote_checks(subject, address=wire if isinstance(wire, str) else None)


def _loads(method: str | type[Method[Any]]) -> None:
    Subject.of(method)


def _bound(spec: Spec, name: str, subject: Subject) -> Check:
    return Check(name, lambda: subject.examine(spec.function), spec.doc)


@dataclass(frozen=True)
class Outcome:
    """How a check ended.  `message` says why it failed, or is empty."""

    check: Check
    message: str
    seconds: float

    @property
    def passed(self) -> bool:
        return not self.message


def run(method: str | type[Method[Any]], *, wire: bool | str = False) -> Iterator[Outcome]:
    """Run the checks one after the other; a failed check never stops the rest."""
    for each in checks(method, wire=wire):
        yield attempt(each)


def attempt(check: Check) -> Outcome:
    """Run one check and say how it ended."""
    start = time.monotonic()
    message = ""
    try:
        check.run()
    except Exception as error:  # noqa: BLE001  whatever a plugin raises is a failed check
        message = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        message = message or type(error).__name__
    return Outcome(check, message, time.monotonic() - start)


def conforms(
    method: str | type[Method[Any]],
    *,
    known_failures: Mapping[str, str] | None = None,
    wire: bool | str = False,
) -> Callable[..., None]:
    """A pytest test function that runs every check: `test_conformance = conforms("min-k-prob")`.

    `known_failures` maps check ids to reasons.  It is strict: a known failure that passes, or that names no check
    of this method, fails the test.
    """
    import pytest

    known = dict(known_failures or {})
    found = list(checks(method, wire=wire))
    unknown = sorted(set(known) - {each.id for each in found})
    parameters = [pytest.param(each, id=each.id) for each in found]
    parameters += [pytest.param(Check(name, _no_such_check(name)), id=name) for name in unknown]

    @pytest.mark.parametrize("check", parameters)
    def test_conformance(check: Check) -> None:
        if check.id in unknown or check.id not in known:
            check.run()
            return
        expect_failure(check, known[check.id])

    return test_conformance


def expect_failure(check: Check, reason: str) -> None:
    """Run a check that is known to fail, for a reason; raises AssertionError when it passes."""
    assert reason.strip(), f"the known failure {check.id!r} has no reason"
    assert not attempt(check).passed, f"{check.id!r} passes now: take it out of known_failures ({reason})"


def _no_such_check(name: str) -> Callable[[], None]:
    def run() -> None:
        raise AssertionError(f"known_failures names {name!r}, which is no check of this method")

    return run
