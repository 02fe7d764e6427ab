"""Artifacts: directories of plain files with a manifest, written atomically and checked when opened.

Files are safetensors, `.npy`, ONNX, JSON, text or fastText `.bin`; never pickles.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pickaxe.errors import AlreadyExists, ArtifactCorrupt, ArtifactMismatch, UnknownArtifact

FORMAT = 1
MANIFEST = "manifest.json"
SUFFIXES = frozenset({".json", ".jsonl", ".txt", ".npy", ".safetensors", ".onnx", ".bin"})

Kind = Literal["fit", "index"]


def file_digest(path: Path) -> str:
    """sha256 of a file, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Artifact:
    """A finished artifact on disk."""

    def __init__(self, path: Path, manifest: Mapping[str, Any], digest: str) -> None:
        self.path = path
        self.manifest = manifest
        self.digest = digest
        """sha256 of the manifest, which holds the digest of every file."""

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: bool = True) -> Artifact:
        """Read the manifest and check every file's size and, with `verify`, its digest.

        Raises `UnknownArtifact`, `ArtifactMismatch` (newer format) or `ArtifactCorrupt` naming the files.
        """
        root = Path(path)
        manifest_path = root / MANIFEST
        if not manifest_path.is_file():
            hint = (
                " (an unfinished one is there: run the same fit again to resume it)" if _partial(root).exists() else ""
            )
            raise UnknownArtifact(f"no artifact at {str(path)!r}{hint}", metadata={"artifact": path})
        raw = manifest_path.read_bytes()
        try:
            manifest = json.loads(raw)
            files = manifest["files"]
            form = int(manifest["format"])
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactCorrupt(
                f"the manifest of {str(path)!r} cannot be read: {error}", metadata={"artifact": path}
            ) from error
        if form > FORMAT:
            raise ArtifactMismatch(
                f"artifact {str(path)!r} has format {form}, this pickaxe reads up to {FORMAT}: upgrade pickaxe",
                metadata={"artifact": path, "found": form, "wanted": FORMAT},
            )
        bad = [name for name, expected in files.items() if not _matches(root, name, expected, verify)]
        if bad:
            raise ArtifactCorrupt(
                f"artifact {str(path)!r} is damaged: {', '.join(sorted(bad))} missing, cut short or changed; "
                "fit it again or copy it anew",
                metadata={"artifact": path, "files": ",".join(sorted(bad))},
            )
        return cls(root, manifest, hashlib.sha256(raw).hexdigest())

    @property
    def kind(self) -> Kind:
        return self.manifest["kind"]  # type: ignore[no-any-return]

    @property
    def notes(self) -> Mapping[str, Any]:
        """What the method wrote down about the fit."""
        return self.manifest.get("notes", {})  # type: ignore[no-any-return]

    @property
    def bytes(self) -> int:
        return sum(int(entry["bytes"]) for entry in self.manifest["files"].values())

    def has(self, name: str) -> bool:
        return name in self.manifest["files"]

    def file(self, name: str) -> Path:
        """The path of one file; raises `ArtifactCorrupt` when the manifest does not list it."""
        if not self.has(name):
            raise ArtifactCorrupt(f"artifact {str(self.path)!r} has no file {name!r}", metadata={"file": name})
        return self.path / name

    def read_json(self, name: str) -> Any:
        return json.loads(self.file(name).read_text(encoding="utf-8"))

    def read_array(self, name: str) -> np.ndarray:
        """A `.npy` file, memory-mapped."""
        array: np.ndarray = np.load(self.file(name), mmap_mode="r", allow_pickle=False)
        return array

    def check_method(self, name: str, version: int, kind: Kind | None = None) -> None:
        """Raise `ArtifactMismatch` unless this is an artifact of that method and version (and kind)."""
        found = (self.manifest.get("method"), self.manifest.get("method_version"))
        if found != (name, version):
            raise ArtifactMismatch(
                f"artifact {str(self.path)!r} is of {found[0]} version {found[1]}, wanted {name} version {version}",
                metadata={
                    "artifact": self.path,
                    "found": f"{found[0]} {found[1]}",
                    "wanted": f"{name} {version}",
                },
            )
        if kind is not None and self.kind != kind:
            remedy = "build one with index(documents)" if kind == "index" else "make one with fit(examples)"
            raise ArtifactMismatch(
                f"artifact {str(self.path)!r} is a {self.kind}, wanted an artifact of {kind}: {remedy}",
                metadata={"artifact": self.path, "found": self.kind, "wanted": kind},
            )


def _matches(root: Path, name: str, expected: Mapping[str, Any], verify: bool) -> bool:
    path = root / name
    if not path.is_file() or path.stat().st_size != expected["bytes"]:
        return False
    return not verify or file_digest(path) == expected["sha256"]


def _partial(target: Path) -> Path:
    return target.with_name(target.name + ".partial")


class ArtifactWriter:
    """An artifact being made, in `<target>.partial` until `writing` commits it."""

    def __init__(self, path: Path, state: dict[str, Any]) -> None:
        self.path = path
        self.notes: dict[str, Any] = {}
        """Facts for the manifest: counts, library versions, seeds.  JSON-able."""
        self._state = state

    def file(self, name: str) -> Path:
        """Where to write file `name`; its suffix must be one that artifacts may hold."""
        if Path(name).suffix not in SUFFIXES or Path(name).name != name or name == MANIFEST:
            raise ValueError(f"artifacts hold plain files with suffix {sorted(SUFFIXES)}, not {name!r}")
        return self.path / name

    def write_json(self, name: str, value: Any) -> None:
        self.file(name).write_text(json.dumps(value, ensure_ascii=False, sort_keys=True), encoding="utf-8")

    def write_array(self, name: str, array: np.ndarray) -> None:
        np.save(self.file(name), np.ascontiguousarray(array), allow_pickle=False)

    def done(self, stage: str) -> bool:
        """Whether an earlier, interrupted run of the same fit finished this stage; its files are in place."""
        return stage in self._state["stages"]

    def finish(self, stage: str, **notes: Any) -> None:
        """Mark a stage as finished, so that a resumed run skips it."""
        self._state["stages"][stage] = notes
        _write_durably(self.path / _STATE, json.dumps(self._state).encode())

    def stage_notes(self, stage: str) -> Mapping[str, Any]:
        return self._state["stages"][stage]  # type: ignore[no-any-return]


_STATE = ".state"
_LOCK = ".lock"


@contextmanager
def writing(
    target: str | os.PathLike[str],
    *,
    kind: Kind,
    method: str,
    method_version: int,
    params: Mapping[str, Any],
    references: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Iterator[ArtifactWriter]:
    """Make the artifact at `target`: the block writes files, its normal end commits them in one rename.

    If the block raises, nothing appears at `target`; stages marked as finished stay in `<target>.partial` and
    the same fit resumes there.  Raises `AlreadyExists` when `target` exists (unless `overwrite`) or another
    process is writing it.
    """
    from pickaxe.version import __version__

    root = Path(target)
    if root.exists() and not overwrite:
        raise AlreadyExists(f"{str(target)!r} exists: choose another path, or overwrite", metadata={"path": target})
    partial = _partial(root)
    partial.mkdir(parents=True, exist_ok=True)
    request = {"kind": kind, "method": method, "method_version": method_version, "params": dict(params)}
    with _locked(partial):
        writer = ArtifactWriter(partial, _state(partial, request))
        try:
            yield writer
            manifest = {
                "format": FORMAT,
                **request,
                "pickaxe_version": __version__,
                "references": dict(references or {}),
                "notes": writer.notes,
                "files": _listing(partial),
            }
            text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
            _write_durably(partial / MANIFEST, text.encode())
            for name in (_STATE, _LOCK):
                (partial / name).unlink(missing_ok=True)
            if root.exists():
                shutil.rmtree(root)
            os.replace(partial, root)
            _sync_directory(root.parent)
        except BaseException:
            if not writer._state["stages"]:
                shutil.rmtree(partial, ignore_errors=True)
            raise


def _state(partial: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """The stages an interrupted run of the same request finished; a different request starts afresh."""
    wanted = json.loads(json.dumps(request))
    try:
        state: dict[str, Any] = json.loads((partial / _STATE).read_bytes())
        if state["request"] == wanted:
            return state
    except (FileNotFoundError, ValueError, KeyError):
        pass
    for path in partial.iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return {"request": wanted, "stages": {}}


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    with (partial / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyExists(f"another process is writing {str(partial)!r}", metadata={"path": partial}) from None
        yield


def _listing(partial: Path) -> dict[str, Any]:
    listing = {}
    for path in sorted(partial.iterdir()):
        if path.name in (_STATE, _LOCK):
            continue
        if path.suffix not in SUFFIXES or not path.is_file():
            raise ValueError(f"artifacts hold plain files with suffix {sorted(SUFFIXES)}, not {path.name!r}")
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
        listing[path.name] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
    return listing


def _write_durably(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
