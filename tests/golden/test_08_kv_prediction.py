"""Golden cases of KV prediction: predicted caches, every term of the loss in both modes, published layer maps."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

from pickaxe.lm.weights import Architecture
from pickaxe_plugins.decoding.kv_predict import kept_layers, losses, nearest_map, predict, spread_map
from pickaxe_plugins.decoding.kv_predict._loss import Loss

FILE = understood(golden("08-kv-prediction"), "how", "tolerance", "cases", "published_layer_maps")
TOLERANCE = (
    understood(FILE["tolerance"], "float")["float"] if isinstance(FILE["tolerance"], dict) else FILE["tolerance"]
)
SIZES = ("aux_heads", "aux_head_dim", "base_heads", "base_head_dim", "batch", "seq", "vocab")
ARRAYS = ("key_weight", "key_bias", "value_weight", "value_bias", "aux_keys", "aux_values", "base_keys",
          "base_values", "base_logits", "aux_logits", "targets")  # fmt: skip
SHARES = ("use_z_loss", "z_eps", "ignore_index", "w_base", "w_aux", "w_kv")
NAMES = {"auxiliary_loss": "aux_loss", "z_loss_auxiliary": "z_loss_aux"}
"""The file's names of terms that have another one here."""


class Case:
    """One case of the file as arrays."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.expected = understood(case, "inputs", "expected")["expected"]
        understood(self.expected, "predicted_keys", "predicted_values", "losses", "losses_default_mode")
        self.inputs = understood(case["inputs"], "mode", "layer_map", "layout", *SIZES, *ARRAYS, *SHARES)
        given = self.inputs
        assert given["mode"] == "official"
        layers = len(given["layer_map"])
        wide = given["base_heads"] * given["base_head_dim"]
        shapes = {"weight": (layers, wide, -1), "bias": (layers, wide)}
        self.predictor = {
            f"{kind}_{part}": np.array(given[f"{kind}_{part}"]).reshape(shape)
            for kind in ("key", "value")
            for part, shape in shapes.items()
        }
        self.base = Architecture(
            layers=layers,
            width=1,
            heads=given["base_heads"],
            kv_heads=given["base_heads"],
            head_size=given["base_head_dim"],
            mlp=1,
            vocab=given["vocab"],
            context=given["seq"],
        )

    def pairs(self, model: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Caches by layer, tokens before heads."""
        given = self.inputs
        shape = (given["batch"], given[f"{model}_heads"], given["seq"], given[f"{model}_head_dim"])
        kinds = (given[f"{model}_keys"], given[f"{model}_values"])
        return [
            (np.array(keys).reshape(shape).swapaxes(1, 2), np.array(values).reshape(shape).swapaxes(1, 2))
            for keys, values in zip(*kinds, strict=True)
        ]

    def predicted(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return predict(self.predictor, self.inputs["layer_map"], self.pairs("aux"), self.base)

    def terms(self, mode: str) -> dict[str, float]:
        given = self.inputs
        shape = (given["batch"], given["seq"])
        loss = Loss(
            base=given["w_base"],
            aux=given["w_aux"],
            kv=given["w_kv"],
            z=given["z_eps"] if given["use_z_loss"] else 0,
            mode=mode,  # type: ignore[arg-type]
        )
        base, aux = (np.array(given[f"{model}_logits"]).reshape(*shape, given["vocab"]) for model in ("base", "aux"))
        targets = np.array(given["targets"]).reshape(shape)
        found = losses(base, aux, targets, self.predicted(), self.pairs("base"), loss, given["ignore_index"])
        return {name: float(value) for name, value in found.items()}


CASES = [Case(case) for case in FILE["cases"]]


@pytest.mark.parametrize("case", CASES)
def test_predicted_caches(case: Case) -> None:
    for place, name in enumerate(("predicted_keys", "predicted_values")):
        for pair, expected in zip(case.predicted(), case.expected[name], strict=True):
            np.testing.assert_allclose(pair[place].swapaxes(1, 2).ravel(), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_every_term_of_the_loss(case: Case) -> None:
    found = case.terms("official")
    for name, value in case.expected["losses"].items():
        assert found.pop(NAMES.get(name, name)) == pytest.approx(value, abs=TOLERANCE), name
    assert all(name.startswith("z_loss") and value == 0 for name, value in found.items()), f"not in the file: {found}"


@pytest.mark.parametrize("case", CASES)
def test_terms_of_the_default_mode(case: Case) -> None:
    found = case.terms("default")
    for name, value in {**case.expected["losses"], **case.expected.get("losses_default_mode", {})}.items():
        assert found[NAMES.get(name, name)] == pytest.approx(value, abs=TOLERANCE), name


@pytest.mark.parametrize("expected", FILE["published_layer_maps"].values(), ids=FILE["published_layer_maps"])
def test_published_layer_maps(expected: list[int]) -> None:
    base, aux = len(expected), expected[-1] + 1
    assert spread_map(base, aux) == tuple(expected)
    if base % aux == 0:
        assert nearest_map(base, kept_layers(base, aux)) == tuple(expected)
