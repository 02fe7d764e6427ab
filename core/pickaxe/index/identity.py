"""What an index was built with, so that it is not searched with anything else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pydantic import BaseModel

from pickaxe.artifact import Artifact, ArtifactWriter
from pickaxe.errors import ArtifactMismatch


class Model(Protocol):
    """An encoder, a cross-encoder or a language model."""

    @property
    def digest(self) -> str:
        """Equal for two models exactly when they give the same numbers."""


def record_model(out: ArtifactWriter, model: Model, name: str, role: str = "encoder") -> None:
    """Note which model an index is built with; `name` is what its caller calls it, for messages only."""
    out.notes.setdefault("models", {})[role] = {"name": name, "digest": model.digest}


def check_model(artifact: Artifact, model: Model, name: str, role: str = "encoder") -> None:
    """Raise `ArtifactMismatch` unless the index was built with this very model, by whatever name."""
    made = artifact.notes.get("models", {}).get(role, {"name": "none", "digest": ""})
    if made["digest"] != model.digest:
        raise ArtifactMismatch(
            f"the index {str(artifact.path)!r} was built with the {role} {made['name']!r} ({made['digest'][:12]}), not "
            f"with {name!r} ({model.digest[:12]}): search with the same one, or index again",
            metadata={"artifact": artifact.path, "found": made["digest"], "wanted": model.digest},
        )


def check_params(artifact: Artifact, params: BaseModel, names: Iterable[str]) -> None:
    """Raise `ArtifactMismatch` when one of these parameters, which an index is built by, is another now."""
    made = artifact.manifest["params"]
    now = params.model_dump(mode="json")
    for name in names:
        if name in made and made[name] != now[name]:
            raise ArtifactMismatch(
                f"this index was made with {name}={made[name]!r}: search with the same, or index again",
                metadata={"parameter": name, "found": made[name], "wanted": now[name]},
            )
