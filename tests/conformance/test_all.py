"""Every method of this distribution passes every check, in process and through a server."""

from collections.abc import Iterator, Mapping

import pytest

from pickaxe import catalog
from pickaxe.testing import Check, checks, expect_failure

OURS = sorted({entry.name for entry in catalog.entries() if entry.distribution == "pickaxe"})

KNOWN_FAILURES: Mapping[str, Mapping[str, str]] = {}
"""method → check → why it fails and may."""


def every_check() -> Iterator[object]:
    for name in OURS:
        for check in checks(name, wire=True):
            yield pytest.param(name, check, id=f"{name}-{check.id}")


@pytest.mark.parametrize(("name", "check"), every_check())
def test_conforms(name: str, check: Check) -> None:
    known = KNOWN_FAILURES.get(name, {})
    if check.id in known:
        expect_failure(check, known[check.id])
    else:
        check.run()


@pytest.mark.parametrize("name", sorted(KNOWN_FAILURES) or ["none"])
def test_known_failures_name_checks(name: str) -> None:
    there = {check.id for each in OURS if each == name for check in checks(each, wire=True)}
    assert set(KNOWN_FAILURES.get(name, {})) <= there
