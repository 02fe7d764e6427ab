"""Gradients of single examples: the same as one at a time, by signals, by projection; EK-FAC against dense solves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from pickaxe.errors import InvalidItems
from pickaxe_plugins.train import bert, gradients, kronecker, llama
from pickaxe_plugins.train.linear import linear
from pickaxe_plugins.train.settings import Net

CONFIG = bert.Config(layers=1, width=16, heads=2, mlp=24, vocab=40, positions=16, head=bert.Head("pooler"))
DECODER = Net(layers=1, width=32, heads=2, kv_heads=1).architecture(40)
GIVEN = {
    "ids": np.random.default_rng(0).integers(1, 40, (5, 8)).astype(np.int32),
    "lengths": np.array([8, 3, 5, 8, 2], np.int32),
    "target": np.arange(5, dtype=np.float32),
}


def squares(weights: Any, given: Mapping[str, Any]) -> Any:
    return (bert.scores(weights, CONFIG, given)[:, 0] - given["target"]) ** 2


def next_tokens(weights: Any, given: Mapping[str, Any]) -> Any:
    import jax

    hidden = llama.hidden_states(weights, DECODER, given["ids"])
    logprobs = jax.nn.log_softmax(llama.logits(weights, hidden))[:, :-1]
    picked = jax.numpy.take_along_axis(logprobs, given["ids"][:, 1:, None], -1)[..., 0]
    counted = np.arange(1, 8) < given["lengths"][:, None]
    return -jax.numpy.where(counted, picked, 0).sum(1) / (given["lengths"] - 1)


def shared(weights: Any, given: Mapping[str, Any]) -> Any:
    """A layer that is used twice, the first time without tokens."""
    x = given["x"]
    return (linear(weights["w"], linear(weights["w"], x)) ** 2).sum((1, 2))


NETS: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "encoder": (squares, bert.initial(CONFIG, 0, scale=0.3)),
    "decoder": (next_tokens, llama.initial(DECODER, 0)),
}


def matrices(weights: Mapping[str, Any]) -> list[str]:
    return [name for name, array in weights.items() if array.ndim == 2 and "embedding" not in name]


@pytest.mark.parametrize("net", NETS)
def test_gradients_are_those_of_single_examples(net: str) -> None:
    import jax

    loss, weights = NETS[net]
    found = gradients.gradients(loss, weights, GIVEN)
    each = gradients.losses(loss, weights, GIVEN)
    alone_of = jax.jit(jax.value_and_grad(lambda weights, alone: loss(weights, alone)[0]))
    for row in range(5):
        value, slope = alone_of(dict(weights), {name: array[row : row + 1] for name, array in GIVEN.items()})
        np.testing.assert_allclose(each[row], value, rtol=1e-4)
        for name, array in slope.items():
            np.testing.assert_allclose(found[name][row], array, atol=2e-4 * max(1, float(abs(array).max())))


@pytest.mark.parametrize("net", NETS)
def test_signals_hold_the_gradients(net: str) -> None:
    loss, weights = NETS[net]
    names = matrices(weights)
    each, passed = gradients.signals(loss, weights, GIVEN, names)
    expected = gradients.gradients(loss, weights, GIVEN, names)
    np.testing.assert_allclose(each, gradients.losses(loss, weights, GIVEN), rtol=1e-4)
    for name, array in gradients.weight_gradients(passed).items():
        np.testing.assert_allclose(array, expected[name], atol=1e-3 * float(abs(expected[name]).max()), err_msg=name)
    flat = np.concatenate([np.asarray(expected[name]).reshape(5, -1) for name in names], axis=1)
    np.testing.assert_allclose(gradients.squared_norms(passed), np.square(flat).sum(1), rtol=1e-3)
    np.testing.assert_allclose(gradients.gram(passed, passed), flat @ flat.T, atol=1e-3 * float(np.square(flat).sum()))
    direction = {name: np.asarray(expected[name][0]) for name in names}
    np.testing.assert_allclose(gradients.inner(passed, direction), flat @ flat[0], atol=1e-3 * float(flat[0] @ flat[0]))


def test_padding_has_no_slope() -> None:
    for loss, weights in NETS.values():
        names = [name for name in matrices(weights) if "pooler" not in name and "classifier" not in name]
        _, passed = gradients.signals(loss, weights, GIVEN, names)
        padding = np.arange(8) >= GIVEN["lengths"][:, None]
        assert all((np.asarray(signal.slopes)[padding] == 0).all() for signal in passed.values())


def test_a_layer_that_is_used_twice_has_both_uses_in_a_row() -> None:
    draw = np.random.default_rng(0)
    weights = {"w": draw.standard_normal((4, 4)).astype(np.float32)}
    given = {"x": draw.standard_normal((3, 2, 4)).astype(np.float32)}
    _, passed = gradients.signals(shared, weights, given, ["w"])
    assert passed["w"].inputs.shape == (3, 4, 4)
    expected = gradients.gradients(shared, weights, given)["w"]
    np.testing.assert_allclose(gradients.weight_gradients(passed)["w"], expected, rtol=1e-4, atol=1e-3)


class TestProjection:
    PASSED = gradients.signals(*NETS["encoder"], GIVEN, matrices(NETS["encoder"][1]))[1]

    def test_of_signals_is_that_of_the_gradients(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = gradients.project_matrices(gradients.weight_gradients(self.PASSED), 64, seed=3)
        monkeypatch.setattr(gradients, "BLOCK", 1)  # one row of a matrix at a time
        found = gradients.project(self.PASSED, 64, seed=3)
        assert found.shape == (5, 64)
        np.testing.assert_allclose(found, whole, atol=1e-4 * np.abs(whole).max())

    def test_depends_on_the_seed(self) -> None:
        first, again, other = (gradients.project(self.PASSED, 16, seed) for seed in (0, 0, 1))
        assert (first == again).all()
        assert not np.allclose(first, other)

    def test_keeps_cosines(self) -> None:
        """8192 dimensions: within 0.05 of the exact cosine for 95 % of pairs."""
        exact, projected = (
            array / np.sqrt(np.diag(array))[:, None] / np.sqrt(np.diag(array))
            for array in (
                gradients.gram(self.PASSED, self.PASSED),
                (lambda flat: flat @ flat.T)(gradients.project(self.PASSED, 8192, seed=0)),
            )
        )
        assert (np.abs(exact - projected) < 0.05).mean() >= 0.95


class TestKronecker:
    draw = np.random.default_rng(0)
    PASSED: gradients.Signals = {
        "w": gradients.Signal(draw.standard_normal((9, 6, 5)), draw.standard_normal((9, 6, 4)))
    }
    V = draw.standard_normal((3, 4, 5))

    def factors(self) -> dict[str, kronecker.Basis]:
        covariances = kronecker.Covariances()
        covariances.add({"w": gradients.Signal(*(part[:4] for part in self.PASSED["w"]))})
        covariances.add({"w": gradients.Signal(*(part[4:] for part in self.PASSED["w"]))})
        return covariances.bases()

    def test_plain_factors_solve_the_dense_system(self) -> None:
        inputs, slopes = self.PASSED["w"]
        a, s = (np.einsum("bti,btj->ij", part, part) / 9 for part in (inputs, slopes))
        dense = np.kron(s, a) + 0.1 * np.eye(20)
        expected = np.linalg.solve(dense, self.V.reshape(3, 20).T).T.reshape(3, 4, 5)
        np.testing.assert_allclose(self.factors()["w"].inverse(self.V, 0.1), expected, rtol=1e-8)

    def test_the_measured_diagonal_is_the_mean_of_squares(self) -> None:
        diagonals = kronecker.Diagonals(self.factors())
        for rows in (slice(0, 5), slice(5, 9)):
            diagonals.add({"w": gradients.Signal(*(part[rows] for part in self.PASSED["w"]))})
        basis = diagonals.bases()["w"]
        gradient = gradients.weight_gradients(self.PASSED)["w"]
        np.testing.assert_allclose(basis.diagonal, np.square(basis.rotate(gradient)).mean(0))
        np.testing.assert_allclose(basis.rotate_back(basis.rotate(self.V)), self.V, atol=1e-12)
        solved = basis.inverse(self.V, 1e-3)
        assert ((solved * self.V).sum((1, 2)) > 0).all()
        far = basis.inverse(self.V, 1e9) * 1e9
        np.testing.assert_allclose(far, self.V, rtol=1e-5, atol=1e-5)

    def test_tokens_of_padding_do_not_count(self) -> None:
        used = np.arange(6) < np.arange(1, 10)[:, None] % 6 + 1
        padded = {"w": gradients.Signal(*(np.where(used[..., None], part, 7.0) for part in self.PASSED["w"]))}
        zeroed = {"w": gradients.Signal(*(np.where(used[..., None], part, 0.0) for part in self.PASSED["w"]))}
        found, expected = kronecker.Covariances(), kronecker.Covariances()
        found.add(padded, used)
        expected.add(zeroed)
        for ours, theirs in zip(found.sums["w"], expected.sums["w"], strict=True):
            np.testing.assert_allclose(ours, theirs)

    def test_directions_have_length_one_over_all_layers(self) -> None:
        bases = {**self.factors(), "v": self.factors()["w"]}
        found = kronecker.directions({"w": self.V, "v": np.stack([self.V[0], 0 * self.V[0], self.V[2]])}, bases, 1e-3)
        squares = sum(np.square(array).sum((1, 2)) for array in found.values())
        np.testing.assert_allclose(squares, 1)
        assert not kronecker.directions({"w": 0 * self.V}, bases, 1e-3)["w"].any()

    def test_what_is_not_finite_is_refused(self) -> None:
        covariances = kronecker.Covariances()
        covariances.add({"w": gradients.Signal(np.full((1, 2, 5), np.nan), np.ones((1, 2, 4)))})
        with pytest.raises(InvalidItems, match="not finite"):
            covariances.bases()
