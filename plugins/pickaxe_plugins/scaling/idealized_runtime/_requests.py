"""Requests, read from items into arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pickaxe import Item, Items
from pickaxe.errors import InvalidItems, Violation
from pickaxe_plugins.scaling.idealized_runtime._model import Deployment

Count = Callable[[Deployment, str], int]
"""Tokens of a text by the tokenizer of a deployment."""


@dataclass(frozen=True)
class Requests:
    """Requests as arrays (n,) float64, NaN for what is not given, and the rows of each deployment."""

    by_deployment: Mapping[str, np.ndarray]
    prompt: np.ndarray
    output: np.ndarray
    measured: np.ndarray
    accelerators: np.ndarray
    price: np.ndarray
    quality: np.ndarray


def read_requests(items: Items, table: Mapping[str, Deployment], count: Count, strict: bool) -> Requests:
    """The requests; raises `InvalidItems` naming every wrong number, and with `strict` unknown deployments."""
    names = [_name(row, item, table) for row, item in enumerate(items)]
    if strict and (strange := [row for row, name in enumerate(names) if name not in table]):
        known = ", ".join(list(table)[:10])
        raise InvalidItems(
            [Violation(f"items[{row}].fields.deployment", f"{names[row]!r} is not in the table ({known}, …)")
             for row in strange]
        )  # fmt: skip
    prompt, output = _numbers(items, "num_prompt_tokens"), _numbers(items, "num_output_tokens")
    for row in np.flatnonzero(np.isnan(prompt) | np.isnan(output)).tolist():
        entry = table.get(names[row])
        if entry is not None:
            prompt[row], output[row] = _counted(row, items[row], prompt[row], output[row], entry, count)
    echoed = np.array([bool(item.get("echoed")) for item in items], bool)
    output = np.where(echoed, np.maximum(output - prompt, 0), output)
    found = Requests(
        _rows(names),
        prompt,
        output,
        _numbers(items, "measured_runtime"),
        _numbers(items, "num_accelerators"),
        _numbers(items, "price_per_hour"),
        _numbers(items, "quality"),
    )
    _check(items, "num_prompt_tokens", prompt < 1, "must be at least 1")
    _check(items, "num_output_tokens", output < 0, "must be at least 0")
    _check(items, "measured_runtime", found.measured < 0, "must be at least 0")
    _check(items, "num_accelerators", found.accelerators <= 0, "must be above 0")
    _check(items, "price_per_hour", found.price < 0, "must be at least 0")
    return found


def _name(row: int, item: Item, table: Mapping[str, Deployment]) -> str:
    given = item.get("deployment")
    if given is not None:
        return str(given)
    if len(table) == 1:
        return next(iter(table))
    raise InvalidItems(
        f"items[{row}].fields.deployment", f"is missing, and the table has {len(table)} (item {item.id!r})"
    )


def _numbers(items: Items, name: str) -> np.ndarray:
    """A field as (n,) float64, NaN where absent; infinities and NaN in the items are refused."""
    given = [item.fields.get(name) for item in items]
    values = np.array([np.nan if value is None else value for value in given], np.float64)
    there = np.array([value is not None for value in given], bool)
    _check(items, name, there & ~np.isfinite(values), "must be a finite number: leave it out where it is not known")
    return values


def _check(items: Items, name: str, wrong: np.ndarray, what: str) -> None:
    if len(rows := np.flatnonzero(wrong)):
        raise InvalidItems(
            [Violation(f"items[{row}].fields.{name}", f"{what} (item {items[int(row)].id!r})") for row in rows]
        )


def _counted(
    row: int, item: Item, prompt: float, output: float, entry: Deployment, count: Count
) -> tuple[float, float]:
    if np.isnan(prompt):
        if item.text is None:
            raise InvalidItems(f"items[{row}].fields.num_prompt_tokens", f"is missing, as is text (item {item.id!r})")
        prompt = count(entry, item.text)
    if np.isnan(output):
        said = item.get("completions")
        if not isinstance(said, (list, tuple)):
            raise InvalidItems(
                f"items[{row}].fields.num_output_tokens", f"is missing, as are completions (item {item.id!r})"
            )
        output = sum(count(entry, text) for text in said)
    return prompt, output


def _rows(names: list[str]) -> dict[str, np.ndarray]:
    """Rows of each name, in the order of first appearance."""
    gathered: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        gathered.setdefault(name, []).append(row)
    return {name: np.array(rows) for name, rows in gathered.items()}
