"""Golden cases of APE: positions after assembly, and the attention of one layer as the graph computes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from golden import golden, understood

from pickaxe.lm import Contexts, rotate
from pickaxe.lm.attention import AttentionWriter
from pickaxe.lm.weights import Architecture
from pickaxe.lm.writer import GraphWriter, WeightFile
from pickaxe_plugins.decoding.ape import position_ids

CASE = understood(golden("13-ape"), "how", "tolerance", "cases")
TOLERANCE = understood(CASE["tolerance"], "attention_output", "position_ids")


@pytest.mark.parametrize("case", CASE["cases"])
def test_attention_over_contexts(case: dict[str, Any], tmp_path: Path) -> None:
    inputs = understood(
        understood(case, "inputs", "expected")["inputs"],
        "num_heads", "num_kv_heads", "head_dim", "n_prefix", "context_lengths", "n_query", "temperature", "scale",
        "rope_base", "past_key_unrotated", "past_value", "query_proj", "key_proj", "value_proj", "layout",
    )  # fmt: skip
    expected = understood(case["expected"], "position_ids", "attention_output")
    prefix, lengths, query = inputs["n_prefix"], inputs["context_lengths"], inputs["n_query"]
    positions = position_ids(prefix, lengths, query)
    assert TOLERANCE["position_ids"] == "exact"
    assert positions.tolist() == expected["position_ids"]
    past = prefix + sum(lengths)
    architecture = shape_of(inputs)
    kept = (1, inputs["num_kv_heads"], past, inputs["head_dim"])
    keys = rotate(np.array(inputs["past_key_unrotated"]).reshape(kept), positions[:past], architecture)
    values = np.array(inputs["past_value"]).reshape(kept)
    room = ((0, 0), (0, 0), (0, query), (0, 0))
    contexts = Contexts(np.arange(past) >= prefix, inputs["temperature"], inputs["scale"])
    found = attention(architecture, tmp_path).run(
        ["layers.0.attended"],
        {
            "position_ids": positions[None, past:],
            "past_key.0": np.pad(keys, room).astype(np.float32),
            "past_value.0": np.pad(values, room).astype(np.float32),
            **{
                name: np.array(inputs[f"{name}_proj"], np.float32).reshape(1, query, -1)
                for name in ("query", "key", "value")
            },
            **contexts.feeds(np.array([past]), query, past + query, architecture),
        },
    )[0]
    np.testing.assert_allclose(found.ravel(), expected["attention_output"], atol=TOLERANCE["attention_output"], rtol=0)


def test_the_share_of_contexts(tmp_path: Path) -> None:
    """w = sigmoid(S T L - L_o) lies in (0, 1) and grows with S exactly where L is positive."""
    heads, size, past, query = 4, 8, 7, 5
    architecture = Architecture(1, heads * size, heads, heads, size, 1, 1, 64)
    random = np.random.default_rng(0)
    kept, new = (1, heads, past + query, size), (1, query, heads * size)
    mask = np.arange(past) >= 2
    keys, asked, own = random.standard_normal(kept), random.standard_normal(new), random.standard_normal(new)
    keys -= 0.7 * asked.reshape(query, heads, size).mean(0)[:, None]  # so that L has both signs
    session = attention(architecture, tmp_path)

    def share(scale: float) -> np.ndarray:
        """w (query, heads): what comes out when context values are 1 and all others 0."""
        feeds = {
            "position_ids": np.zeros((1, query), np.int64),
            "past_key.0": keys,
            "past_value.0": np.broadcast_to(np.pad(mask, (0, query))[:, None], kept),
            "query": asked,
            "key": own,
            "value": np.zeros(new),
            **Contexts(mask, 0.8, scale).feeds(np.array([past]), query, past + query, architecture),
        }
        given = {name: value if value.dtype == np.int64 else value.astype(np.float32) for name, value in feeds.items()}
        return session.run(["layers.0.attended"], given)[0].reshape(query, heads, size)[..., 0]

    scores = np.einsum("qhd,hkd->qhk", asked.reshape(query, heads, size), keys[0, :, :past][:, mask]) / np.sqrt(size)
    total = np.log(np.exp(scores / 0.8).sum(-1))
    assert len(set(np.sign(total).ravel())) == 2
    low, high = share(0.6), share(1.2)
    assert ((low > 0) & (low < 1) & (high > 0) & (high < 1)).all()
    np.testing.assert_array_equal(np.sign(high - low), np.sign(total))


def shape_of(inputs: dict[str, Any]) -> Architecture:
    heads, kv_heads, size = inputs["num_heads"], inputs["num_kv_heads"], inputs["head_dim"]
    return Architecture(1, heads * size, heads, kv_heads, size, 1, 1, 64, rope_base=inputs["rope_base"])


def attention(architecture: Architecture, folder: Path) -> onnxruntime.InferenceSession:
    """The attention of one layer alone, with its projections as inputs."""
    with (folder / "weights.data").open("wb") as stream:
        writer = GraphWriter(WeightFile(folder / "weights.data", stream))
    angles = np.arange(architecture.context)[:, None] * architecture.inverse_frequencies()
    writer.constant("cos", np.cos(angles).astype(np.float32))
    writer.constant("sin", np.sin(angles).astype(np.float32))
    writer.input("position_ids", np.int64, ["batch", "time"])
    for name in ("query", "key", "value"):
        writer.input(name, np.float32, ["batch", "time", f"{name}_width"])
    layer = AttentionWriter(writer, architecture, np.float32, "contexts", ragged=True)
    layer.inputs()
    layer.attend("layers.0.", 0, ["query", "key", "value"])
    writer.output("layers.0.attended", np.float32, ["batch", "time", architecture.heads * architecture.head_size])
    writer.save(folder / "attention.onnx")
    return onnxruntime.InferenceSession(str(folder / "attention.onnx"))
