"""`pickaxe models`: the only command that touches a network, and only for `pull`."""

from __future__ import annotations

from pathlib import Path

import click

from pickaxe.models import ModelStore, graph_cache_limit
from pickaxe_services.cli import console

_directory = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="PICKAXE_MODELS",
    help="Where models are kept; also PICKAXE_MODELS.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable results.")


@click.group("models")
def command() -> None:
    """Pull, list and verify models.

    \b
      pickaxe models list
      pickaxe models pull encoder
    """


@command.command("list")
@_directory
@_json
def listing(directory: Path | None, as_json: bool) -> None:
    """List the models that pickaxe knows, and which of them are here."""
    entries = ModelStore(directory).list()
    if as_json:
        for each in entries:
            console.emit(
                {
                    "name": each.name,
                    "alias": each.alias,
                    "kind": each.kind,
                    "source": each.source,
                    "license": each.license,
                    "present": each.present,
                    "path": str(each.path),
                    "bytes": each.bytes,
                }
            )
        return
    rows = [
        (each.alias, each.name, each.kind, f"{each.bytes / 2**20:.0f} MiB" if each.present else "-", each.source)
        for each in entries
    ]
    console.table(("alias", "name", "kind", "here", "source"), rows)


@command.command()
@click.argument("names", nargs=-1, required=True)
@_directory
@_json
@click.option("--quiet", "-q", is_flag=True, help="No progress and no remarks.")
def pull(names: tuple[str, ...], directory: Path | None, as_json: bool, quiet: bool) -> None:
    """Get models by alias, name or hf:OWNER/NAME, and check their digests."""
    store = ModelStore(directory)
    for name in names:
        with console.bar(f"pull {name}", quiet) as bar:
            path = store.pull(name, lambda step, name=name: bar.update(step.step, step.total, f"{name}: {step.stage}"))  # type: ignore[misc]
        console.emit({"name": name, "path": str(path)}) if as_json else print(f"{name}  {path}")


@command.command()
@click.argument("name")
@_directory
@_json
def path(name: str, directory: Path | None, as_json: bool) -> None:
    """Print where a model lies."""
    found = str(ModelStore(directory).path(name))
    console.emit({"name": name, "path": found}) if as_json else print(found)


@command.command()
@click.argument("names", nargs=-1)
@_directory
@_json
def verify(names: tuple[str, ...], directory: Path | None, as_json: bool) -> None:
    """Check every file of the models against its digest; all models that are here, unless named."""
    store = ModelStore(directory)
    for name in names or [each.name for each in store.list() if each.present]:
        files = store.verify(name)
        console.emit({"name": name, "files": files}) if as_json else print(f"{name}  {len(files)} files are whole")


@command.command()
@_directory
@_json
@click.option("--all", "everything", is_flag=True, help="Drop every such graph, not only those beyond the limit.")
def clean(directory: Path | None, everything: bool, as_json: bool) -> None:
    """Free space: drop graphs made from models that are gone, and the longest unused ones.

    Graphs made from artifacts and from models at a path are kept in a cache of PICKAXE_GRAPH_CACHE bytes (16GiB),
    and pruned by themselves whenever one is added.  What a process has open, or has used within ten minutes, stays;
    all can be made again.
    """
    freed = ModelStore(directory).prune(0 if everything else graph_cache_limit())
    console.emit({"freed_bytes": freed}) if as_json else print(f"{freed / 2**20:.0f} MiB freed")
