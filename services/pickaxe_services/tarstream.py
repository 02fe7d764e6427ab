"""Artifacts as tar streams: plain files side by side, nothing else.

Reading takes headers one by one and accepts regular files only, so links, devices, directories, sparse files and
the extended headers that hide long names or eat memory never reach the disk.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pickaxe.artifact import MANIFEST, SUFFIXES, Artifact
from pickaxe.errors import ArtifactCorrupt, UnknownArtifact

BLOCK = 512
PIECE = 2**20
MAX_FILES = 10_000


def pack(artifact: Artifact) -> Iterator[bytes]:
    """An uncompressed tar of the artifact's files, in pieces; the same bytes for the same artifact."""
    for name in (MANIFEST, *sorted(artifact.manifest["files"])):
        path = artifact.path / name
        header = tarfile.TarInfo(name)
        header.size = size = path.stat().st_size
        yield header.tobuf(tarfile.GNU_FORMAT)
        with path.open("rb") as stream:
            while piece := stream.read(PIECE):
                yield piece
        yield b"\0" * (-size % BLOCK)
    yield b"\0" * 2 * BLOCK


def unpack(stream: BinaryIO, target: Path) -> Artifact:
    """Write the files of a tar into the new directory `target` and check them against their manifest.

    Raises `ArtifactCorrupt` for anything but an uncompressed tar of exactly one artifact's files.
    """
    target.mkdir()
    names: set[str] = set()
    while (header := _header(stream)) is not None:
        _admit(header, names)
        names.add(header.name)
        with (target / header.name).open("xb") as out:
            _copy(stream, out, header.size)
        stream.read(-header.size % BLOCK)
    artifact = _opened(target)
    if names != {MANIFEST, *artifact.manifest["files"]}:
        extra = ", ".join(sorted(names - {MANIFEST, *artifact.manifest["files"]}))
        raise _refused(f"it holds files that its manifest does not list: {extra}")
    return artifact


def _opened(path: Path) -> Artifact:
    """The artifact, with a manifest that says what every manifest says."""
    try:
        artifact = Artifact.open(path)
        manifest = artifact.manifest
        whole = isinstance(manifest["method"], str) and isinstance(manifest["method_version"], int)
        whole = whole and manifest["kind"] in ("fit", "index") and isinstance(manifest["params"], dict)
    except UnknownArtifact:
        raise _refused(f"it has no {MANIFEST}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _refused(f"its {MANIFEST} cannot be read ({type(error).__name__}: {error})") from None
    if not whole:
        raise _refused(f"its {MANIFEST} does not say which method, version, kind and parameters it is of")
    return artifact


def _header(stream: BinaryIO) -> tarfile.TarInfo | None:
    block = stream.read(BLOCK)
    if not block.strip(b"\0"):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise _refused(f"it is no uncompressed tar ({error})") from None


def _admit(header: tarfile.TarInfo, seen: set[str]) -> None:
    name = header.name
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise _refused(f"{name!r} is no plain file; make it with `tar --format=ustar` of the files alone")
    plain = Path(name).name == name and name not in ("", ".", "..") and name.isprintable()
    if not plain or (name != MANIFEST and Path(name).suffix not in SUFFIXES):
        raise _refused(f"{name!r} is no name of an artifact's file (suffixes: {', '.join(sorted(SUFFIXES))})")
    if name in seen:
        raise _refused(f"{name!r} is in it twice")
    if len(seen) >= MAX_FILES or header.size < 0:
        raise _refused(f"it holds more than {MAX_FILES} files, or one of negative size")


def _copy(stream: BinaryIO, out: BinaryIO, size: int) -> None:
    while size:
        piece = stream.read(min(PIECE, size))
        if not piece:
            raise _refused("it ends in the middle of a file")
        out.write(piece)
        size -= len(piece)


def _refused(why: str) -> ArtifactCorrupt:
    return ArtifactCorrupt(f"this tar is no artifact: {why}")
