"""Imports run one way, heavy libraries have one home each, and no module grows beyond reading."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ROOMS = {"pickaxe": ROOT / "core", "pickaxe_plugins": ROOT / "plugins", "pickaxe_services": ROOT / "services"}
MODULES = [
    path.relative_to(ROOT)
    for room in ROOMS.values()
    for path in sorted(room.rglob("*.py"))
    if path.parent != ROOT / "core" / "pickaxe" / "v1"
]
CORE, PLUGINS, SERVICES = (
    [path for path in MODULES if path.parts[0] == room] for room in ("core", "plugins", "services")
)

HOMES = {
    "onnxruntime": ("core/pickaxe/session.py", "core/pickaxe/onnx_runtime.py"),
    "fasttext": ("core/pickaxe/fasttext_model/__init__.py",),
    "grpc": ("services/", "core/pickaxe/v1/"),
    "google": ("services/", "core/pickaxe/v1/"),
    "jax": ("plugins/",),
    "torch": (),
}
"""Library → the only places that may import it."""

LAZY_SERVICES = {"core/pickaxe/testing/wire.py"}
"""The conformance kit starts a server when asked for checks over the wire."""


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether at import time) of everything a file imports, by statement or by name."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    later: set[int] = set()
    for part in ast.walk(tree):
        function = isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))
        if function or (isinstance(part, ast.If) and "TYPE_CHECKING" in ast.unparse(part.test)):
            later.update(map(id, ast.walk(part)))
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively: write the whole name"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "require"):
            first = node.args[0] if node.args else None
            found = [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
        for name in found:
            yield name, id(node) not in later


def top(name: str) -> str:
    return name.partition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_module_keeps_to_the_layers(path: Path) -> None:
    room = path.parts[1]
    for name, _ in imports(path):
        if top(name) in ROOMS and top(name) not in ("pickaxe", room):
            lazy = room == "pickaxe" and str(path) in LAZY_SERVICES and top(name) == "pickaxe_services"
            assert lazy, f"{path} imports {name}"
        for library, homes in HOMES.items():
            if top(name) == library:
                assert str(path).startswith(homes), f"{path} imports {library}, whose home is {homes}"


@pytest.mark.parametrize("path", PLUGINS, ids=str)
def test_plugins_import_only_their_own_family(path: Path) -> None:
    for name, _ in imports(path):
        if top(name) == "pickaxe_plugins" and len(path.parts) > 3:
            assert name.split(".")[1] in (path.parts[2], "train"), f"{path} imports {name}"


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=str)
def test_core_and_plugins_know_nothing_of_the_wire(path: Path) -> None:
    assert not [name for name, _ in imports(path) if name.startswith("pickaxe.v1")]


HEAVY = ("onnxruntime", "onnx", "fasttext", "jax", "torch", "tokenizers", "gguf", "safetensors", "pyarrow", "scipy",
         "bm25s", "huggingface_hub", "matplotlib", "jinja2")  # fmt: skip


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_heavy_libraries_are_imported_inside_functions(path: Path) -> None:
    early = [name for name, now in imports(path) if now and top(name) in HEAVY]
    assert not early, f"{path} imports {early} at its top"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_module_has_at_most_400_lines(path: Path) -> None:
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= 400


def pb2_classes(path: Path) -> list[str]:
    return [name for name, _ in imports(path) if name.startswith("pickaxe.v1") and not name.endswith("_pb2_grpc")]


def test_messages_are_taken_apart_in_few_places() -> None:
    """Messages become data classes in the codec; servicers and client stubs only name them."""
    outside = {str(path) for path in SERVICES if pb2_classes(path) and "codec" not in path.parts}
    allowed = ("services/pickaxe_services/client/", "services/pickaxe_services/server.py")
    servicers = {f"services/pickaxe_services/{name}.py" for name in
                 ("artifact", "catalog", "decoder", "job", "reranker", "retriever", "scorer")}  # fmt: skip
    assert {path for path in outside - servicers if not path.startswith(allowed)} == set()
