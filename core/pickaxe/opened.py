"""One method opened with parameters and an artifact, behind its relay."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pickaxe import catalog
from pickaxe.artifact import Artifact
from pickaxe.durable import room_for
from pickaxe.errors import MethodFailed, PickaxeError, WrongRole
from pickaxe.hooks import HOOKS, Relay, hookimpl
from pickaxe.method import Method
from pickaxe.params import Params, canonical, parse

if TYPE_CHECKING:
    from pickaxe.host import Host


@dataclass(frozen=True)
class Opened:
    """What a handle works with.  `host` is the method's own view: it knows the chain of callers above."""

    name: str
    role: str
    method: Method[Any]
    params: Params
    artifact: Artifact | None
    relay: Relay
    host: Host

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Equal keys mean equal behaviour: (name, role, canonical parameters, artifact digest)."""
        return self.name, self.role, canonical(self.params), self.artifact.digest if self.artifact else ""

    def require(self, hook: str) -> None:
        """Raise `WrongRole` when the method does not implement the hook."""
        if not self.relay.implements(hook):
            raise WrongRole(
                f"{self.name!r} has no {hook!r}: this method cannot do that",
                metadata={"method": self.name, "hook": hook},
            )

    def call(self, hook: str, **arguments: Any) -> Any:
        """One hook call; anything unexpected becomes `MethodFailed`."""
        with self.guard():
            return self.relay.call(hook, **arguments)

    def pull(self, hook: str, **arguments: Any) -> Generator[Any, None, None]:
        """A generator hook, step by step, guarded alike; closing it closes the method's generator."""
        generator = self.call(hook, **arguments)
        if not isinstance(generator, Generator):
            raise self.nonsense(f"{hook} returned {type(generator).__name__}, not a generator")
        try:
            while True:
                with self.guard():
                    try:
                        value = next(generator)
                    except StopIteration:
                        return
                yield value
        finally:
            with self.guard():
                generator.close()

    def guard(self) -> AbstractContextManager[None]:
        """A block of the method's own code: anything unexpected in it becomes `MethodFailed`."""
        return _guarded(self.name, self.method.version)

    def nonsense(self, what: str) -> MethodFailed:
        """The error for a result that breaks the contract."""
        return MethodFailed(
            f"{self.name} returned a wrong result: {what}",
            metadata={"method": self.name, "version": self.method.version},
        )


@contextmanager
def _guarded(name: str, version: int) -> Iterator[None]:
    try:
        with room_for(name):
            yield
    except PickaxeError:
        raise
    except (Exception, SystemExit) as error:  # a plugin must not end the process that runs it
        raise MethodFailed(
            f"{name} failed: {type(error).__name__}: {error}", metadata={"method": name, "version": version}
        ) from error


def open_method(
    kind: type[Method[Any]],
    name: str,
    role: str,
    params: Mapping[str, Any],
    artifact: str | os.PathLike[str] | Artifact | None,
    host: Host,
) -> Opened:
    """Validate parameters, open the artifact (unless it is open), build the method and its relay.

    With an artifact, parameters that are not given are those it was made with.
    """
    made = None
    given = dict(params)
    if artifact:
        made = artifact if isinstance(artifact, Artifact) else Artifact.open(host.artifact_path(artifact))
        made.check_method(name, kind.version)
        given = {**made.manifest["params"], **given}
    parsed = parse(kind.Params, given)
    child = host.within(name, canonical(parsed), made.path if made else None, isinstance(artifact, Artifact))
    with _guarded(name, kind.version):
        method = kind(parsed, child, made)
    observers = [*host.observers, *([_Trace(name)] if os.environ.get("PICKAXE_TRACE") else [])]
    opened = Opened(name, role, method, parsed, made, Relay(method, observers), child)
    weakref.finalize(opened, opened.relay.dissolve).atexit = False
    return opened


class _Trace:
    """Observer of `PICKAXE_TRACE=1`: one line on standard error per hook call."""

    def __init__(self, name: str) -> None:
        for hooks in HOOKS.values():
            for hook in hooks:
                setattr(self, hook, _tracer(name, hook))


def _tracer(name: str, hook: str) -> Callable[[], Iterator[None]]:
    @hookimpl(wrapper=True)
    def trace() -> Iterator[None]:
        print(f"pickaxe: {name}.{hook}", file=sys.stderr)
        return (yield)

    return trace


def open_named(name: str, role: str, params: Mapping[str, Any], artifact: str | Path | None, host: Host) -> Opened:
    """The same for a method of the catalogue."""
    return open_method(catalog.load(name, role), name, role, params, artifact, host)
