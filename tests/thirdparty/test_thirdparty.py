"""A distribution of somebody else: built as a wheel, installed into a clean environment, found and served there."""

import json
import os
import site
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PROJECT = HERE / "pickaxe-example"

SERVE = """
import json, pathlib, sys
from pickaxe_services import connect
from pickaxe_services.server import LocalServer
from pickaxe_services.settings import Settings

with LocalServer(Settings(port=0, root=pathlib.Path(sys.argv[1]))) as address, connect(address) as server:
    scores = server.scorer("lexical-diversity", window=4).score(["every word here is new", "again and again"])
    print(json.dumps({
        "methods": dict(server.methods()),
        "card": server.show("lexical-diversity").title,
        "scores": scores["diversity"].tolist(),
    }))
"""


def run(*command: str | Path, **options: Any) -> str:
    """Standard output of a command that must succeed, without what this process has on its path."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PICKAXE_PLUGINS"))}
    done = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True, timeout=280, check=False,
        **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the example's wheel, and this one's libraries within reach."""
    wheels, home = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, PROJECT)
    [wheel] = wheels.glob("pickaxe_example-*.whl")
    venv.create(home, with_pip=False)
    interpreter = home / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", interpreter, *install, wheel)
    [own] = home.glob("lib/python*/site-packages")
    # addsitedir and not a bare path: an editable pickaxe lies behind a .pth file of its own.
    own.joinpath("borrowed.pth").write_text(f"import site; site.addsitedir({site.getsitepackages()[0]!r})\n")
    return interpreter


def test_the_command_line_lists_it(python: Path) -> None:
    lines = run(python, "-m", "pickaxe_services.cli", "methods", "--json").splitlines()
    listed = {line["name"]: line for line in map(json.loads, lines)}
    assert listed["lexical-diversity"]["distribution"] == "pickaxe-example 1.0.0"
    assert listed["lexical-diversity"]["roles"] == ["scorer"]
    assert listed["zip-fit"]["distribution"].startswith("pickaxe ")


def test_it_is_not_installed_here() -> None:
    from pickaxe import catalog

    assert "lexical-diversity" not in catalog.names()


def test_a_server_started_there_serves_it(python: Path, tmp_path: Path) -> None:
    answer = json.loads(run(python, "-c", SERVE, tmp_path / "root").splitlines()[-1])
    assert answer["methods"]["lexical-diversity"] == [["scorer"], "pickaxe-example 1.0.0"]
    assert answer["card"].startswith("Cutting the Gordian Knot")
    assert answer["scores"] == pytest.approx([1, 2 / 3])


def test_its_own_tests_pass(python: Path, tmp_path: Path) -> None:
    options = ("-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", tmp_path)
    output = run(python, "-m", "pytest", *options, PROJECT / "tests", cwd=tmp_path)
    assert " passed" in output
    assert "failed" not in output


def test_a_restricted_catalogue_leaves_it_out(python: Path) -> None:
    program = (
        "import os; os.environ['PICKAXE_PLUGINS'] = 'Pickaxe'; from pickaxe import catalog; print(catalog.names())"
    )
    assert "lexical-diversity" not in run(python, "-c", program)
    assert "lexical-diversity" in run(python, "-c", program.replace("Pickaxe'", "pickaxe_example'"))
