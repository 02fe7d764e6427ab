"""`pickaxe check`: the conformance kit without pytest."""

from __future__ import annotations

import fnmatch
import sys
from typing import Any

import click

from pickaxe import catalog
from pickaxe_services.cli import console


@click.command("check")
@click.argument("method")
@click.option("--wire", is_flag=True, help="Check the method over gRPC too, through a server in this process.")
@click.option("--server", metavar="ADDR", help="Check it over gRPC too, through this server.")
@click.option("--only", metavar="PATTERN", default="*", help="Only checks of this name, e.g. 'scorer.*'.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per check.")
@click.option("--quiet", "-q", is_flag=True, help="Only what failed.")
def command(method: str, wire: bool, server: str | None, only: str, as_json: bool, quiet: bool) -> None:
    """Run the conformance checks of METHOD: a name, or path/to/module.py:Class.  Exits with 1 when one fails.

    \b
      pickaxe check zip-fit
      pickaxe check ./my_method.py:MyMethod --wire
    """
    from pickaxe.testing import checks
    from pickaxe.testing.run import attempt

    subject: Any = catalog.load_file(method) if ".py:" in method else method
    if isinstance(subject, str):
        catalog.entry(subject)  # an unknown name is a mistake of the caller, not a failed check
    chosen = [each for each in checks(subject, wire=server or wire) if fnmatch.fnmatch(each.id, only)]
    if not chosen:
        raise click.UsageError(f"{method} has no check that matches {only!r}")
    outcomes = []
    with console.bar(f"check {method}", quiet or as_json) as bar:
        for done, each in enumerate(chosen):
            bar.update(done, len(chosen), each.id)
            outcome = attempt(each)
            outcomes.append(outcome)
            if as_json:
                seconds = round(outcome.seconds, 3)
                console.emit(
                    {"check": each.id, "passed": outcome.passed, "message": outcome.message, "seconds": seconds}
                )
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if not as_json:
        rows = [
            ("ok" if each.passed else "FAILED", each.check.id, f"{each.seconds:.2f} s", each.message)
            for each in outcomes
            if not (quiet and each.passed)
        ]
        if rows:
            console.table(("", "check", "time", "why"), rows)
        print(f"{len(outcomes) - len(failed)} of {len(outcomes)} checks passed")
    if failed:
        sys.stdout.flush()
        sys.exit(1)
