"""What `import pickaxe` offers: the list is fixed here, and importing it stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pickaxe

NAMES = {
    "Artifact", "ArtifactWriter", "Call", "Card", "Chunk", "Column", "Completion", "Example", "Flag",
    "Groups", "Handle", "Hit", "Host", "InputField", "Item", "Items", "Message", "Method", "MethodRef",
    "Pipeline", "pipeline",
    "Params", "PickaxeError", "Progress", "Prompt", "Ranked", "Ranking", "Sampling", "Scores",
    "SearchResults", "Segment", "Span", "WHOLE_PROMPT", "__version__", "completions", "configure", "decoder",
    "generator", "hookimpl", "methods", "reranker", "retriever", "scorer", "show",
}  # fmt: skip
"""Public API: a name is added here on purpose, and removed only with a major version."""


def fresh(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_names() -> None:
    assert set(pickaxe.__all__) == NAMES
    assert set(dir(pickaxe)) >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_name_resolves(name: str) -> None:
    assert getattr(pickaxe, name) is getattr(pickaxe, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'scorers'"):
        _ = pickaxe.scorers


def test_type_checkers_see_what_run_time_offers() -> None:
    tree = ast.parse(Path(pickaxe.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == NAMES


def test_every_export_is_reached_from_one_place() -> None:
    homes = [name for names in pickaxe._EXPORTS.values() for name in names]
    assert len(homes) == len(set(homes))


def test_import_is_light() -> None:
    loaded = set(fresh("import sys, pickaxe; print(*sys.modules)").split())
    assert not loaded & {"numpy", "pydantic", "pluggy", "grpc", "onnxruntime"}


def test_listing_methods_imports_no_plugin_and_nothing_heavy() -> None:
    loaded = set(fresh("import sys; from pickaxe import catalog; assert catalog.table(); print(*sys.modules)").split())
    assert not loaded & {"numpy", "pydantic", "pluggy", "grpc", "onnxruntime"}
    assert not [name for name in loaded if name.startswith("pickaxe_plugins.")]


def test_star_import_gives_the_names() -> None:
    assert fresh("from pickaxe import *; print(scorer.__name__, Item('a').id)") == "scorer a"
