"""Whatever bytes come, the answer is a result or a code of the vocabulary, never UNKNOWN or INTERNAL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import grpc
import numpy as np
import pytest

from pickaxe import Item, Prompt, Sampling
from pickaxe.v1 import catalog_pb2, job_pb2
from pickaxe_services import Client
from pickaxe_services.codec import admin, roles
from pickaxe_services.records import JobSpec, Options, Use

ITEM = Item("a", "text", {"t": np.eye(2, dtype=np.float32), "r": {"x": [1, {"y": None}]}, "s": ("a",), "n": 3})
SAID = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"}


def unary() -> dict[str, Any]:
    use = Use("t-length", {}, "")
    return {
        "ScorerService/Score": roles.write_score_request(use, [ITEM], Options(3, 4, "t")),
        "RetrieverService/Search": roles.write_search_request(Use("t-find"), [ITEM], 3, Options()),
        "RerankerService/Rerank": roles.write_rerank_request(Use("t-order"), ITEM, [ITEM], 1, Options()),
        "CatalogService/ListMethods": catalog_pb2.ListMethodsRequest(page_size=2, page_token="2"),
        "JobService/GetJob": job_pb2.GetJobRequest(name="jobs/a"),
    }


def streams() -> dict[str, list[Any]]:
    prompt = Prompt("a b", sampling=Sampling(max_tokens=3, stop=("x",)), fields={"f": 1.5})
    return {
        "DecoderService/Decode": [roles.write_decode_request(Use("t-words"), [prompt], Options())],
        "ScorerService/ScoreStream": [
            roles.write_stream_open(Use("t-length"), Options()),
            roles.write_stream_batch([ITEM], 0),
        ],
        "JobService/StartJob": [
            admin.write_job_spec(JobSpec("fit", Use("t-length"))),
            admin.write_job_items("examples", [ITEM], 0),
            admin.write_end_of_items(),
        ],
    }


def mutated(message: bytes, random: np.random.Generator) -> bytes:
    """The message with a few bytes changed, dropped or doubled."""
    data = bytearray(message)
    for _ in range(int(random.integers(1, 4))):
        place = int(random.integers(0, max(len(data), 1)))
        kind = int(random.integers(0, 3))
        if kind == 0 and data:
            data[place] = int(random.integers(0, 256))
        elif kind == 1:
            del data[place : place + int(random.integers(1, 4))]
        else:
            data[place:place] = data[place : place + 8]
    return bytes(data)


def requests(name: str, random: np.random.Generator) -> Iterator[Any]:
    if name in unary():
        yield mutated(unary()[name].SerializeToString(), random)
        return
    for message in streams()[name]:
        yield mutated(message.SerializeToString(), random)


def outcome(call: Any, *, streaming: bool) -> str:
    """The code of a call, once its answers are read."""
    if streaming:
        with suppress(grpc.RpcError):  # its code is what is asked for
            list(call)
    return str(call.code().name)


@pytest.mark.parametrize("name", [*unary(), *streams()])
def test_mutated_messages_get_an_answer_of_the_vocabulary(server: Client, name: str) -> None:
    random = np.random.default_rng(7)
    codes = set()
    with grpc.insecure_channel(server.target) as channel:
        method = f"/pickaxe.v1.{name}"
        for _ in range(150):
            given = list(requests(name, random))
            if name.endswith("Decode"):
                call = channel.unary_stream(method)(given[0], timeout=20)
            elif name.endswith("Stream"):
                call = channel.stream_stream(method)(iter(given), timeout=20)
            elif name.endswith("StartJob"):
                call = channel.stream_unary(method).future(iter(given), timeout=20)
            else:
                call = channel.unary_unary(method).future(given[0], timeout=20)
            codes.add(outcome(call, streaming=name.endswith(("Decode", "Stream"))))
    assert codes <= SAID
