"""`pickaxe models`: pull is the only command that uses a network."""

from __future__ import annotations

from pathlib import Path

import click

from pickaxe.data import Progress
from pickaxe.models import ModelStore
from pickaxe_services.cli import console


@click.group("models")
def command() -> None:
    """Pull, list and verify models.

    \b
      pickaxe models list
      pickaxe models pull lm encoder      what the methods use by default
      pickaxe models path lm

    Models lie in PICKAXE_MODELS, or in the user's cache.  A models.toml there adds aliases for models of your own.
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per model.")
def listing(as_json: bool) -> None:
    """Every model that has a name, and where it is."""
    entries = ModelStore().list()
    if as_json:
        for entry in entries:
            console.emit({name: _plain(getattr(entry, name)) for name in entry.__dataclass_fields__})
        return
    console.table(
        ["alias", "model", "kind", "here", "MB", "licence", "source"],
        [
            (
                entry.alias,
                entry.name,
                entry.kind,
                "yes" if entry.present else "no",
                f"{entry.bytes / 1e6:.0f}" if entry.present else "",
                entry.license,
                entry.source,
            )
            for entry in entries
        ],
    )


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


@command.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--quiet", "-q", is_flag=True, help="No progress and no remarks.")
def pull(names: tuple[str, ...], quiet: bool) -> None:
    """Get models, checked by sha256; those that are here and whole are left alone.

    NAMES are aliases, model names or hf:OWNER/NAME (needs the extra hub).
    """
    store = ModelStore()
    for name in names:
        with console.bar(f"pull {name}", quiet) as bar:

            def told(step: Progress, name: str = name, bar: console.Bar = bar) -> None:
                bar.update(step.step, step.total, f"pull {name}: {step.stage}")

            path = store.pull(name, told)
        console.note(f"{name}: {path}", quiet)


@command.command()
@click.argument("name")
def path(name: str) -> None:
    """Print where a model lies."""
    click.echo(ModelStore().path(name))


@command.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Compare every file with its sha256; without NAMES, of all models that are here."""
    store = ModelStore()
    for name in names or [entry.name for entry in store.list() if entry.present]:
        files = store.verify(name)
        click.echo(f"{name}: {len(files)} files are whole")
