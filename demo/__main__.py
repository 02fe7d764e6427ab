"""Start a server on loopback, run the main job through its client, print what happened, write the report."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from demo import corpus, job
from pickaxe_services import connect
from pickaxe_services.server import LocalServer
from pickaxe_services.settings import Settings


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default="demo-output", show_default=True)
def main(output: Path) -> None:
    """Score a real corpus, pick from it, index, search, rerank and answer; every step through gRPC."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    begin = time.perf_counter()
    data = corpus.load()
    steps = []
    with tempfile.TemporaryDirectory(prefix="pickaxe-demo-") as root:
        settings = Settings(root=Path(root), port=0)
        with console.status("starting the server"), LocalServer(settings) as address:
            console.print(f"server on {address}, {len(data.documents)} documents, {len(data.requests)} requests")
            for step in job.run(connect(address), data):
                console.print(f"  {step.title:<15} {step.method:<18} {step.seconds:6.1f} s  {step.quality}")
                steps.append(step)
    table = Table("step", "method", "paper", "items", "seconds", "quality", title="What each step did")
    for step in steps:
        table.add_row(step.title, step.method, step.paper, step.items, f"{step.seconds:.1f}", step.quality)
    console.print(table)
    from demo import report

    report.write(output / "report.html", steps)
    (output / "steps.json").write_text(json.dumps([asdict(step) for step in steps], indent=1))
    console.print(f"{time.perf_counter() - begin:.0f} s in all; the report is in {output / 'report.html'}")


if __name__ == "__main__":
    main()
