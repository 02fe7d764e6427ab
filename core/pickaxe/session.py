"""ONNX Runtime sessions: opened once, shared by everybody, stopped when their call is over.

The only module that imports onnxruntime.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pickaxe.call import Call
from pickaxe.errors import MethodFailed, ModelMissing
from pickaxe.models.conversions import hold
from pickaxe.onnx_runtime import choose_device, cores, import_onnxruntime, no_cuda

OrtValue = Any
"""An `onnxruntime.OrtValue`: a tensor in host or device memory.  `.numpy()`, `.shape()` and
`.update_inplace(array)` are what callers need."""
SMALL = 256
"""Bytes up to which an input of a binding is copied into memory that stays tied."""


class _Options(NamedTuple):
    config: tuple[tuple[str, str], ...]
    provider_options: tuple[tuple[str, str], ...]
    optimise: bool


class Runtime:
    """A device, its threads and the sessions opened on it.  One per process is usual.

    `device` is `auto`, `cpu`, `cuda` or `cuda:N`; `auto` takes a GPU when ONNX Runtime can really use one.
    `threads` 0 means one per core this process may use.  With `memory_budget` (bytes), the sessions that
    were used least recently are unloaded when the graphs of all loaded ones take more; an unloaded session
    loads itself again at its next run.
    """

    def __init__(self, device: str = "auto", threads: int = 0, memory_budget: int | None = None) -> None:
        self._onnxruntime = import_onnxruntime()
        self._gpu = choose_device(self._onnxruntime, device)
        self.threads = threads or cores()
        self.memory_budget = memory_budget
        self._sessions: weakref.WeakValueDictionary[tuple[object, ...], Session] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self._device_lock = threading.Lock() if self.is_cuda else None
        self._closed = False

    @property
    def is_cuda(self) -> bool:
        return self._gpu is not None

    @property
    def shares_memory(self) -> bool:
        """Whether ONNX Runtime works on NumPy's arrays themselves and not on copies in a GPU."""
        return not self.is_cuda

    @property
    def device(self) -> str:
        return "cpu" if self._gpu is None else f"cuda:{self._gpu}"

    @property
    def providers(self) -> tuple[str, ...]:
        return ("CUDAExecutionProvider", "CPUExecutionProvider") if self.is_cuda else ("CPUExecutionProvider",)

    @property
    def loaded_bytes(self) -> int:
        """Bytes of the graphs (with their external data) whose sessions are loaded."""
        with self._lock:
            return sum(session.size for session in self._sessions.values() if session.loaded)

    def open(
        self,
        graph: Path,
        *,
        config: Mapping[str, str] | None = None,
        provider_options: Mapping[str, str] | None = None,
        optimise: bool = True,
    ) -> Session:
        """The session of this graph file, shared by all who ask with the same options; freed when nobody holds it.

        `config` holds ONNX Runtime session config entries, `provider_options` options of the CUDA provider
        such as `enable_cuda_graph` (ignored on a CPU); `optimise=False` runs the graph as it was written.
        """
        if not graph.is_file():
            raise ModelMissing(f"no graph at {graph}", metadata={"path": graph})
        graph = graph.resolve()
        status = graph.stat()
        options = _Options(_pairs(config), _pairs(provider_options), optimise)
        key = (graph, status.st_mtime_ns, status.st_size, options)
        with self._lock:
            self._refuse_closed()
            session = self._sessions.get(key)
            if session is None:
                session = Session(self, graph, options)
                self._sessions[key] = session
        with session._loaded():
            return session

    def close(self) -> None:
        """Unload every session.  Runs in flight finish; later ones raise."""
        with self._lock:
            self._closed = True
            for session in self._sessions.values():
                session._unload()
            self._sessions.clear()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise MethodFailed("the ONNX runtime was closed")

    def _make_room(self, newest: Session) -> None:
        """Unload idle sessions, the longest unused first, until the loaded ones fit the budget."""
        if self.memory_budget is None:
            return
        with self._lock:
            loaded = [session for session in self._sessions.values() if session.loaded]
            total = sum(session.size for session in loaded)
            for session in sorted(loaded, key=lambda session: session.last_used):
                if total <= self.memory_budget:
                    return
                if session is not newest and session._unload_if_idle():
                    total -= session.size

    def _create(self, session: Session) -> Any:
        """A new onnxruntime session for it."""
        runtime = self._onnxruntime
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        # Memory patterns are kept per input shape and never dropped: with free shapes, a leak.
        options.enable_mem_pattern = False
        if not session.options.optimise:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Waiting workers sleep instead of spinning.  Beside one busy process on two cores, runs were 1.4 to 1.8
        # times faster for it; alone, runs of 12 ms took up to 1.4 times as long and longer ones the same, and
        # idle sessions take no processor time.  `config` can switch it back.  The process-wide pool
        # (`set_global_thread_pool_sizes`) ignores the switch, hence a pool per session: sleepers are cheap.
        for name, value in {"session.intra_op.allow_spinning": "0", **dict(session.options.config)}.items():
            options.add_session_config_entry(name, value)
        providers: list[Any] = list(self.providers)
        if self.is_cuda:
            providers[0] = (
                providers[0],
                {"device_id": str(self._gpu), **dict(session.options.provider_options)},
            )
        try:
            inner = runtime.InferenceSession(str(session.graph), options, providers=providers)
        except Exception as error:
            raise MethodFailed(f"ONNX Runtime cannot load {session.graph}: {error}") from error
        if self.is_cuda and "CUDAExecutionProvider" not in inner.get_providers():
            raise no_cuda("the CUDA provider failed to start")
        return inner


class Session:
    """One graph on one runtime; safe to run from several threads."""

    def __init__(self, runtime: Runtime, graph: Path, options: _Options) -> None:
        self.runtime = runtime
        self.graph = graph
        self.options = options
        self.size = _graph_bytes(graph)
        self.last_used = 0.0
        self.inputs: tuple[str, ...] = ()
        self.outputs: tuple[str, ...] = ()
        self.graph_numbers = count()
        """Numbers for captured graphs, each used once: what was captured is not forgotten."""
        self._inner: Any = None
        self._running = 0
        self._hold = hold(graph)
        self._bindings: weakref.WeakSet[Binding] = weakref.WeakSet()
        self._lock = threading.Lock()

    @property
    def loaded(self) -> bool:
        return self._inner is not None

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        outputs: Sequence[str] | None = None,
        call: Call | None = None,
    ) -> list[np.ndarray]:
        """The named outputs (all by default).  Raises the error of a `call` that is over, at once."""
        with self._loaded() as inner, self._running_for(call) as options:
            return inner.run(None if outputs is None else list(outputs), dict(feeds), options)

    def run_values(
        self,
        feeds: Mapping[str, OrtValue | np.ndarray],
        outputs: Sequence[str] | Mapping[str, OrtValue | None] | None = None,
        call: Call | None = None,
    ) -> list[OrtValue]:
        """Like `run`, with tensors that stay where they are: results can be fed again without a copy."""
        binding = self.bind(feeds, outputs)
        binding.run(call)
        return binding.outputs()

    def bind(
        self,
        feeds: Mapping[str, OrtValue | np.ndarray],
        outputs: Sequence[str] | Mapping[str, OrtValue | None] | None = None,
    ) -> Binding:
        """Inputs and outputs fixed for many runs.

        `outputs` maps names to the tensor to write into; None, or a mere sequence of names, lets ONNX Runtime
        allocate a new one on this session's device at each run.
        """
        return Binding(self, feeds, outputs)

    def ort_value(self, array: np.ndarray, on_host: bool = False) -> OrtValue:
        """The array as a tensor on this session's device; shares the array's memory on a CPU."""
        place, index = self._place(on_host)
        kind = self.runtime._onnxruntime.OrtValue
        return kind.ortvalue_from_numpy(np.ascontiguousarray(array), place, index)

    def empty(self, shape: Sequence[int], dtype: np.dtype | type, on_host: bool = False) -> OrtValue:
        """A new uninitialised tensor on this session's device."""
        place, index = self._place(on_host)
        kind = self.runtime._onnxruntime.OrtValue
        return kind.ortvalue_from_shape_and_type(list(shape), np.dtype(dtype).type, place, index)

    def _place(self, on_host: bool) -> tuple[str, int]:
        gpu = self.runtime._gpu
        return ("cpu", 0) if on_host or gpu is None else ("cuda", gpu)

    @contextmanager
    def _loaded(self) -> Iterator[Any]:
        """The onnxruntime session, loaded if need be and not unloaded inside the block."""
        with self._lock:  # one thread loads, the others wait for it
            self.runtime._refuse_closed()
            fresh = self._inner is None
            if fresh:
                self._inner = self.runtime._create(self)
                self.inputs = tuple(entry.name for entry in self._inner.get_inputs())
                self.outputs = tuple(entry.name for entry in self._inner.get_outputs())
            inner = self._inner
            self._running += 1
            self.last_used = time.monotonic()
        try:
            if fresh:
                self.runtime._make_room(self)
            yield inner
        finally:
            with self._lock:
                self._running -= 1

    @contextmanager
    def _running_for(self, call: Call | None, captured: int = -1) -> Iterator[Any]:
        """Run options that stop the run when the call is over; its failure becomes the call's error."""
        options = self.runtime._onnxruntime.RunOptions()
        captures = ("enable_cuda_graph", "1") in self.options.provider_options
        # onnxruntime looks the number up at every bound run, and where there is none it catches a slow exception
        options.add_run_config_entry("gpu_graph_id", str(captured) if captures else "0")

        def stop() -> None:
            options.terminate = True

        with self.runtime._device_lock or nullcontext():
            try:
                with call.interruptible(stop) if call else nullcontext():
                    yield options
            except Exception as error:
                if call is not None:
                    call.check()
                if type(error).__module__.startswith("onnxruntime"):
                    raise MethodFailed(f"{self.graph.name}: {error}", metadata={"graph": self.graph}) from error
                raise

    def _unload(self) -> None:
        with self._lock:
            self._inner = None

    def _unload_if_idle(self) -> bool:
        """Never waits: a session whose lock is taken is being used."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._running or self._bindings:
                return False
            self._inner = None
            return True
        finally:
            self._lock.release()


class Binding:
    """Tensors tied to inputs and outputs of a session, which stays loaded as long as the binding lives."""

    def __init__(
        self,
        session: Session,
        feeds: Mapping[str, OrtValue | np.ndarray],
        outputs: Sequence[str] | Mapping[str, OrtValue | None] | None = None,
    ) -> None:
        self.session = session
        with session._loaded() as inner:
            session._bindings.add(self)
            self._inner = inner
            self._io = inner.io_binding()
        self._kept: dict[str, OrtValue] = {}
        self._copies: dict[tuple[str, tuple[int, ...], str], tuple[np.ndarray, OrtValue]] = {}
        for name, value in feeds.items():
            self.feed(name, value)
        place, index = session._place(on_host=False)
        targets = outputs if isinstance(outputs, Mapping) else dict.fromkeys(outputs or session.outputs)
        for name, target in targets.items():
            if target is None:
                self._io.bind_output(name, place, index)
            else:
                self._io.bind_ortvalue_output(name, target)

    def feed(self, name: str, value: OrtValue | np.ndarray) -> None:
        """Tie another tensor to an input; an array with the values that it has now.

        Where memory is shared, a large array's is, so it must stay as it is until the run.
        """
        if isinstance(value, np.ndarray):
            small = value.nbytes <= SMALL and self.session.runtime.shares_memory
            value = self._copied(name, value) if small else self.session.ort_value(value)
        if self._kept.get(name) is not value:
            self._kept[name] = value  # the native binding does not own a shared array
            self._io.bind_ortvalue_input(name, value)

    def _copied(self, name: str, array: np.ndarray) -> OrtValue:
        """The array in memory that was tied to this input before: tying takes longer than a copy of a few numbers."""
        key = name, array.shape, array.dtype.char
        if key not in self._copies:
            memory = np.empty_like(array, order="C")
            self._copies[key] = memory, self.session.ort_value(memory)
        memory, value = self._copies[key]
        memory[...] = array
        return value

    def target(self, name: str, value: OrtValue) -> None:
        """Tie another tensor to an output."""
        self._kept[name] = value
        self._io.bind_ortvalue_output(name, value)

    def feed_part(self, name: str, value: OrtValue, shape: Sequence[int]) -> None:
        """Tie the beginning of a tensor's memory to an input, as a tensor of this shape."""
        self._kept[name] = value
        self._io.bind_input(*self._part(name, value, shape))

    def target_part(self, name: str, value: OrtValue, shape: Sequence[int]) -> None:
        """Tie the beginning of a tensor's memory to an output, as a tensor of this shape."""
        self._kept[f"{name} written"] = value
        self._io.bind_output(*self._part(name, value, shape))

    def _part(self, name: str, value: OrtValue, shape: Sequence[int]) -> tuple[Any, ...]:
        place, index = value.device_name().lower(), self.session.runtime._gpu or 0
        return name, place, index, value.element_type(), list(shape), value.data_ptr()

    def run(self, call: Call | None = None, captured: int = -1) -> None:
        """Run; on a GPU, in a session opened with `enable_cuda_graph`, as the captured graph of this number.

        It is captured at its first run, by the thread that runs it.  -1 captures nothing.
        """
        with self.session._loaded(), self.session._running_for(call, captured) as options:
            self._inner.run_with_iobinding(self._io, options)

    def outputs(self) -> list[OrtValue]:
        """The tensors of the last run, in the order in which outputs were named."""
        return self._io.get_outputs()


def _pairs(mapping: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((mapping or {}).items()))


def _graph_bytes(graph: Path) -> int:
    """Size of a graph with its external data: the `*.data` files beside it, and `<graph>_data` of exporters."""
    beside = {*graph.parent.glob("*.data"), *graph.parent.glob(f"{graph.name}_data*")}
    return graph.stat().st_size + sum(path.stat().st_size for path in beside)
