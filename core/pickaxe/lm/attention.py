"""How tokens attend to each other: ONNX Runtime's fused operator, or products and a softmax spelled out.

Spelled out is a bias in fp16, since under a bias the fused operator of a GPU gives rows of unlike lengths another
attention (ONNX Runtime 1.31).  And so is the attention of APE (arXiv 2502.05431), one softmax over parallel contexts:
keys of contexts that were read apart from each other get a temperature T of their own, and a scale S on their
log-sum-exp L against that of all other keys.  With s = q.k / sqrt(head size), its two merged softmaxes are one over
s / T + (S T - 1) L for the keys of contexts, with L the log-sum-exp of their s / T, and s for all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pickaxe.errors import InvalidParams
from pickaxe.lm.weights import Architecture
from pickaxe.lm.writer import MICROSOFT, GraphWriter

Kind = Literal["causal", "biased", "contexts"]
"""Attention of a body graph: plain; with a bias added to its scores; over parallel contexts."""
UNSEEN = -1e9
"""Added to scores of keys that do not count, in float32."""


@dataclass(frozen=True, eq=False)
class Contexts:
    """Which cached tokens are contexts that were read apart, and how they are attended to (arXiv 2502.05431).

    `mask` (slots,), or (1 or B, slots), is true where a slot of the cache holds a context's token; slots beyond
    belong to no context.  `temperature` T > 0 divides the scores of their keys, `scale` S > 0 multiplies their
    log-sum-exp; at 1 and 1 attention is the ordinary one.  Numbers, or one per row.
    """

    mask: np.ndarray
    temperature: float | np.ndarray = 1.0
    scale: float | np.ndarray = 1.0

    def __post_init__(self) -> None:
        if self.mask.dtype != np.bool_ or self.mask.ndim not in (1, 2):
            raise InvalidParams(
                "contexts.mask", f"is {self.mask.dtype} of shape {self.mask.shape}; must be bool (B, n)"
            )
        for name in ("temperature", "scale"):
            value = np.asarray(getattr(self, name))
            if value.ndim > 1 or not (np.isfinite(value) & (value > 0)).all():
                raise InvalidParams(f"contexts.{name}", f"is {value}; must be a positive number, or one per row")

    def check(self, lengths: np.ndarray) -> None:
        """Raise unless this fits a cache whose rows have these lengths."""
        marked = np.atleast_2d(self.mask)
        given = {"mask": len(marked), "temperature": np.size(self.temperature), "scale": np.size(self.scale)}
        for name, count in given.items():
            if count not in (1, len(lengths)):
                raise InvalidParams(f"contexts.{name}", f"has {count} rows; must have 1 or {len(lengths)}")
        if (marked & (np.arange(marked.shape[1]) >= lengths[:, None])).any():
            raise InvalidParams("contexts.mask", f"marks slots beyond the {lengths.tolist()} that `past` has")

    def feeds(self, past: np.ndarray, width: int, capacity: int, architecture: Architecture) -> dict[str, np.ndarray]:
        """What the graph asks for, for `width` new tokens per row on top of `past` (B,) in memory of `capacity`."""
        rows = len(past)
        inside = np.zeros((rows, capacity), bool)
        marked = np.atleast_2d(self.mask)[:, :capacity]
        inside[:, : marked.shape[1]] = marked
        temperature, scale = (np.broadcast_to(value, rows)[:, None] for value in (self.temperature, self.scale))
        per_key = {
            "score_factor": np.where(inside, 1 / temperature, 1),
            "context_bias": np.where(inside, 0, UNSEEN),
            "context_shift": np.where(inside, scale * temperature - 1, 0),
        }
        return {
            **spelled_feeds(past, width, capacity, architecture),
            **{name: value[:, None, None].astype(np.float32) for name, value in per_key.items()},
        }


def is_spelled_out(kind: Kind, dtype: type) -> bool:
    """Whether a graph of that kind asks for `spelled_feeds`."""
    return kind == "contexts" or (kind == "biased" and dtype is np.float16)


def spelled_feeds(
    past: np.ndarray, width: int, capacity: int, architecture: Architecture, bias: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Where `width` new tokens per row on top of `past` (B,) go in memory of `capacity`, and what they see.

    `bias` (1 or B, 1, width, S) with S up to the capacity is added to the scores of the keys that they see.
    """
    rows, group = len(past), architecture.heads // architecture.kv_heads
    written = past[:, None] + np.arange(width)
    slots = np.empty((rows, architecture.kv_heads, width, 3), np.int64)
    slots[..., 0] = np.arange(rows)[:, None, None]
    slots[..., 1] = np.arange(architecture.kv_heads)[:, None]
    slots[..., 2] = written[:, None]
    scores = np.where(np.arange(capacity) <= written[..., None], np.float32(0), np.float32(UNSEEN))[:, None]
    if bias is not None:
        scores[..., : bias.shape[-1]] += bias
    return {"slots": slots, "score_bias": scores, "token_of_query": np.arange(width).repeat(group)}


@dataclass
class AttentionWriter:
    """Writes the attention of one graph, layer by layer."""

    writer: GraphWriter
    architecture: Architecture
    dtype: type
    kind: Kind
    ragged: bool

    def inputs(self) -> None:
        """The graph's inputs that say who attends to whom."""
        writer = self.writer
        if is_spelled_out(self.kind, self.dtype):
            writer.input("slots", np.int64, ["batch", self.architecture.kv_heads, "time", 3])
            writer.input("score_bias", np.float32, ["batch", 1, "time", "capacity"])
            writer.input("token_of_query", np.int64, ["queries"])
            writer.node("Gather", ["score_bias", "token_of_query"], "query_bias", axis=2)
            for name in ("score_factor", "context_bias", "context_shift") if self.kind == "contexts" else ():
                writer.input(name, np.float32, ["batch", 1, 1, "capacity"])
            return
        writer.input("seqlens_k", np.int32, ["batch"])
        writer.input("total_sequence_length", np.int32, [])
        if self.ragged:
            writer.input("query_seqlens", np.int32, ["batch"])
        if self.kind == "biased":
            writer.input("attention_bias", self.dtype, ["bias_batch", 1, "time", "total"])

    def attend(self, prefix: str, layer: int, packed: list[str]) -> str:
        """The heads' outputs (B, T, heads * head_size) for `packed`: query, key and value in one, or three."""
        arch = self.architecture
        shape: list[str | int] = ["batch", arch.kv_heads, "past", arch.head_size]
        past = [self.writer.input(f"past_{kind}.{layer}", self.dtype, shape) for kind in ("key", "value")]
        present = [f"present_{kind}.{layer}" for kind in ("key", "value")]
        shape[2] = "present"
        for name in present:
            self.writer.output(name, self.dtype, shape)
        if is_spelled_out(self.kind, self.dtype):
            query, key, value = packed if len(packed) == 3 else self.split(prefix, packed[0])
            return self._spelled(prefix, query, [key, value], past, present)
        return self._fused(prefix, [*packed, "", ""][:3], past, present)

    def split(self, prefix: str, packed: str) -> list[str]:
        """Query, key and value (B, T, their heads * head_size)."""
        arch = self.architecture
        sizes = [arch.heads * arch.head_size, arch.kv_heads * arch.head_size, arch.kv_heads * arch.head_size]
        names = [f"{prefix}{part}_split" for part in "qkv"]
        self.writer.node("Split", [packed, self._shape("qkv_sizes", sizes)], names, axis=-1)
        return names

    def _fused(self, prefix: str, qkv: list[str], past: list[str], present: list[str]) -> str:
        arch = self.architecture
        tail = ["attention_bias" if self.kind == "biased" else ""]
        if self.ragged:
            tail += ["", "", "", "", "", "query_seqlens"]
        return self.writer.node(
            "GroupQueryAttention",
            [*qkv, *past, "seqlens_k", "total_sequence_length", "cos", "sin", "position_ids", *tail],
            [f"{prefix}attended", *present],
            domain=MICROSOFT,
            num_heads=arch.heads,
            kv_num_heads=arch.kv_heads,
            do_rotary=1,
            rotary_interleaved=int(arch.rope_interleaved),
            scale=arch.head_size**-0.5,
        )

    # ------------------------------------------------------------ spelled out

    def _spelled(self, prefix: str, query: str, new: list[str], past: list[str], present: list[str]) -> str:
        """Heads that share keys are queries of one matrix product: token t's are rows t * group and on."""
        writer, arch = self.writer, self.architecture
        new[0] = self._apart(f"{prefix}key", self._rotated(f"{prefix}key", new[0]), "kv_heads")
        new[1] = self._apart(f"{prefix}value", new[1], "kv_heads")
        # past and present may be one memory: the operator then writes the new slots alone
        keys, values = (
            writer.node("ScatterND", [before, "slots", fresh], after)
            for before, fresh, after in zip(past, new, present, strict=True)
        )
        grouped = self._apart(f"{prefix}query", self._rotated(f"{prefix}query", query), "groups")
        flat = writer.node("Reshape", [grouped, self._shape("query_rows", [0, 0, -1, arch.head_size])], f"{prefix}rows")
        scores = writer.node(
            "FusedMatMul", [flat, keys], f"{prefix}scores", domain=MICROSOFT, transB=1, alpha=arch.head_size**-0.5
        )
        scores = self._cast(scores, np.float32)
        if self.kind == "contexts":
            scores = self._tempered(prefix, scores)
        masked = writer.node("Add", [scores, "query_bias"], f"{prefix}masked")
        weights = writer.node("Softmax", [masked], f"{prefix}weights", axis=-1)
        out = writer.node("MatMul", [self._cast(weights, self.dtype), values], f"{prefix}mixed")
        group = arch.heads // arch.kv_heads
        parted = self._shape("mixed_groups", [0, 0, -1, group, arch.head_size])
        heads = writer.node("Reshape", [out, parted], f"{prefix}mixed_groups")
        ordered = writer.node("Transpose", [heads], f"{prefix}mixed_tokens", perm=[0, 2, 1, 3, 4])
        return writer.node("Reshape", [ordered, self._shape("joined", [0, 0, arch.heads * arch.head_size])],
                           f"{prefix}attended")  # fmt: skip

    def _tempered(self, prefix: str, scores: str) -> str:
        """The scores under the contexts' temperature and scale, in float32."""
        writer = self.writer
        tempered = writer.node("Mul", [scores, "score_factor"], f"{prefix}tempered")
        inside = writer.node("Add", [tempered, "context_bias"], f"{prefix}inside")
        total = writer.node(
            "ReduceLogSumExp", [inside, self._shape("keys_axis", [-1])], f"{prefix}context_total", keepdims=1
        )
        shift = writer.node("Mul", [total, "context_shift"], f"{prefix}shift")
        return writer.node("Add", [tempered, shift], f"{prefix}shifted")

    def _rotated(self, name: str, x: str) -> str:
        return self.writer.node(
            "RotaryEmbedding",
            [x, "position_ids", "cos", "sin"],
            f"{name}_rotated",
            domain=MICROSOFT,
            interleaved=int(self.architecture.rope_interleaved),
        )

    def _apart(self, name: str, x: str, by: Literal["kv_heads", "groups"]) -> str:
        """(B, T, heads * size) to (B, kv_heads, T, size), or to (B, kv_heads, T, group, size)."""
        arch = self.architecture
        sizes = [arch.head_size] if by == "kv_heads" else [arch.heads // arch.kv_heads, arch.head_size]
        shape = self._shape(by, [0, 0, arch.kv_heads, *sizes])
        heads = self.writer.node("Reshape", [x, shape], f"{name}_heads")
        order = [0, 2, 1, *range(3, 3 + len(sizes))]
        return self.writer.node("Transpose", [heads], f"{name}_apart", perm=order)

    def _cast(self, x: str, dtype: type) -> str:
        """x as this type: only half-precision graphs have two."""
        if self.dtype is np.float32:
            return x
        to: Any = self.writer.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.writer.node("Cast", [x], f"{x}_cast", to=to)

    def _shape(self, name: str, sizes: list[int]) -> str:
        return self.writer.constant(name, np.array(sizes, np.int64))
