"""The code of docs/training.md runs."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parents[3] / "docs" / "training.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    space: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), space)
    assert np.isfinite(space["influence"]).all()
    assert "'hits': 1.0" in capsys.readouterr().out


def test_the_page_names_every_module() -> None:
    modules = {path.stem for path in (PAGE.parents[1] / "plugins/pickaxe_plugins/train").glob("[a-z]*.py")}
    assert {name for name in modules if f"`{name}`" not in PAGE.read_text(encoding="utf-8")} == set()
