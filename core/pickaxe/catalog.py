"""Which methods there are: entry-point metadata first, a plugin's code only when it is used.

A method is one entry point per role it fills, in the group `pickaxe.scorers`, `pickaxe.retrievers`,
`pickaxe.rerankers` or `pickaxe.decoders`.  Observers stand in `pickaxe.observers`.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pickaxe.discovery import Point, points
from pickaxe.errors import BrokenMethod, NameConflict, PickaxeError, UnknownMethod, WrongRole

if TYPE_CHECKING:
    from pickaxe.method import Card, Method

ROLES = ("scorer", "retriever", "reranker", "decoder")
ROLE_HOOK = {"scorer": "score", "retriever": "search", "reranker": "rerank", "decoder": "decode"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One method in one role, as its distribution lists it."""

    name: str
    role: str
    distribution: str
    version: str
    point: Point | None
    kind: Any = None
    """The class itself, for methods registered in process."""


_registered: list[Entry] = []


@functools.cache
def _installed() -> tuple[Entry, ...]:
    groups = {f"pickaxe.{role}s": role for role in ROLES}
    found = [
        Entry(point.name, groups[point.group], point.distribution, point.version, point)
        for point in points("pickaxe.")
        if point.group in groups
    ]
    wanted = os.environ.get("PICKAXE_PLUGINS")
    if wanted is not None:
        allowed = {name.strip().lower().replace("_", "-").replace(".", "-") for name in wanted.split(",")}
        found = [entry for entry in found if entry.distribution in allowed]
    return tuple(sorted(found, key=lambda entry: (entry.name, ROLES.index(entry.role))))


def entries() -> tuple[Entry, ...]:
    """Every method and role, sorted by name; imports no plugin.

    The environment variable `PICKAXE_PLUGINS=dist1,dist2` restricts discovery to these distributions.
    """
    return (*_installed(), *_registered)


def refresh() -> None:
    """Forget what was found: call after installing a plugin into the running environment."""
    _installed.cache_clear()
    load.cache_clear()


@contextmanager
def register(kind: type[Method[Any]], name: str, *roles: str, distribution: str = "(in process)") -> Iterator[None]:
    """Offer a method class under `name` without installing it, for the length of a `with` block."""
    added = [Entry(name, role, distribution, "", None, kind) for role in roles]
    _registered.extend(added)
    load.cache_clear()
    try:
        yield
    finally:
        for entry in added:
            _registered.remove(entry)
        load.cache_clear()


def names() -> list[str]:
    return sorted({entry.name for entry in entries()})


def roles(name: str) -> tuple[str, ...]:
    """The roles that `name` fills; raises `UnknownMethod` with near names."""
    found = {entry.role for entry in entries() if entry.name == name}
    if not found:
        raise UnknownMethod(name, names())
    return tuple(role for role in ROLES if role in found)


def entry(name: str, role: str | None = None) -> Entry:
    """The one entry of that name (and role); raises `UnknownMethod`, `WrongRole` or `NameConflict`."""
    filled = roles(name)
    if role is not None and role not in filled:
        raise WrongRole(
            f"{name!r} is no {role}; it is a {' and a '.join(filled)}",
            metadata={"method": name, "role": role, "roles": ",".join(filled)},
        )
    wanted = role or filled[0]
    found = [each for each in entries() if each.name == name and each.role == wanted]
    if len(found) > 1:
        owners = ", ".join(sorted(each.distribution for each in found))
        raise NameConflict(
            f"{name!r} is offered by several distributions ({owners}): uninstall one, or name the wanted "
            "distributions in PICKAXE_PLUGINS",
            metadata={"method": name, "distributions": owners},
        )
    return found[0]


@functools.cache
def load(name: str, role: str | None = None) -> type[Method[Any]]:
    """Import the method's class; raises `BrokenMethod` with the reason when that fails."""
    chosen = entry(name, role)
    if chosen.point is None:
        return _checked(chosen.kind, name, chosen.role)
    try:
        kind = chosen.point.load()
    except PickaxeError:
        raise
    except (Exception, SystemExit) as error:
        raise BrokenMethod(
            f"{name!r} of {chosen.distribution} cannot be imported: {type(error).__name__}: {error}",
            metadata={"method": name, "distribution": chosen.distribution},
        ) from error
    return _checked(kind, name, chosen.role)


def _checked(kind: Any, name: str, role: str) -> type[Method[Any]]:
    from pickaxe.hooks import implemented
    from pickaxe.method import Method

    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise BrokenMethod(f"{name!r} is not a subclass of pickaxe.Method", metadata={"method": name})
    if ROLE_HOOK[role] not in implemented(kind):
        raise BrokenMethod(
            f"{name!r} is listed as a {role} but implements no hook {ROLE_HOOK[role]!r}",
            metadata={"method": name},
        )
    return kind


def load_file(target: str) -> type[Method[Any]]:
    """The class at `path/to/module.py:Class`, without any installation."""
    import importlib.util
    from pathlib import Path

    path, _, attribute = target.rpartition(":")
    source = Path(path)
    if not source.is_file():
        raise BrokenMethod(f"no file {path!r}; expected path/to/module.py:Class", metadata={"target": target})
    spec = importlib.util.spec_from_file_location(f"_pickaxe_file_{source.stem}", source)
    if spec is None or spec.loader is None:
        raise BrokenMethod(f"{path!r} is not a Python module", metadata={"target": target})
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic and dataclasses look annotations up there
    try:
        spec.loader.exec_module(module)
        kind: type[Method[Any]] = getattr(module, attribute)
    except (Exception, SystemExit) as error:
        raise BrokenMethod(
            f"{target!r} cannot be imported: {type(error).__name__}: {error}", metadata={"target": target}
        ) from error
    return kind


def describe(name: str) -> Card:
    """The method's card; imports its module."""
    from pickaxe.method import card_of

    chosen = entry(name)
    label = f"{chosen.distribution} {chosen.version}".strip()
    kind = load(name, chosen.role)
    try:
        return card_of(kind, name, roles(name), label)
    except Exception as error:
        raise BrokenMethod(
            f"{name!r} of {label} cannot describe itself: {type(error).__name__}: {error}", metadata={"method": name}
        ) from error


def observers() -> list[object]:
    """One new instance of every installed observer; raises `BrokenMethod` naming one that cannot be made."""
    made = []
    for point in points("pickaxe.observers"):
        try:
            made.append(point.load()())
        except Exception as error:
            raise BrokenMethod(
                f"observer {point.name!r} of {point.distribution} cannot be made: {type(error).__name__}: {error}",
                metadata={"distribution": point.distribution},
            ) from error
    return made


def table() -> Mapping[str, tuple[tuple[str, ...], str]]:
    """name → (roles, "distribution version"), from metadata alone."""
    found: dict[str, tuple[tuple[str, ...], str]] = {}
    for each in entries():
        held = found.get(each.name, ((), ""))[0]
        found[each.name] = (tuple(dict.fromkeys((*held, each.role))), f"{each.distribution} {each.version}".strip())
    return found
