"""Golden cases of learning curves: fits, levels, layers of convergence, anchors, errors."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.scaling._laws import Saturating
from pickaxe_plugins.scaling.learning_curve import _trace as traces

FILE = understood(golden("24-learning-curve"), "paper", "how", "cases")
CASES = {case["name"]: case for case in FILE["cases"]}


def case(name: str, *inputs: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Inputs, expectations and tolerances."""
    found = understood(CASES[name], "name", "inputs", "expected", "tolerance", "note")
    return understood(found["inputs"], *inputs), found["expected"], found["tolerance"]


def test_every_case_is_understood() -> None:
    assert set(CASES) == {
        "noise_free",
        "trace",
        "working_and_prediction_level",
        "layer_of_convergence",
        "anchored_trace",
        "errors",
    }


def test_noise_free() -> None:
    given, expected, tolerance = case("noise_free", "x", "accuracy", "predict_at")
    understood(expected, "a", "b", "c", "prediction")
    rel = understood(tolerance, "rel")["rel"]
    x, y = np.array(given["x"]), np.array(given["accuracy"])
    item = Item("run", fields={"x": x, "y": y, "target_size": float(given["predict_at"])})
    found = pickaxe.scorer("learning-curve").score([item])
    assert found.primary[0] == pytest.approx(expected["prediction"], rel=rel)
    assert found["asymptote"][0] == pytest.approx(expected["c"], rel=rel)
    assert found["exponent"][0] == pytest.approx(expected["b"], rel=rel)
    assert found.summary["runs"][0]["a"] == pytest.approx(expected["a"], rel=rel)


def test_trace() -> None:
    given, expected, tolerance = case("trace", "x", "accuracy", "first_level", "listed_from_level", "predict_at")
    listed = "a_from_listed_level", "b_from_listed_level", "c_from_listed_level", "prediction_from_listed_level"
    understood(expected, "level", "sse_all_levels", *listed)
    understood(tolerance, "sse_rel", "sse_abs", "a_rel", "b_abs", "c_abs", "prediction_abs")
    x, y = np.array(given["x"]), np.array([given["accuracy"]])
    rules = traces.Rules(first_level=given["first_level"])
    plain = traces.trace(x, y, traces.pattern("power", x[0]), rules).plain[0]
    assert expected["level"] == list(range(given["first_level"], len(x) + 1))
    np.testing.assert_allclose(
        plain.sse[given["first_level"] - 1 :],
        expected["sse_all_levels"],
        rtol=tolerance["sse_rel"],
        atol=tolerance["sse_abs"],
    )
    late = plain[given["listed_from_level"] - 1 :]
    np.testing.assert_allclose(late.a, expected["a_from_listed_level"], rtol=tolerance["a_rel"])
    np.testing.assert_allclose(late.b, expected["b_from_listed_level"], rtol=0, atol=tolerance["b_abs"])
    np.testing.assert_allclose(late.c, expected["c_from_listed_level"], rtol=0, atol=tolerance["c_abs"])
    np.testing.assert_allclose(
        late.at(np.log(given["predict_at"])),
        expected["prediction_from_listed_level"],
        rtol=0,
        atol=tolerance["prediction_abs"],
    )


def test_working_and_prediction_level() -> None:
    given, expected, tolerance = case("working_and_prediction_level", "x", "alpha", "upper", "queries", "query_columns")
    understood(expected, "wlevel_index", "plevel_index")
    assert tolerance == {"exact": True}
    x, limits = np.array(given["x"]), np.array([given["alpha"]])
    working, predicting = [], []
    for query in given["queries"]:
        settings = dict(zip(given["query_columns"], query, strict=True))
        found = traces.working_level(x, limits, **understood(settings, "nu", "slowdown", "lookahead"))
        working.append(int(found[0]))
        predicting.append(int(traces.prediction_level(limits, found, given["upper"])[0]))
    assert [None if place < 0 else place for place in working] == expected["wlevel_index"]
    assert [None if place < 0 else place for place in predicting] == expected["plevel_index"]


def test_layer_of_convergence() -> None:
    given, expected, tolerance = case("layer_of_convergence", "trend_i_abc", "trend_i_minus_1_abc", "search_range")
    understood(expected, "p_q_epsilon")
    rel = understood(tolerance, "rel")["rel"]
    later, earlier = (
        Saturating(*(np.array(column) for column in zip(*given[name], strict=True)), sse=np.zeros(len(given[name])))
        for name in ("trend_i_abc", "trend_i_minus_1_abc")
    )
    t = traces.last_crossing(later, earlier, *np.log(given["search_range"]))
    for row, wanted in enumerate(expected["p_q_epsilon"]):
        if wanted is None:
            assert np.isnan(t[row])
            continue
        q = later[row].at(t[row])
        assert [np.exp(t[row]), q, abs(q - later.c[row])] == pytest.approx(wanted, rel=rel)


def test_anchored_trace() -> None:
    given, expected, tolerance = case("anchored_trace", "x", "accuracy", "anchors_start_after_level", "predict_at")
    understood(expected, "level", "c", "prediction")
    understood(tolerance, "c_abs", "prediction_abs")
    x, y, start = np.array(given["x"]), np.array([given["accuracy"]]), given["anchors_start_after_level"]
    rules = traces.Rules()
    plain = traces.trace(x, y, traces.pattern("power", x[0]), rules).plain
    found = traces.anchored(np.log(x), y, plain, np.array([start]), rules.b_range)[0, start - 1 :]
    assert expected["level"] == list(range(start, len(x) + 1))
    np.testing.assert_allclose(found.c, expected["c"], rtol=0, atol=tolerance["c_abs"])
    predicted = found.at(np.log(given["predict_at"]))
    np.testing.assert_allclose(predicted, expected["prediction"], rtol=0, atol=tolerance["prediction_abs"])


def test_errors() -> None:
    given, expected, tolerance = case("errors", "actual", "predicted")
    understood(expected, "mape_percent", "pe_percent")
    rel = understood(tolerance, "rel")["rel"]
    found = traces.percentage_errors(given["actual"], given["predicted"])
    np.testing.assert_allclose(found, expected["pe_percent"], rtol=rel)
    assert np.abs(found).mean() == pytest.approx(expected["mape_percent"], rel=rel)
