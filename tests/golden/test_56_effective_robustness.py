"""Golden cases of effective-robustness: lines, sources and their mix, the Gaussian model, outputs, similarities."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.evaluation import effective_robustness as method

GOLDEN = understood(golden("56-effective-robustness"), "paper", "how", "cases")


def items(x: list[float], y: list[float], **more: Any) -> list[Item]:
    rows = enumerate(zip(x, y, strict=True))
    return [Item(str(row), fields={"id_accuracy": a, "ood": {"shift": b}, **more}) for row, (a, b) in rows]


def robustness(inputs: dict[str, Any]) -> dict[str, Any]:
    understood(
        inputs, "baseline_id_accuracy", "baseline_ood_accuracy", "model_id_accuracy", "model_ood_accuracy", "transform"
    )
    handle = pickaxe.scorer("effective-robustness", transform=inputs["transform"], bootstrap=20)
    fitted = handle.fit(items(inputs["baseline_id_accuracy"], inputs["baseline_ood_accuracy"]))
    scores = fitted.score(items(inputs["model_id_accuracy"], inputs["model_ood_accuracy"]))
    line = scores.summary["Baseline lines"]["shift"]
    np.testing.assert_array_equal(scores["effective_robustness"], scores["effective_robustness_shift"])
    return {
        "slope": line["slope"],
        "intercept": line["intercept"],
        "r2": line["r2"],
        "expected_ood": scores["expected_ood"],
        "effective_robustness": scores["effective_robustness"],
        "relative_robustness_vs_first": scores["relative_robustness"],
    }


def source_lines(inputs: dict[str, Any]) -> dict[str, Any]:
    understood(inputs, "sources", "transform", "reference_id_accuracy")
    models = []
    for name, each in inputs["sources"].items():
        understood(each, "id", "ood")
        mix = {"mix_of": tuple(name.split("+"))} if "+" in name else {}
        models += items(each["id"], each["ood"], source=name, **mix)
    handle = pickaxe.scorer(
        "effective-robustness",
        transform=inputs["transform"],
        reference_id=inputs["reference_id_accuracy"],
        bootstrap=0,
    )
    groups = handle.score(models).groups
    assert groups is not None
    row = {key.split(":")[0]: at for at, key in enumerate(groups.keys)}
    return {
        "lines_slope_intercept": {
            name: [groups.columns["slope"][at], groups.columns["intercept"][at]] for name, at in row.items()
        },
        "ood_at_reference": {name: groups.columns["ood_at_reference"][at] for name, at in row.items()},
        "position_of_mix_0_is_B_1_is_A": groups.columns["lambda"][row["A+B"]],
        "diluted": bool(groups.columns["diluted"][row["A+B"]]),
    }


def gaussian(inputs: dict[str, Any]) -> dict[str, Any]:
    understood(inputs, "means", "sigma", "share_of_s1")
    means, sigma = understood(inputs["means"], "s1", "s2", "id", "ood"), understood(inputs["sigma"], "id", "ood")
    share = np.array(inputs["share_of_s1"], np.float64)
    found = method.gaussian_mix(
        np.array([means["s1"], means["s2"]]),
        np.stack([share, 1 - share], axis=1),
        np.array([means["id"], means["ood"]]),
        np.array([sigma["id"], sigma["ood"]]),
    )
    return {
        "id_accuracy": found.accuracy[:, 0],
        "ood_accuracy": found.accuracy[:, 1],
        "probit_ratio_ood_over_id": found.probit[:, 1] / found.probit[:, 0],
    }


def output_mixing(inputs: dict[str, Any]) -> dict[str, Any]:
    understood(inputs, "logits_a", "logits_b", "labels")
    both = [np.array(inputs["logits_a"]), np.array(inputs["logits_b"])]
    chosen = method.output_mixing(both, "logit").argmax(axis=1)
    return {
        "mean_logit_prediction": chosen,
        "mean_prob_prediction": method.output_mixing(both, "prob").argmax(axis=1),
        "accuracy_mean_logit": (chosen == np.array(inputs["labels"])).mean(),
    }


def similarity_filter(inputs: dict[str, Any]) -> dict[str, Any]:
    understood(inputs, "image_embedding", "text_embedding", "threshold")
    kept, cosine = method.similarity_filter(
        np.array(inputs["image_embedding"]), np.array(inputs["text_embedding"]), inputs["threshold"]
    )
    return {"cosine": cosine, "kept_ids": kept}


HOW: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "effective_robustness_logit": robustness,
    "effective_robustness_probit": robustness,
    "source_lines": source_lines,
    "gaussian_mixture_of_sources": gaussian,
    "output_mixing": output_mixing,
    "similarity_filter": similarity_filter,
}


def test_every_kind_of_case_is_there() -> None:
    assert {case["name"] for case in GOLDEN["cases"]} == set(HOW)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_case(case: dict[str, Any]) -> None:
    understood(case, "name", "inputs", "expected", "tolerance", "note")
    tolerance = understood(case["tolerance"], "rel", "abs", "exact")
    found = HOW[case["name"]](case["inputs"])
    assert set(found) == set(case["expected"])
    for name, expected in case["expected"].items():
        if tolerance.get("exact"):
            np.testing.assert_array_equal(found[name], expected, err_msg=name)
        elif isinstance(expected, dict):
            assert set(found[name]) == set(expected)
            for key, value in expected.items():
                np.testing.assert_allclose(found[name][key], value, rtol=tolerance["rel"], err_msg=f"{name} {key}")
        else:
            np.testing.assert_allclose(
                found[name], expected, rtol=tolerance.get("rel", 0), atol=tolerance.get("abs", 0), err_msg=name
            )
