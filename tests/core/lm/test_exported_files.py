"""Which graph of an export is opened, and what is said about one that cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from exporter import Kind

from pickaxe.errors import InvalidParams, ModelMissing, Unmet
from pickaxe.lm import LM
from pickaxe.lm.exported_layout import find_export
from pickaxe.lm.exported_trial import try_out
from pickaxe.models import ModelStore

IDS = [10, 200, 33, 7]


@pytest.fixture
def opened(tmp_path, runtime):
    def open_at(path: Path, precision: str = "auto") -> LM:
        return LM.open(ModelStore(tmp_path / "models"), runtime, str(path), precision)

    return open_at


@pytest.fixture
def folder(reference, tmp_path, write_export) -> Path:
    return write_export(reference, tmp_path / "model")


def edit(file: Path, change) -> None:
    model = onnx.load(str(file))
    change(model.graph)
    onnx.save(model, str(file))


def without(values, *names: str) -> None:
    for value in [value for value in values if value.name in names]:
        values.remove(value)


# ---------------------------------------------------------------- which one


@pytest.mark.parametrize("name", ["model.onnx", "onnx/model.onnx", "onnx/model_fp16.onnx", "decoder_model_merged.onnx"])
def test_places_of_the_graph(name, reference, tmp_path, opened, write_export):
    kind = Kind(half="fp16" in name, merged="merged" in name)
    path = write_export(reference, tmp_path / "model", kind, name)
    for place in (path, path / name):
        logits, _ = opened(place).forward([IDS])
        np.testing.assert_allclose(logits[0], reference.logits(IDS)[-1], atol=0.1 if kind.half else 1e-4)


def test_one_of_several_is_chosen_by_its_precision(reference, folder, opened):
    for name in ("model_fp16", "model_q4", "model_quantized"):
        shutil.copy(folder / "model.onnx", folder / f"{name}.onnx")
    chosen = {precision: find_export(folder, precision).name for precision in ("auto", "fp32", "fp16", "int4", "int8")}
    assert chosen == {
        "auto": "model.onnx",
        "fp32": "model.onnx",
        "fp16": "model_fp16.onnx",
        "int4": "model_q4.onnx",
        "int8": "model_quantized.onnx",
    }
    assert find_export(folder, "auto", prefer_half=True).name == "model_fp16.onnx"
    (folder / "model.onnx").unlink()
    assert find_export(folder).name == "model_fp16.onnx"
    with pytest.raises(InvalidParams, match=r"model_q4.onnx holds fp32"):  # what a name says is checked
        opened(folder, "int4")


def test_weights_that_are_read_directly_win(reference, folder, opened, write_checkpoint):
    checkpoint = write_checkpoint(reference, folder.parent / "both")
    shutil.copy(folder / "model.onnx", checkpoint / "model.onnx")
    assert find_export(checkpoint) is None
    assert opened(checkpoint, "int8").network.precision == "int8"
    assert find_export(folder / "tokenizer.json") is None
    assert find_export(folder.parent) is None


def test_a_graph_is_tried_once_and_again_when_it_changed(folder, opened, monkeypatch):
    tried = []

    def spy(*args):
        tried.append(args)
        return try_out(*args)

    monkeypatch.setattr("pickaxe.lm.exported.try_out", spy)
    first = opened(folder)
    assert (opened(folder).digest, len(tried)) == (first.digest, 1)
    edit(folder / "model.onnx", lambda graph: setattr(graph, "doc_string", "another export"))
    assert opened(folder).digest != first.digest
    assert len(tried) == 2


def test_facts_come_from_the_configuration_where_the_graph_is_silent(reference, folder, opened):
    def loosen(graph) -> None:
        for value in (*graph.input, *graph.output):
            if value.name.startswith(("past", "present", "logits")):
                for dim in value.type.tensor_type.shape.dim:
                    dim.dim_param = dim.dim_param or "unknown"

    edit(folder / "model.onnx", loosen)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 258}))
    logits, _ = opened(folder).forward([IDS])
    np.testing.assert_allclose(logits[0], reference.logits(IDS)[-1], atol=1e-4)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Unmet, match="does not say vocab_size"):
        opened(folder)


def test_chat_template_and_end_tokens_come_with_the_export(folder, opened):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [9]}))
    (folder / "chat_template.jinja").write_text("{% for turn in messages %}<{{ turn.content }}>{% endfor %}")
    tokenizer = opened(folder).tokenizer
    assert set(tokenizer.eos_ids) == {9, 256}
    assert tokenizer.chat([type("Turn", (), {"role": "user", "content": "hi"})]) == "<hi>"


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_a_truncated_graph(share, folder, opened):
    file = folder / "model.onnx"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelMissing, match=r"model.onnx is not a whole ONNX graph.*copy the export's files again"):
        opened(folder)


def test_weights_that_are_missing_or_cut(reference, tmp_path, opened, write_export):
    path = write_export(reference, tmp_path / "model", Kind(external=True))
    data = path / "model.onnx_data"
    data.write_bytes(data.read_bytes()[:5000])
    with pytest.raises(ModelMissing, match=r"model.onnx.*Copy the export's files again"):
        opened(path)
    data.unlink()
    with pytest.raises(ModelMissing, match=r"its weights are in model.onnx_data, which is not there"):
        opened(path)


PAST = [f"past_key_values.{layer}.{kind}" for layer in range(2) for kind in ("key", "value")]


@pytest.mark.parametrize(
    ("side", "names", "message"),
    [
        ("input", PAST, r"no inputs past_key_values.N.key.*Export it again"),
        ("input", PAST[3:], r"no input past_key_values.1.value"),
        ("input", ["attention_mask"], r"no input attention_mask"),
        ("input", ["input_ids"], r"no input input_ids"),
        ("output", ["present.1.key"], r"no output present.1.key"),
        ("output", ["logits"], r"no output logits \(its outputs are present.0.key"),
    ],
)
def test_what_a_graph_lacks_is_named(side, names, message, folder, opened):
    edit(folder / "model.onnx", lambda graph: without(getattr(graph, side), *names))
    with pytest.raises(Unmet, match=message):
        opened(folder)


def test_inputs_of_other_kinds_of_model(folder, opened):
    extra = onnx.helper.make_tensor_value_info("encoder_hidden_states", 1, ["batch", "time", 8])
    edit(folder / "model.onnx", lambda graph: graph.input.append(extra))
    with pytest.raises(Unmet, match="only its exporter knows how to fill: encoder_hidden_states"):
        opened(folder)


def test_keys_of_another_form(folder, opened):
    def flatten(graph) -> None:
        next(value for value in graph.input if value.name == PAST[0]).type.tensor_type.shape.dim.pop()

    edit(folder / "model.onnx", flatten)
    with pytest.raises(Unmet, match="past keys of 3 axes"):
        opened(folder)


def test_configuration_and_tokenizer(folder, opened):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": None}))
    with pytest.raises(Unmet, match="does not say max_position_embeddings"):
        opened(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelMissing, match=r"config.json is missing: put the export's config.json there"):
        opened(folder)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["more"] = 300
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(Unmet, match=r"has 301 tokens, the graph only 258.*Take tokenizer.json from the export itself"):
        opened(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelMissing, match=r"no tokenizer.json"):
        opened(folder)


def test_a_graph_that_does_not_go_on_from_its_own_keys(folder, opened):
    def forget(graph) -> None:
        """The keys that are given back are not those that were used."""
        for node in graph.node:
            for place, name in enumerate(node.output):
                if name == "present.0.key":
                    node.output[place] = "kept"
            for place, name in enumerate(node.input):
                if name == "present.0.key":
                    node.input[place] = "kept"
        graph.node.append(onnx.helper.make_node("Sin", ["kept"], ["present.0.key"]))

    edit(folder / "model.onnx", forget)
    with pytest.raises(Unmet, match=r"model.onnx gives other logits for a token on top of its own keys and values"):
        opened(folder)


def test_a_graph_that_gives_new_keys_only(folder, opened):
    def cut(graph) -> None:
        for node in graph.node:
            for place, name in enumerate(node.output):
                if name == "present.0.key":
                    node.output[place] = "whole"
            for place, name in enumerate(node.input):
                if name == "present.0.key":
                    node.input[place] = "whole"
        cuts = [onnx.numpy_helper.from_array(np.array([value]), f"cut_{value}") for value in (-1, 2**62, 2)]
        graph.initializer.extend(cuts)
        graph.node.append(onnx.helper.make_node("Slice", ["whole", *(each.name for each in cuts)], ["present.0.key"]))

    edit(folder / "model.onnx", cut)
    with pytest.raises(Unmet, match="gives 1 slots of keys and values for 5"):
        opened(folder)
