"""The graph that copies a prompt's keys and values into a batch in the memory of a device."""

from __future__ import annotations

import numpy as np

from pickaxe.lm.weights import Architecture
from pickaxe.lm.writer import GraphWriter


def write_join(writer: GraphWriter, architecture: Architecture, dtype: type) -> None:
    """`memory_*.i` (slots, kv_heads, capacity, size) with the first tokens of a row of `prompt_*.i` written into it.

    `slots` (kv_heads, tokens, 3) names the places: slot, head, position.  The result `joined_*.i` is to be bound to
    the memory itself: then nothing but those places is written.
    """
    writer.input("row", np.int64, [1])
    writer.input("tokens", np.int64, [1])
    writer.input("slots", np.int64, [architecture.kv_heads, "tokens", 3])
    start, axis = writer.constant("start", np.zeros(1, np.int64)), writer.constant("axis", np.ones(1, np.int64))
    heads, size = architecture.kv_heads, architecture.head_size
    form = writer.constant("form", np.array([heads, -1, size], np.int64))
    for layer in range(architecture.layers):
        for kind in ("key", "value"):
            name = f"{kind}.{layer}"
            memory = writer.input(f"memory_{name}", dtype, ["slots", heads, "capacity", size])
            prompt = writer.input(f"prompt_{name}", dtype, ["rows", heads, "length", size])
            chosen = writer.node(
                "Reshape", [writer.node("Gather", [prompt, "row"], f"row_{name}"), form], f"one_{name}"
            )
            read = writer.node("Slice", [chosen, start, "tokens", axis], f"read_{name}")
            writer.node("ScatterND", [memory, "slots", read], f"joined_{name}")
            writer.output(f"joined_{name}", dtype, ["slots", heads, "capacity", size])
