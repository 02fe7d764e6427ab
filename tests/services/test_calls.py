"""What a server answers is what the library answers: results and errors alike."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import service_methods
from google.rpc import status_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from service_methods import GATE

import pickaxe
from pickaxe import Item, Prompt, Scores
from pickaxe.errors import (
    AlreadyExists,
    ArtifactMismatch,
    Cancelled,
    DeadlineExceeded,
    InvalidItems,
    InvalidParams,
    MethodFailed,
    PickaxeError,
    TooLarge,
    UnknownArtifact,
    UnknownMethod,
    Unmet,
    Unreachable,
    WrongRole,
)
from pickaxe_services import Client, LocalServer, Settings, connect, job_files
from pickaxe_services.server import NAMES
from pickaxe_services.status import from_status


def assert_same(left: Scores, right: Scores) -> None:
    assert list(left.columns) == list(right.columns)
    for name, values in left.columns.items():
        assert values.tolist() == right[name].tolist() or np.array_equal(values, right[name], equal_nan=True)
        assert values.dtype.kind == right[name].dtype.kind
    for name in ("summary", "flags", "segments", "schema"):
        assert getattr(left, name) == getattr(right, name)
    assert (left.groups is None) == (right.groups is None)


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("name", ["t-length", "t-reporting", "t-typed"])
def test_scores_are_those_of_the_library(server: Client, name: str, n: int) -> None:
    items = [Item(str(row), "x" * row) for row in range(n)]
    remote = server.scorer(name).score(items, seed=7)
    assert_same(remote, pickaxe.scorer(name).score(items, seed=7))
    assert remote.timings is not None
    assert remote.timings.batched_with == 0


def test_columns_of_an_opened_scorer_are_known_without_items(server: Client) -> None:
    assert server.scorer("t-typed").columns == service_methods.Typed.columns


def test_streams_answer_batch_by_batch_for_item_scope_and_once_for_others(server: Client) -> None:
    texts = ["x" * row for row in range(7)]
    parts = list(server.scorer("t-length").stream(iter(texts), batch=3))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert np.concatenate([part.primary for part in parts]).tolist() == list(range(7))
    assert [len(part) for part in server.scorer("t-typed").stream(texts, batch=3)] == [7]
    assert list(server.scorer("t-length").stream([])) == []


def test_more_than_a_request_may_hold_goes_as_a_stream(serve: Any) -> None:
    with serve() as client:
        scores = client.scorer("t-length").score(["ab"] * 10_001)
    assert len(scores) == 10_001
    assert scores.primary.sum() == 20_002


def test_streams_read_on_only_as_they_are_answered(server: Client) -> None:
    drawn = 0

    def texts() -> Iterator[str]:
        nonlocal drawn
        yield "wait"
        for _ in range(3000):
            drawn += 1
            yield "x" * 10_000

    stream = server.scorer("t-length").stream(texts(), batch=1)
    reader = threading.Thread(target=lambda: next(stream))
    reader.start()
    assert GATE.entered.wait(10)
    reader.join(0.3)
    assert drawn < 2000  # 20 MB: far above what windows and buffers hold
    GATE.open()
    reader.join(10)
    stream.close()  # type: ignore[attr-defined]


def test_an_error_of_the_caller_s_iterator_is_the_caller_s(server: Client) -> None:
    def texts() -> Iterator[Any]:
        yield "a"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(server.scorer("t-length").stream(texts(), batch=1))
    with pytest.raises(InvalidItems, match=r"items\[1\]"):
        list(server.scorer("t-length").stream(["a", 3], batch=1))  # type: ignore[list-item]


def test_rankings_and_searches_are_those_of_the_library(server: Client, tmp_path: Path) -> None:
    candidates = ["a", "", "ccc"]
    remote, local = (
        server.reranker("t-order").rerank("q", candidates),
        pickaxe.reranker("t-order").rerank("q", candidates),
    )
    assert remote.scores.tolist() == local.scores.tolist()
    assert (remote.ranked, remote.cut, remote.usage, remote.record) == (
        local.ranked, local.cut, local.usage, local.record,
    )  # fmt: skip
    found = pickaxe.retriever("t-find").index(["a b", "b c"], out=tmp_path / "index")
    name = server.artifacts.upload(tmp_path / "index").name
    hits = server.retriever("t-find", artifact=name).search(["b", "a b"], k=1, budget=5)
    assert hits.results == found.search(["b", "a b"], k=1, budget=5).results
    assert hits.usage == {"model_calls": 5.0}


def test_decoding_is_that_of_the_library(server: Client) -> None:
    prompts = ["hello big world", Prompt("again")]
    chunks = list(server.decoder("t-words").decode(prompts))
    assert chunks == list(pickaxe.decoder("t-words").decode(prompts))
    assert server.decoder("t-words").complete(prompts) == pickaxe.decoder("t-words").complete(prompts)


def call(open_and_use: Any) -> PickaxeError:
    with pytest.raises(PickaxeError) as caught:
        open_and_use()
    return caught.value


WRONG: dict[str, tuple[type[PickaxeError], Any]] = {
    "unknown": (UnknownMethod, lambda door: door.scorer("t-lenght").score(["a"])),
    "role": (WrongRole, lambda door: door.decoder("t-length").complete("a")),
    "params": (InvalidParams, lambda door: door.decoder("t-words", pause=-1, x=1).complete("a")),
    "items": (InvalidItems, lambda door: door.scorer("t-length").score([Item("a", "x"), Item("b"), Item("c")])),
    "top_n": (InvalidParams, lambda door: door.reranker("t-order").rerank("q", ["a"], -1)),
    "twice": (InvalidItems, lambda door: door.reranker("t-order").rerank("q", [Item("a", "x")] * 2)),
    "prompts": (InvalidItems, lambda door: door.decoder("t-words").complete([3])),
    "artifact": (ArtifactMismatch, lambda door: door.scorer("t-mean").score(["a"])),
    "index": (ArtifactMismatch, lambda door: door.retriever("t-find").search(["a"])),
    **{
        how: (MethodFailed, lambda door, how=how: door.scorer("t-broken", how=how).score(["a"]))
        for how in ("raise", "none", "columns", "rows", "nan")
    },
    "word": (MethodFailed, lambda door: door.decoder("t-words").complete("good bad")),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_are_those_of_the_library(server: Client, case: str) -> None:
    kind, use = WRONG[case]
    remote, local = call(lambda: use(server)), call(lambda: use(pickaxe))
    assert type(remote) is type(local) is kind
    assert (remote.message, remote.metadata, remote.violations) == (local.message, local.metadata, local.violations)


def test_a_method_that_ends_the_process_or_the_iteration_fails_alone(server: Client) -> None:
    for how in ("exit", "stop", "number", "surrogate"):
        assert isinstance(call(lambda how=how: server.scorer("t-broken", how=how).score(["a"])), MethodFailed)
    assert server.scorer("t-length").score(["abc"]).primary.tolist() == [3]


def test_artifacts_of_a_server_are_named_not_pointed_at(server: Client, tmp_path: Path) -> None:
    pickaxe.scorer("t-mean").fit(["a"], out=tmp_path / "mean")
    for name in (str(tmp_path / "mean"), "artifacts/../../mean", "artifacts/none"):
        assert isinstance(call(lambda name=name: server.scorer("t-mean", artifact=name).score(["a"])), UnknownArtifact)


def test_limits_are_told(serve: Any) -> None:
    with serve(max_items_per_request=5, max_message_bytes=2048) as client:
        many = call(lambda: client.scorer("t-length").score(["a"] * 6))
        assert isinstance(many, TooLarge)
        assert many.metadata == {"items": "6", "limit": "5"}
        large = call(lambda: client.scorer("t-length").score(["a" * 3000]))
        assert isinstance(large, TooLarge)
        assert large.metadata["limit"] == "2048"
        assert isinstance(call(lambda: client.scorer("t-length").score(["a" * 9000])), TooLarge)
        limits = client.server().limits
        assert (limits.items_per_request, limits.message_bytes) == (5, 2048)


def test_deadlines_pass_on_to_the_method(server: Client) -> None:
    server.scorer("t-length").score(["a"], timeout=30)
    remaining = GATE.calls[-1].remaining()
    assert remaining is not None
    assert 0 < remaining <= 30
    error = call(lambda: server.decoder("t-words", pause=0.01).complete("forever", timeout=0.2))
    assert isinstance(error, DeadlineExceeded)


def test_cancelling_a_call_object_ends_the_remote_call(server: Client) -> None:
    given = pickaxe.Call()
    timer = threading.Timer(0.2, given.cancel)
    timer.start()
    assert isinstance(call(lambda: server.scorer("t-length").score(["wait"], call=given)), Cancelled)
    assert isinstance(call(lambda: server.scorer("t-length").score(["a"], call=given)), Cancelled)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("unary_unary", "/pickaxe.v1.ScorerService/Score"),
        ("unary_stream", "/pickaxe.v1.DecoderService/Decode"),
        ("stream_unary", "/pickaxe.v1.JobService/StartJob"),
        ("stream_stream", "/pickaxe.v1.ScorerService/ScoreStream"),
    ],
)
def test_malformed_messages_are_invalid_arguments(server: Client, kind: str, method: str) -> None:
    malformed = b"\xff\xff\xff"
    request = iter([malformed]) if kind.startswith("stream") else malformed
    with grpc.insecure_channel(server.target) as channel:
        start = getattr(channel, kind)(method)
        answer = start(request, timeout=10) if kind.endswith("stream") else start.future(request, timeout=10)
        assert answer.code() is grpc.StatusCode.INVALID_ARGUMENT
        trailers = dict(answer.trailing_metadata())
    assert type(from_status(status_pb2.Status.FromString(trailers["grpc-status-details-bin"]))) is InvalidItems


def test_health_speaks_for_every_service_and_reflection_lists_them(server: Client) -> None:
    for name in ("", *NAMES):
        assert server.health(name) == "SERVING"
    with grpc.insecure_channel(server.target) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest
        requests = [ask(list_services=""), ask(file_containing_symbol="google.rpc.BadRequest")]
        listed, details = stub.ServerReflectionInfo(iter(requests), timeout=10)
    assert {*NAMES, "grpc.health.v1.Health"} <= {service.name for service in listed.list_services_response.service}
    assert details.file_descriptor_response.file_descriptor_proto


def test_the_catalogue_is_that_of_the_library(server: Client) -> None:
    assert server.methods() == dict(pickaxe.methods())
    for name in service_methods.METHODS:
        assert server.show(name) == pickaxe.show(name)
    assert isinstance(call(lambda: server.show("nothing")), UnknownMethod)
    assert not server.server().draining


def test_a_dead_server_is_unreachable_by_name() -> None:
    with connect("127.0.0.1:1") as client:
        error = call(lambda: client.scorer("t-length").score(["a"]))
        assert isinstance(error, Unreachable)
        assert "127.0.0.1:1" in error.message
        assert isinstance(call(lambda: list(client.decoder("t-words").decode("a"))), Unreachable)


def test_servers_that_anyone_could_reach_need_tls_or_a_clear_word(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com"):
        with pytest.raises(Unmet, match="--allow-insecure"):
            LocalServer(Settings(host=host, port=0, root=tmp_path))
    with pytest.raises(Unmet, match="both a certificate and a key"):
        LocalServer(Settings(tls_cert=tmp_path / "c", root=tmp_path))
    open_to_all = Settings(host="0.0.0.0", port=0, root=tmp_path, allow_insecure=True)
    with LocalServer(open_to_all) as address, connect(address) as client:
        assert client.health() == "SERVING"


def test_a_taken_port_is_said(server: Client, tmp_path: Path) -> None:
    port = int(server.target.rpartition(":")[2])
    with pytest.raises(Unmet, match="cannot listen"), LocalServer(Settings(port=port, root=tmp_path / "other")):
        pass


def test_unix_sockets_serve_too(tmp_path: Path) -> None:
    with LocalServer(Settings(host=f"unix:{tmp_path}/s", root=tmp_path / "r")) as address, connect(address) as client:
        assert client.scorer("t-length").score(["abc"]).primary.tolist() == [3]


def test_fits_refuse_to_overwrite_before_they_start(server: Client, tmp_path: Path) -> None:
    assert isinstance(call(lambda: server.scorer("t-mean").fit(["a"], out=tmp_path)), AlreadyExists)
    assert server.jobs.listing() == []


def test_a_server_with_a_full_disk_says_so_and_goes_on(server: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/the/server/s/own/path")

    with monkeypatch.context() as patch:
        patch.setattr(job_files, "save", full)
        error = call(lambda: server.scorer("zip-fit").fit(["a target"]))
    assert isinstance(error, Unmet)
    assert error.message.startswith("the server has no space left on its disk")
    assert not any("own/path" in str(value) for value in error.metadata.values())
    assert len(server.scorer("zip-fit").fit(["a target"]).score(["a text"])) == 1
