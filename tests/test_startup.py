"""`pickaxe methods` stays quick because it imports next to nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "numpy", "grpc", "google", "pydantic", "pydantic_settings", "pluggy", "rich", "onnxruntime", "onnx", "tokenizers",
    "pyarrow", "zstandard", "tenacity", "pickaxe_plugins", "importlib.metadata", "email", "asyncio", "difflib",
}  # fmt: skip

SCRIPT = """
import json, sys
from pickaxe_services.cli import main
try:
    main(sys.argv[1:])
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("args", [["methods"], ["methods", "--json"], ["--help"], ["methods", "--help"]])
def test_nothing_heavy_is_imported(args: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *args], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path
    )
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert not {name for name in loaded if name in HEAVY or name.partition(".")[0] in HEAVY}
    assert "methods" in done.stdout or "zip-fit" in done.stdout


def test_the_library_itself_imports_little() -> None:
    code = "import sys, pickaxe; print([name for name in ('numpy', 'pydantic', 'grpc') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
