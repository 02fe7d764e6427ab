"""The methods that `pickaxe compare` runs: how they are named, opened one after the other, and what they cost."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import click

from pickaxe.call import Call
from pickaxe.errors import InvalidParams, WrongRole
from pickaxe.method import Card
from pickaxe_services.cli import console
from pickaxe_services.cli.door import describe, door
from pickaxe_services.cli.options import Common

T = TypeVar("T")
ROLES = ("scorer", "retriever", "reranker", "decoder")


@dataclass(frozen=True)
class Entrant:
    """A compared method under the label that tables and `--set` use."""

    label: str
    card: Card
    params: Mapping[str, Any]
    artifact: str | None


@dataclass
class Ran(Generic[T]):
    """What an entrant gave, and what that cost."""

    entrant: Entrant
    result: T
    seconds: float
    usage: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.entrant.label


def entrants(given: Sequence[str], shared: Common) -> list[Entrant]:
    """The methods that the words `[LABEL=]METHOD[@ARTIFACT]` name, with the parameters under their labels.

    Raises `click.UsageError` for fewer than two, `InvalidParams` for labels given twice or not at all.
    """
    if len(given) < 2:
        raise click.UsageError("give two methods or more to compare")
    found: dict[str, Entrant] = {}
    for word in given:
        match = re.fullmatch(r"(?:([^=@./\s]+)=)?([^=@\s]+)(?:@(.+))?", word)
        if match is None:
            raise click.UsageError(
                f"{word!r} is not of the form [LABEL=]METHOD[@ARTIFACT]; labels have no dots or slashes"
            )
        label, name, artifact = match[1] or match[2], match[2], match[3] or shared.artifact
        if label in found:
            raise InvalidParams(word, f"is the second {label!r}: tell them apart as one={name} two={name}")
        found[label] = Entrant(label, describe(name, shared.server), _under(shared.params, label), artifact)
    if strange := sorted(shared.params.keys() - found.keys()):
        raise InvalidParams(strange[0], f"is no compared method; write LABEL.KEY=VALUE with {' or '.join(found)}")
    return list(found.values())


def _under(params: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    found = params.get(label, {})
    if not isinstance(found, Mapping):
        raise InvalidParams(label, f"is no object of parameters; write --set {label}.KEY=VALUE")
    return found


def common_role(compared: Sequence[Entrant], wanted: str | None) -> str:
    """The role to compare in: the wanted one, or the first that all fill.  Raises `WrongRole` when there is none."""
    shared = [role for role in ([wanted] if wanted else ROLES) if all(role in each.card.roles for each in compared)]
    if not shared:
        told = ", ".join(f"{each.card.name} is a {' and a '.join(each.card.roles)}" for each in compared)
        aim = f"not all of them are {wanted}s" if wanted else "they have no role in common"
        raise WrongRole(f"these cannot be compared, {aim}: {told}")
    return shared[0]


class Meter:
    """Adds up the seconds and usage counters of an entrant's calls."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.usage: dict[str, float] = {}

    @contextmanager
    def timing(self) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.seconds += time.monotonic() - begun

    def count(self, usage: Mapping[str, float]) -> None:
        for name, value in usage.items():
            self.usage[name] = self.usage.get(name, 0.0) + value


Work = Callable[[Any, Entrant, Meter], T]
"""(opened handle, entrant, meter) → its results."""


def run_all(compared: Iterable[Entrant], shared: Common, role: str, call: Call, work: Work[T]) -> list[Ran[T]]:
    """Open all, so that wrong parameters show at once; then run one after the other.

    Each has a host of its own, which ends with its run: none profits from what another has loaded.
    """
    done = []
    with ExitStack() as doors:
        opened = []
        for entrant in compared:
            own = doors.enter_context(ExitStack())
            way = own.enter_context(door(replace(shared, params=entrant.params, artifact=entrant.artifact)))
            opened.append((entrant, way.open(entrant.card.name, role), own))
        for entrant, handle, own in opened:
            call.check()
            console.note(f"runs {entrant.label}", shared.quiet)
            meter = Meter()
            with own:
                result = work(handle, entrant, meter)
            done.append(Ran(entrant, result, meter.seconds, meter.usage))
    return done
