"""Optimisers against their formulas, schedules, masks, low-rank changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pickaxe.errors import InvalidParams
from pickaxe_plugins.train import adapters, bert, llama, optimisers
from pickaxe_plugins.train.optimisers import Cosine, Linear, WarmupStableDecay
from pickaxe_plugins.train.settings import Net

TREE = {"w": np.array([[1.0, -2.0], [0.5, 3.0]], np.float32), "b": np.array([1.0, -1.0], np.float32)}
SLOPES = {"w": np.array([[0.3, -4.0], [0.0, 1.0]], np.float32), "b": np.array([2.0, 0.1], np.float32)}


def stepped(optimiser: Any, tree: Any, slopes: Any, times: int = 1) -> Any:
    import optax

    state = optimiser.init(tree)
    for _ in range(times):
        change, state = optimiser.update(slopes, state, tree)
        tree = optax.apply_updates(tree, change)
    return tree


def test_adamw_is_pytorchs() -> None:
    rate, decay, eps, clip = 0.1, 0.2, 1e-3, 1.5
    tree = {name: array.astype(np.float64) for name, array in TREE.items()}
    m, v = ({name: 0 * array for name, array in tree.items()} for _ in range(2))
    norm = np.sqrt(sum(np.square(slope).sum() for slope in SLOPES.values()))
    for step in range(1, 4):
        for name, slope in SLOPES.items():
            g = slope.astype(np.float64) * min(1, clip / (norm + 1e-6))
            m[name], v[name] = 0.8 * m[name] + 0.2 * g, 0.9 * v[name] + 0.1 * g * g
            tree[name] *= 1 - rate * decay
            tree[name] -= rate * (m[name] / (1 - 0.8**step)) / (np.sqrt(v[name] / (1 - 0.9**step)) + eps)
    found = stepped(optimisers.adamw(rate, betas=(0.8, 0.9), eps=eps, decay=decay, clip=clip), TREE, SLOPES, 3)
    for name, array in tree.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5)


def test_only_matrices_decay_when_asked() -> None:
    optimiser = optimisers.adamw(0.1, decay=0.5, decayed=optimisers.matrices)
    found = stepped(optimiser, TREE, {name: 0 * array for name, array in TREE.items()})
    np.testing.assert_allclose(found["w"], TREE["w"] * 0.95, rtol=1e-6)
    assert (found["b"] == TREE["b"]).all()


def test_lamb_steps_as_long_as_the_array_is() -> None:
    found = stepped(optimisers.lamb(0.1, decay=0.0), TREE, SLOPES)
    for name, array in TREE.items():
        np.testing.assert_allclose(np.linalg.norm(found[name] - array), 0.1 * np.linalg.norm(array), rtol=1e-4)


def test_equal_schedules_give_the_same_optimiser() -> None:
    assert optimisers.adamw(Linear(1e-3, 10)) is optimisers.adamw(Linear(1e-3, 10))
    assert optimisers.adamw(Linear(1e-3, 10)) is not optimisers.adamw(Linear(1e-3, 11))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Linear(2.0, 10, 4), {0: 0, 1: 0.5, 4: 2, 7: 1, 10: 0, 12: 0}),
        (Linear(2.0, 10), {0: 2, 5: 1, 10: 0}),
        (Cosine(2.0, 8, 4, floor=0.1), {0: 0, 2: 1, 4: 2, 6: 1.1, 8: 0.2, 9: 0.2}),
        (WarmupStableDecay(1e-3, 16000, 400000, 400), {0: 0, 1: 6.25e-8, 16000: 1e-3, 400000: 1e-3, 400800: 2.5e-4}),
        (WarmupStableDecay(1.0, 0, 2, 1), {0: 1, 2: 1, 3: 0.5}),
    ],
)
def test_schedules(schedule: Any, expected: dict[int, float]) -> None:
    import jax

    for step, rate in expected.items():
        np.testing.assert_allclose(jax.jit(lambda step: schedule(step))(step), rate, rtol=1e-5, atol=1e-12)


def test_what_is_masked_keeps_its_bits() -> None:
    mask = {"w": np.array([[1, 0], [0, 1]]), "b": False}
    found = stepped(optimisers.masked(optimisers.adamw(0.1, decay=0.5), mask), TREE, SLOPES, 3)
    kept = np.asarray(found["w"]) == TREE["w"]
    assert kept.tolist() == [[False, True], [True, False]]
    assert (found["b"] == TREE["b"]).all()


class TestAdapters:
    CONFIG = bert.Config(layers=1, width=16, heads=2, mlp=24, vocab=40, positions=16)
    WEIGHTS = bert.initial(CONFIG, 0, scale=0.3)
    GIVEN = {"ids": np.arange(1, 9, dtype=np.int32)[None], "lengths": np.array([8], np.int32)}

    def test_start_without_a_change(self) -> None:
        changes = adapters.initial(self.WEIGHTS, r"query|value", rank=2, seed=0)
        assert sorted(changes) == [f"encoder.layer.0.attention.self.{part}.weight" for part in ("query", "value")]
        found = bert.embed(adapters.adapted(self.WEIGHTS, changes), self.CONFIG, self.GIVEN)
        np.testing.assert_array_equal(found, bert.embed(self.WEIGHTS, self.CONFIG, self.GIVEN))

    def test_merged_are_the_adapted(self) -> None:
        draw = np.random.default_rng(0)
        changes = {
            name: {part: draw.standard_normal(array.shape).astype(np.float32) for part, array in change.items()}
            for name, change in adapters.initial(self.WEIGHTS, r"dense|key", rank=3, seed=0).items()
        }
        found, expected = (
            bert.embed(way(self.WEIGHTS, changes, 0.5), self.CONFIG, self.GIVEN)
            for way in (adapters.adapted, adapters.merged)
        )
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert np.abs(found - bert.embed(self.WEIGHTS, self.CONFIG, self.GIVEN)).max() > 0.1

    def test_a_decoder_is_adapted_and_only_the_change_has_a_slope(self) -> None:
        import jax

        architecture = Net(layers=1, width=32, heads=2, kv_heads=1).architecture(40)
        weights = llama.initial(architecture, 0)
        changes = adapters.initial(weights, r"\.(q|o|down)$", rank=2, seed=0)

        def loss(changes: Any) -> Any:
            return llama.hidden_states(adapters.adapted(weights, changes), architecture, self.GIVEN["ids"])[
                ..., 0
            ].sum()

        slopes = jax.grad(loss)(changes)
        assert all(np.abs(change["up"]).max() > 0 and not change["down"].any() for change in slopes.values())

    def test_patterns_that_find_nothing_are_refused(self) -> None:
        with pytest.raises(InvalidParams, match="no tensor"):
            adapters.chosen(self.WEIGHTS, "nothing")
        with pytest.raises(InvalidParams, match="no matrix"):
            adapters.initial(self.WEIGHTS, r"bias$", rank=2, seed=0)

    def test_a_split_joins_again(self) -> None:
        learned, frozen = adapters.split(self.WEIGHTS, r"bias$|LayerNorm")
        assert len(learned) + len(frozen) == len(self.WEIGHTS)
        assert all("LayerNorm" in name or name.endswith("bias") for name in learned)
        assert {**frozen, **learned}.keys() == self.WEIGHTS.keys()
