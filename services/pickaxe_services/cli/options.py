"""Options that commands share, gathered into one object each."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from pickaxe.errors import InvalidParams
from pickaxe.io.layout import Layout
from pickaxe.io.tables import Gather, Wide

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Common:
    """How to open the method and what the call may use."""

    params: Mapping[str, Any]
    artifact: str | None
    seed: int
    timeout: float | None
    budget: int | None
    device: str
    threads: int
    memory_budget: str | None
    state: Path | None
    resources: Mapping[str, Path]
    server: str | None
    json: bool
    quiet: bool


_COMMON = (
    click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="A parameter; the value is JSON or text."),
    click.option("--params", metavar="JSON|@FILE", help="All parameters as a JSON object."),
    click.option("--artifact", metavar="PATH", help="What fit or index made; on a server artifacts/ID."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all draws."),
    click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds after which to give up."),
    click.option("--budget", type=click.IntRange(min=0), help="Most model calls the method may spend."),
    click.option("--device", default="auto", show_default=True, envvar="PICKAXE_DEVICE", help="auto, cpu or cuda:N."),
    click.option("--threads", type=click.IntRange(min=0), default=0, envvar="PICKAXE_THREADS", help="0: one per core."),
    click.option("--memory-budget", metavar="SIZE", envvar="PICKAXE_MEMORY_BUDGET", help="For open models, e.g. 4GiB."),
    click.option("--state", type=click.Path(path_type=Path), help="Directory for methods that keep state."),
    click.option("--resource", "resources", metavar="NAME=PATH", multiple=True, help="A database or folder to offer."),
    click.option("--server", metavar="ADDR", help="Run on a server, e.g. 127.0.0.1:50051."),
    click.option("--json", "as_json", is_flag=True, help="Machine-readable results and errors."),
    click.option("--quiet", "-q", is_flag=True, help="No progress and no remarks."),
)


def common(function: F) -> F:
    """Give a command the common options; it receives them as its first argument, a `Common`."""

    @functools.wraps(function)
    def wrapped(**given: Any) -> Any:
        shared = Common(
            params=parameters(given.pop("params"), given.pop("sets")),
            artifact=given.pop("artifact"),
            seed=given.pop("seed"),
            timeout=given.pop("timeout"),
            budget=given.pop("budget"),
            device=given.pop("device"),
            threads=given.pop("threads"),
            memory_budget=given.pop("memory_budget"),
            state=given.pop("state"),
            resources=_resources(given.pop("resources")),
            server=given.pop("server"),
            json=given.pop("as_json"),
            quiet=given.pop("quiet"),
        )
        return function(shared, **given)

    for option in reversed(_COMMON):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def parameters(whole: str | None, sets: tuple[str, ...]) -> dict[str, Any]:
    """`--params` with every `--set` laid over it; dots in a key lead into nested objects."""
    params = _whole(whole) if whole else {}
    for assignment in sets:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise InvalidParams(assignment, "is not of the form KEY=VALUE (--set)")
        *path, last = key.split(".")
        target = params
        for part in path:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise InvalidParams(key, f"{part!r} is no object")
        target[last] = _value(text)
    return params


def _whole(text: str) -> dict[str, Any]:
    source = text
    if text.startswith("@"):
        try:
            source = Path(text[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise InvalidParams("--params", f"{text[1:]!r} cannot be read: {error.strerror}") from error
    try:
        value = json.loads(source)
    except ValueError as error:
        raise InvalidParams("--params", f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidParams("--params", "is not a JSON object")
    return value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _resources(given: tuple[str, ...]) -> dict[str, Path]:
    """Those that the environment lists (`PICKAXE_RESOURCES`, a JSON object) and those named here."""
    try:
        found = json.loads(os.environ.get("PICKAXE_RESOURCES") or "{}")
        listed = {str(name): Path(path) for name, path in found.items()}
    except (ValueError, AttributeError, TypeError):
        raise InvalidParams("PICKAXE_RESOURCES", "is no JSON object of names and paths") from None
    for each in given:
        name, equals, path = each.partition("=")
        if not equals:
            raise InvalidParams("--resource", f"{each!r} is not of the form NAME=PATH")
        listed[name] = Path(path)
    return listed


_INPUT = (
    click.option(
        "--format",
        type=click.Choice(("auto", "jsonl", "csv", "tsv", "parquet", "text", "files")),
        default="auto",
        show_default=True,
        help="Format of the input; auto goes by suffix. text: an item a line; files: an item a file.",
    ),
    click.option("--text-field", default="text", show_default=True, metavar="NAME", help="Column with the text."),
    click.option("--id-field", default="id", show_default=True, metavar="NAME", help="Column with the id."),
    click.option("--fields", metavar="A,B", help="Columns that become fields; otherwise all others do."),
    click.option("--map", "maps", metavar="THEIRS=OURS", multiple=True, help="Read column THEIRS under another name."),
    click.option(
        "--wide",
        metavar="FIELD=COL*",
        multiple=True,
        help="Join columns into an array; FIELD@FIELD=COL* also keeps what * stands for, FIELD={COL*} makes an object.",
    ),
    click.option(
        "--gather",
        metavar="KEY=A,B",
        help="Join rows of equal KEY into one item, fields A and B into arrays; KEY,KEY=A makes them two-dimensional.",
    ),
    click.option(
        "--decimal",
        type=click.Choice((".", ",")),
        default=".",
        show_default=True,
        help="Decimal mark of CSV and TSV.",
    ),
    click.option(
        "--on-error",
        type=click.Choice(("fail", "skip", "quarantine")),
        default="fail",
        show_default=True,
        help="What to do about broken records.",
    ),
    click.option(
        "--quarantine",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Where broken records go with --on-error quarantine.",
    ),
)


@dataclass(frozen=True)
class Reading:
    """How to read input files."""

    format: str
    text_field: str
    id_field: str
    fields: tuple[str, ...] | None
    rename: Mapping[str, str]
    wide: tuple[Wide, ...]
    gather: Gather | None
    decimal: str
    on_error: str
    quarantine: Path | None

    def part(self, name: str) -> Reading:
        """The same for a second input, whose broken records go into a file of their own."""
        aside = self.quarantine
        return self if aside is None else replace(self, quarantine=aside.with_name(f"{aside.name}.{name}"))

    def layout(self) -> Layout:
        """Which columns of a record are what."""
        return Layout(self.text_field, self.id_field, self.fields, self.rename, self.wide, self.gather, self.decimal)

    def identity(self) -> dict[str, Any]:
        """All that decides which items come out, for the journal of a resumable output."""
        return {
            "format": self.format,
            "columns": [self.text_field, self.id_field, self.fields, sorted(self.rename.items())],
            "table": [list(map(str, self.wide)), str(self.gather or ""), self.decimal],
            "on_error": self.on_error,
        }


def reading(function: F) -> F:
    """Give a command the options of input files; it receives a `Reading` as `reading`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **given: Any) -> Any:
        fields, gather = given.pop("fields"), given.pop("gather")
        read = Reading(
            format=given.pop("format"),
            text_field=given.pop("text_field"),
            id_field=given.pop("id_field"),
            fields=None if fields is None else tuple(filter(None, fields.split(","))),
            rename=_maps(given.pop("maps")),
            wide=tuple(map(Wide.parse, given.pop("wide"))),
            gather=None if gather is None else Gather.parse(gather),
            decimal=given.pop("decimal"),
            on_error=given.pop("on_error"),
            quarantine=given.pop("quarantine"),
        )
        return function(*args, reading=read, **given)

    for option in reversed(_INPUT):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def _maps(given: tuple[str, ...]) -> dict[str, str]:
    renamed = {}
    for each in given:
        theirs, equals, ours = each.partition("=")
        if not equals or not theirs or not ours:
            raise InvalidParams("--map", f"{each!r} is not of the form THEIRS=OURS")
        renamed[theirs] = ours
    return renamed
