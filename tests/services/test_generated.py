"""The committed stubs are what the protos generate, and the protos are lint-clean."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_regenerating_gives_the_same_bytes(tmp_path: Path) -> None:
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "protos/pickaxe/v1").glob("*.proto"))
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "protos", *outputs, *sources]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    fresh = {path.name: path.read_bytes() for path in (tmp_path / "pickaxe/v1").iterdir()}
    committed = {path.name: path.read_bytes() for path in (ROOT / "core/pickaxe/v1").glob("*_pb2*")}
    assert committed == fresh


def test_protos_follow_the_style_guide() -> None:
    buf = shutil.which("buf", path=str(Path(sys.executable).parent)) or "buf"
    done = subprocess.run([buf, "lint"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
