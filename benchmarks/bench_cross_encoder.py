"""A cross-encoder of MiniLM's size scoring 100 passages, against sentence-transformers' CrossEncoder on a CPU.

The weights are MiniLM's with a classifier of random numbers: what is measured is time, and that both agree.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
from safetensors.numpy import load_file, save_file

import pickaxe
from benchmarks._pairs import alternate, rate
from pickaxe.encoder.graph import Precision
from pickaxe.models import ModelStore
from pickaxe.onnx_runtime import cores

PASSAGES = 100
SENTENCE = "Green tea is brewed at about {} degrees and black tea with boiling water, as {} of {} people say. "


def run() -> Iterator[dict[str, Any]]:
    with TemporaryDirectory() as folder:
        model = made(Path(folder) / "model")
        host = pickaxe.Host()
        for (name, longest), precision in product((("short", 2), ("mixed", 8)), get_args(Precision)):
            cross = host.cross_encoder(str(model), precision)
            passages = [SENTENCE.format(row, row % 7, row % 11) * (1 + row % longest) for row in range(PASSAGES)]
            pairs = [("how hot should the water for green tea be", passage) for passage in passages]
            peer, note = other(model, pairs, cross.score(pairs))
            seconds = alternate(partial(cross.score, pairs), peer, 3)
            what = f"score {PASSAGES} {name} passages of one query in {precision}"
            yield rate(what, PASSAGES, seconds, "passages/s", note)


def made(folder: Path) -> Path:
    """MiniLM's files with a pooler and a classifier."""
    source = ModelStore().path("encoder")
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    config = json.loads((source / "config.json").read_text()) | {"num_labels": 1}
    config |= {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    (folder / "config.json").write_text(json.dumps(config))
    random, width = np.random.default_rng(0), config["hidden_size"]
    tensors = {
        name if name.startswith("bert.") else f"bert.{name}": array
        for name, array in load_file(str(source / "model.safetensors")).items()
        if "position_ids" not in name and "pooler" not in name
    }
    for name, rows in (("bert.pooler.dense", width), ("classifier", 1)):
        tensors[f"{name}.weight"] = (random.standard_normal((rows, width)) / width**0.5).astype(np.float32)
        tensors[f"{name}.bias"] = np.zeros(rows, np.float32)
    save_file(tensors, str(folder / "model.safetensors"), {"format": "pt"})
    return folder


def other(model: Path, pairs: list[tuple[str, str]], ours: np.ndarray) -> tuple[Callable[[], object] | None, str]:
    """The peer, and how far its scores are from ours."""
    if importlib.util.find_spec("sentence_transformers") is None:
        return None, "sentence-transformers is not installed"
    library = importlib.import_module("sentence_transformers")
    torch = importlib.import_module("torch")
    torch.set_num_threads(cores())
    cross = library.CrossEncoder(str(model), device="cpu", max_length=512)
    raw = torch.nn.Identity()
    far = float(np.abs(np.asarray(cross.predict(pairs, activation_fn=raw)).reshape(-1) - ours).max())
    note = f"both on {cores()} threads, pairs of texts to logits, which differ by at most {far:.1e}"
    return lambda: cross.predict(pairs, activation_fn=raw), note
