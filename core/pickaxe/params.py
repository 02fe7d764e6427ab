"""Parameters, declared once as a pydantic model: validation, schema and command-line flags derive from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic

from pickaxe.errors import InvalidParams, Violation


class Params(pydantic.BaseModel):
    """Base of a method's parameters: immutable, numbers finite, unknown names refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class MethodRef(Params):
    """A parameter that names another method, resolved through `host`.  The bare name is enough: `"zip-fit"`."""

    name: str = pydantic.Field(min_length=1, description="Name of the method.")
    params: dict[str, Any] = pydantic.Field(default_factory=dict, description="Its parameters.")
    artifact: str = pydantic.Field("", description="Its artifact: a path, or artifacts/{id} on a server.")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


def byte_size(name: str, text: str) -> int:
    """A size such as 512MiB or 4GiB in bytes; raises `InvalidParams` naming the setting."""
    try:
        return int(pydantic.TypeAdapter(pydantic.ByteSize).validate_python(text))
    except pydantic.ValidationError:
        raise InvalidParams(name, f"is no size such as 512MiB or 4GiB (got {text!r})") from None


P = TypeVar("P", bound=pydantic.BaseModel)


def parse(kind: type[P], values: Mapping[str, Any]) -> P:
    """The validated parameters; raises `InvalidParams` with every violation at once."""
    try:
        return kind.model_validate(dict(values))
    except pydantic.ValidationError as error:
        raise InvalidParams(violations_of(error, kind)) from None


def violations_of(error: pydantic.ValidationError, kind: type[pydantic.BaseModel]) -> list[Violation]:
    """What pydantic found, in the words of the error vocabulary."""
    return [Violation(_path(part["loc"]), _description(part, kind)) for part in error.errors(include_url=False)]


def _path(location: tuple[str | int, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "(all)"


def _description(error: Mapping[str, Any], kind: type[pydantic.BaseModel]) -> str:
    if error["type"] == "extra_forbidden" and len(error["loc"]) > 1:
        return "is not known here"
    if error["type"] == "extra_forbidden":
        return f"is not a parameter; known are {', '.join(kind.model_fields) or 'none'}"
    given = error.get("input")
    shown = f" (got {given!r})" if isinstance(given, (str, int, float, bool)) else ""
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}{shown}"


def schema(kind: type[pydantic.BaseModel]) -> dict[str, Any]:
    """JSON Schema (2020-12) of the parameters."""
    return kind.model_json_schema()


def canonical(params: pydantic.BaseModel) -> str:
    """One string per meaning: JSON with sorted keys."""
    return json.dumps(params.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
