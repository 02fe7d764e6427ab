"""Every check once more over gRPC, and whether a server answers bit for bit what this process does.

The only module of the core that reaches for the services, and only once a check over the wire is asked for.
"""

from __future__ import annotations

import atexit
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pickaxe import catalog
from pickaxe.artifact import Artifact
from pickaxe.testing.check import SPECS, Check, require
from pickaxe.testing.plain import same
from pickaxe.testing.subject import Subject, answer, kit_folder


@functools.cache
def _client(address: str | None) -> Any:
    """A client of the server at `address`, or of one that runs in a thread of this process until its end."""
    services = importlib.import_module("pickaxe_services")
    if address is None:
        settings = importlib.import_module("pickaxe_services.settings").Settings(port=0, root=kit_folder())
        server = importlib.import_module("pickaxe_services.server").LocalServer(settings)
        address = server.__enter__()
        atexit.register(server.__exit__, None, None, None)
    client = services.connect(address)
    atexit.register(client.close)
    return client


class RemoteSubject(Subject):
    """The method behind a server; its artifacts are made here and uploaded."""

    def __init__(self, local: Subject, address: str | None) -> None:
        super().__init__(local.name, local.kind, local.roles, installed=local.installed)
        self.local, self.address = local, address
        self._uploaded: dict[str, str] = {}

    @property
    def client(self) -> Any:
        return _client(self.address)

    def door(self, name: str, role: str, params: Mapping[str, Any], artifact: str | None) -> Any:
        return getattr(self.client, role)(name, artifact=artifact or "", **params)

    def ask(self, role: str, **params: Any) -> None:
        answer(self.open(role, self.artifact(role), **params), role, self.example)

    def artifact(self, role: str) -> str | None:
        made = self.local.artifact(role)
        if made is None:
            return None
        if made not in self._uploaded:
            self._uploaded[made] = self.client.artifacts.upload(made).name
        return self._uploaded[made]

    def tidy(self) -> None:
        super().tidy()
        self.local.tidy()


def remote_checks(local: Subject, address: str | None) -> Iterator[Check]:
    """The checks that make sense over the wire, then those that are about the wire."""
    remote = RemoteSubject(local, address)
    for spec in SPECS:
        if spec.wire and spec.applies(remote):
            yield _check(f"wire.{spec.id}", spec.function, remote, spec.doc)
    yield _check("wire.card", card, remote, card.__doc__)
    yield _check("wire.equal", equal, remote, equal.__doc__)
    if local.trainable and local.installed:
        yield _check("wire.fit", fit, remote, fit.__doc__)


def _check(name: str, function: Callable[[Any], None], remote: RemoteSubject, doc: str | None) -> Check:
    return Check(name, lambda: remote.examine(function), doc or "")


def card(subject: RemoteSubject) -> None:
    """The server tells the card that the method has here."""
    same(catalog.describe(subject.name), subject.client.show(subject.name), "the card differs")


def equal(subject: RemoteSubject) -> None:
    """The server answers what this process answers, bit for bit."""
    for role in subject.roles:
        same(subject.local.outcome(role), subject.outcome(role), f"{role} differs over the wire")


def fit(subject: RemoteSubject) -> None:
    """A fit on the server makes the artifact that a fit here makes."""
    given, out = subject.example, subject.scratch()
    handle = subject.open(subject.roles[0])
    handle.fit(given.examples, validation=given.validation or None, out=out)
    here, there = Artifact.open(subject.local.fit()), Artifact.open(Path(out))
    same(here.manifest, there.manifest, "a fit on the server makes another artifact")
    require(here.digest == there.digest, "a fit on the server makes another manifest")
