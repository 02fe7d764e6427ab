"""Remote handles: `pickaxe.handle`'s methods, carried out by a server."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pickaxe.call import Call
from pickaxe.data import Chunk, Column, Completion, Item, Ranking, Scores, SearchResults, completions
from pickaxe.errors import AlreadyExists
from pickaxe.handle.base import ItemLike, OnProgress, as_item, as_items
from pickaxe.handle.decoder import PromptLike, as_prompts
from pickaxe.v1 import decoder_pb2, decoder_pb2_grpc, reranker_pb2_grpc, retriever_pb2_grpc, scorer_pb2, scorer_pb2_grpc
from pickaxe_services.client.jobs import new_request_id
from pickaxe_services.client.transport import Sent, Transport
from pickaxe_services.codec import roles
from pickaxe_services.records import JobSpec, Options, Part, Use

if TYPE_CHECKING:
    from pickaxe_services.client import Client

H = TypeVar("H", bound="RemoteMethod")

BATCH = 1024
"""Items per message of a stream, as in the embedded handle: equal batches give equal bits."""
REQUEST_ITEMS = 8192
REQUEST_BYTES = 32 * 2**20
"""A score call above either goes as a stream."""


class RemoteMethod:
    """A method of a server with its parameters and artifact.  Cheap to make, safe to share between threads."""

    def __init__(self, client: Client, transport: Transport, use: Use) -> None:
        self._client, self._transport, self._use = client, transport, use

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in sorted(self.params.items()))
        return f"<remote {self.name}({given}) at {self._transport.target}>"

    @property
    def name(self) -> str:
        return self._use.method

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters as given; defaults are the server's."""
        return self._use.params

    @property
    def artifact(self) -> str:
        """ "artifacts/{id}", or "" without one."""
        return self._use.artifact

    def with_artifact(self: H, name: str) -> H:
        """The same method and parameters on another artifact of the server."""
        return type(self)(self._client, self._transport, replace(self._use, artifact=name))

    def fit(
        self: H,
        examples: Iterable[ItemLike],
        *,
        validation: Iterable[ItemLike] | None = None,
        unlabelled: Iterable[ItemLike] | None = None,
        out: str | os.PathLike[str] | None = None,
        init_from: str = "",
        overwrite: bool = False,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
        progress: OnProgress | None = None,
        request_id: str = "",
    ) -> H:
        """Fit on the server as a job, and return the handle on the new artifact there.

        With `out`, the artifact is fetched to that directory too.  `init_from` names an artifact of the server.
        The same `request_id` resumes a fit that failed.  Leaving early (deadline, interrupt) cancels the job.
        """
        parts: dict[Part, Iterable[ItemLike] | None] = {
            "examples": examples,
            "validation": validation,
            "unlabelled": unlabelled,
        }
        use = replace(self._use, artifact=init_from)
        call = call or self._transport.call(timeout, seed)
        spec = JobSpec("fit", use, request_id or new_request_id(), _options(call))
        return self._made(spec, parts, out, overwrite, call, progress)

    def _made(
        self: H,
        spec: JobSpec,
        parts: Mapping[Part, Iterable[ItemLike] | None],
        out: str | os.PathLike[str] | None,
        overwrite: bool,
        call: Call,
        progress: OnProgress | None,
    ) -> H:
        if out is not None and Path(out).exists() and not overwrite:
            raise AlreadyExists(f"{str(out)!r} exists: choose another path, or overwrite", metadata={"path": out})
        jobs = self._client.jobs
        job = jobs.start(spec, parts, timeout=call.remaining())
        try:
            done = jobs.wait(job.name, call=call, progress=progress)
        except BaseException:
            if not jobs.get(job.name).final:
                jobs.cancel(job.name)
            raise
        if out is not None:
            self._client.artifacts.download(done.artifact, out, overwrite=overwrite, timeout=call.remaining())
        return self.with_artifact(done.artifact)

    def _call(self, call: Call | None, timeout: float | None, seed: int, budget: int | None = None) -> Call:
        return call or self._transport.call(timeout, seed, budget)


def _options(call: Call) -> Options:
    return Options(call.seed, call.budget, call.tenant)


class RemoteScorer(RemoteMethod):
    """A scorer on a server."""

    def __init__(self, client: Client, transport: Transport, use: Use) -> None:
        super().__init__(client, transport, use)
        self._stub = scorer_pb2_grpc.ScorerServiceStub(transport.channel)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that `score` returns, primary first; asks the server."""
        return self.score([]).schema

    def score(
        self,
        items: Iterable[ItemLike],
        *,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
    ) -> Scores:
        """One row per item.  More than one request may hold goes as a stream."""
        given = as_items(items)
        call = self._call(call, timeout, seed)
        if len(given) <= REQUEST_ITEMS:
            request = roles.write_score_request(self._use, given, _options(call))
            if request.ByteSize() <= REQUEST_BYTES:
                return roles.read_score_response(self._transport.unary(self._stub.Score, request, call))
        return Scores.concatenate(list(self.stream(given, call=call)))

    def stream(
        self,
        items: Iterable[ItemLike],
        *,
        batch: int = BATCH,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
    ) -> Iterator[Scores]:
        """Results for consecutive stretches of any number of items, as the server works them off.

        Methods of group or pool scope answer once, after the last item.
        """
        call = self._call(call, timeout, seed)
        numbered = (as_item(value, str(row)) for row, value in enumerate(items))
        opened = roles.write_stream_open(self._use, _options(call))
        sent = Sent(chain([opened], _batches(numbered, batch)))
        for response in self._transport.stream(self._stub.ScoreStream, sent, call):
            yield roles.read_score_response(response)


def _batches(items: Iterator[Item], size: int) -> Iterator[scorer_pb2.ScoreStreamRequest]:
    offset = 0
    while part := tuple(islice(items, size)):
        yield from _fitting(part, offset)
        offset += len(part)


def _fitting(part: Sequence[Item], offset: int) -> Iterator[scorer_pb2.ScoreStreamRequest]:
    """The part as one message, or halved until each message is small enough."""
    message = roles.write_stream_batch(part, offset)
    if len(part) > 1 and message.ByteSize() > REQUEST_BYTES:
        middle = len(part) // 2
        yield from _fitting(part[:middle], offset)
        yield from _fitting(part[middle:], offset + middle)
    else:
        yield message


class RemoteRetriever(RemoteMethod):
    """A retriever on a server."""

    def __init__(self, client: Client, transport: Transport, use: Use) -> None:
        super().__init__(client, transport, use)
        self._stub = retriever_pb2_grpc.RetrieverServiceStub(transport.channel)

    def index(
        self,
        documents: Iterable[ItemLike],
        *,
        out: str | os.PathLike[str] | None = None,
        base: str | None = None,
        remove: Iterable[str] = (),
        overwrite: bool = False,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
        progress: OnProgress | None = None,
        request_id: str = "",
    ) -> RemoteRetriever:
        """Index on the server as a job, and return the handle that searches the index there.

        With `base`, an index of the server, the documents are added to those of that index, less those whose ids
        `remove` names.
        """
        call = self._call(call, timeout, seed)
        use, identity = self._use, request_id or new_request_id()
        spec = JobSpec("index", use, identity, _options(call), base or "", tuple(sorted(set(remove))))
        return self._made(spec, {"documents": documents}, out, overwrite, call, progress)

    def add(
        self,
        documents: Iterable[ItemLike],
        *,
        remove: Iterable[str] = (),
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
        progress: OnProgress | None = None,
        request_id: str = "",
    ) -> RemoteRetriever:
        """The handle of a new index: this one with more documents and without those whose ids `remove` names."""
        return self.with_artifact("").index(
            documents, out=out, base=self._use.artifact, remove=remove, overwrite=overwrite, timeout=timeout, seed=seed,
            call=call, progress=progress, request_id=request_id,
        )  # fmt: skip

    def search(
        self,
        queries: Iterable[ItemLike],
        k: int = 10,
        *,
        budget: int | None = None,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
    ) -> SearchResults:
        """At most `k` hits per query, best first."""
        call = self._call(call, timeout, seed, budget)
        request = roles.write_search_request(self._use, as_items(queries), k, _options(call))
        return roles.read_search_response(self._transport.unary(self._stub.Search, request, call))


class RemoteReranker(RemoteMethod):
    """A reranker on a server."""

    def __init__(self, client: Client, transport: Transport, use: Use) -> None:
        super().__init__(client, transport, use)
        self._stub = reranker_pb2_grpc.RerankerServiceStub(transport.channel)

    def rerank(
        self,
        query: ItemLike,
        candidates: Iterable[ItemLike],
        top_n: int = 0,
        *,
        timeout: float | None = None,
        seed: int = 0,
        budget: int | None = None,
        call: Call | None = None,
    ) -> Ranking:
        """The best `top_n` candidates (0: all), best first."""
        call = self._call(call, timeout, seed, budget)
        request = roles.write_rerank_request(
            self._use, as_item(query, "query"), as_items(candidates), top_n, _options(call)
        )
        return roles.read_rerank_response(self._transport.unary(self._stub.Rerank, request, call))


class RemoteDecoder(RemoteMethod):
    """A decoder on a server."""

    def __init__(self, client: Client, transport: Transport, use: Use) -> None:
        super().__init__(client, transport, use)
        self._stub = decoder_pb2_grpc.DecoderServiceStub(transport.channel)

    def decode(
        self,
        prompts: PromptLike | Iterable[PromptLike],
        *,
        timeout: float | None = None,
        seed: int = 0,
        budget: int | None = None,
        call: Call | None = None,
    ) -> Iterator[Chunk]:
        """Chunks as they come; closing the iterator ends the work on the server within one step."""
        call = self._call(call, timeout, seed, budget)
        request = roles.write_decode_request(self._use, as_prompts(prompts), _options(call))
        return self._chunks(request, call)

    def _chunks(self, request: decoder_pb2.DecodeRequest, call: Call) -> Iterator[Chunk]:
        for answer in self._transport.stream(self._stub.Decode, request, call):
            yield roles.read_chunk(answer)

    def complete(
        self,
        prompts: PromptLike | Iterable[PromptLike],
        *,
        timeout: float | None = None,
        seed: int = 0,
        budget: int | None = None,
        call: Call | None = None,
    ) -> list[Completion]:
        """The same as whole completions, by prompt and choice."""
        return completions(self.decode(prompts, timeout=timeout, seed=seed, budget=budget, call=call))
