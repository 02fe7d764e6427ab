"""The kit itself: it passes methods without a fault and finds the one fault of each broken method."""

import importlib
import subprocess
import sys
from typing import Any

import good
import pytest
from broken import ALSO, BROKEN

from pickaxe import artifact, catalog
from pickaxe.errors import MethodFailed
from pickaxe.testing import Check, anyrole, attempt, checks, conforms, expect_failure, run
from pickaxe.testing.check import SPECS

for _name in (
    "heavy",
    "broken_anyrole",
    "broken_scorers",
    "broken_finders",
    "broken_decoders",
    "broken_fits",
    "broken_wire",
):
    importlib.import_module(_name)  # each enters its methods into BROKEN

FAULTS = [pytest.param(check, kind, id=f"{check}-{kind.__name__}") for check, kinds in BROKEN.items() for kind in kinds]
SUBPROCESS = {"anyrole.light_import", "anyrole.processes", "fit.elsewhere_without_training_libraries"}
"""Checks that start an interpreter each: they run on a broken method only where they must find its fault."""

test_good_scorer = conforms(good.GoodScorer, wire=True)
test_good_group_scorer = conforms(good.GoodGroupScorer, wire=True)
test_good_retriever = conforms(good.GoodRetriever, wire=True)
test_good_reranker = conforms(good.GoodReranker, wire=True)
test_good_decoder = conforms(good.GoodDecoder, wire=True)


@pytest.mark.parametrize(("check", "kind"), FAULTS)
def test_finds_exactly_the_fault(check: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anyrole, "CANCEL_BOUND", 0.5)
    over_wire = check.startswith("wire.")
    wanted = [each for each in checks(kind, wire=over_wire) if each.id not in SUBPROCESS or each.id == check]
    failed = {each.id: outcome.message for each in wanted if not (outcome := attempt(each)).passed}
    assert set(failed) == {check, *ALSO[kind]}, failed


def test_every_check_has_a_method_that_fails_it() -> None:
    assert {spec.id for spec in SPECS} | {"wire.card", "wire.equal"} == {*BROKEN, "fit.tampering"}


def test_finds_artifacts_whose_digests_nobody_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    check = next(each for each in checks(good.GoodScorer) if each.id == "fit.tampering")
    assert attempt(check).passed
    monkeypatch.setattr(artifact, "_matches", lambda *_: True)
    assert "opens all the same" in attempt(check).message


def broken_scorers() -> Any:
    return importlib.import_module("broken_scorers")


def test_run_goes_on_after_a_failure() -> None:
    outcomes = {outcome.check.id: outcome for outcome in run(broken_scorers().NeedsText)}
    assert [name for name, outcome in outcomes.items() if not outcome.passed] == ["scorer.empty_text"]
    assert "division by zero" in outcomes["scorer.empty_text"].message
    assert outcomes["anyrole.card"].check.doc.startswith("The card is complete")


def test_an_unknown_method_has_one_check_that_fails() -> None:
    [outcome] = run("no-such-method")
    assert outcome.check.id == "anyrole.loads"
    assert "UnknownMethod" in outcome.message


def test_known_failures_are_strict() -> None:
    passing = Check("scorer.columns", lambda: None)
    with pytest.raises(AssertionError, match="passes now"):
        expect_failure(passing, "a reason")
    failing = Check("scorer.columns", lambda: broken_scorers().nothing)
    expect_failure(failing, "a reason")
    with pytest.raises(AssertionError, match="has no reason"):
        expect_failure(failing, " ")


def parametrised(test: Any) -> dict[str, Check]:
    [mark] = test.pytestmark
    return {parameter.id: parameter.values[0] for parameter in mark.args[1]}


def test_a_known_failure_passes_and_a_mistaken_one_does_not() -> None:
    kind = broken_scorers().NeedsText
    test: Any = conforms(kind, known_failures={"scorer.empty_text": "no text, no score", "scorer.typo": "mistaken"})
    found = parametrised(test)
    test(found["scorer.empty_text"])
    with pytest.raises(AssertionError, match="no check of this method"):
        test(found["scorer.typo"])
    with pytest.raises(MethodFailed, match="division by zero"):
        parametrised(conforms(kind))["scorer.empty_text"].run()


def test_a_class_is_in_the_catalogue_only_while_a_check_runs() -> None:
    before = catalog.names()
    assert all(outcome.passed for outcome in run(good.GoodReranker))
    assert catalog.names() == before


def test_the_kit_needs_no_pytest() -> None:
    program = "import sys, pickaxe.testing; sys.exit('pytest' in sys.modules or 'grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
