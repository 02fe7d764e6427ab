"""`pickaxe new`: a plugin project that passes its own conformance tests at once."""

from __future__ import annotations

import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template

import click

from pickaxe import catalog
from pickaxe.errors import AlreadyExists, InvalidParams
from pickaxe.version import __version__
from pickaxe_services.cli import console

_USE = {
    "scorer": "pickaxe score $name --input items.jsonl --output scores.jsonl",
    "retriever": "pickaxe index $name --input documents.jsonl --out idx",
    "reranker": "pickaxe rerank $name --query 'a question' --candidates candidates.jsonl",
    "decoder": "pickaxe decode $name --prompt 'Once upon a time'",
}


@click.command("new")
@click.argument("name")
@click.option("--role", type=click.Choice(catalog.ROLES), default="scorer", show_default=True, help="What it picks.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the project goes; otherwise ./NAME.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable results.")
def command(name: str, role: str, directory: Path | None, as_json: bool) -> None:
    """Write a project with a method called NAME (kebab-case) to start from.

    \b
      pickaxe new my-method --role scorer
      cd my-method && pip install -e '.[test]' && pytest
    """
    written = write_project(name, role, directory or Path(name))
    if as_json:
        console.emit({"name": name, "role": role, "files": [str(path) for path in written]})
        return
    for path in written:
        print(path)
    print(f"\nNext: cd {directory or name} && pip install -e '.[test]' && pytest")


def write_project(name: str, role: str, directory: Path) -> list[Path]:
    """Write the files and return their paths; raises `InvalidParams` or `AlreadyExists`."""
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(module):
        raise InvalidParams(
            "NAME", f"must be words of small letters and digits joined by -, as my-method (got {name!r})"
        )
    if directory.exists() and any(directory.iterdir()):
        raise AlreadyExists(f"{str(directory)!r} is not empty: name another --directory", metadata={"path": directory})
    values = {
        "name": name,
        "module": module,
        "class_name": "".join(part.capitalize() for part in name.split("-")),
        "role": role,
        "version": ".".join(__version__.split(".")[:2]),
        "use": Template(_USE[role]).substitute(name=name),
    }
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{module}.py": f"{role}.py",
        f"test_{module}.py": "test.py",
    }
    written = []
    directory.mkdir(parents=True, exist_ok=True)
    for target, source in files.items():
        template = resources.files("pickaxe_services.cli") / "templates" / f"{source}.tmpl"
        path = directory / target
        path.write_text(Template(template.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
        written.append(path)
    return written
