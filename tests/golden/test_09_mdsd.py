"""Golden cases of multi-draft speculative decoding: optima, Q on prefixes, verifiers, greedy traces."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.decoding._speculation.multidraft import RatioOrder, greedy_rest
from pickaxe_plugins.decoding._speculation.multiverify import trial
from pickaxe_plugins.decoding._speculation.transport import Distribution, ratio_order

CASE = understood(golden("09-mdsd"), "how", "formula", "protocol", "tolerance", "tiny", "big", "greedy_traces")
TOLERANCE = understood(CASE["tolerance"], "tiny", "big", "tokens")


def parts(case: dict[str, Any], *inputs: str) -> tuple[dict[str, Any], dict[str, Any]]:
    understood(case, "inputs", "expected")
    return understood(case["inputs"], *inputs), case["expected"]


def normed(values: list[float]) -> np.ndarray:
    array = np.array(values)
    return array / array.sum()


def score(target: np.ndarray, draft: np.ndarray, n: int) -> dict[str, float]:
    item = Item("one", fields={"target": target, "draft": draft, "n": n})
    return {name: values[0] for name, values in pickaxe.scorer("mdsd-acceptance").score([item]).columns.items()}


@pytest.mark.parametrize("case", CASE["tiny"])
def test_tiny(case: dict[str, Any]) -> None:
    inputs, expected = parts(case, "target", "draft", "n")
    understood(expected, "with_replacement", "without_replacement", "greedy", "ratio_order", "single_draft")
    independent = understood(
        expected["with_replacement"], "optimal", "lp", "rrs", "k_sequential", "minimising_set_prefix_length"
    )
    distinct = understood(
        expected["without_replacement"], "optimal", "lp", "rrs", "minimising_set_prefix_length", "Q_prefix"
    )
    greedy = understood(expected["greedy"], "optimal", "lp")
    target, draft, n = normed(inputs["target"]), normed(inputs["draft"]), inputs["n"]
    close = TOLERANCE["tiny"]

    found = score(target, draft, n)
    for kind in ("optimal", "lp"):
        assert found["optimal_with"] == pytest.approx(independent[kind], abs=close)
        assert found["optimal_without"] == pytest.approx(distinct[kind], abs=close)
        assert found["optimal_greedy"] == pytest.approx(greedy[kind], abs=close)
    assert found["rrs_with"] == pytest.approx(independent["rrs"], abs=close)
    assert found["rrs_without"] == pytest.approx(distinct["rrs"], abs=close)
    assert found["k_sequential"] == pytest.approx(independent["k_sequential"], abs=close)
    assert score(target, draft, 1)["optimal"] == pytest.approx(expected["single_draft"], abs=close)

    assert ratio_order(target, draft).tolist() == expected["ratio_order"]
    order = RatioOrder.of(target, draft)
    for law, values in (("with", independent), ("without", distinct)):
        length = values["minimising_set_prefix_length"]
        assert length is None or order.optimum(n, law)[1] == length  # type: ignore[arg-type]
    inside = order.all_inside(n, "without")
    everywhere = np.concatenate([inside, np.full(len(target) + 1 - len(inside), inside[-1])])
    np.testing.assert_allclose(everywhere, distinct["Q_prefix"], atol=close, rtol=0)


@pytest.mark.parametrize("case", CASE["big"])
def test_big(case: dict[str, Any]) -> None:
    inputs, expected = parts(case, "V", "n", "a", "b")
    quarters = {"Q_at_V_over_4": 1, "Q_at_V_over_2": 2, "Q_at_3V_over_4": 3}
    understood(
        expected,
        "with_replacement", "without_replacement", "without_replacement_prefix_length", "greedy", "k_sequential",
        "rrs_with_replacement", "single_draft", *quarters,
    )  # fmt: skip
    size, n = inputs["V"], inputs["n"]
    place = np.arange(size)
    logits = 2 * np.sin(inputs["a"] * place + 0.3) - np.log(1 + place)
    target, draft = normed(np.exp(logits)), normed(np.exp(logits + 0.8 * np.cos(inputs["b"] * place)))

    found = score(target, draft, n)
    columns = {
        "with_replacement": "optimal_with",
        "without_replacement": "optimal_without",
        "greedy": "optimal_greedy",
        "k_sequential": "k_sequential",
        "rrs_with_replacement": "rrs_with",
    }
    for key, column in columns.items():
        assert found[column] == pytest.approx(expected[key], abs=TOLERANCE["big"]), key
    assert score(target, draft, 1)["optimal"] == pytest.approx(expected["single_draft"], abs=TOLERANCE["big"])

    order = RatioOrder.of(target, draft)
    length = expected["without_replacement_prefix_length"]
    assert length is None or order.optimum(n, "without")[1] == length
    inside = order.all_inside(n, "without")
    for key, quarter in quarters.items():
        assert inside[quarter * size // 4] == pytest.approx(expected[key], abs=TOLERANCE["big"]), key


class Scripted:
    """A source of random numbers that were written down."""

    def __init__(self, uniforms: list[float]) -> None:
        self._uniforms = iter(uniforms)

    def random(self) -> float:
        return next(self._uniforms)


@pytest.mark.parametrize("case", CASE["greedy_traces"])
def test_greedy_trace(case: dict[str, Any]) -> None:
    assert TOLERANCE["tokens"] == "exact"
    inputs, expected = parts(case, "tiny_case", "random_draft", "uniforms")
    understood(expected, "drafts", "token", "accepted")
    tiny = CASE["tiny"][inputs["tiny_case"]]["inputs"]
    target, draft = normed(tiny["target"]), normed(tiny["draft"])
    top, _ = greedy_rest(draft, tiny["n"])
    drafts = [*top.tolist(), inputs["random_draft"]]
    assert drafts == expected["drafts"]
    tried = trial("greedy", "greedy_optimal", Distribution(target), Distribution(draft), drafts)
    found = tried.select(Scripted(inputs["uniforms"]))  # type: ignore[arg-type]
    assert found == (expected["token"], expected["accepted"])
