"""`pickaxe check`: the conformance kit without pytest."""

from __future__ import annotations

from typing import Any

import click

from pickaxe import catalog, testing
from pickaxe.method import Method
from pickaxe_services.cli import console


@click.command("check")
@click.argument("method")
@click.option("--wire", is_flag=True, help="Run the checks through a gRPC server in this process too.")
@click.option("--server", metavar="ADDR", help="Run them through this server too, which must offer the method.")
@click.option("--only", metavar="TEXT", default="", help="Only checks whose id contains TEXT.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per check.")
def command(method: str, wire: bool, server: str | None, only: str, as_json: bool) -> None:
    """Run every conformance check of METHOD: an installed name, or path/to/module.py:Class.

    \b
      pickaxe check zip-fit --wire
      pickaxe check my_method.py:MyMethod

    Exit code 1 when a check fails.
    """
    kind: str | type[Method[Any]] = catalog.load_file(method) if ".py:" in method else method
    if isinstance(kind, str):
        catalog.roles(kind)
    passed = failed = 0
    for check in testing.checks(kind, wire=server or wire):
        if only not in check.id:
            continue
        outcome = testing.attempt(check)
        passed, failed = passed + outcome.passed, failed + (not outcome.passed)
        if as_json:
            record = {"check": check.id, "passed": outcome.passed, "seconds": round(outcome.seconds, 3)}
            console.emit({**record, "message": outcome.message})
        else:
            click.echo(f"{'ok  ' if outcome.passed else 'FAIL'}  {check.id:<34} {outcome.seconds:6.2f} s")
            if not outcome.passed:
                click.echo(f"      {check.doc}\n      {outcome.message}")
    if not as_json:
        click.echo(f"{passed} passed, {failed} failed")
    raise click.exceptions.Exit(1 if failed else 0)
