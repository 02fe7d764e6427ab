"""Scores of pairs against the same network written out in float64 NumPy, and against an exported graph of it."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import pickaxe
from pickaxe.call import Call
from pickaxe.cross_encoder import CrossEncoder, _fitting
from pickaxe.errors import ArtifactCorrupt, Cancelled, ModelMissing, Unmet
from pickaxe.models import ModelStore
from pickaxe.session import Runtime

WIDTH, POSITIONS, VOCABULARY = 8, 24, 30522
erf = np.vectorize(math.erf)

PAIRS = [
    ("how hot is tea", "Green tea is brewed at 80 degrees."),
    ("", ""),
    ("how hot is tea", ""),
    ("日本語", "🎉 and more"),
    ("moon", "The Moon turns once on its axis for every orbit around the Earth. " * 5),
    ("how hot is tea", "tea"),
]


@functools.cache
def runtime() -> Runtime:
    return Runtime("cpu", threads=1)


def tiny(directory: Path, pool: str | None = "pooler", outputs: int = 1, **config: object) -> Path:
    """A random cross-encoder of two layers with MiniLM's tokenizer."""
    directory.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_bytes((ModelStore().path("encoder") / name).read_bytes())
    settings = {"model_type": "bert", "hidden_size": WIDTH, "num_attention_heads": 2, "num_hidden_layers": 2,
                "layer_norm_eps": 1e-12, "max_position_embeddings": POSITIONS, "hidden_act": "gelu",
                **config}  # fmt: skip
    if pool is not None:
        settings["pickaxe_head"] = {"pool": pool, "outputs": outputs}
    (directory / "config.json").write_text(json.dumps(settings))
    random = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        "bert.embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "bert.embeddings.token_type_embeddings.weight": (2, WIDTH),
        "classifier.weight": (outputs, WIDTH),
        "classifier.bias": (outputs,),
    }
    if pool != "cls":
        shapes |= {"bert.pooler.dense.weight": (WIDTH, WIDTH), "bert.pooler.dense.bias": (WIDTH,)}
    dense = {"attention.self.query": (WIDTH, WIDTH), "attention.self.key": (WIDTH, WIDTH),
             "attention.self.value": (WIDTH, WIDTH), "attention.output.dense": (WIDTH, WIDTH),
             "intermediate.dense": (4 * WIDTH, WIDTH), "output.dense": (WIDTH, 4 * WIDTH)}  # fmt: skip
    norms = ["bert.embeddings.LayerNorm"]
    for layer in range(2):
        prefix = f"bert.encoder.layer.{layer}"
        for name, shape in dense.items():
            shapes |= {f"{prefix}.{name}.weight": shape, f"{prefix}.{name}.bias": shape[:1]}
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.output.LayerNorm"]
    for name in norms:
        shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    tensors = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, str(directory / "model.safetensors"))
    return directory


def reference(model: Path, rows: Sequence[tuple[list[int], int]], pool: str) -> np.ndarray:
    """Logits (n, outputs) of token rows, whose second segment starts at the given place, one by one."""
    weights = {
        name.removeprefix("bert."): array.astype(np.float64)
        for name, array in load_file(str(model / "model.safetensors")).items()
    }

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def split(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), 2, -1).swapaxes(0, 1)

    def logits(row: list[int], second: int) -> np.ndarray:
        segments = (np.arange(len(row)) >= second).astype(int)
        x = weights["embeddings.word_embeddings.weight"][row]
        x = x + weights["embeddings.position_embeddings.weight"][: len(row)]
        x = norm(x + weights["embeddings.token_type_embeddings.weight"][segments], "embeddings.LayerNorm")
        for layer in range(2):
            prefix = f"encoder.layer.{layer}"
            q, k, v = (split(dense(x, f"{prefix}.attention.self.{part}")) for part in ("query", "key", "value"))
            weight = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]))
            mixed = (weight / weight.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(row), -1)
            x = norm(x + dense(mixed, f"{prefix}.attention.output.dense"), f"{prefix}.attention.output.LayerNorm")
            inner = dense(x, f"{prefix}.intermediate.dense")
            x = norm(x + dense(inner * (1 + erf(inner / np.sqrt(2))) / 2, f"{prefix}.output.dense"),
                     f"{prefix}.output.LayerNorm")  # fmt: skip
        state = x.mean(axis=0) if pool == "mean" else x[0]
        if pool == "pooler":
            state = np.tanh(dense(state, "pooler.dense"))
        return dense(state, "classifier")

    return np.stack([logits(*row) for row in rows])


def by_hand(model: Path, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], int]]:
    """[CLS] first [SEP] second [SEP], the second cut to the model's length, and where the second segment starts."""
    tokenizer = CrossEncoder.open(ModelStore(), runtime(), str(model)).tokenizer
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    assert cls is not None
    assert sep is not None
    rows = []
    for first, second in pairs:
        start = [cls, *tokenizer.encode(first), sep]
        rows.append(([*start, *tokenizer.encode(second)[: POSITIONS - len(start) - 1], sep], len(start)))
    return rows


@pytest.mark.parametrize(("pool", "outputs"), [("cls", 1), ("mean", 1), ("pooler", 3), (None, 1)])
def test_equals_the_network_in_double_precision(tmp_path: Path, pool: str | None, outputs: int) -> None:
    model = tiny(tmp_path / "model", pool, outputs)
    cross = CrossEncoder.open(ModelStore(), runtime(), str(model))
    expected = reference(model, by_hand(model, PAIRS), pool or "pooler")
    found = cross.score(PAIRS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected if outputs > 1 else expected[:, 0], atol=2e-5)
    assert cross.score([]).shape == ((0, outputs) if outputs > 1 else (0,))
    assert cross.max_tokens == POSITIONS


def test_eight_bits_come_near() -> None:
    exact, rounded = (CrossEncoder.open(ModelStore(), runtime(), precision=each) for each in ("fp32", "int8"))
    wanted, found = exact.score(PAIRS), rounded.score(PAIRS)
    assert 0.98 < np.corrcoef(wanted, found)[0, 1] < 1 - 1e-6
    assert rounded.digest != exact.digest


@pytest.mark.parametrize("pool", ["cls", "mean", "pooler"])
def test_neighbours_do_not_matter_in_eight_bits(tmp_path: Path, pool: str) -> None:
    cross = CrossEncoder.open(ModelStore(), runtime(), str(tiny(tmp_path / "model", pool)), "int8")
    np.testing.assert_allclose([cross.score([pair])[0] for pair in PAIRS], cross.score(PAIRS), atol=1e-5)


def test_order_and_neighbours_do_not_matter(tmp_path: Path) -> None:
    cross = CrossEncoder.open(ModelStore(), runtime(), str(tiny(tmp_path / "model")))
    together = cross.score(PAIRS)
    np.testing.assert_allclose(cross.score(PAIRS[::-1])[::-1], together, atol=1e-5)
    np.testing.assert_allclose([cross.score([pair])[0] for pair in PAIRS], together, atol=1e-5)
    assert cross.score([("a", "b")])[0] != pytest.approx(cross.score([("b", "a")])[0], abs=1e-4)


@pytest.mark.parametrize(
    ("first", "second", "room", "kept"),
    [(3, 4, 10, (3, 4)), (3, 40, 10, (3, 7)), (9, 40, 10, (9, 1)), (10, 40, 10, (5, 5)), (40, 3, 10, (7, 3)),
     (40, 40, 11, (6, 5)), (40, 0, 10, (10, 0)), (10, 0, 10, (10, 0))],
)  # fmt: skip
def test_the_second_text_is_cut_unless_the_first_leaves_no_room(
    first: int, second: int, room: int, kept: tuple[int, int]
) -> None:
    one, other = _fitting(list(range(first)), list(range(second)), room)
    assert (one, other) == (list(range(kept[0])), list(range(kept[1])))


def export(model: Path, path: Path, segments: bool = True) -> None:
    """A graph as others export it, with plain operators only: the sum of ids where the mask is set, and of segments."""
    from onnx import TensorProto, helper, save

    names = ["input_ids", "attention_mask", *(["token_type_ids"] if segments else [])]
    nodes = [helper.make_node("Mul", ["input_ids", "attention_mask"], ["used"])]
    nodes.append(helper.make_node("Add", ["used", "token_type_ids"], ["all"]) if segments
                 else helper.make_node("Identity", ["used"], ["all"]))  # fmt: skip
    nodes.append(helper.make_node("Cast", ["all"], ["floats"], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("ReduceSum", ["floats", "axis"], ["logits"], keepdims=1))
    graph = helper.make_graph(
        nodes,
        "exported",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    path.parent.mkdir(exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


@pytest.mark.parametrize("place", ["model.onnx", "onnx/model.onnx", "other.onnx"])
@pytest.mark.parametrize("segments", [True, False])
def test_exported_graphs(tmp_path: Path, place: str, segments: bool) -> None:
    model = tiny(tmp_path / "model")
    rows = by_hand(model, PAIRS)
    (model / "model.safetensors").unlink()
    export(model, model / place, segments)
    name = str(model / place if place == "other.onnx" else model)
    cross = CrossEncoder.open(ModelStore(), runtime(), name)
    expected = [sum(row) + segments * (len(row) - second) for row, second in rows]
    assert cross.score(PAIRS).tolist() == expected
    assert cross.score([]).shape == (0,)


def test_digest_is_that_of_everything_that_decides_the_scores(tmp_path: Path) -> None:
    def digest(name: str, **changes: object) -> str:
        return CrossEncoder.open(ModelStore(), runtime(), str(tiny(tmp_path / name, **changes))).digest  # type: ignore[arg-type]  # any setting

    first = digest("a")
    assert first == digest("b")
    assert len({first, digest("c", pool="mean"), digest("d", outputs=2)}) == 3


def test_what_is_no_cross_encoder(tmp_path: Path) -> None:
    def opened(model: Path) -> CrossEncoder:
        return CrossEncoder.open(ModelStore(), runtime(), str(model))

    with pytest.raises(Unmet, match=r"no classifier\.weight"):
        CrossEncoder.open(ModelStore(), runtime(), "encoder")
    with pytest.raises(Unmet, match="pools by 'max'"):
        opened(tiny(tmp_path / "pool", "max"))
    with pytest.raises(Unmet, match="roberta"):
        opened(tiny(tmp_path / "kind", model_type="roberta"))
    torn = tiny(tmp_path / "torn")
    tensors = load_file(str(torn / "model.safetensors"))
    del tensors["bert.pooler.dense.bias"]
    save_file(tensors, str(torn / "model.safetensors"))
    with pytest.raises(ArtifactCorrupt, match=r"pooler\.dense\.bias"):
        opened(torn)
    with pytest.raises(ModelMissing):
        opened(tmp_path / "nothing")


def test_cancelled(tmp_path: Path) -> None:
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        CrossEncoder.open(ModelStore(), runtime(), str(tiny(tmp_path / "model"))).score(PAIRS, call)


def test_a_host_opens_it_once(tmp_path: Path) -> None:
    model = tiny(tmp_path / "model")
    host = pickaxe.Host()
    cross = host.cross_encoder(str(model))
    assert host.cross_encoder(str(model)) is cross
    assert host.cross_encoder_at(model).digest == cross.digest
    serving = pickaxe.Host(artifacts=tmp_path)
    with pytest.raises(ModelMissing, match="on this server"):
        serving.cross_encoder(str(model))
    assert serving.cross_encoder_at(model).score([("a", "b")]) == cross.score([("a", "b")])
