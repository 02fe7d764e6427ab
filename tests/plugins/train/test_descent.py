"""Training in parts, handed over, interrupted and stopped early ends with the same bits."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pickaxe import ArtifactWriter, Progress
from pickaxe.artifact import writing
from pickaxe.errors import ArtifactMismatch, UnknownArtifact
from pickaxe_plugins.train import optimisers, trained
from pickaxe_plugins.train.descent import Shuffle, Stopping, descend, finished, go_on
from pickaxe_plugins.train.trained import Trained

DRAW = np.random.default_rng(0)
X, Y = DRAW.standard_normal((64, 4)).astype(np.float32), DRAW.standard_normal(64).astype(np.float32)
START = {"w": np.zeros(4, np.float32), "b": np.zeros((), np.float32)}
SHUFFLE = Shuffle(64, 8, seed=1)
OPTIMISER = optimisers.adamw(0.05)


def loss(tree: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
    import jax

    noise = 0.01 * jax.random.normal(key)
    error = given["x"] @ tree["w"] + tree["b"] + noise - given["y"]
    return (error**2).mean(), {"bias": tree["b"]}


def given(step: int) -> dict[str, Any]:
    rows = SHUFFLE.rows(step)
    return {"x": X[rows], "y": Y[rows]}


def ended(run: Generator[Progress, None, Any], most: int | None = None) -> tuple[list[Progress], Any]:
    """What was reported, and what the run returned; None when it is left after `most` steps."""
    said: list[Progress] = []
    while most is None or len(said) < most:
        try:
            said.append(next(run))
        except StopIteration as stop:
            return said, stop.value
    return said, None


def written(path: Path) -> Any:
    return writing(path, kind="fit", method="m", method_version=1, params={})


def same(left: Any, right: Any) -> bool:
    import jax

    pairs = zip(*map(jax.tree_util.tree_leaves, (left, right)), strict=True)
    return all((np.asarray(a) == np.asarray(b)).all() for a, b in pairs)


def test_a_training_in_two_parts_is_one_training(tmp_path: Path) -> None:
    with written(tmp_path / "whole") as out:
        said, whole = ended(go_on(loss, OPTIMISER, Trained(START), given, 12, out, seed=3))
    assert [each.step for each in said] == list(range(1, 13))
    assert said[-1].metrics.keys() == {"loss", "bias"}
    with written(tmp_path / "first") as out:
        _, half = ended(go_on(loss, OPTIMISER, Trained(START, position={"shard": 2}), given, 5, out, seed=3))
        trained.write(out.file(trained.FILE), half)
    fresh = Trained(START, OPTIMISER.init(START))
    half = trained.read(tmp_path / "first" / trained.FILE, fresh)
    assert (half.step, half.position) == (5, {"shard": 2})
    with written(tmp_path / "second") as out:
        _, second = ended(go_on(loss, OPTIMISER, half, given, 12, out, seed=3))
    assert second.step == 12
    assert same((whole.tree, whole.state), (second.tree, second.state))


@pytest.mark.parametrize("patience", [0, 2])
def test_an_interrupted_training_goes_on_to_the_same_bits(patience: int, tmp_path: Path) -> None:
    def run(out: ArtifactWriter) -> Generator[Progress, None, Any]:
        held = given(100)

        def measure(tree: Any) -> float:
            return float(np.square(held["x"] @ np.asarray(tree["w"]) - held["y"]).mean())

        stopping = Stopping(measure, every=2, patience=patience)
        return descend(loss, OPTIMISER, START, given, 20, out, seed=3, checkpoint=3, stopping=stopping)

    with written(tmp_path / "whole") as out:
        straight, whole = ended(run(out))
    with contextlib.suppress(KeyboardInterrupt), written(tmp_path / "broken") as out:
        ended(run(out), 5)
        raise KeyboardInterrupt
    with written(tmp_path / "broken") as out:
        said, again = ended(run(out))
    assert said[0].step == 4
    assert said == straight[3:]
    assert same(whole, again)
    assert not list((tmp_path / "broken").glob("checkpoint-*"))


def test_training_ends_when_nothing_gets_better_and_keeps_the_best(tmp_path: Path) -> None:
    values = iter([3.0, 1.0, 2.0, 0.99, 5.0])
    seen: list[Any] = []

    def measure(tree: Any) -> float:
        seen.append(np.array(tree["w"]))
        return next(values)

    stopping = Stopping(measure, every=2, patience=3, gain=0.1)
    with written(tmp_path / "a") as out:
        said, found = ended(go_on(loss, OPTIMISER, Trained(START), given, 100, out, seed=0, stopping=stopping))
    assert len(said) == 10
    assert said[-1].metrics["best"] == 1.0
    assert (found.step, found.state) == (4, None)
    assert (found.tree["w"] == seen[1]).all()


def test_the_last_step_keeps_its_optimiser_when_it_is_the_best(tmp_path: Path) -> None:
    values = iter([3.0, 1.0])
    stopping = Stopping(lambda tree: next(values), every=2)
    with written(tmp_path / "a") as out:
        _, found = ended(go_on(loss, OPTIMISER, Trained(START), given, 4, out, seed=0, stopping=stopping))
    assert found.step == 4
    assert found.state is not None


def test_a_run_can_be_finished_in_one_line(tmp_path: Path) -> None:
    steps: list[int] = []
    with written(tmp_path / "a") as out:
        run = descend(loss, OPTIMISER, START, given, 3, out, seed=0)
        tree = finished(run, lambda progress: steps.append(progress.step))
    assert steps == [1, 2, 3]
    assert tree.keys() == START.keys()


class TestStates:
    STATE = Trained({"w": [np.arange(3.0), np.int32(4)]}, {"count": np.int32(7)}, 9, {"epoch": 1})

    def test_come_back_to_the_bit(self, tmp_path: Path) -> None:
        trained.write(tmp_path / "t.safetensors", self.STATE)
        again = trained.read(tmp_path / "t.safetensors", self.STATE)
        assert (again.step, again.position) == (9, {"epoch": 1})
        assert same((again.tree, again.state), (self.STATE.tree, self.STATE.state))
        assert again.tree["w"][1].dtype == np.int32

    def test_may_be_read_without_the_optimiser(self, tmp_path: Path) -> None:
        trained.write(tmp_path / "t.safetensors", self.STATE)
        assert trained.read(tmp_path / "t.safetensors", Trained(self.STATE.tree)).state is None
        trained.write(tmp_path / "t.safetensors", Trained(self.STATE.tree))
        assert trained.read(tmp_path / "t.safetensors", self.STATE).state is None

    @pytest.mark.parametrize(
        "like",
        [
            Trained({"w": [np.arange(4.0), np.int32(4)]}, {"count": np.int32(0)}),
            Trained({"w": [np.arange(3.0)]}, {"count": np.int32(0)}),
            Trained({"w": [np.arange(3.0), np.float32(4)]}, {"count": np.int32(0)}),
            Trained({"w": [np.arange(3.0), np.int32(4)]}, {"number": np.int32(0)}),
        ],
    )
    def test_of_another_network_are_refused(self, like: Trained, tmp_path: Path) -> None:
        trained.write(tmp_path / "t.safetensors", self.STATE)
        with pytest.raises(ArtifactMismatch, match="another network or optimiser"):
            trained.read(tmp_path / "t.safetensors", like)

    def test_files_that_hold_none_are_refused(self, tmp_path: Path) -> None:
        from safetensors.numpy import save_file

        with pytest.raises(UnknownArtifact):
            trained.read(tmp_path / "t.safetensors", self.STATE)
        save_file({"a": np.zeros(2)}, str(tmp_path / "t.safetensors"))
        with pytest.raises(ArtifactMismatch, match="no state"):
            trained.read(tmp_path / "t.safetensors", self.STATE)
