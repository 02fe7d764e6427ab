"""A Llama-shaped decoder in PyTorch with a static cache and a captured step: what our step is measured against."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


def rate(shape: Mapping[str, int], rows: int, context: int, steps: int) -> float:
    """Tokens a second of fp16 steps over a cache of `context` positions; the likeliest token stays on the device."""
    import torch

    torch.manual_seed(0)
    step = _Step(torch, shape, rows, context)
    with torch.inference_mode():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        for _ in range(10):
            graph.replay()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            graph.replay()
            step.best.cpu()
        return rows * steps / (time.perf_counter() - start)


class _Step:
    def __init__(self, torch: Any, shape: Mapping[str, int], rows: int, context: int) -> None:
        self.torch, self.shape, self.rows = torch, shape, rows
        a = shape

        def weights(*size: int) -> Any:
            return torch.randn(*size, device="cuda", dtype=torch.float16) * size[-1] ** -0.5

        self.packed = (a["heads"] + 2 * a["kv_heads"]) * a["head_size"]
        inner = a["heads"] * a["head_size"]
        self.layers = [
            (weights(self.packed, a["width"]), weights(a["width"], inner), weights(2 * a["mlp"], a["width"]),
             weights(a["width"], a["mlp"]), weights(rows, a["kv_heads"], context, a["head_size"]),
             weights(rows, a["kv_heads"], context, a["head_size"]))
            for _ in range(a["layers"])
        ]  # fmt: skip
        self.embedding = weights(a["vocab"], a["width"])
        self.scale = torch.ones(a["width"], device="cuda", dtype=torch.float16)
        self.ids = torch.arange(1, rows + 1, device="cuda")
        self.place = torch.full((1,), context - 1, device="cuda")
        angle = torch.rand(1, 1, 1, a["head_size"], device="cuda", dtype=torch.float16)
        self.cos, self.sin = angle.cos(), angle.sin()
        self.best: Any = None

    def __call__(self) -> None:
        functional = self.torch.nn.functional
        a = self.shape
        x = functional.embedding(self.ids, self.embedding)
        for qkv, out, gate_up, down, keys, values in self.layers:
            packed = functional.linear(self._norm(x), qkv).view(self.rows, 1, -1, a["head_size"]).transpose(1, 2)
            query, key, value = packed.split([a["heads"], a["kv_heads"], a["kv_heads"]], dim=1)
            query, key = self._rotated(query), self._rotated(key)
            keys.index_copy_(2, self.place, key)
            values.index_copy_(2, self.place, value)
            mixed = functional.scaled_dot_product_attention(query, keys, values, enable_gqa=True)
            x = x + functional.linear(mixed.transpose(1, 2).reshape(self.rows, -1), out)
            gate, up = functional.linear(self._norm(x), gate_up).chunk(2, dim=-1)
            x = x + functional.linear(functional.silu(gate) * up, down)
        self.best = functional.linear(self._norm(x), self.embedding).float().argmax(-1)

    def _norm(self, x: Any) -> Any:
        return self.torch.nn.functional.rms_norm(x, (x.shape[-1],), self.scale, 1e-5)

    def _rotated(self, x: Any) -> Any:
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + self.torch.cat((-second, first), dim=-1) * self.sin
