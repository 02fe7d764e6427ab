"""Running the command line in this process and in others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pickaxe_services.cli import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """Standard output as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        """The JSON error on standard error."""
        return json.loads(self.err.splitlines()[-1])["error"]


Run = Callable[..., Ran]


def runner(capfd: pytest.CaptureFixture[str]) -> Run:
    """`run("score", "t-length", …)` in this process."""

    def run(*args: object) -> Ran:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Ran(code, out, err)

    return run


def command(*args: object) -> list[str]:
    """The same in a fresh interpreter."""
    return [sys.executable, "-m", "pickaxe_services.cli", *map(str, args)]


def fresh(*args: object, **options: Any) -> Ran:
    done = subprocess.run(command(*args), capture_output=True, text=True, timeout=120, check=False, **options)
    return Ran(done.returncode, done.stdout, done.stderr)


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(path: Path, *given: str) -> Path:
    return lines(path, [{"id": f"d{row}", "text": text} for row, text in enumerate(given)])


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]
