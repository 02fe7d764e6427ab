"""Sessions: sharing, eviction, and runs that end with their call."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pickaxe import onnx_runtime
from pickaxe.call import Call
from pickaxe.errors import Cancelled, DeadlineExceeded, InvalidParams, MethodFailed, ModelMissing, RuntimeMissing
from pickaxe.session import Runtime, Session


def tensor(name: str, kind: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def save(graph: onnx.GraphProto, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def affine(path: Path, factor: float = 2.0, padding: int = 0) -> Path:
    """y = factor * x, z = x + 1; `padding` bytes of unused weight make the file larger."""
    constants = [
        numpy_helper.from_array(np.array([factor], np.float32), "factor"),
        numpy_helper.from_array(np.array([1], np.float32), "one"),
        numpy_helper.from_array(np.zeros(padding, np.uint8), "padding"),
    ]
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"]), helper.make_node("Add", ["x", "one"], ["z"])]
    outputs = [tensor("y", TensorProto.FLOAT, ["n"]), tensor("z", TensorProto.FLOAT, ["n"])]
    return save(helper.make_graph(nodes, "affine", [tensor("x", TensorProto.FLOAT, ["n"])], outputs, constants), path)


def endless(path: Path) -> Path:
    """A loop of 2^62 steps."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["condition"], ["again"]), helper.make_node("Sin", ["x"], ["next"])],
        "body",
        [tensor("step", TensorProto.INT64, []), tensor("condition", TensorProto.BOOL, []),
         tensor("x", TensorProto.FLOAT, [1])],
        [tensor("again", TensorProto.BOOL, []), tensor("next", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    constants = [
        numpy_helper.from_array(np.array(2**62, np.int64), "steps"),
        numpy_helper.from_array(np.array(True), "start"),
    ]
    node = helper.make_node("Loop", ["steps", "start", "x"], ["y"], body=body)
    shape: list[int | str] = [1]
    inputs, outputs = [tensor("x", TensorProto.FLOAT, shape)], [tensor("y", TensorProto.FLOAT, shape)]
    return save(helper.make_graph([node], "endless", inputs, outputs, constants), path)


@pytest.fixture
def runtime():
    runtime = Runtime("cpu", threads=1)
    yield runtime
    runtime.close()


X = np.arange(4, dtype=np.float32)


class TestRuns:
    def test_all_outputs_or_the_named_ones_in_that_order(self, runtime: Runtime, tmp_path: Path) -> None:
        session = runtime.open(affine(tmp_path / "g.onnx"))
        assert (session.inputs, session.outputs) == (("x",), ("y", "z"))
        y, z = session.run({"x": X})
        np.testing.assert_array_equal(y, 2 * X)
        np.testing.assert_array_equal(z, X + 1)
        z, y = session.run({"x": X}, ["z", "y"])
        np.testing.assert_array_equal(z, X + 1)
        np.testing.assert_array_equal(y, 2 * X)

    def test_values_feed_the_next_run(self, runtime: Runtime, tmp_path: Path) -> None:
        session = runtime.open(affine(tmp_path / "g.onnx"))
        (value,) = session.run_values({"x": X}, ["y"])
        (value,) = session.run_values({"x": value}, ["y"])
        np.testing.assert_array_equal(value.numpy(), 4 * X)

    def test_outputs_are_written_into_given_tensors(self, runtime: Runtime, tmp_path: Path) -> None:
        session = runtime.open(affine(tmp_path / "g.onnx"))
        buffer, source = session.empty((4,), np.float32), session.ort_value(X.copy())
        binding = session.bind({"x": source}, {"y": buffer, "z": None})
        for factor in (1, 3):
            source.update_inplace(factor * X)
            binding.run(Call())
            np.testing.assert_array_equal(buffer.numpy(), 2 * factor * X)
            np.testing.assert_array_equal(binding.outputs()[1].numpy(), factor * X + 1)

    def test_a_small_array_is_fed_with_the_values_it_has(self, runtime: Runtime, tmp_path: Path) -> None:
        session = runtime.open(affine(tmp_path / "g.onnx"))
        binding = session.bind({"x": X}, ["y"])
        for factor in (2, 3):
            given = factor * X
            binding.feed("x", given)
            given[:] = 0
            binding.run(Call())
            np.testing.assert_array_equal(binding.outputs()[0].numpy(), 2 * factor * X)

    def test_a_bad_shape_names_the_graph(self, runtime: Runtime, tmp_path: Path) -> None:
        session = runtime.open(affine(tmp_path / "g.onnx"))
        with pytest.raises(MethodFailed, match=r"g\.onnx.*rank"):
            session.run({"x": X[None]})

    def test_many_threads(self, runtime: Runtime, tmp_path: Path) -> None:
        path = affine(tmp_path / "g.onnx")

        def work(factor: int) -> np.ndarray:
            return runtime.open(path).run({"x": factor * X}, ["y"])[0]

        with ThreadPoolExecutor(8) as pool:
            for factor, y in enumerate(pool.map(work, range(64))):
                np.testing.assert_array_equal(y, 2 * factor * X)


class TestCalls:
    def test_cancel_ends_a_run_in_flight(self, runtime: Runtime, tmp_path: Path) -> None:
        session = runtime.open(endless(tmp_path / "g.onnx"))
        call = Call()
        timer = threading.Timer(0.1, call.cancel)
        timer.start()
        with pytest.raises(Cancelled):
            session.run({"x": X[:1]}, call=call)
        timer.join()

    def test_deadline_ends_a_run_in_flight(self, runtime: Runtime, tmp_path: Path) -> None:
        session = runtime.open(endless(tmp_path / "g.onnx"))
        with pytest.raises(DeadlineExceeded):
            session.run_values({"x": X[:1]}, call=Call(timeout=0.1))

    def test_a_call_that_is_over_runs_nothing(self, runtime: Runtime, tmp_path: Path) -> None:
        session = runtime.open(affine(tmp_path / "g.onnx"))
        call = Call()
        call.cancel()
        with pytest.raises(Cancelled):
            session.run({"x": X}, call=call)

    def test_the_session_works_after_a_cancelled_run(self, runtime: Runtime, tmp_path: Path) -> None:
        slow, quick = runtime.open(endless(tmp_path / "slow.onnx")), runtime.open(affine(tmp_path / "g.onnx"))
        for _ in range(2):
            with pytest.raises(DeadlineExceeded):
                slow.run({"x": X[:1]}, call=Call(timeout=0.05))
        np.testing.assert_array_equal(quick.run({"x": X}, ["y"], Call(timeout=60))[0], 2 * X)


class TestSharing:
    def test_one_session_per_graph_and_options(self, runtime: Runtime, tmp_path: Path) -> None:
        path = affine(tmp_path / "g.onnx")
        session = runtime.open(path)
        assert runtime.open(path) is session
        assert runtime.open(tmp_path / ".." / tmp_path.name / "g.onnx") is session
        assert runtime.open(path, optimise=False) is not session
        assert runtime.open(path, config={"session.set_denormal_as_zero": "1"}) is not session

    def test_a_rewritten_graph_is_opened_anew(self, runtime: Runtime, tmp_path: Path) -> None:
        path = affine(tmp_path / "g.onnx")
        runtime.open(path)
        affine(path, factor=3.0, padding=10)
        np.testing.assert_array_equal(runtime.open(path).run({"x": X}, ["y"])[0], 3 * X)

    def test_opened_once_by_many_threads(
        self, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        created = []
        create = Runtime._create

        def counting(self: Runtime, session: Session) -> object:
            created.append(session)
            return create(self, session)

        monkeypatch.setattr(Runtime, "_create", counting)
        path = affine(tmp_path / "g.onnx")
        with ThreadPoolExecutor(8) as pool:
            sessions = list(pool.map(lambda _: runtime.open(path), range(32)))
        assert len(set(map(id, sessions))) == 1
        assert len(created) == 1

    def test_missing_graph(self, runtime: Runtime, tmp_path: Path) -> None:
        with pytest.raises(ModelMissing, match="none"):
            runtime.open(tmp_path / "none.onnx")

    def test_broken_graph(self, runtime: Runtime, tmp_path: Path) -> None:
        (tmp_path / "g.onnx").write_bytes(b"not a graph")
        with pytest.raises(MethodFailed, match=r"cannot load .*g\.onnx"):
            runtime.open(tmp_path / "g.onnx")

    def test_closed(self, runtime: Runtime, tmp_path: Path) -> None:
        session = runtime.open(affine(tmp_path / "g.onnx"))
        runtime.close()
        for use in (lambda: session.run({"x": X}), lambda: runtime.open(tmp_path / "g.onnx")):
            with pytest.raises(MethodFailed, match="closed"):
                use()


class TestBudget:
    def test_the_longest_unused_goes_first_and_comes_back(self, tmp_path: Path) -> None:
        runtime = Runtime("cpu", threads=1, memory_budget=250_000)
        paths = [affine(tmp_path / f"{n}.onnx", float(n), padding=100_000) for n in range(3)]
        first, second = runtime.open(paths[0]), runtime.open(paths[1])
        first.run({"x": X})
        third = runtime.open(paths[2])
        assert [each.loaded for each in (first, second, third)] == [True, False, True]
        assert runtime.loaded_bytes <= 250_000
        np.testing.assert_array_equal(second.run({"x": X}, ["y"])[0], X)
        assert second.loaded
        assert not first.loaded
        runtime.close()

    def test_a_session_in_use_stays(self, tmp_path: Path) -> None:
        runtime = Runtime("cpu", threads=1, memory_budget=1)
        bound = runtime.open(affine(tmp_path / "bound.onnx"))
        binding = bound.bind({"x": X}, ["y"])
        other = runtime.open(affine(tmp_path / "other.onnx"))
        third = runtime.open(affine(tmp_path / "third.onnx"))
        assert [each.loaded for each in (bound, other, third)] == [True, False, True]
        binding.run()
        np.testing.assert_array_equal(binding.outputs()[0].numpy(), 2 * X)
        runtime.close()

    @pytest.mark.parametrize("name", ["g.onnx.data", "g.onnx_data"])
    def test_external_data_counts(self, runtime: Runtime, tmp_path: Path, name: str) -> None:
        path = affine(tmp_path / "g.onnx")
        (tmp_path / name).write_bytes(bytes(1000))
        assert runtime.open(path).size == path.stat().st_size + 1000


class TestDevices:
    def test_cpu(self) -> None:
        runtime = Runtime("cpu")
        assert (runtime.device, runtime.is_cuda, runtime.providers) == ("cpu", False, ("CPUExecutionProvider",))
        assert runtime.threads >= 1

    @pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1", "", "auto:0"])
    def test_nonsense(self, device: str) -> None:
        with pytest.raises(InvalidParams, match="auto, cpu, cuda or cuda:N"):
            Runtime(device)

    def test_absent_gpu_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(onnx_runtime, "_cuda_problem", lambda *_: "this machine has none")
        with pytest.raises(RuntimeMissing, match=r"this machine has none.*pickaxe\[gpu\]"):
            Runtime("cuda:0")
        assert Runtime("auto").device == "cpu"

    def test_both_builds_installed_warn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(onnx_runtime, "_installed", lambda name: True)
        with pytest.warns(RuntimeWarning, match="overwrite each other"):
            Runtime("cpu")

    def test_half_uninstalled_build(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(onnx_runtime, "require", lambda *_, **__: threading)
        with pytest.raises(RuntimeMissing, match="incomplete"):
            Runtime("cpu")


def test_the_library_keeps_no_account_of_its_use(tmp_path: Path) -> None:
    graph = affine(tmp_path / "g.onnx")
    script = (
        "import pathlib, sys\nfrom pickaxe.session import Runtime\nRuntime('cpu').open(pathlib.Path(sys.argv[1]))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", script, str(graph)]
    subprocess.run(command, env=environment, check=True)
    assert [path for path in (tmp_path / "cache", tmp_path / "home") if path.exists()] == []
