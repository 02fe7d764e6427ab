"""A model's head for a part of its vocabulary: drafts spend most of their time in a head of full width."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pickaxe.errors import InvalidParams, Unmet
from pickaxe_plugins.decoding._speculation.tree import Head

if TYPE_CHECKING:
    from pickaxe.host import Host
    from pickaxe.lm import LM

FORMAT = 1
"""Raised whenever the graph changes."""


def first_tokens(host: Host, name: str, lm: LM, size: int) -> Head:
    """The head of model `name`, in 8 bits, for its first `size` ids: states (R, width) to float32 logits (R, size).

    Merged vocabularies list frequent tokens first, so a part of one finds nearly as many tokens in a fraction of
    the time.  Written on first use and kept with what else was made from the model.
    """
    from pickaxe.lm.nbits import BLOCK

    architecture = lm.network.architecture
    if size > architecture.vocab:
        raise InvalidParams("draft_vocab", f"is {size}; model {name!r} has {architecture.vocab} tokens")
    if architecture.width % BLOCK:
        raise Unmet(
            f"draft_vocab needs a model width that is a multiple of {BLOCK}, {name!r} has {architecture.width}: "
            "draft from the whole vocabulary (draft_vocab=0)",
            metadata={"model": name, "width": architecture.width},
        )

    def build(folder: Path) -> None:
        from pickaxe.lm.weights import open_checkpoint

        tensors = open_checkpoint(host.model_path(name)).tensors
        write_head(tensors.tensor("embedding" if architecture.tied else "output")[:size], folder)

    graph = host.models.converted(name, f"head-{size}-{FORMAT}", build) / "head.onnx"
    runtime = host.runtime
    return lambda states: runtime.open(graph).run({"hidden": states.astype(np.float32, copy=False)})[0]


def write_head(matrix: np.ndarray, folder: Path) -> None:
    """Write `head.onnx`: hidden (R, width) times the transposed matrix (N, width), quantised to 8 bits."""
    from pickaxe.lm.nbits import BLOCK, quantise8
    from pickaxe.lm.writer import MICROSOFT, GraphWriter, WeightFile

    rows, columns = matrix.shape
    stored = quantise8(matrix)
    path = folder / "head.data"
    with path.open("wb") as stream:
        writer = GraphWriter(WeightFile(path, stream))
        writer.input("hidden", np.float32, ["rows", columns])
        weights = [
            writer.weight("packed", lambda: stored.packed, shape=(rows, columns // BLOCK, BLOCK)),
            writer.weight("scales", lambda: stored.scales),
        ]
        writer.node(
            "MatMulNBits",
            ["hidden", *weights],
            "logits",
            domain=MICROSOFT,
            K=columns,
            N=rows,
            bits=8,
            block_size=BLOCK,
            accuracy_level=4,
        )
        writer.output("logits", np.float32, ["rows", rows])
        writer.save(folder / "head.onnx")
