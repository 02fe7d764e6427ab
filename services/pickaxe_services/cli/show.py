"""`pickaxe show`: a method's card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from pickaxe.io.rows import in_order
from pickaxe.jsonable import jsonable
from pickaxe.method import Card
from pickaxe_services.cli import console
from pickaxe_services.cli.door import describe


@click.command("show")
@click.argument("method")
@click.option("--server", metavar="ADDR", help="Ask a server, e.g. 127.0.0.1:50051.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(method: str, server: str | None, as_json: bool) -> None:
    """Show what METHOD does, reads, returns and needs.

    \b
      pickaxe show zip-fit
      pickaxe show zip-fit --json | jq .params_schema
    """
    card = describe(method, server)
    if as_json:
        console.emit(as_json_object(card))
        return
    print(f"{card.name}: {card.summary}")
    print()
    if description := card.description.partition("\n")[2].strip():
        print(f"{description}\n")
    console.fields(_facts(card))
    _tables(card)
    print("\nUse")
    for line in use_lines(card):
        print(f"  {line}")


def as_json_object(card: Card) -> dict[str, Any]:
    """The card without its example, which is for programs that can hold arrays."""
    names = [each.name for each in dataclasses.fields(card) if each.name != "example"]
    values = {name: getattr(card, name) for name in names}
    for name in ("reads", "fit_reads", "columns"):
        values[name] = [dataclasses.asdict(each) for each in values[name]]
    values["params_schema"] = in_order(card.params_schema)
    plain: dict[str, Any] = jsonable(values)
    return plain


_SCOPES = {
    "item": "each item by itself; streams inputs of any size",
    "group": "items with the same `group` together",
    "pool": "the whole pool at once",
}


def _facts(card: Card) -> Mapping[str, object]:
    paper = f"{card.title} ({card.paper})" if card.title and card.paper else card.title or card.paper
    return {
        "roles": ", ".join(card.roles),
        "paper": paper,
        "version": f"{card.version} in {card.distribution}",
        "sees": _SCOPES[card.scope],
        "fitted": card.fitted if card.trainable else "never",
        "stages": ", ".join(card.stages),
        **({"grows": "yes: an index may start from another"} if card.grows else {}),
        "cost": card.cost,
        "reproduced": card.reproduced,
    }


def _tables(card: Card) -> None:
    if params := list(parameter_rows(card.params_schema)):
        print()
        console.table(("parameter", "type", "default", "meaning"), params)
    for title, fields in (("reads", card.reads), ("fit reads", card.fit_reads)):
        if fields:
            print()
            rows = [(each.name, each.kind, "yes" if each.required else "no", each.doc) for each in fields]
            console.table((title, "kind", "required", "meaning"), rows)
    if card.columns:
        print()
        columns = [(each.name, each.dtype, each.unit or "-", each.direction, each.doc) for each in card.columns]
        console.table(("column", "type", "unit", "better", "meaning"), columns)


def parameter_rows(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(name, type with bounds, default, description) of every parameter."""
    required = set(schema.get("required", ()))
    for name, part in schema.get("properties", {}).items():
        default = "(required)" if name in required else json.dumps(part.get("default"))
        yield name, _type(part, schema.get("$defs", {})), default, part.get("description", "")


_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def _type(part: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        return "method" if name == "MethodRef" else _type(definitions[name], definitions)
    if choices := part.get("anyOf") or part.get("allOf"):
        return " or ".join(_type(choice, definitions) for choice in choices)
    if "enum" in part or "const" in part:
        return " | ".join(str(value) for value in part.get("enum", [part.get("const")]))
    name = str(part.get("type", "any"))
    if name == "array" and isinstance(part.get("items"), Mapping):
        name = f"list of {_type(part['items'], definitions)}"
    bounds = [f"{sign} {part[key]}" for key, sign in _BOUNDS.items() if key in part]
    return f"{name} {', '.join(bounds)}" if bounds else name


def use_lines(card: Card) -> Iterator[str]:
    """Commands that use the method, one for each thing it can do."""
    name = card.name
    artifact = " --artifact art" if card.trainable and card.fitted != "never" else ""
    if card.trainable:
        yield f"pickaxe fit {name} --examples examples.jsonl --out art"
    if "scorer" in card.roles:
        yield f"pickaxe score {name}{artifact} --input items.jsonl --output scores.jsonl"
    if "retriever" in card.roles:
        yield f"pickaxe index {name}{artifact} --input documents.jsonl --out idx"
        yield f"pickaxe search {name} --artifact idx --query 'a question'"
    if "reranker" in card.roles:
        yield f"pickaxe rerank {name}{artifact} --query 'a question' --candidates candidates.jsonl"
    if "decoder" in card.roles:
        yield f"pickaxe decode {name}{artifact} --prompt 'Once upon a time'"
