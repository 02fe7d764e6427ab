"""`pickaxe serve`: one option per setting."""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import Any

import click
import pydantic
from pydantic.fields import FieldInfo

from pickaxe.errors import InvalidParams
from pickaxe.params import violations_of
from pickaxe_services.server import serve
from pickaxe_services.settings import Settings

HIDDEN = {"job_command", "resources"}


def _option(name: str, field: FieldInfo) -> click.Option:
    """A flag for a bool, a repeatable option for a tuple, a value for the rest; pydantic checks it."""
    flag = f"--{name.replace('_', '-')}"
    shown: dict[str, Any] = {"help": f"{field.description} [PICKAXE_{name.upper()}]", "default": None}
    if field.annotation is bool:
        return click.Option([flag], is_flag=True, **shown)
    if typing.get_origin(field.annotation) is tuple:
        return click.Option([flag], metavar="A,B", **shown)
    default = False if field.default is None else str(field.default)
    return click.Option([flag], metavar=_metavar(field.annotation), show_default=default, **shown)


def _metavar(annotation: Any) -> str:
    parts = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    names = {int: "N", float: "SECONDS", Path: "PATH", pydantic.ByteSize: "SIZE"}
    return next((names[part] for part in parts if part in names), "TEXT")


def _serve(resource: tuple[str, ...], **given: Any) -> None:
    values: dict[str, Any] = {
        name: value.split(",") if name == "preload" and isinstance(value, str) else value
        for name, value in given.items()
        if value not in (None, False)
    }
    resources = {}
    for each in resource:
        name, equals, path = each.partition("=")
        if not equals or not name:
            raise InvalidParams("--resource", f"{each!r} is not of the form NAME=PATH")
        resources[name] = path
    if resources:
        values["resources"] = resources
    try:
        settings = Settings(**values)
    except pydantic.ValidationError as error:
        raise InvalidParams(violations_of(error, Settings)) from None
    except json.JSONDecodeError as error:
        raise InvalidParams("environment", f"a PICKAXE_ variable is no JSON: {error}") from None
    serve(settings)


command = click.Command(
    "serve",
    callback=_serve,
    params=[
        *(_option(name, field) for name, field in Settings.model_fields.items() if name not in HIDDEN),
        click.Option(
            ["--resource"], metavar="NAME=PATH", multiple=True, help="A database or folder that requests may name."
        ),
    ],
    help="""Serve the methods over gRPC until SIGTERM or Ctrl-C, then drain.

    \b
      pickaxe serve
      pickaxe serve --port 0 --preload zip-fit,chronicles --device cpu

    Listens on loopback.  Any other address needs --tls-cert and --tls-key, or --allow-insecure.  Every option is an
    environment variable too, named behind its description.""",
)
