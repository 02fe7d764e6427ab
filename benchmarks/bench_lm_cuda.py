"""The language-model engine on a GPU with fp16 weights: tokens a second by rows, captured graphs and not, prefill.

Random weights of SmolLM2-135M's shape, since speed does not depend on them; results are compared with the CPU's in
fp32.  Without a GPU there is one row that says so.  `PICKAXE_BENCH_PEER=torch` also times the same shape in PyTorch
(static cache, SDPA, CUDA graph), where it is installed.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = {"layers": 30, "width": 576, "heads": 9, "kv_heads": 3, "head_size": 64, "mlp": 1536, "vocab": 49152}
CONTEXT = 1024
STEPS = 100
ROWS = (1, 8, 64)
NAME = "random-135m"


def run() -> Iterator[dict[str, Any]]:
    import pickaxe
    from pickaxe.errors import RuntimeMissing
    from pickaxe.lm import EngineSettings
    from pickaxe.session import Runtime

    try:
        Runtime("cuda")
    except RuntimeMissing as missing:
        yield {"name": "lm-cuda", "ours": None, "peer": None, "ratio": None, "unit": "tokens/s", "n": 0,
               "note": str(missing)}  # fmt: skip
        return
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(Path(folder) / NAME)
        settings = EngineSettings(rows=64, cache_bytes=8 * 2**30, prefix_bytes=0)
        lm = pickaxe.Host(device="cuda", engine=settings).lm_at(model)
        cpu = pickaxe.Host(device="cpu", engine=settings).lm_at(model, precision="fp32")
        yield agreement(lm, cpu)
        peer = torch_peer() if os.environ.get("PICKAXE_BENCH_PEER") == "torch" else {}
        for rows in ROWS:
            yield row(f"step, {rows} rows", decode(lm, rows), peer.get(rows), "captured graph; peer: PyTorch")
            yield row(f"engine, {rows} requests", engine(lm, rows), None, "prompts of 16, 128 tokens each, greedy")
            yield row(f"engine, {rows} requests, temperature 1", engine(lm, rows, 1.0), None, "drawn on the host")
        yield row("prefill, 8 x 512", prefill(lm, 8, 512), None, "logits of the last positions")


def row(name: str, ours: float, peer: float | None, note: str) -> dict[str, Any]:
    ratio = None if peer is None else ours / peer
    return {"name": f"lm-cuda: {name}", "ours": ours, "peer": peer, "ratio": ratio, "unit": "tokens/s", "n": STEPS,
            "note": note}  # fmt: skip


def random_model(folder: Path) -> Path:
    """A checkpoint in the usual layout, with a vocabulary of made-up words."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models

    folder.mkdir()
    a = SHAPE
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": a["width"],
        "intermediate_size": a["mlp"], "num_hidden_layers": a["layers"], "num_attention_heads": a["heads"],
        "num_key_value_heads": a["kv_heads"], "head_dim": a["head_size"], "vocab_size": a["vocab"],
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "tie_word_embeddings": True,
        "hidden_act": "silu", "eos_token_id": 0, "bos_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (random.standard_normal((rows, columns), np.float32) / np.sqrt(columns)).astype(np.float32)

    queries, keys = a["heads"] * a["head_size"], a["kv_heads"] * a["head_size"]
    tensors = {"model.embed_tokens.weight": matrix(a["vocab"], a["width"]), "model.norm.weight": np.ones(a["width"])}
    sizes = {"self_attn.q_proj": (queries, a["width"]), "self_attn.k_proj": (keys, a["width"]),
             "self_attn.v_proj": (keys, a["width"]), "self_attn.o_proj": (a["width"], queries),
             "mlp.gate_proj": (a["mlp"], a["width"]), "mlp.up_proj": (a["mlp"], a["width"]),
             "mlp.down_proj": (a["width"], a["mlp"])}  # fmt: skip
    for layer in range(a["layers"]):
        for name, size in sizes.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = matrix(*size)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = np.ones(a["width"])
    save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, str(folder / "model.safetensors"))
    words = {f"w{number}": number for number in range(a["vocab"])}
    Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "w0", "bos_token": "w0"}))
    return folder


def prompt(row: int, length: int) -> list[int]:
    return [1 + (row * 7919 + place * 31) % 40_000 for place in range(length)]


def agreement(lm: Any, cpu: Any) -> dict[str, Any]:
    """Largest difference of logits to the CPU's in fp32, over their standard deviation: prompts, then steps."""
    rows = 3
    worst, chosen = 0.0, 0
    batch = lm.network.batch(lm.engine.settings.rows, 64)
    caches, tokens = [], []
    for place in range(rows):
        mine, cache = lm.prefill(prompt(place, 20 + place))
        theirs, other = cpu.prefill(prompt(place, 20 + place))
        worst = max(worst, float(np.abs(mine - theirs).max() / theirs.std()))
        batch.join(cache)
        caches.append(other)
        tokens.append(int(theirs.argmax()))
    for _ in range(8):
        outcome = batch.step(tokens)
        for place in range(rows):
            theirs, caches[place] = cpu.prefill([tokens[place]], past=caches[place])
            worst = max(worst, float(np.abs(outcome.logits[place] - theirs).max() / theirs.std()))
            chosen += int(outcome.best[place] == theirs.argmax())
            tokens[place] = int(theirs.argmax())
    note = f"{chosen} of {rows * 8} likeliest tokens equal"
    return {"name": "lm-cuda: logits against the CPU in fp32", "ours": worst, "peer": None, "ratio": None,
            "unit": "of their standard deviation", "n": rows * 8, "note": note}  # fmt: skip


def decode(lm: Any, rows: int) -> float:
    """Tokens a second of bare steps over a cache of `CONTEXT` positions."""
    batch = lm.network.batch(lm.engine.settings.rows, CONTEXT + 2 * STEPS)
    _, cache = lm.prefill(prompt(0, CONTEXT - STEPS))
    for _ in range(rows):
        batch.join(cache)
    tokens = list(range(1, rows + 1))
    for _ in range(10):
        batch.step(tokens)
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        batch.step(tokens)
        times.append(time.perf_counter() - start)
    return rows / statistics.median(times)


def engine(lm: Any, rows: int, temperature: float = 0.0) -> float:
    """Tokens a second of requests that come at once, each from a thread of its own."""
    from pickaxe import Call, Sampling
    from pickaxe.lm import Generation

    said = [0] * rows

    def ask(place: int) -> None:
        request = Generation(prompt(place, 16), Sampling(max_tokens=128, temperature=temperature, seed=place))
        said[place] = sum(1 for _ in lm.generate(request, Call()))

    rates = []
    for _ in range(3):
        threads = [threading.Thread(target=ask, args=(place,)) for place in range(rows)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rates.append(sum(said) / (time.perf_counter() - start))
    return max(rates)


def prefill(lm: Any, rows: int, length: int) -> float:
    ids = np.array([prompt(place, length) for place in range(rows)])
    times = []
    for _ in range(6):
        start = time.perf_counter()
        lm.forward(ids)
        times.append(time.perf_counter() - start)
    return rows * length / statistics.median(times[1:])


def torch_peer() -> dict[int, float]:
    """Tokens a second of the same shape in PyTorch by rows: one captured step, replayed."""
    from benchmarks import _torch_llama

    return {rows: _torch_llama.rate(SHAPE, rows, CONTEXT, STEPS) for rows in ROWS}


if __name__ == "__main__":
    for line in run():
        print(json.dumps(line), flush=True)
