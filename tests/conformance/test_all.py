"""Every method of this distribution passes every check, in process and through a server."""

from collections.abc import Mapping

import pytest

from pickaxe import catalog
from pickaxe.testing import Check, checks, expect_failure

OURS = sorted({entry.name for entry in catalog.entries() if entry.distribution == "pickaxe"})

_READS_IN_ORDER = "what a language model answers depends on the order in which it reads the passages"
_HITS_ARE_CLUSTERS = "hits are clusters of documents, with ids of their own"
KNOWN_FAILURES: Mapping[str, Mapping[str, str]] = {
    "clustered-rag": {"retriever.known_ids": _HITS_ARE_CLUSTERS, "wire.retriever.known_ids": _HITS_ARE_CLUSTERS},
    "fullrank": {"reranker.order": _READS_IN_ORDER, "wire.reranker.order": _READS_IN_ORDER},
}
"""method → check → why it fails and may."""


EVERY_CHECK = [pytest.param(name, check, id=f"{name}-{check.id}") for name in OURS for check in checks(name, wire=True)]


@pytest.mark.parametrize(("name", "check"), EVERY_CHECK)
def test_conforms(name: str, check: Check) -> None:
    known = KNOWN_FAILURES.get(name, {})
    if check.id in known:
        expect_failure(check, known[check.id])
    else:
        check.run()


def test_known_failures_name_checks() -> None:
    there = {(parameter.values[0], parameter.values[1].id) for parameter in EVERY_CHECK}
    assert {(name, check) for name, known in KNOWN_FAILURES.items() for check in known} <= there
