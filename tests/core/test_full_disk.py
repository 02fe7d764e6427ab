"""What a full disk does: an error that says so, and nothing half made."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Call, Items, Method, Progress, Scores, catalog
from pickaxe.artifact import ArtifactWriter, writing
from pickaxe.errors import MethodFailed, Unmet
from pickaxe.hooks import hookimpl

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")
NUMPY_FULL = OSError("8192 requested and 4096 written")


class Params(pickaxe.Params):
    where: str = "fit"
    number: int = errno.ENOSPC


class Filling(Method[Params]):
    """Meets a full disk."""

    Params = Params
    scope = "item"
    columns = (pickaxe.Column("x", "x"),)

    def _fill(self) -> None:
        raise OSError(self.params.number, os.strerror(self.params.number), "somewhere")

    @hookimpl
    def fit(self, examples: Any, out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        yield Progress("write")
        self._fill()

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        self._fill()
        return Scores({"x": np.zeros(len(items))})


@pytest.fixture
def filling() -> Iterator[str]:
    with catalog.register(Filling, "filling", "scorer"):
        yield "filling"


def test_a_method_on_a_full_disk_says_so(filling: str, tmp_path: Path) -> None:
    scorer = pickaxe.scorer(filling)
    with pytest.raises(Unmet, match=r"filling cannot go on \(no space left on the disk for 'somewhere'\): free some"):
        scorer.score(["a"])
    with pytest.raises(Unmet, match="free some"):
        scorer.fit(["a"], out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_system_stay_the_methods(filling: str) -> None:
    with pytest.raises(MethodFailed, match="PermissionError"):
        pickaxe.scorer(filling, number=errno.EACCES).score(["a"])


@pytest.mark.parametrize("error", [FULL, NUMPY_FULL])
def test_an_artifact_that_cannot_be_finished_leaves_nothing(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise error

    monkeypatch.setattr("pickaxe.artifact.write_durably", full)
    with (
        pytest.raises(Unmet, match=r"the artifact .*no space left"),
        writing(tmp_path / "out", kind="fit", method="m", method_version=1, params={}) as out,
    ):
        out.write_array("x.npy", np.zeros(3))
    assert list(tmp_path.iterdir()) == []
