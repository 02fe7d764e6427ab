"""`pickaxe serve`: its options are the fields of `Settings`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import ByteSize
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError

from pickaxe.errors import InvalidParams
from pickaxe.params import parse
from pickaxe_services.settings import Settings

_HIDDEN = ("job_command",)
_WORDS = ((ByteSize, "SIZE"), (int, "N"), (float, "SECONDS"), (Path, "PATH"))


def _options() -> Iterator[click.Option]:
    for name, field in Settings.model_fields.items():
        if name not in _HIDDEN:
            yield _option(name, field)


def _option(name: str, field: FieldInfo) -> click.Option:
    flag, text = f"--{name.replace('_', '-')}", field.description or ""
    default = field.default
    if isinstance(default, bool):
        return click.Option([flag, name], is_flag=True, default=None, help=text)
    shown = "" if default in (None, (), {}) else f"  [default: {default}]"
    if isinstance(default, (tuple, dict)):
        form = "NAME=PATH" if isinstance(default, dict) else "NAME"
        return click.Option([flag, name], multiple=True, metavar=form, help=f"{text} May be given several times.")
    kind = click.Path(path_type=Path) if isinstance(default, Path) else None
    metavar = next((word for type_, word in _WORDS if isinstance(default, type_)), "VALUE")
    return click.Option([flag, name], type=kind, metavar=metavar, help=text + shown)


def _run(as_json: bool, **given: Any) -> None:
    values: dict[str, Any] = {name: value for name, value in given.items() if value not in (None, ())}
    if "resources" in values:
        values["resources"] = dict(_pair(each) for each in values["resources"])
    try:
        settings = parse(Settings, values)
    except SettingsError as error:
        raise InvalidParams("environment", f"{error} (PICKAXE_... variables)") from error
    from pickaxe_services.server import serve

    serve(settings)


def _pair(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or not name:
        raise InvalidParams("--resources", f"{text!r} is not of the form NAME=PATH")
    return name, path


command = click.Command(
    "serve",
    callback=_run,
    params=[
        *_options(),
        click.Option(["--json", "as_json"], is_flag=True, help="Machine-readable errors."),
    ],
    help="""Serve the installed methods over gRPC until SIGTERM or Ctrl-C, which drain.

    \b
      pickaxe serve --port 50051 --preload zip-fit
      pickaxe serve --host 0.0.0.0 --tls-cert server.pem --tls-key server.key

    Every option can also be set as PICKAXE_<OPTION> in the environment.""",
)
