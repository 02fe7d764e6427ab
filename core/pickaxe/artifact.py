"""Artifacts: directories of plain files with a manifest, written atomically and checked when opened.

Files are safetensors, `.npy`, ONNX, JSON, text or fastText `.bin`; never pickles.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from pickaxe.durable import room_for, sync_directory, write_durably
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
        manifest = _manifest(raw, path)
        files = manifest["files"]
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
        return self.manifest["kind"]

    @property
    def notes(self) -> Mapping[str, Any]:
        """What the method wrote down about the fit."""
        return self.manifest.get("notes", {})

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


def _manifest(raw: bytes, path: object) -> dict[str, Any]:
    """The manifest, once its format is known and everything that is read from it has the right type."""
    try:
        manifest = json.loads(raw)
        form = int(manifest["format"])
        if form > FORMAT:
            raise ArtifactMismatch(
                f"artifact {str(path)!r} has format {form}, this pickaxe reads up to {FORMAT}: upgrade pickaxe",
                metadata={"artifact": path, "found": form, "wanted": FORMAT},
            )
        right = (
            manifest["kind"] in get_args(Kind)
            and isinstance(manifest["method"], str)
            and isinstance(manifest["method_version"], int)
            and isinstance(manifest["params"], dict)
            and all(is_file_name(name) for name in manifest["files"])
            and all(int(each["bytes"]) >= 0 and str(each["sha256"]) for each in manifest["files"].values())
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactCorrupt(
            f"the manifest of {str(path)!r} cannot be read: {type(error).__name__}: {error}",
            metadata={"artifact": path},
        ) from error
    if not right:
        raise ArtifactCorrupt(f"the manifest of {str(path)!r} holds wrong values", metadata={"artifact": path})
    return manifest


def is_file_name(name: object) -> bool:
    """Whether an artifact may hold a file of that name: no folders, one of `SUFFIXES`, not the manifest."""
    return isinstance(name, str) and Path(name).suffix in SUFFIXES and Path(name).name == name and name != MANIFEST


def _matches(root: Path, name: str, expected: Mapping[str, Any], verify: bool) -> bool:
    path = root / name
    if not path.is_file() or path.stat().st_size != expected["bytes"]:
        return False
    return not verify or file_digest(path) == expected["sha256"]


def _partial(target: Path) -> Path:
    return target.with_name(target.name + ".partial")


class ArtifactWriter:
    """An artifact being made, in `<target>.partial` until `writing` commits it."""

    def __init__(self, path: Path, state: dict[str, Any], durable: bool = True) -> None:
        self.path = path
        self._durable = durable
        self.notes: dict[str, Any] = state["notes"]
        """Facts for the manifest: counts, library versions, seeds.  JSON-able."""
        self._state = state

    def file(self, name: str) -> Path:
        """Where to write file `name`; its suffix must be one that artifacts may hold."""
        if not is_file_name(name):
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
        """Mark a stage as finished, so that a resumed run finds the files of now and the notes, and skips it."""
        self._state["stages"][stage] = notes
        self._state["files"] = sorted(_listing(self.path, self._durable))
        write_durably(self.path / _STATE, json.dumps(self._state).encode())

    def stage_notes(self, stage: str) -> Mapping[str, Any]:
        return self._state["stages"][stage]


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
    inputs: Mapping[str, Any] | None = None,
    data: Sequence[str] = (),
    references: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    durable: bool = True,
) -> Iterator[ArtifactWriter]:
    """Make the artifact at `target`: the block writes files, its normal end commits them in one rename.

    If the block raises, nothing appears at `target`; stages marked as finished stay in `<target>.partial` and
    the same fit resumes there; `inputs` (the seed, what the fit starts from) and `data` (fingerprints of what it
    reads, not kept in the manifest) tell it from another.  Raises
    `AlreadyExists` when `target` exists (unless it is an artifact and `overwrite` is set) or another process is
    writing it.  `durable=False` is for what a crash of the machine may take: nothing waits for the disk.
    """
    from pickaxe.version import __version__

    root = Path(target)
    _check_free(root, overwrite)
    partial = _partial(root)
    request = {"kind": kind, "method": method, "method_version": method_version, "params": dict(params)}
    request["inputs"] = dict(inputs or {})
    with room_for(f"the artifact {os.fspath(target)!r}"), _locked(partial):
        writer = ArtifactWriter(partial, _state(partial, {**request, "data": list(data)}), durable)
        try:
            yield writer
            manifest = {
                "format": FORMAT,
                **request,
                "pickaxe_version": __version__,
                "references": dict(references or {}),
                "notes": writer.notes,
                "files": {name: _entry(partial / name) for name in _listing(partial, durable)},
            }
            text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
            if durable:
                write_durably(partial / MANIFEST, text.encode())
            else:
                (partial / MANIFEST).write_bytes(text.encode())
            _check_free(root, overwrite)
            _commit(partial, root, durable)
        except BaseException:
            if not writer._state["stages"]:
                shutil.rmtree(partial, ignore_errors=True)
            raise


def _check_free(root: Path, overwrite: bool) -> None:
    """Raise `AlreadyExists` unless `root` may be written: never replace what is not an artifact."""
    if not root.exists():
        return
    if not overwrite:
        raise AlreadyExists(f"{str(root)!r} exists: choose another path, or overwrite", metadata={"path": root})
    if not (root / MANIFEST).is_file():
        raise AlreadyExists(
            f"{str(root)!r} exists and is no artifact, so it is not overwritten: choose another path",
            metadata={"path": root},
        )


def _commit(partial: Path, root: Path, durable: bool) -> None:
    """Put the finished directory in its place; an artifact that was there is whole until then."""
    old = root.with_name(root.name + ".old")
    if root.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(root, old)
    os.replace(partial, root)
    if durable:
        sync_directory(root.parent)
    # The lock leaves last and from its new place: whoever waits for it must not take it for a fresh one.
    for name in (_STATE, _LOCK):
        (root / name).unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)


def _state(partial: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """The stages an interrupted run of the same request finished; a different request starts afresh.

    Whatever else the interrupted run left is removed: half-written files, an early manifest.
    """
    state: dict[str, Any] = {"request": json.loads(json.dumps(request)), "stages": {}, "files": [], "notes": {}}
    try:
        found = json.loads((partial / _STATE).read_bytes())
        if found["request"] == state["request"]:
            state.update({key: found[key] for key in state})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # nothing was finished, or the state was cut short: start afresh
    for path in partial.iterdir():
        if path.name not in (_LOCK, _STATE, *state["files"]) or (path.name == _STATE and not state["stages"]):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return state


def finished_stages(target: str | os.PathLike[str]) -> tuple[str, ...]:
    """The stages that an interrupted run of a fit or an index for `target` had finished."""
    try:
        return tuple(json.loads((_partial(Path(target)) / _STATE).read_bytes())["stages"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ()


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    taken = AlreadyExists(f"another process is writing {str(partial)!r}", metadata={"path": partial})
    path = partial / _LOCK
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except (FileExistsError, FileNotFoundError):  # the other process committed or gave up in this moment
        raise taken from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock.fileno()).st_ino != path.stat().st_ino:
                raise taken
        except (BlockingIOError, FileNotFoundError):
            raise taken from None
        yield


def _listing(partial: Path, durable: bool) -> list[str]:
    """Names of the files so far, each on the disk if they are to be durable."""
    names = []
    for path in sorted(partial.iterdir()):
        if path.name in (_STATE, _LOCK, MANIFEST):
            continue
        if not is_file_name(path.name) or not path.is_file():
            raise ValueError(f"artifacts hold plain files with suffix {sorted(SUFFIXES)}, not {path.name!r}")
        if durable:
            with path.open("rb+") as stream:
                os.fsync(stream.fileno())
        names.append(path.name)
    return names


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}
