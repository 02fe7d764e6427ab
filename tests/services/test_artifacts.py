"""Artifacts travel whole, and no tar writes where it should not."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import pickaxe
from pickaxe.artifact import MANIFEST, Artifact
from pickaxe.errors import AlreadyExists, ArtifactCorrupt, PickaxeError, TooLarge, UnknownArtifact
from pickaxe.v1 import artifact_pb2, artifact_pb2_grpc
from pickaxe_services import Client
from pickaxe_services.status import from_rpc_error
from pickaxe_services.tarstream import pack, unpack


@pytest.fixture
def made(tmp_path: Path) -> Artifact:
    pickaxe.scorer("t-mean").fit(["a", "bbb"], out=tmp_path / "made")
    return Artifact.open(tmp_path / "made")


def tar_of(artifact: Artifact) -> bytes:
    return b"".join(pack(artifact))


def test_artifacts_go_up_serve_come_down_and_go(server: Client, made: Artifact, tmp_path: Path) -> None:
    info = server.artifacts.upload(made.path)
    assert (info.kind, info.method, info.method_version, info.digest) == ("fit", "t-mean", 1, made.digest)
    assert info.bytes == made.bytes
    remote = server.scorer("t-mean", artifact=info.name)
    assert remote.score(["aaaa"]).primary.tolist() == [-2]
    assert server.artifacts.get(info.name) == info
    assert server.artifacts.listing("t-mean") == [info]
    assert server.artifacts.listing("other") == []
    assert server.artifacts.download(info.name, tmp_path / "down").digest == made.digest
    with pytest.raises(AlreadyExists):
        server.artifacts.download(info.name, tmp_path / "down")
    server.artifacts.delete(info.name)
    for use in (lambda: remote.score(["a"]), lambda: server.artifacts.get(info.name)):
        with pytest.raises(UnknownArtifact):
            use()
    with pytest.raises(UnknownArtifact):
        server.artifacts.download(info.name, tmp_path / "again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["down", "made", "server"]


def test_listing_goes_page_by_page(server: Client, made: Artifact) -> None:
    names = {server.artifacts.upload(made.path).name for _ in range(3)}
    assert {info.name for info in server.artifacts.listing()} == names
    import grpc

    with grpc.insecure_channel(server.target) as channel:
        stub = artifact_pb2_grpc.ArtifactServiceStub(channel)
        first = stub.ListArtifacts(artifact_pb2.ListArtifactsRequest(page_size=2))
        rest = stub.ListArtifacts(artifact_pb2.ListArtifactsRequest(page_size=2, page_token=first.next_page_token))
        assert (len(first.artifacts), len(rest.artifacts), rest.next_page_token) == (2, 1, "")
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListArtifacts(artifact_pb2.ListArtifactsRequest(page_token="nonsense"))
        assert from_rpc_error(caught.value, "").reason == "PARAMS_INVALID"


def test_the_same_artifact_gives_the_same_tar_that_tar_can_read(made: Artifact) -> None:
    data = tar_of(made)
    assert data == tar_of(made)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert sorted(tar.getnames()) == [MANIFEST, "mean.json"]


Spoil = Callable[[tarfile.TarFile], None]


def entry(name: str, data: bytes = b"{}", kind: bytes = tarfile.REGTYPE, link: str = "") -> Spoil:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        info.size = len(data) if kind == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(data))

    return add


EVIL: dict[str, Spoil] = {
    "parent": entry("../evil.json"),
    "absolute": entry("/evil.json"),
    "nested": entry("sub/evil.json"),
    "dots": entry(".."),
    "symlink": entry("link.json", kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "hardlink": entry("link.json", kind=tarfile.LNKTYPE, link=MANIFEST),
    "device": entry("device.json", kind=tarfile.CHRTYPE),
    "fifo": entry("fifo.json", kind=tarfile.FIFOTYPE),
    "directory": entry("dir", kind=tarfile.DIRTYPE),
    "sparse": entry("sparse.json", kind=tarfile.GNUTYPE_SPARSE),
    "long name": entry("x" * 200 + ".json"),
    "suffix": entry("model.pkl"),
    "twice": entry(MANIFEST),
    "unlisted": entry("extra.json"),
    "control": entry("a\nb.json"),
}


@pytest.mark.parametrize("case", EVIL)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_evil_tars_are_refused_and_leave_nothing(made: Artifact, tmp_path: Path, case: str, form: int) -> None:
    if case == "long name" and form == tarfile.USTAR_FORMAT:
        return  # such a tar cannot be written
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for name in (MANIFEST, "mean.json"):
            entry(name, (made.path / name).read_bytes())(tar)
        EVIL[case](tar)
    stream.seek(0)
    (tmp_path / "room").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ArtifactCorrupt, match="this tar is no artifact"):
        unpack(stream, tmp_path / "room/target")
    outside = [path for path in tmp_path.rglob("*") if "target" not in path.parts]
    assert sorted(outside) == before


def manifest_tar(made: Artifact, change: Callable[[dict[str, object]], object]) -> bytes:
    manifest = json.loads((made.path / MANIFEST).read_bytes())
    change(manifest)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        entry(MANIFEST, json.dumps(manifest).encode())(tar)
        entry("mean.json", (made.path / "mean.json").read_bytes())(tar)
    return stream.getvalue()


def broken_tars(made: Artifact) -> dict[str, bytes]:
    whole = tar_of(made)
    return {
        "empty": b"",
        "noise": bytes(range(256)) * 8,
        "cut": whole[: len(whole) // 2],
        "changed": whole.replace(b"2.0", b"3.0"),
        "no files": manifest_tar(made, lambda manifest: manifest.pop("files")),
        "odd files": manifest_tar(made, lambda manifest: manifest.update(files={"mean.json": 3})),
        "outside": manifest_tar(made, lambda manifest: manifest.update(files={"../x": {"bytes": 1, "sha256": ""}})),
        "method": manifest_tar(made, lambda manifest: manifest.update(method=3)),
        "kind": manifest_tar(made, lambda manifest: manifest.update(kind="other")),
        "list": manifest_tar(made, lambda manifest: manifest.update(files=[])),
    }


def test_broken_uploads_are_refused_and_leave_nothing(server: Client, made: Artifact, tmp_path: Path) -> None:
    import grpc

    with grpc.insecure_channel(server.target) as channel:
        stub = artifact_pb2_grpc.ArtifactServiceStub(channel)
        for case, data in broken_tars(made).items():
            with pytest.raises(grpc.RpcError) as caught:
                stub.UploadArtifact(iter([artifact_pb2.UploadArtifactRequest(data=data)]), timeout=10)
            assert isinstance(from_rpc_error(caught.value, ""), ArtifactCorrupt), case
    assert list((tmp_path / "server/artifacts").iterdir()) == []


def test_uploads_above_the_limit_are_refused_and_leave_nothing(serve: object, made: Artifact, tmp_path: Path) -> None:
    with serve(max_artifact_bytes=1000) as client:  # type: ignore[operator]
        with pytest.raises(TooLarge, match="1000 bytes"):
            client.artifacts.upload(made.path)
        assert list((tmp_path / "server/artifacts").iterdir()) == []


def test_damaged_artifacts_are_not_handed_out(server: Client, made: Artifact, tmp_path: Path) -> None:
    info = server.artifacts.upload(made.path)
    path = tmp_path / "server" / info.name / "mean.json"
    path.write_text("9.0")
    with pytest.raises(PickaxeError, match="damaged"):
        server.artifacts.download(info.name, tmp_path / "down")
    assert not (tmp_path / "down").exists()
