"""What the surroundings give a method: models, other methods, state and resources.

One `Host` stands for one process: it owns the runtime, the model store and what was opened.  Each opened method
gets its own view (`within`), which knows the chain of methods above it and notes what the method refers to.

Models that the store knows by name stay open.  Those that lie elsewhere, above all in artifacts, are shared by all
who ask for them and live as long as somebody holds them: a view holds those of its method, and so do the views above.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from pickaxe import catalog
from pickaxe.errors import InvalidParams, ModelMissing, UnknownArtifact, Unmet

if TYPE_CHECKING:
    from pickaxe.cross_encoder import CrossEncoder
    from pickaxe.encoder import Encoder
    from pickaxe.encoder.graph import Precision
    from pickaxe.fasttext_model import FastText
    from pickaxe.handle import DecoderHandle, RerankerHandle, RetrieverHandle, ScorerHandle
    from pickaxe.lm import LM, EngineSettings
    from pickaxe.models import ModelStore
    from pickaxe.params import MethodRef
    from pickaxe.session import Runtime, Session
    from pickaxe.state import State

T = TypeVar("T")


class Host:
    """The surroundings of methods in this process."""

    def __init__(
        self,
        *,
        device: str = "auto",
        threads: int = 0,
        memory_budget: int | None = None,
        engine: EngineSettings | None = None,
        models: Path | None = None,
        state: Path | None = None,
        resources: Mapping[str, Path] | None = None,
        artifacts: Path | None = None,
    ) -> None:
        """`engine` bounds each language model; the other arguments are those of `Runtime` and directories."""
        self._shared = _Shared(device, threads, memory_budget, engine, models, state, dict(resources or {}), artifacts)
        self._chain: tuple[tuple[str, str], ...] = ()
        self._parent: Host = self
        self._home: Path | None = None
        self._passing = False
        self._held: dict[tuple[Any, ...], object] = {}
        self.references: dict[str, list[dict[str, Any]]] = {}
        """Methods that were opened through this view: name → version and artifact digest of each."""

    def within(self, name: str, params: str, home: Path | None = None, passing: bool = False) -> Host:
        """The view of one opened method; raises `InvalidParams` when it would use itself.

        `home` is where its artifact lies; `passing` says that the artifact was made just now, so that the views
        above have no use for its models once the method is gone.
        """
        if (name, params) in self._chain:
            path = " → ".join([each for each, _ in self._chain] + [name])
            raise InvalidParams("(all)", f"methods use each other in a cycle: {path}")
        child = object.__new__(Host)
        child._shared, child._chain = self._shared, (*self._chain, (name, params))
        child._parent, child.references = self, {}
        child._home, child._passing, child._held = home.resolve() if home else None, passing, {}
        return child

    @property
    def parent(self) -> Host:
        """The view that opened this one's method."""
        return self._parent

    # ------------------------------------------------------------ other methods

    def scorer(self, method: str | MethodRef, **params: Any) -> ScorerHandle:
        return self._open(method, "scorer", params)

    def retriever(self, method: str | MethodRef, **params: Any) -> RetrieverHandle:
        return self._open(method, "retriever", params)

    def reranker(self, method: str | MethodRef, **params: Any) -> RerankerHandle:
        return self._open(method, "reranker", params)

    def decoder(self, method: str | MethodRef, **params: Any) -> DecoderHandle:
        return self._open(method, "decoder", params)

    def open(
        self,
        name: str,
        role: str,
        params: Mapping[str, Any] | None = None,
        artifact: str | os.PathLike[str] | None = None,
    ) -> Any:
        """The handle of a method in a role."""
        from pickaxe.handle import HANDLES
        from pickaxe.opened import open_named

        opened = open_named(name, role, params or {}, os.fspath(artifact) if artifact else None, self)
        entry = {"version": opened.method.version, "artifact": opened.artifact.digest if opened.artifact else ""}
        held = self.references.setdefault(name, [])
        if entry not in held:
            held.append(entry)
        return HANDLES[role](opened)

    def _open(self, method: str | MethodRef, role: str, params: Mapping[str, Any]) -> Any:
        if isinstance(method, str):
            given = dict(params)
            artifact = given.pop("artifact", None)
            return self.open(method, role, given, artifact)
        return self.open(method.name, role, {**method.params, **params}, method.artifact or None)

    # ------------------------------------------------------------ models

    @property
    def runtime(self) -> Runtime:
        """The ONNX runtime of this process, started on first use."""
        return self._shared.runtime()

    @property
    def models(self) -> ModelStore:
        return self._shared.store()

    def lm(self, name: str = "lm", precision: str = "auto", layers: int | None = None) -> LM:
        """A causal language model by alias or path, opened once and shared; with `layers`, its first ones only."""
        return self._named("lm", name, self._lm_opener(precision, layers), precision, layers)

    def lm_at(self, path: Path, precision: str = "auto") -> LM:
        """The model whose files lie at `path`, for a method's own artifact: never a path that a caller named."""
        return self._lent("lm", path, self._lm_opener(precision, None), precision, None)

    def _lm_opener(self, precision: str, layers: int | None) -> Callable[[str], LM]:
        from pickaxe.lm import LM

        return lambda name: LM.open(self.models, self.runtime, name, precision, layers, self._shared.engine)

    def model_path(self, name: str) -> Path:
        """Where the files of a model lie, for a method that trains it further."""
        self._check_model(name)
        return self.models.path(name)

    def encoder(self, name: str = "encoder", precision: Precision = "fp32") -> Encoder:
        """A sentence encoder by alias or path, opened once and shared."""
        return self._named("encoder", name, self._encoder_opener(precision), precision)

    def encoder_at(self, path: Path) -> Encoder:
        """The one whose files lie at `path`, for a method's own artifact: never a path that a caller named."""
        return self._lent("encoder", path, self._encoder_opener("fp32"), "fp32")

    def _encoder_opener(self, precision: Precision) -> Callable[[str], Encoder]:
        from pickaxe.encoder import Encoder

        return lambda name: Encoder.open(self.models, self.runtime, name, precision)

    def cross_encoder(self, name: str = "cross-encoder", precision: Precision = "fp32") -> CrossEncoder:
        """A model that reads two texts at once, by alias or path, opened once and shared."""
        return self._named("cross-encoder", name, self._cross_encoder_opener(precision), precision)

    def cross_encoder_at(self, path: Path, precision: Precision = "fp32") -> CrossEncoder:
        """The one whose files lie at `path`, for a method's own artifact: never a path that a caller named."""
        return self._lent("cross-encoder", path, self._cross_encoder_opener(precision), precision)

    def _cross_encoder_opener(self, precision: Precision) -> Callable[[str], CrossEncoder]:
        from pickaxe.cross_encoder import CrossEncoder

        return lambda name: CrossEncoder.open(self.models, self.runtime, name, precision)

    def fasttext(self, path: str | os.PathLike[str]) -> FastText:
        """A fastText model file, loaded once and shared."""
        from pickaxe.fasttext_model import FastText

        return self._lent("fasttext", Path(path), FastText.load, lasting=True)

    def session(self, graph: Path) -> Session:
        """The session of a graph that parameters or artifact name, loaded as long as the method is open."""
        found = self.runtime.open(graph)
        self._hold(("session", str(graph)), found)
        return found

    def _check_model(self, name: str) -> None:
        """A server's callers name models; paths are for those who may read its disk anyway."""
        if self.serving and self.models.find(name) is None:
            raise ModelMissing(f"no model is called {name!r} on this server", metadata={"model": name})

    @property
    def serving(self) -> bool:
        """Whether callers are others than the owner of this process: then nothing may be named by path."""
        return self._shared.artifacts is not None

    def _named(self, kind: str, name: str, make: Callable[[str], T], *how: object) -> T:
        """The model of that name, for good where the store knows it."""
        key = (kind, name, *how)
        if self._shared.has(key):
            return self._shared.once(key, lambda: make(name))
        self._check_model(name)
        if self.models.find(name) is not None:
            return self._shared.once(key, lambda: make(name))
        return self._lent(kind, self.models.path(name), make, *how, lasting=True)

    def _lent(self, kind: str, path: Path, make: Callable[[str], T], *how: object, lasting: bool = False) -> T:
        """The model at that path, shared by those who hold it.

        This view does when parameters name it (`lasting`) or when it lies in the method's own artifact; what a fit
        opens on its way is held by the fit alone.
        """
        place = path.resolve()
        status = place.stat()
        mark = status.st_ino, status.st_mtime_ns, status.st_size
        model = self._shared.lent((kind, str(place), *how, mark), lambda: make(str(place)))
        if lasting or (self._home is not None and place.is_relative_to(self._home)):
            self._hold((kind, str(place), *how), model)
        return model

    def _hold(self, key: tuple[Any, ...], model: object) -> None:
        """Keep it as long as this view's method is open, and the methods above, which may open it again and again."""
        view = self
        while view._chain:
            view._held[key] = model
            if view._passing:
                return
            view = view._parent

    # ------------------------------------------------------------ files

    def artifact_path(self, artifact: str | os.PathLike[str]) -> Path:
        """Where an artifact lies.  A server (`artifacts` given) knows only names `artifacts/{id}`."""
        root = self._shared.artifacts
        if root is None:
            return Path(artifact)
        name = os.fspath(artifact)
        match = re.fullmatch(r"artifacts/([A-Za-z0-9][A-Za-z0-9_.-]*)", name)
        if match is None or not (root / match[1]).is_dir():
            raise UnknownArtifact(f"no artifact is called {name!r} on this server", metadata={"artifact": name})
        return root / match[1]

    def state(self, tenant: str = "") -> State:
        """A directory of this method for one tenant, with a size cap."""
        from pickaxe.state import State

        if self._shared.state is None:
            raise Unmet("this method keeps state: name a directory with --state, or Host(state=…)")
        method = self._chain[-1][0] if self._chain else "host"
        return State(self._shared.state, method, tenant)

    def resource(self, name: str) -> Path:
        """A database or folder that the operator listed."""
        path = self._shared.resources.get(name)
        if path is None:
            listed = ", ".join(sorted(self._shared.resources)) or "none"
            raise Unmet(f"no resource is called {name!r}; listed are: {listed}", metadata={"resource": name})
        return path

    @property
    def observers(self) -> list[object]:
        return self._shared.once(("observers",), catalog.observers)

    def close(self) -> None:
        """Close sessions and forget what was opened."""
        self._shared.close()


class _Shared:
    """What all views of one host have in common."""

    def __init__(
        self,
        device: str,
        threads: int,
        memory_budget: int | None,
        engine: EngineSettings | None,
        models: Path | None,
        state: Path | None,
        resources: dict[str, Path],
        artifacts: Path | None,
    ) -> None:
        self.device, self.threads, self.memory_budget = device, threads, memory_budget
        self.engine = engine
        self.models, self.state, self.resources, self.artifacts = models, state, resources, artifacts
        self._made: dict[tuple[Any, ...], Any] = {}
        self._lent: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()
        self._locks: WeakValueDictionary[tuple[Any, ...], threading.Lock] = WeakValueDictionary()
        self._guard = threading.Lock()

    def once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """The object of that key, made by the first caller while others wait for it, and kept."""
        with self._lock_of(key):
            if key not in self._made:
                self._made[key] = make()
            made: T = self._made[key]
            return made

    def has(self, key: tuple[Any, ...]) -> bool:
        """Whether `once` has made it."""
        return key in self._made

    def lent(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """Like `once`, kept only as long as somebody holds it."""
        with self._lock_of(key):
            found: T | None = self._lent.get(key)
            if found is None:
                found = self._lent[key] = make()
            return found

    def _lock_of(self, key: tuple[Any, ...]) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(key, threading.Lock())

    def runtime(self) -> Any:
        from pickaxe.session import Runtime

        return self.once(("runtime",), lambda: Runtime(self.device, self.threads, self.memory_budget))

    def store(self) -> Any:
        from pickaxe.models import ModelStore

        return self.once(("models",), lambda: ModelStore(self.models))

    def close(self) -> None:
        with self._guard:
            runtime = self._made.pop(("runtime",), None)
            self._made.clear()
            self._lent.clear()
        if runtime is not None:
            runtime.close()


_default: Host | None = None
_default_lock = threading.Lock()


def default_host() -> Host:
    """The host of embedded use, made on first use."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Host()
        return _default


def configure(**settings: Any) -> Host:
    """Make the host of embedded use with these settings (see `Host`); replaces the one in use."""
    global _default
    with _default_lock:
        previous, _default = _default, Host(**settings)
    if previous is not None:
        previous.close()
    return _default
