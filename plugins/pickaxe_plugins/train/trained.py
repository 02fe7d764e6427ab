"""What a training has come to, on disk: weights, optimiser state, step and data position, to the bit.

One safetensors file: the leaves of both trees by their paths, and in the header, as JSON, the step and the position.
A method that goes on where another stopped reads it with `read` and hands it to `descent.go_on`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pickaxe.errors import ArtifactMismatch, UnknownArtifact
from pickaxe.extras import require

FILE = "training.safetensors"
"""The name under which an artifact holds it."""
_HEADER = "training"


@dataclass(frozen=True, slots=True)
class Trained:
    """A state of training."""

    tree: Any
    """What is trained: nested dictionaries, lists and tuples of arrays."""
    state: Any = None
    """The optimiser's; None: it starts anew."""
    step: int = 0
    """Steps done, all in all."""
    position: Mapping[str, Any] = field(default_factory=dict)
    """Where the training is in its data, as its method counts it; JSON-able."""


def write(path: Path, trained: Trained) -> None:
    """Write the state; `read` gives the same bits."""
    leaves = {**_named("tree", trained.tree), **_named("state", trained.state)}
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in leaves.items()}
    header = {"step": trained.step, "position": dict(trained.position), "state": trained.state is not None}
    require("safetensors.numpy", extra="cpu").save_file(arrays, str(path), {_HEADER: json.dumps(header)})


def read(path: Path, like: Trained) -> Trained:
    """The state in a file, in the form of `like`, whose `tree` and `state` have the same structure and shapes.

    Without a `state` in `like` only the tree is read; with one, `state` is None when the file has none.  Raises
    `UnknownArtifact` and, when it is the state of another network or optimiser, `ArtifactMismatch`.
    """
    if not path.is_file():
        raise UnknownArtifact(f"no state of a training at {str(path)!r}", metadata={"artifact": path})
    with require("safetensors", extra="cpu").safe_open(str(path), "numpy") as file:
        header = json.loads((file.metadata() or {}).get(_HEADER, "null"))
        if header is None:
            raise ArtifactMismatch(f"{str(path)!r} is no state of a training", metadata={"artifact": path})
        stored = set(file.keys())
        tree = _filled("tree", like.tree, file, stored, path)
        wanted = like.state is not None and header["state"]
        state = _filled("state", like.state, file, stored, path) if wanted else None
    return Trained(tree, state, int(header["step"]), header["position"])


def _named(root: str, tree: Any) -> dict[str, Any]:
    """Leaves by their paths: `tree['layers.0.q']`, `state[0].mu['layers.0.q']`."""
    paths = require("jax", extra="train").tree_util
    return {root + paths.keystr(path): leaf for path, leaf in paths.tree_leaves_with_path(tree)}


def _filled(root: str, like: Any, file: Any, stored: set[str], path: Path) -> Any:
    names = _named(root, like)
    own = {name for name in stored if name.startswith(root)}
    arrays = {name: file.get_tensor(name) for name in names if name in own}
    odd = sorted(own ^ names.keys()) or [
        name for name, leaf in names.items() if arrays[name].shape != np.shape(leaf) or arrays[name].dtype != leaf.dtype
    ]
    if odd:
        raise ArtifactMismatch(
            f"{str(path)!r} is the training of another network or optimiser: {odd[0]} differs",
            metadata={"artifact": path, "tensor": odd[0]},
        )
    form = require("jax", extra="train").tree_util
    return form.tree_unflatten(form.tree_structure(like), [arrays[name] for name in names])
