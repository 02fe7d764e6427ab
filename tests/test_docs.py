"""Everything public is documented: hooks, methods, their parameters and columns; the tutorial's code is real."""

import inspect
import re
from pathlib import Path

import pytest

from pickaxe import catalog, hooks

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLE = ROOT / "tests" / "thirdparty" / "pickaxe-example"
OURS = sorted({entry.name for entry in catalog.entries() if entry.distribution == "pickaxe"})
HOOKS = [(spec, name) for spec in hooks.SPECS for name in hooks.HOOKS[spec.__name__.lower()]]


def page(name: str) -> str:
    path = DOCS / name
    assert path.is_file(), f"docs/{name} is missing"
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("spec", "name"), HOOKS, ids=[name for _, name in HOOKS])
def test_hook_is_documented_with_its_arguments(spec: type, name: str) -> None:
    signature = inspect.signature(getattr(spec, name))
    arguments = [f"{each.name}: {each.annotation}" for each in list(signature.parameters.values())[1:]]
    line = f"{name}({', '.join(arguments)}) -> {signature.return_annotation}"
    assert line in page("hooks.md").splitlines(), f"docs/hooks.md lacks the line {line}"


@pytest.mark.parametrize("name", OURS)
def test_method_has_a_page_with_all_parameters_and_columns(name: str) -> None:
    text, card = page(f"methods/{name}.md"), catalog.describe(name)
    parameters = set(card.params_schema.get("properties", ()))
    words = {*parameters, *(column.name for column in card.columns)}
    missing = sorted(word for word in words if f"`{word}`" not in text)
    assert not missing, f"docs/methods/{name}.md does not mention {missing} as `name`"


def test_every_page_is_of_a_method() -> None:
    assert {path.stem for path in (DOCS / "methods").glob("*.md")} - {"README"} <= set(OURS)


def test_the_tutorial_shows_the_files_of_the_example() -> None:
    shown = dict(
        re.findall(r"^`([\w./-]+)`\n\n```\w+\n(.*?)^```$", page("writing-a-method.md"), re.DOTALL | re.MULTILINE)
    )
    assert set(shown) == {
        str(path.relative_to(EXAMPLE)) for path in EXAMPLE.rglob("*") if path.suffix in {".py", ".toml"}
    }
    for name, text in shown.items():
        assert text == (EXAMPLE / name).read_text(encoding="utf-8"), f"{name} differs from the tutorial"


LINKS = [(path, link) for path in sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])
         for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
         if "://" not in link]  # fmt: skip


@pytest.mark.parametrize(("path", "link"), LINKS, ids=[f"{path.name}-{link}" for path, link in LINKS])
def test_links_lead_somewhere(path: Path, link: str) -> None:
    assert (path.parent / link).exists(), f"{path.relative_to(ROOT)} links to {link}"
