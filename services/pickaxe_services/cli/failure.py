"""How failures are told: one line that names the thing and the remedy, or a JSON object; and the exit code."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import click

from pickaxe.errors import Cancelled, PickaxeError

USAGE = 2
INTERRUPTED = 130
TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM came.  Not a `SystemExit`, which from inside a method counts as the method's fault."""


def report(error: BaseException, *, as_json: bool) -> int | None:
    """Tell the user and return the exit code; None, and not a word, for what pickaxe did not foresee.

    With `PICKAXE_TRACEBACK` set the traceback, down to the cause inside a method, comes first.
    """
    if os.environ.get("PICKAXE_TRACEBACK"):
        traceback.print_exception(error)
    if isinstance(error, PickaxeError):
        return _tell(as_record(error), error.exit_code, as_json)
    if isinstance(error.__cause__, Terminated):  # click wraps interrupts into its `Abort`
        return _tell(as_record(Cancelled("terminated")), TERMINATED, as_json)
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return _tell(as_record(Cancelled("interrupted")), INTERRUPTED, as_json)
    if isinstance(error, click.ClickException):
        if isinstance(error, click.UsageError) and error.ctx is not None and not as_json:
            click.echo(f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help' for help.", err=True)
        return _tell(_record("USAGE", error.format_message()), USAGE, as_json)
    return None


def as_record(error: PickaxeError) -> dict[str, Any]:
    """The error as `{"reason", "message", "metadata", "violations"}`."""
    violations = [{"field": each.field, "description": each.description} for each in error.violations]
    return {**_record(error.reason, error.message), "metadata": error.metadata, "violations": violations}


def _record(reason: str, message: str) -> dict[str, Any]:
    return {"reason": reason, "message": message, "metadata": {}, "violations": []}


def _tell(record: dict[str, Any], code: int, as_json: bool) -> int:
    line = json.dumps({"error": record}) if as_json else f"error: {record['message']}"
    print(line.replace("\n", " "), file=sys.stderr)
    return code
