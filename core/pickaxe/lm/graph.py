"""ONNX graphs of a decoder, written directly from its tensors.

A model becomes a *body* (token ids to the hidden states that were asked for, and keys and values) and
*heads* (hidden states to logits, or to the log-probability of given tokens), so that a tensor as wide as the
vocabulary exists only for positions that somebody wants, and never leaves the runtime when only target
log-probabilities do.  All graphs of a model share one file of weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pickaxe.errors import Unmet
from pickaxe.lm.attention import AttentionWriter, Kind
from pickaxe.lm.device_graph import write_join
from pickaxe.lm.nbits import BLOCK, block_sums, quantise4, quantise8
from pickaxe.lm.weights import Architecture, TensorSource
from pickaxe.lm.writer import MICROSOFT, GraphWriter, WeightFile

Precision = Literal["int4", "int8", "fp32", "fp16"]
FORMAT = 5
"""Raised whenever the graphs change: caches of converted models are keyed by it."""


def build(
    architecture: Architecture,
    tensors: TensorSource,
    precision: Precision,
    folder: Path,
    *,
    ragged: bool = True,
) -> None:
    """Write `body`, `biased`, `contexts`, `logits`, `score`, `moments`, `step` and `join`, all `.onnx`, `weights.data`.

    `body` attends causally; `biased` also adds `attention_bias`; `contexts` attends over parallel contexts.  With
    `ragged`, rows of a batch may each bring another number of tokens on top of a cache (needs an ONNX Runtime
    whose attention takes `query_seqlens`); over contexts they always may.  `step` and `join` are for batches that
    live in the memory of a device.
    """
    sizes = (architecture.width, architecture.mlp, architecture.heads * architecture.head_size)
    if precision in ("int4", "int8") and any(size % BLOCK for size in sizes):
        raise Unmet(
            f"{precision} needs layer sizes that are multiples of {BLOCK}, this model has {sizes}: open it in fp32",
            metadata={"precision": precision, "sizes": sizes},
        )
    path = folder / "weights.data"
    with path.open("wb") as stream:
        shared = WeightFile(path, stream)
        bodies: tuple[tuple[Kind, str], ...] = (("causal", "body"), ("biased", "biased"), ("contexts", "contexts"))
        for kind, name in bodies:
            decoder = _Decoder(GraphWriter(shared), architecture, tensors, precision, kind, ragged)
            decoder.body()
            decoder.writer.save(folder / f"{name}.onnx")
        for head in ("logits", "score", "moments"):
            decoder = _Decoder(GraphWriter(shared), architecture, tensors, precision)
            decoder.head(head)
            decoder.writer.save(folder / f"{head}.onnx")
        decoder = _Decoder(GraphWriter(shared), architecture, tensors, precision, "causal", ragged, each_row=True)
        decoder.step()
        decoder.writer.save(folder / "step.onnx")
        writer = GraphWriter(shared)
        write_join(writer, architecture, decoder.dtype)
        writer.save(folder / "join.onnx")


def build_narrow(
    architecture: Architecture,
    tensors: TensorSource,
    precision: Precision,
    folder: Path,
    first: int,
    *,
    ragged: bool = True,
) -> None:
    """Write `body` and `biased`, with a head for the `first` ids in them: their `hidden` are float32 (R, first) logits.

    For a small model whose vocabulary-wide head would take longer than its layers, and a second run as long again.
    """
    path = folder / "weights.data"
    kinds: tuple[tuple[Kind, str], ...] = (("causal", "body"), ("biased", "biased"))
    with path.open("wb") as stream:
        shared = WeightFile(path, stream)
        for kind, name in kinds:
            decoder = _Decoder(GraphWriter(shared), architecture, tensors, precision, kind, ragged, first=first)
            decoder.narrow()
            decoder.writer.save(folder / f"{name}.onnx")


@dataclass
class _Decoder:
    """Writes one graph of a model."""

    writer: GraphWriter
    architecture: Architecture
    tensors: TensorSource
    precision: Precision
    attention: Kind = "causal"
    ragged: bool = True
    each_row: bool = False
    """One token per row, and the states of all rows, instead of those at positions that are asked for."""
    first: int = 0
    """Ids that the head has; 0: all."""
    _summed: set[str] = field(default_factory=set)

    @property
    def dtype(self) -> type:
        return np.float16 if self.precision == "fp16" else np.float32

    @functools.cached_property
    def _attention(self) -> AttentionWriter:
        return AttentionWriter(self.writer, self.architecture, self.dtype, self.attention, self.ragged)

    def body(self) -> None:
        """ids (B, T) -> hidden (R, width), the normed states at flat positions `rows`; present keys, values."""
        self._layers("hidden")
        self.writer.output("hidden", self.dtype, ["rows", self.architecture.width])

    def narrow(self) -> None:
        """ids (B, T) -> hidden, float32 logits (R, first) at flat positions `rows`; present keys, values."""
        self._layers("normed")
        logits = self._linear("output", "normed", "logits")
        self.writer.node("Cast", [logits], "hidden", to=1)
        self.writer.output("hidden", np.float32, ["rows", self.first])

    def _layers(self, out: str) -> None:
        writer, arch = self.writer, self.architecture
        writer.input("input_ids", np.int64, ["batch", "time"])
        writer.input("position_ids", np.int64, ["batch", "time"])
        if not self.each_row:
            writer.input("rows", np.int64, ["rows"])
        self._attention.inputs()
        self._rotary_tables()
        residual, branch = self._embed(), ""
        for layer in range(arch.layers):
            residual, branch = self._layer(layer, residual, branch)
        _, normed = self._norm("norm", residual, branch, self._tensor("norm"))
        if self.each_row:
            writer.node("Reshape", [normed, self._flat(arch.width)], out)
        else:
            writer.node("Identity", [normed], out)

    def step(self) -> None:
        """ids (B, 1) -> `logits` (B, vocab); per row the `best` id, its logit `peak` and the log-sum-exp `total`."""
        self._layers("hidden")
        logits = self._logits()
        writer = self.writer
        # ReduceMax and ReduceLogSumExp would take milliseconds here on a GPU, these microseconds.
        writer.node("ArgMax", [logits], "best", axis=1, keepdims=0)
        column = writer.node("Unsqueeze", ["best", writer.constant("last", np.array([1], np.int64))], "column")
        every = writer.node("LogSoftmax", [logits], "every", axis=-1)
        for tensor, name in ((logits, "peak"), (every, "logprob")):
            chosen = writer.node("GatherElements", [tensor, column], f"{name}_column", axis=1)
            writer.node("Squeeze", [chosen, "last"], name)
        writer.node("Sub", ["peak", "logprob"], "total")
        writer.output("logits", np.float32, ["batch", self.architecture.vocab])
        writer.output("best", np.int64, ["batch"])
        writer.output("peak", np.float32, ["batch"])
        writer.output("total", np.float32, ["batch"])

    def head(self, kind: str) -> None:
        """hidden (R, width) -> float32 `logits` (R, vocab); or `logprobs` (R,) of `targets` (R,); or those
        with the `mean` and `deviation` (R,) of the log-probability under the model's own distribution."""
        writer = self.writer
        writer.input("hidden", self.dtype, ["rows", self.architecture.width])
        logits = self._logits()
        if kind == "logits":
            writer.output("logits", np.float32, ["rows", self.architecture.vocab])
            return
        writer.input("targets", np.int64, ["rows"])
        every = writer.node("LogSoftmax", [logits], "every", axis=-1)
        last = writer.constant("last", np.array([1], np.int64))
        column = writer.node("Unsqueeze", ["targets", last], "column")
        chosen = writer.node("GatherElements", [every, column], "chosen", axis=1)
        writer.node("Squeeze", [chosen, last], "logprobs")
        writer.output("logprobs", np.float32, ["rows"])
        if kind == "moments":
            self._moments(every, last)

    def _logits(self) -> str:
        """`hidden` to float32 `logits`."""
        if self.precision != "fp16":
            return self._linear("output", "hidden", "logits")
        return self.writer.node("Cast", [self._linear("output", "hidden", "logits_half")], "logits", to=1)

    def _flat(self, width: int) -> str:
        return self.writer.constant(f"flat.{width}", np.array([-1, width], np.int64))

    def _moments(self, every: str, last: str) -> None:
        writer = self.writer
        weights = writer.node("Exp", [every], "weights")
        mean = writer.node("ReduceSum", [writer.node("Mul", [weights, every], "weighted"), last], "mean_column")
        distance = writer.node("Sub", [every, mean], "distance")
        square = writer.node("Mul", [distance, distance], "square")
        spread = writer.node("Mul", [weights, square], "spread")
        variance = writer.node("ReduceSum", [spread, last], "variance", keepdims=0)
        writer.node("Squeeze", [mean, last], "mean")
        writer.node("Sqrt", [variance], "deviation")
        writer.output("mean", np.float32, ["rows"])
        writer.output("deviation", np.float32, ["rows"])

    # ------------------------------------------------------------ parts

    def _tensor(self, name: str) -> str:
        return self.writer.weight(name, lambda: self.tensors.tensor(name).astype(self.dtype))

    def _rotary_tables(self) -> None:
        def table(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
            positions = np.arange(self.architecture.context)[:, None]
            return function(positions * self.architecture.inverse_frequencies()).astype(self.dtype)

        self.writer.weight("cos", lambda: table(np.cos))
        self.writer.weight("sin", lambda: table(np.sin))

    def _embed(self) -> str:
        if self.precision in ("fp32", "fp16"):
            return self.writer.node("Gather", [self._tensor("embedding"), "input_ids"], "embedded")
        stored = _Lazy(lambda: quantise8(self.tensors.tensor("embedding")))
        shape = (self.architecture.vocab, self.architecture.width)
        packed = self.writer.weight("embedding.packed", lambda: stored().packed, shape=shape)
        scales = self.writer.weight("embedding.scales", lambda: stored().scales)
        return self.writer.node(
            "GatherBlockQuantized",
            [packed, "input_ids", scales],
            "embedded",
            domain=MICROSOFT,
            bits=8,
            block_size=BLOCK,
            gather_axis=0,
            quantize_axis=1,
        )

    def _layer(self, layer: int, residual: str, branch: str) -> tuple[str, str]:
        """One block; returns the residual stream and the branch that is still to be added to it."""
        writer, prefix = self.writer, f"layers.{layer}."
        residual, normed = self._norm(
            f"{prefix}attention_norm", residual, branch, self._tensor(f"{prefix}attention_norm")
        )
        attended = self._attention.attend(prefix, layer, self._query_key_value(prefix, normed))
        if layer == self.architecture.layers - 1 and not self.each_row:  # nobody reads further positions
            heads = self.architecture.heads * self.architecture.head_size
            flat = writer.node("Reshape", [residual, self._flat(self.architecture.width)], "residual_flat")
            residual = writer.node("Gather", [flat, "rows"], "residual_rows")
            flat = writer.node("Reshape", [attended, self._flat(heads)], "attended_flat")
            attended = writer.node("Gather", [flat, "rows"], "attended_rows")
        projected = self._linear(f"{prefix}o", attended, f"{prefix}o_out")
        residual, normed = self._norm(f"{prefix}mlp_norm", residual, projected, self._tensor(f"{prefix}mlp_norm"))
        return residual, self._mlp(prefix, normed)

    def _norm(self, name: str, residual: str, branch: str, scale: str) -> tuple[str, str]:
        """(residual + branch, its root-mean-square norm)."""
        eps = self.architecture.eps
        if not branch:
            normed = self.writer.node(
                "SimplifiedLayerNormalization", [residual, scale], f"{name}_out", epsilon=eps, axis=-1
            )
            return residual, normed
        self.writer.node(
            "SkipSimplifiedLayerNormalization",
            [residual, branch, scale],
            [f"{name}_out", "", "", f"{name}_sum"],
            domain=MICROSOFT,
            epsilon=eps,
        )
        return f"{name}_sum", f"{name}_out"

    def _query_key_value(self, prefix: str, normed: str) -> list[str]:
        """In one tensor, or apart where each head of query and key is normed by itself (Qwen3)."""
        writer, arch = self.writer, self.architecture
        packed = self._linear(f"{prefix}qkv", normed, f"{prefix}qkv_out", parts=("q", "k", "v"))
        if not arch.qk_norm:
            return [packed]
        names = self._attention.split(prefix, packed)
        apart = writer.constant("apart", np.array([0, 0, -1, arch.head_size], np.int64))
        together = writer.constant("together", np.array([0, 0, -1], np.int64))
        for place, part in enumerate("qk"):
            heads = writer.node("Reshape", [names[place], apart], f"{prefix}{part}_heads")
            scale = self._tensor(f"{prefix}{part}_norm")
            _, normed = self._norm(f"{prefix}{part}_norm", heads, "", scale)
            names[place] = writer.node("Reshape", [normed, together], f"{prefix}{part}_flat")
        return names

    def _mlp(self, prefix: str, normed: str) -> str:
        writer = self.writer
        gate = self._linear(f"{prefix}gate", normed, f"{prefix}gate_out")
        up = self._linear(f"{prefix}up", normed, f"{prefix}up_out")
        opened = writer.node("QuickGelu", [gate], f"{prefix}silu", domain=MICROSOFT, alpha=1.0)
        inner = writer.node("Mul", [opened, up], f"{prefix}inner")
        return self._linear(f"{prefix}down", inner, f"{prefix}down_out")

    def _linear(self, name: str, x: str, out: str, parts: tuple[str, ...] = ()) -> str:
        """x times the named matrix, or several stacked ones (`parts` replace the last piece of the name)."""
        stem = name.rpartition(".")[0]
        names = [f"{stem}.{part}" for part in parts] or [name]
        if name == "output" and self.architecture.tied:
            names = ["embedding"]
        matrix = _Lazy(lambda: np.concatenate([self.tensors.tensor(each) for each in names])[: self._shape(name)[0]])
        bias = ""
        if parts and self.architecture.qkv_bias:
            bias = self.writer.weight(
                f"{name}_bias",
                lambda: np.concatenate([self.tensors.tensor(f"{each}_bias") for each in names]).astype(self.dtype),
            )
        if self.precision in ("fp32", "fp16"):
            transposed = self.writer.weight(f"{name}.matrix", lambda: matrix().T.astype(self.dtype))
            product = self.writer.node("MatMul", [x, transposed], f"{out}_product" if bias else out)
            return self.writer.node("Add", [product, bias], out) if bias else product
        return self._quantised(name, x, out, matrix, bias)

    def _quantised(self, name: str, x: str, out: str, matrix: Callable[[], np.ndarray], bias: str) -> str:
        rows, columns = self._shape(name)
        head = name == "output"
        four = self.precision == "int4" and not head  # 4 bits in the head cost more than they save
        store = "embedding" if head and self.architecture.tied and not self.first else name
        stored = _Lazy(lambda: (quantise4 if four else quantise8)(matrix()))
        columns += block_sums(columns).shape[1] if four else 0
        shape = (rows, columns // BLOCK, BLOCK // 2 if four else BLOCK)
        return self.writer.node(
            "MatMulNBits",
            [
                self._with_sums(x, self._shape(name)[1]) if four else x,
                self.writer.weight(f"{name}.packed", lambda: stored().packed, f"{store}.packed", shape),
                self.writer.weight(f"{name}.scales", lambda: stored().scales, f"{store}.scales"),
                self.writer.weight(f"{name}.zeros", lambda: stored().zeros) if four else "",
                "",
                bias,
            ],
            out,
            domain=MICROSOFT,
            K=columns,
            N=rows,
            bits=4 if four else 8,
            block_size=BLOCK,
            accuracy_level=4,
        )

    def _with_sums(self, x: str, columns: int) -> str:
        """The input with the sums of its blocks behind it, for `quantise4`."""
        name = f"{x}_with_sums"
        if name not in self._summed:
            self._summed.add(name)
            table = self.writer.weight(f"sums.{columns}", lambda: block_sums(columns))
            sums = self.writer.node("MatMul", [x, table], f"{x}_sums")
            self.writer.node("Concat", [x, sums], name, axis=-1)
        return name

    def _shape(self, name: str) -> tuple[int, int]:
        """(out, in) of a linear layer."""
        arch, part = self.architecture, name.rpartition(".")[2]
        inner = arch.heads * arch.head_size
        shapes: Mapping[str, tuple[int, int]] = {
            "qkv": (inner + 2 * arch.kv_heads * arch.head_size, arch.width),
            "o": (arch.width, inner),
            "gate": (arch.mlp, arch.width),
            "up": (arch.mlp, arch.width),
            "down": (arch.width, arch.mlp),
            "output": (self.first or arch.vocab, arch.width),
        }
        return shapes[part]


class _Lazy:
    """A value made on first use."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None

    def __call__(self) -> Any:
        if self._made is None:
            self._made = self._make()
        return self._made
