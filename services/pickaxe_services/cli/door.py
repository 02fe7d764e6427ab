"""Opening methods: in this process, or on a server with `--server`; both give handles with the same functions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pickaxe import catalog
from pickaxe.data import InputField, Item
from pickaxe.errors import AlreadyExists, Violation, WrongRole
from pickaxe.handle.base import violations
from pickaxe.host import Host
from pickaxe.io.readers import Check, Source
from pickaxe.io.rows import in_order
from pickaxe.io.tables import comma_hint
from pickaxe.method import Card
from pickaxe.params import byte_size
from pickaxe_services.cli import console
from pickaxe_services.cli.options import Common, Reading

JOB = "PICKAXE_JOB"
"""Set in the process of a server's job: artifact names in parameters are those of the server."""


class Door:
    """One way to the methods, for one command."""

    def __init__(self, common: Common, host: Host | None, client: Any) -> None:
        self._common, self._host, self._client = common, host, client

    @property
    def remote(self) -> bool:
        return self._client is not None

    @property
    def client(self) -> Any:
        """The client of a remote door."""
        return self._client

    def open(self, name: str, role: str | None = None) -> Any:
        """The method in that role (or in any), with the parameters and artifact of the command line."""
        common = self._common
        artifact = self.artifact(common.artifact)
        if self._client is not None:
            wanted = role or self._client.show(name).roles[0]
            return getattr(self._client, wanted)(name, artifact=artifact or "", **common.params)
        assert self._host is not None
        return self._host.open(name, role or catalog.roles(name)[0], common.params, artifact)

    def artifact(self, given: str | None) -> str | None:
        """An artifact as this door names it.

        A server knows its own by name, and is sent one that lies here; inside a server's job, paths lead into the
        server's store.
        """
        if given is None:
            return None
        if self._client is not None and not given.startswith("artifacts/"):
            return str(self._client.artifacts.upload(given).name)
        if self._client is None and JOB in os.environ:
            return f"artifacts/{Path(given).name}"
        return given

    def card(self, name: str) -> Card:
        return describe(name, self._common.server, self._client)


def describe(name: str, server: str | None, client: Any = None) -> Card:
    """The card of a method here or on a server."""
    if client is not None:
        card: Card = client.show(name)
        return replace(card, params_schema=in_order(card.params_schema))
    if server is None:
        return catalog.describe(name)
    from pickaxe_services import connect

    with connect(server) as connected:
        return describe(name, server, connected)


@contextmanager
def door(common: Common) -> Iterator[Door]:
    """The door that the command line asks for, closed at the end."""
    with ExitStack() as stack:
        if common.server is not None:
            from pickaxe_services import connect

            yield Door(common, None, stack.enter_context(connect(common.server)))
            return
        root = os.environ.get("PICKAXE_ROOT") if JOB in os.environ else None
        memory = common.memory_budget
        host = Host(
            device=common.device,
            threads=common.threads,
            memory_budget=None if memory is None else byte_size("--memory-budget", memory),
            state=common.state,
            resources=common.resources,
            artifacts=Path(root) / "artifacts" if root else None,
        )
        stack.callback(host.close)
        yield Door(common, host, None)


def source(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    reading: Reading,
    reads: tuple[InputField, ...] = (),
    *,
    check: Check | None = None,
    once: bool = False,
    quarantine: Path | None = None,
    again: bool = False,
) -> Source:
    """The items of input files, checked for the fields that the method reads.

    A file of broken records that is there already is written anew only with `again`.
    """
    aside = (reading.quarantine or quarantine) if reading.on_error == "quarantine" else None
    if aside is not None and aside.exists() and not again:
        raise AlreadyExists(f"{str(aside)!r} exists: move it away, or name another file", metadata={"path": aside})
    return Source(
        inputs,
        format=reading.format,
        layout=reading.layout(),
        on_error=reading.on_error,  # type: ignore[arg-type]
        quarantine=aside,
        check=check or (_check(reads) if reads else None),
        once=once,
    )


def _check(reads: tuple[InputField, ...]) -> Check:
    kinds = {field.name: field.kind for field in reads}

    def check(item: Item, where: str) -> Iterable[Violation]:
        return (_with_remedy(found, item, kinds) for found in violations(item, reads, where))

    return check


def _with_remedy(found: Violation, item: Item, kinds: Mapping[str, str]) -> Violation:
    """What the options of input files could do about it."""
    name = found.field.rpartition(".")[2]
    value = item.get(name)
    cell = next(iter(value), "") if isinstance(value, tuple) else value
    if value is None and item.fields:
        hint = f"there are {', '.join(item.fields)}: --map THEIRS={name} reads one of them as {name}"
    elif kinds.get(name) == "tensor" and isinstance(value, (int, float)):
        hint = f"--gather KEY={name} joins the rows of an item, --wide '{name}=COL*' the columns of a row"
    elif kinds.get(name) == "int64" and isinstance(value, float):
        hint = f"it holds {value!r}: write a whole number, without a point"
    elif isinstance(value, tuple) and not value:
        hint = "it is empty"
    else:
        hint = comma_hint(cell) or (f"it holds {cell[:40]!r}" if isinstance(cell, str) else "")
    return replace(found, description=f"{found.description}; {hint}") if hint else found


def tell_skipped(items: Source, shared: Common) -> None:
    """Say how many broken records were left out, and which were the first."""
    if items.skipped:
        first = "; ".join(str(each) for each in items.broken[:3])
        console.note(f"{items.skipped} broken records left out: {first}", shared.quiet)


def require_role(card: Card, role: str) -> None:
    """Raise `WrongRole` unless the method fills the role."""
    if role not in card.roles:
        raise WrongRole(
            f"{card.name!r} is no {role}; it is a {' and a '.join(card.roles)}",
            metadata={"method": card.name, "role": role, "roles": ",".join(card.roles)},
        )


def identify(
    opened: Door, shared: Common, card: Card, handle: Any, items: Source, reading: Reading
) -> dict[str, Any] | None:
    """All that decides about the bytes of the output; None when the input cannot be read again."""
    identity = items.identity()
    if identity is None:
        return None
    return {
        "input": identity,
        "method": f"{card.name} {card.version}",
        "params": dict(shared.params) if opened.remote else handle.params.model_dump(mode="json"),
        "artifact": shared.artifact if opened.remote else handle.artifact.digest if handle.artifact else None,
        "seed": shared.seed,
        **reading.identity(),
    }
