"""GOT-D against potentials, gradients, orders and costs of an own exact derivation."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.selection.got_d import concatenated_units

FILE = understood(golden("19-got-d"), "how", "inputs", "expected", "tolerance")
INPUTS = understood(
    FILE["inputs"],
    *("target_embeddings", "candidate_embeddings", "epsilon", "domain_epsilon", "solver", "candidate_domain"),
    "chunking",
)
SOLVER = understood(INPUTS["solver"], "tolerance", "max_iterations", "momentum")
EXPECTED = understood(
    FILE["expected"],
    *map(str, INPUTS["epsilon"]),
    *("exact_lp", "domain_transport_cost", "chunks_of_concatenated"),
)
TOLERANCE = understood(FILE["tolerance"], "dual_abs", "cost_rel", "order")


def pool() -> list[Item]:
    names = [str(each) for each in INPUTS["candidate_domain"]]
    rows = INPUTS["candidate_embeddings"]
    names += [""] * (len(rows) - len(names))
    return [
        Item(str(at), fields={"embedding": np.array(row), "domain": name})
        for at, (row, name) in enumerate(zip(rows, names, strict=True))
    ]


def fitted(epsilon: float) -> Any:
    targets = [Item(str(at), fields={"embedding": np.array(row)}) for at, row in enumerate(INPUTS["target_embeddings"])]
    scorer = pickaxe.scorer("got-d", epsilon=epsilon, domain_epsilon=INPUTS["domain_epsilon"], **SOLVER)
    return scorer.fit(pool(), validation=targets)


@pytest.fixture(scope="module", params=INPUTS["epsilon"], ids=str)
def case(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Any, pickaxe.Scores]:
    of = understood(
        EXPECTED[str(request.param)],
        *("dual_candidate_centred", "calibrated_exact", "calibrated_as_in_repository", "best_first"),
        *("transport_cost", "dual_objective", "kl_regularised_cost"),
    )
    handle = fitted(request.param)
    return of, handle, handle.score(pool())


def test_potentials_and_gradients(case: tuple[dict[str, Any], Any, pickaxe.Scores]) -> None:
    expected, handle, scores = case
    assert handle.artifact.notes["converged"]
    g, m = scores["potential"], len(scores)
    np.testing.assert_allclose(g, expected["dual_candidate_centred"], atol=TOLERANCE["dual_abs"], rtol=0)
    np.testing.assert_allclose(-scores["gain"], expected["calibrated_exact"], atol=TOLERANCE["dual_abs"], rtol=0)
    # The repository multiplies an uncentred potential by (1 + 1/m): with a centred one it has the same order.
    repository = g * (1 + 1 / m)
    np.testing.assert_allclose(repository, expected["calibrated_as_in_repository"], atol=TOLERANCE["dual_abs"], rtol=0)


def test_order(case: tuple[dict[str, Any], Any, pickaxe.Scores]) -> None:
    expected, _, scores = case
    wanted = np.array(expected["best_first"])
    assert sorted(wanted) == list(range(len(scores)))
    found = np.argsort(-scores["gain"], kind="stable")
    gain = scores["gain"]
    differ = found != wanted
    assert (np.abs(gain[found[differ]] - gain[wanted[differ]]) < 1e-6).all()


def test_costs(case: tuple[dict[str, Any], Any, pickaxe.Scores]) -> None:
    expected, handle, _ = case
    for name in ("transport_cost", "dual_objective", "kl_regularised_cost"):
        assert handle.artifact.notes[name] == pytest.approx(expected[name], rel=TOLERANCE["cost_rel"]), name


def test_costs_fall_to_the_exact_one() -> None:
    exact = understood(EXPECTED["exact_lp"], "transport_cost")["transport_cost"]
    above = [EXPECTED[str(epsilon)]["transport_cost"] - exact for epsilon in INPUTS["epsilon"]]
    assert above == sorted(above, reverse=True)
    cost = fitted(min(INPUTS["epsilon"]) / 5).artifact.notes["transport_cost"]
    assert exact - 1e-6 < cost < exact + min(above)


def test_domains() -> None:
    handle = fitted(max(INPUTS["epsilon"]))
    found = handle.artifact.read_json("about.json")["domains"]
    assert found == pytest.approx(EXPECTED["domain_transport_cost"], rel=TOLERANCE["cost_rel"])
    column = handle.score(pool())["domain_distance"]
    named = [EXPECTED["domain_transport_cost"][str(each)] for each in INPUTS["candidate_domain"]]
    np.testing.assert_allclose(column[: len(named)], named, rtol=TOLERANCE["cost_rel"])
    assert np.isnan(column[len(named) :]).all()


def test_units() -> None:
    chunking = understood(INPUTS["chunking"], "texts", "length")
    assert concatenated_units(chunking["texts"], chunking["length"]) == EXPECTED["chunks_of_concatenated"]
