"""effective-robustness: what must hold of lines, sources and mixes; flags, errors, report; the paper's direction."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress

import pickaxe
from pickaxe import Item, Items, Scores
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe.report import explained
from pickaxe_plugins.evaluation.effective_robustness import _lines as lines

X = np.array([0.2, 0.35, 0.45, 0.5, 0.62, 0.7, 0.8])


def on_line(x: np.ndarray, slope: float = 0.9, intercept: float = -0.5, transform: Any = "logit") -> np.ndarray:
    return lines.backward(slope * lines.forward(x, transform, 1e-6) + intercept, transform)


def models(x: Sequence[float] | np.ndarray, name: str = "m", /, **more: Any) -> list[Item]:
    """Models with one accuracy per shift, given as `shift=array`; texts and pairs are labels."""
    shifts = {key: value for key, value in more.items() if isinstance(value, np.ndarray)}
    labels = {key: value for key, value in more.items() if key not in shifts}
    return [
        Item(
            f"{name} {row}",
            fields={
                "id_accuracy": float(each),
                "ood": {key: float(value[row]) for key, value in shifts.items() if np.isfinite(value[row])},
                **labels,
            },
        )
        for row, each in enumerate(x)
    ]


def fitted(base: list[Item], **params: Any) -> Any:
    return pickaxe.scorer("effective-robustness", **{"bootstrap": 200, **params}).fit(base)


def flags(scores: Scores) -> list[tuple[int, str]]:
    return [(flag.index, flag.reason) for flag in scores.flags]


def noisy(seed: int = 0) -> np.ndarray:
    return on_line(X + np.random.default_rng(seed).normal(0, 0.02, len(X)))


# ---------------------------------------------------------------- lines


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 1.5), st.floats(-2, 1), st.sampled_from(["logit", "probit", "identity"]))
def test_points_on_the_line_have_no_effective_robustness(slope: float, intercept: float, transform: str) -> None:
    y = on_line(X, slope, intercept, transform)
    w = np.ones(len(X))
    x, t = lines.forward(X, transform, 1e-6), lines.forward(y, transform, 1e-6)  # type: ignore[arg-type]
    found = lines.fit(x, t[:, None], w, transform, 3)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.at(x, transform)[:, 0], y, atol=1e-9)  # type: ignore[arg-type]
    assert found.r2[0] == pytest.approx(1)
    assert found.held_out[0] == pytest.approx(0, abs=1e-9)


def test_scored_points_on_the_line() -> None:
    scores = fitted(models(X, v2=on_line(X))).score(models([0.3, 0.6], v2=on_line(np.array([0.3, 0.6]))))
    np.testing.assert_allclose(scores["effective_robustness"], 0, atol=1e-9)
    np.testing.assert_allclose(scores["low"], 0, atol=1e-9)
    np.testing.assert_allclose(scores["high"], 0, atol=1e-9)
    assert scores.summary["Baseline lines"]["v2"]["r2"] == pytest.approx(1)


def test_lines_are_those_of_linregress_and_left_out_points_those_of_refits() -> None:
    y = noisy()
    x, t = lines.forward(X, "logit", 1e-6), lines.forward(y, "logit", 1e-6)
    found = lines.fit(x, t[:, None], np.ones(len(x)), "logit", 3)
    peer = linregress(x, t)
    np.testing.assert_allclose(
        [found.slope[0], found.intercept[0], found.r2[0]], [peer.slope, peer.intercept, peer.rvalue**2]
    )
    missed = []
    for row in range(len(x)):
        rest = np.arange(len(x)) != row
        one = linregress(x[rest], t[rest])
        missed.append(abs(y[row] - lines.backward(np.array([one.slope * x[row] + one.intercept]), "logit")[0]))
    assert found.held_out[0] == pytest.approx(np.mean(missed))


def test_resampled_lines_are_weighted_fits() -> None:
    x, y = lines.forward(X, "logit", 1e-6), lines.forward(noisy(), "logit", 1e-6)
    drawn = lines.resampled(x, y[:, None], np.ones(len(x)), 50, np.random.default_rng(1))
    counts = lines._counts(len(x), 50, np.random.default_rng(1))
    assert (counts.sum(axis=1) == len(x)).all()
    for one, (slope, intercept) in zip(counts, drawn[:, 0], strict=True):
        peer = lines.fit(x, y[:, None], one, "logit", 3)
        np.testing.assert_allclose([slope, intercept], [peer.slope[0], peer.intercept[0]], rtol=1e-8)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.15, 0.85), st.floats(0.021, 0.1), st.booleans())
def test_logit_and_probit_agree_in_sign(x: float, deviation: float, above: bool) -> None:
    base = models(X, v2=on_line(X))
    expected = on_line(np.array([x]))
    one = models([x], v2=np.clip(expected + (deviation if above else -deviation), 0, 1))
    found = [
        fitted(base, transform=transform, bootstrap=0).score(one)["effective_robustness"][0]
        for transform in ("logit", "probit")
    ]
    assert np.sign(found[0]) == np.sign(found[1]) == (1 if above else -1)


def test_mean_over_shifts_and_each_of_them() -> None:
    base = models(X, v2=noisy(1), sketch=noisy(2))
    scores = fitted(base).score(models([0.5, 0.6], v2=np.array([0.6, 0.5]), sketch=np.array([0.4, np.nan])))
    each = [scores["effective_robustness_v2"], scores["effective_robustness_sketch"]]
    assert scores["effective_robustness"][0] == pytest.approx(np.mean(each, axis=0)[0])
    assert scores["effective_robustness"][1] == each[0][1]
    assert np.isnan(each[1][1])
    assert flags(scores) == [(1, "missing-shift")]
    assert (scores["low"] <= scores["effective_robustness"]).all()
    assert (scores["effective_robustness"] <= scores["high"]).all()


def test_intervals_over_a_grid_equal_those_of_single_models() -> None:
    handle = fitted(models(X, v2=noisy(1), sketch=noisy(2)))
    x = np.linspace(0.1, 0.9, 400)
    many = handle.score(models(x, v2=x, sketch=x))
    few = handle.score(models(x[::97], v2=x[::97], sketch=x[::97]))
    np.testing.assert_allclose(many["low"][::97], few["low"], atol=1e-4)
    np.testing.assert_allclose(many["high"][::97], few["high"], atol=1e-4)


def test_interval_covers_the_true_line() -> None:
    inside = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.uniform(0.2, 0.8, 30)
        t = 0.9 * lines.forward(x, "logit", 1e-6) - 0.5 + rng.normal(0, 0.1, 30)
        scores = fitted(models(x, v2=lines.backward(t, "logit")), bootstrap=300).score(
            models([0.5], v2=on_line(np.array([0.5])))
        )
        inside.append(scores["low"][0] <= 0 <= scores["high"][0])
    assert 0.85 <= np.mean(inside) <= 1


def test_relative_robustness_is_against_the_model_asked_for() -> None:
    handle, items = fitted(models(X, v2=noisy())), models([0.5, 0.6], v2=np.array([0.4, 0.55]))
    np.testing.assert_allclose(handle.score(items)["relative_robustness"], [0, 0.15])
    other = fitted(models(X, v2=noisy()), reference_model="m 1").score(items)
    np.testing.assert_allclose(other["relative_robustness"], [-0.15, 0])
    with pytest.raises(InvalidParams, match="no item has the id 'absent'"):
        fitted(models(X, v2=noisy()), reference_model="absent").score(items)


def test_models_outside_the_baseline_are_flagged() -> None:
    scores = fitted(models(X, v2=noisy())).score(models([0.1, 0.5, 0.9], v2=np.array([0.1, 0.4, 0.8])))
    assert scores["extrapolated"].tolist() == [1, 0, 1]
    assert flags(scores) == [(0, "extrapolated"), (2, "extrapolated")]
    assert any("extrapolated" in line for line in explained(scores.summary)[0])


def test_losses_are_better_when_lower() -> None:
    x = np.array([2.0, 2.5, 3.0, 3.5])
    handle = fitted(models(x, code=x + 0.5), transform="identity", direction="lower")
    scores = handle.score(models([2.2, 2.2], code=np.array([2.5, 3.0])))
    np.testing.assert_allclose(scores["effective_robustness"], [0.2, -0.3])
    np.testing.assert_allclose(scores["relative_robustness"], [0, -0.5])


def test_test_sizes_bound_and_weigh() -> None:
    y = noisy()
    y[0] = 0.0
    sized = models(X, v2=y, n=50)
    line = fitted(sized).score(sized).summary["Baseline lines"]["v2"]
    x, t = lines.forward(X, "logit", 0.01), lines.forward(y, "logit", 0.01)
    assert line["slope"] == pytest.approx(linregress(x, t).slope)
    y = noisy()
    twice = [*models(X, v2=y), *models(X[:1], v2=y[:1])]
    heavy = [Item(each.id, fields={**each.fields, "n": 1000 if row else 2000}) for row, each in enumerate(twice[:-1])]
    found = [
        fitted(base, weighted=weighted).score(heavy[:1]).summary["Baseline lines"]["v2"]["slope"]
        for base, weighted in ((twice, False), (heavy, True), (heavy, False))
    ]
    assert found[0] == pytest.approx(found[1])
    assert found[0] != pytest.approx(found[2])


# ---------------------------------------------------------------- sources and mixes


def sources(**more: Any) -> list[Item]:
    half = X[::2]
    return [
        *models(X, "web", v2=on_line(X, 0.95, -0.2), source="web"),
        *models(X, "photo", v2=on_line(X, 0.7, -0.8), source="photo"),
        *models(half, "both", v2=on_line(half, 0.8, -0.5), source="both", mix_of=("photo", "web"), share=0.5),
    ]


def column(scores: Scores, name: str) -> dict[str, float]:
    assert scores.groups is not None
    return dict(zip(scores.groups.keys, scores.groups.columns[name].tolist(), strict=True))


def test_sources_are_compared_without_a_baseline() -> None:
    scores = pickaxe.scorer("effective-robustness", bootstrap=200, reference_id=0.5).score(sources())
    assert column(scores, "rank") == {"web: v2": 1, "photo: v2": 3, "both: v2": 2}
    assert column(scores, "ood_at_reference")["web: v2"] == pytest.approx(on_line(np.array([0.5]), 0.95, -0.2)[0])
    assert column(scores, "diluted")["both: v2"] == 1
    assert column(scores, "slope_lambda")["both: v2"] == pytest.approx((0.8 - 0.7) / (0.95 - 0.7))
    assert np.isnan(scores["effective_robustness"]).all()
    assert np.isfinite(scores["lambda"][-4:]).all()
    assert np.isnan(scores["lambda"][:-4]).all()
    assert (scores["diluted"][-4:] == 1).all()
    assert flags(scores) == [(0, "no-baseline")]
    answer, figures = explained(scores.summary)
    assert any("models of web do best under shift" in line for line in answer)
    shown = {figure.title: figure for figure in figures}["Sources at the same in-distribution accuracy"]
    assert shown.series[0].x == tuple(column(scores, "ood_at_reference").values())


def test_more_models_on_a_line_change_no_order() -> None:
    handle = pickaxe.scorer("effective-robustness", bootstrap=0, reference_id=0.5)
    few, more = np.array([0.25, 0.4, 0.55]), np.array([0.3, 0.6, 0.75])
    extra = models(more, "more", v2=on_line(more, 0.7, -0.8), source="photo")
    some = [*models(few, "web", v2=on_line(few, 0.95, -0.2), source="web"), *sources()[7:]]
    for name in ("rank", "ood_at_reference", "lambda"):
        found = [column(handle.score(each), name) for each in (some, [*some, *extra])]
        assert found[0] == pytest.approx(found[1], nan_ok=True)


def test_sources_of_the_baseline_serve_mixes() -> None:
    pure, mix = sources()[:14], sources()[14:]
    alone = fitted(pure, reference_id=0.5).score(mix)
    together = pickaxe.scorer("effective-robustness", reference_id=0.5).score(sources())
    np.testing.assert_allclose(alone["lambda"], together["lambda"][14:])
    assert column(alone, "lambda")["both: v2"] == pytest.approx(column(together, "lambda")["both: v2"])


def test_a_mix_without_its_sources_has_no_place() -> None:
    scores = pickaxe.scorer("effective-robustness").score(sources()[:7] + sources()[14:])
    assert np.isnan(scores["lambda"]).all()
    assert (7, "no-source") in flags(scores)


@pytest.mark.parametrize("seed", range(3))
def test_mixes_of_averaging_classifiers_lie_between_their_sources(seed: int) -> None:
    """The paper's Gaussian setting in 50 dimensions, 8 to 256 examples, through the scorer's lines."""
    rng = np.random.default_rng(seed)
    core, style = np.zeros((2, 50))
    core[:25], style[25:] = 0.2, 0.2
    means, tests = np.stack([core + 0.3 * style, 0.5 * core + style]), np.stack([core + 0.4 * style, core])
    items = []
    for name, share in (("one", 1.0), ("two", 0.0), ("half", 0.5)):
        for size in (8, 16, 32, 64, 128, 256):
            probit = np.zeros(2)
            for _ in range(40):
                first = rng.random(size) < share
                w = np.where(first[:, None], *means[:, None]).mean(axis=0) + rng.normal(0, size**-0.5, 50)
                probit += tests @ w / np.linalg.norm(w) / 40
            x, y = lines.backward(probit, "probit")
            label = {"mix_of": ("one", "two")} if name == "half" else {}
            items += models([x], f"{name} {size}", ood=np.array([y]), source=name, **label)
    scores = pickaxe.scorer("effective-robustness", transform="probit", bootstrap=0).score(items)
    slope = column(scores, "slope")
    assert slope["two: ood"] < slope["half: ood"] < slope["one: ood"]
    assert 0 < column(scores, "lambda")["half: ood"] < 1


# ---------------------------------------------------------------- report, flags, errors


def test_the_answer_names_the_most_robust_model() -> None:
    scores = fitted(models(X, v2=noisy())).score(models([0.5, 0.6], v2=np.array([0.6, 0.4])))
    answer, figures = explained(scores.summary)
    assert answer[0].startswith("m 0 has the highest effective robustness: 0.")
    titles = [figure.title for figure in figures]
    assert titles == ["Effective robustness of the models", "Accuracy under v2 over in-distribution accuracy"]
    assert figures[0].series[0].x == tuple(scores["effective_robustness"])
    assert figures[0].series[0].low == tuple(scores["low"])


def test_order_of_models_changes_nothing() -> None:
    handle, items = fitted(models(X, v2=noisy())), sources()
    one, other = handle.score(items), handle.score(items[::-1])
    for name in ("effective_robustness", "low", "lambda"):
        np.testing.assert_allclose(one[name], other[name][::-1], err_msg=name)


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        (models(X[:2], v2=noisy()[:2]), "2 of the 3 points"),
        (models(X[[1, 1, 1]], v2=noisy()[:3]), "the same in-distribution accuracy"),
    ],
)
def test_lines_that_cannot_be_fitted_say_why(base: list[Item], reason: str) -> None:
    scores = fitted(base).score(models([0.5], v2=np.array([0.4])))
    assert np.isnan(scores["effective_robustness"]).all()
    assert np.isnan(scores["low"]).all()
    assert [(flag.reason, reason in flag.message) for flag in scores.flags] == [("no-line", True)]
    assert reason in explained(scores.summary)[0][0]


def test_shifts_that_are_constant_or_named_otherwise_are_flagged() -> None:
    scores = fitted(models(X, v2=np.full(len(X), 0.44))).score(models([X[0]], v2=np.array([0.4])))
    assert flags(scores) == [(0, "constant")]
    [flag] = fitted(models(X, v2=noisy())).score(models([X[0]], v3=np.array([0.4]))).flags
    assert flag.message == "not measured under v2: name yours as the baseline does"


def test_an_unknown_shift_has_no_value() -> None:
    handle = fitted(models(X, v2=noisy()), shifts=("v2", "sketch"))
    scores = handle.score(models([0.5], v2=np.array([0.4]), sketch=np.array([0.3])))
    assert np.isnan(scores["effective_robustness_sketch"][0])
    assert scores["effective_robustness"][0] == scores["effective_robustness_v2"][0]
    assert flags(scores) == [(0, "no-line")]


@pytest.mark.parametrize(
    ("fields", "place", "match"),
    [
        ({"id_accuracy": 63.1, "ood": {"v2": 0.5}}, "id_accuracy", "divide by 100"),
        ({"id_accuracy": 0.6, "ood": {"v2": 51.0}}, "ood.v2", "divide by 100"),
        ({"id_accuracy": 0.6, "ood": {"v2": -2.0}}, "ood.v2", "transform=identity"),
        ({"id_accuracy": float("nan"), "ood": {"v2": 0.5}}, "id_accuracy", "leave the cell out"),
        ({"id_accuracy": 0.6, "ood": {"v2": "0,5"}}, "ood.v2", "decimal commas"),
        ({"id_accuracy": 0.6, "ood": {}}, "ood", "one per shift"),
        ({"id_accuracy": 0.6, "ood": {"v2": 0.5}, "mix_of": ("a",)}, "mix_of", "two different sources"),
        ({"id_accuracy": 0.6, "ood": {"v2": 0.5}, "share": 2.0}, "share", "from 0 to 1"),
        ({"id_accuracy": 0.6, "ood": {"v2": 0.5}, "n": 0}, "n", "1 or more"),
    ],
)
def test_wrong_items_are_named(fields: dict[str, Any], place: str, match: str) -> None:
    items = Items([Item("good", fields={"id_accuracy": 0.5, "ood": {"v2": 0.4}}), Item("bad", fields=fields)])
    with pytest.raises(InvalidItems, match=match) as raised:
        pickaxe.scorer("effective-robustness").score(items)
    assert [each.field for each in raised.value.violations] == [f"items[1].fields.{place}"]


def test_further_errors() -> None:
    handle = pickaxe.scorer("effective-robustness", weighted=True)
    with pytest.raises(InvalidItems, match="weighted=true needs"):
        handle.score(models([0.5], v2=np.array([0.4])))
    with pytest.raises(InvalidItems, match="name each mix by itself"):
        pickaxe.scorer("effective-robustness").score(
            [*models([0.5], v2=X, source="s", mix_of=("a", "b")), *models([0.4], v2=X, source="s")]
        )
    with pytest.raises(InvalidItems, match="is empty"):
        fitted([])
    artifact = fitted(models(X, v2=noisy())).artifact
    with pytest.raises(ArtifactMismatch, match="transform=logit, not probit"):
        pickaxe.scorer("effective-robustness", transform="probit", artifact=artifact.path).score(
            models([0.5], v2=np.array([0.4]))
        )


@pytest.mark.parametrize(
    "params", [{"direction": "lower"}, {"reference_id": 50}, {"shifts": ("a", "a")}, {"min_points": 1}, {"eps": 0}]
)
def test_wrong_parameters(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        pickaxe.scorer("effective-robustness", **params)
