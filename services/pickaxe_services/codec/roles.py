"""The four roles' requests and results.  One pair of functions per message: `write_…` and `read_…`."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import struct_pb2

from pickaxe.data import (
    Chunk,
    Column,
    Flag,
    Groups,
    Hit,
    Item,
    Items,
    Prompt,
    Ranked,
    Ranking,
    Scores,
    SearchResults,
    Segment,
    Span,
)
from pickaxe.errors import InvalidItems, InvalidParams, MethodFailed
from pickaxe.v1 import data_pb2, decoder_pb2, reranker_pb2, retriever_pb2, scorer_pb2
from pickaxe_services.codec import values
from pickaxe_services.records import Options, Use

# ---------------------------------------------------------------- columns

_COLUMN_TYPES = {
    "float32": data_pb2.DATA_TYPE_FLOAT32,
    "float64": data_pb2.DATA_TYPE_FLOAT64,
    "int64": data_pb2.DATA_TYPE_INT64,
    "bool": data_pb2.DATA_TYPE_BOOL,
    "str": data_pb2.DATA_TYPE_STR,
}
_COLUMN_NAMES = {number: name for name, number in _COLUMN_TYPES.items()}
_DIRECTIONS = {
    "higher": data_pb2.DIRECTION_HIGHER,
    "lower": data_pb2.DIRECTION_LOWER,
    "none": data_pb2.DIRECTION_NONE,
}
_DIRECTION_NAMES = {number: name for name, number in _DIRECTIONS.items()}


@functools.lru_cache(256)
def write_schema(columns: tuple[Column, ...]) -> list[data_pb2.ColumnSpec]:
    """Every answer of a lane carries the same one."""
    return [
        data_pb2.ColumnSpec(
            name=each.name,
            doc=each.doc,
            data_type=_COLUMN_TYPES[each.dtype],
            unit=each.unit,
            direction=_DIRECTIONS[each.direction],
            nullable=each.nullable,
        )
        for each in columns
    ]


def read_schema(messages: Iterable[data_pb2.ColumnSpec]) -> tuple[Column, ...]:
    return tuple(
        Column(
            each.name,
            each.doc,
            _COLUMN_NAMES.get(each.data_type, "float32"),  # type: ignore[arg-type]
            each.unit,
            _DIRECTION_NAMES.get(each.direction, "none"),  # type: ignore[arg-type]
            each.nullable,
        )
        for each in messages
    )


def _write_column(name: str, array: np.ndarray) -> data_pb2.Column:
    listed = array.tolist()
    match array.dtype.name:
        case "float32":
            return data_pb2.Column(name=name, float32s=data_pb2.Float32Values(values=listed))
        case "float64":
            return data_pb2.Column(name=name, float64s=data_pb2.Float64Values(values=listed))
        case "int64":
            return data_pb2.Column(name=name, int64s=data_pb2.Int64Values(values=listed))
        case "bool":
            return data_pb2.Column(name=name, bools=data_pb2.BoolValues(values=listed))
    return data_pb2.Column(name=name, strs=data_pb2.StrValues(values=listed))


def _read_column(column: data_pb2.Column) -> np.ndarray:
    match column.WhichOneof("data"):
        case "float32s":
            return np.array(column.float32s.values, np.float32)
        case "float64s":
            return np.array(column.float64s.values, np.float64)
        case "int64s":
            return np.array(column.int64s.values, np.int64)
        case "bools":
            return np.array(column.bools.values, np.bool_)
    return np.array(list(column.strs.values), np.str_)


def _write_columns(columns: Mapping[str, np.ndarray]) -> list[data_pb2.Column]:
    return [_write_column(name, array) for name, array in columns.items()]


def _read_columns(columns: Iterable[data_pb2.Column]) -> dict[str, np.ndarray]:
    return {column.name: _read_column(column) for column in columns}


def _write_record(record: Mapping[str, Any], label: str) -> struct_pb2.Struct | None:
    """A JSON record that a method made; the fault is the method's when it cannot be sent."""
    try:
        return values.write_struct(record) if record else None
    except values.Unwritable as error:
        raise MethodFailed(f"the result cannot be sent: {label}.{error.path} {error.problem}") from None


# ---------------------------------------------------------------- scorer


def write_score_request(use: Use, items: Iterable[Item], options: Options) -> scorer_pb2.ScoreRequest:
    return scorer_pb2.ScoreRequest(
        use=values.write_use(use), items=values.write_items(items), options=values.write_options(options)
    )


def read_score_request(request: scorer_pb2.ScoreRequest) -> tuple[Use, Items, Options]:
    return values.read_use(request.use), values.read_items(request.items), values.read_options(request.options)


def _write_scores(scores: Scores) -> scorer_pb2.Scores:
    groups = scores.groups
    return scorer_pb2.Scores(
        columns=_write_columns(scores.columns),
        schema=write_schema(scores.schema),
        groups=None
        if groups is None
        else scorer_pb2.Groups(
            keys=groups.keys, columns=_write_columns(groups.columns), schema=write_schema(groups.schema)
        ),
        summary=_write_record(scores.summary, "summary"),
        flags=[scorer_pb2.Flag(index=flag.index, reason=flag.reason, message=flag.message) for flag in scores.flags],
        segments=[
            scorer_pb2.Segments(
                segments=[data_pb2.Segment(start=each.start, end=each.end, score=each.score) for each in part]
            )
            for part in scores.segments
        ],
    )


def write_score_response(scores: Scores) -> scorer_pb2.ScoreResponse:
    return scorer_pb2.ScoreResponse(scores=_write_scores(scores), timings=values.write_timings(scores.timings))


def read_score_response(
    response: scorer_pb2.ScoreResponse | scorer_pb2.ScoreStreamResponse,
) -> Scores:
    message = response.scores
    groups = message.groups
    return Scores(
        columns=_read_columns(message.columns),
        groups=Groups(tuple(groups.keys), _read_columns(groups.columns), read_schema(groups.schema))
        if message.HasField("groups")
        else None,
        summary=values.read_struct(message.summary),
        flags=tuple(Flag(flag.index, flag.reason, flag.message) for flag in message.flags),
        segments=tuple(
            tuple(Segment(each.start, each.end, each.score) for each in part.segments) for part in message.segments
        ),
        schema=read_schema(message.schema),
        timings=values.read_timings(response.timings) if response.HasField("timings") else None,
    )


def write_stream_open(use: Use, options: Options) -> scorer_pb2.ScoreStreamRequest:
    opened = scorer_pb2.ScoreStreamOpen(use=values.write_use(use), options=values.write_options(options))
    return scorer_pb2.ScoreStreamRequest(open=opened)


def read_stream_open(request: scorer_pb2.ScoreStreamRequest) -> tuple[Use, Options]:
    if request.WhichOneof("part") != "open":
        raise InvalidParams("open", "must come first: the first message of the stream names the method")
    return values.read_use(request.open.use), values.read_options(request.open.options)


def write_stream_batch(items: Iterable[Item], offset: int) -> scorer_pb2.ScoreStreamRequest:
    written = [values.write_item(item, f"items[{row}]") for row, item in enumerate(items, offset)]
    return scorer_pb2.ScoreStreamRequest(batch=scorer_pb2.ItemBatch(items=written))


def read_stream_batch(request: scorer_pb2.ScoreStreamRequest) -> Items:
    if request.WhichOneof("part") != "batch":
        raise InvalidItems("batch", "must follow: after the first message a stream carries items only")
    return values.read_items(request.batch.items)


def write_stream_response(scores: Scores, offset: int) -> scorer_pb2.ScoreStreamResponse:
    return scorer_pb2.ScoreStreamResponse(
        offset=offset, scores=_write_scores(scores), timings=values.write_timings(scores.timings)
    )


# ---------------------------------------------------------------- retriever


def write_search_request(use: Use, queries: Iterable[Item], k: int, options: Options) -> retriever_pb2.SearchRequest:
    return retriever_pb2.SearchRequest(
        use=values.write_use(use),
        queries=values.write_items(queries, "queries"),
        k=_int32("k", k),
        options=values.write_options(options),
    )


def read_search_request(request: retriever_pb2.SearchRequest) -> tuple[Use, Items, int, Options]:
    return (
        values.read_use(request.use),
        values.read_items(request.queries, "queries"),
        request.k,
        values.read_options(request.options),
    )


def write_search_response(found: SearchResults) -> retriever_pb2.SearchResponse:
    return retriever_pb2.SearchResponse(
        results=[
            retriever_pb2.Hits(
                hits=[
                    retriever_pb2.Hit(
                        id=hit.id,
                        score=hit.score,
                        columns=hit.columns,
                        spans=[data_pb2.Span(start=span.start, end=span.end) for span in hit.spans],
                    )
                    for hit in hits
                ]
            )
            for hits in found.results
        ],
        usage=found.usage,
        timings=values.write_timings(found.timings),
    )


def read_search_response(response: retriever_pb2.SearchResponse) -> SearchResults:
    return SearchResults(
        tuple(
            tuple(
                Hit(hit.id, hit.score, dict(hit.columns), tuple(Span(span.start, span.end) for span in hit.spans))
                for hit in hits.hits
            )
            for hits in response.results
        ),
        dict(response.usage),
        values.read_timings(response.timings) if response.HasField("timings") else None,
    )


# ---------------------------------------------------------------- reranker


def write_rerank_request(
    use: Use, query: Item, candidates: Iterable[Item], top_n: int, options: Options
) -> reranker_pb2.RerankRequest:
    return reranker_pb2.RerankRequest(
        use=values.write_use(use),
        query=values.write_item(query, "query"),
        candidates=values.write_items(candidates, "candidates"),
        top_n=_int32("top_n", top_n),
        options=values.write_options(options),
    )


def read_rerank_request(request: reranker_pb2.RerankRequest) -> tuple[Use, Item, Items, int, Options]:
    if not request.HasField("query"):
        raise InvalidItems("query", "is missing")
    return (
        values.read_use(request.use),
        values.read_item(request.query, "query"),
        values.read_items(request.candidates, "candidates"),
        request.top_n,
        values.read_options(request.options),
    )


def write_rerank_response(ranking: Ranking) -> reranker_pb2.RerankResponse:
    return reranker_pb2.RerankResponse(
        ranked=[reranker_pb2.Ranked(index=each.index, id=each.id, score=each.score) for each in ranking.ranked],
        scores=ranking.scores.tolist(),
        cut=ranking.cut,
        usage=ranking.usage,
        record=_write_record(ranking.record, "record"),
        timings=values.write_timings(ranking.timings),
    )


def read_rerank_response(response: reranker_pb2.RerankResponse) -> Ranking:
    return Ranking(
        tuple(Ranked(each.index, each.id, each.score) for each in response.ranked),
        np.array(response.scores, np.float32),
        response.cut,
        dict(response.usage),
        values.read_struct(response.record),
        values.read_timings(response.timings) if response.HasField("timings") else None,
    )


# ---------------------------------------------------------------- decoder

_FINISH = {
    "": decoder_pb2.FINISH_REASON_UNSPECIFIED,
    "stop": decoder_pb2.FINISH_REASON_STOP,
    "length": decoder_pb2.FINISH_REASON_LENGTH,
    "abstain": decoder_pb2.FINISH_REASON_ABSTAIN,
}
_FINISH_NAMES = {number: name for name, number in _FINISH.items()}


def write_decode_request(use: Use, prompts: Sequence[Prompt], options: Options) -> decoder_pb2.DecodeRequest:
    return decoder_pb2.DecodeRequest(
        use=values.write_use(use), prompts=values.write_prompts(prompts), options=values.write_options(options)
    )


def read_decode_request(request: decoder_pb2.DecodeRequest) -> tuple[Use, list[Prompt], Options]:
    return (
        values.read_use(request.use),
        values.read_prompts(request.prompts),
        values.read_options(request.options),
    )


def write_chunk(chunk: Chunk) -> decoder_pb2.DecodeResponse:
    message = decoder_pb2.DecodeResponse(
        prompt=chunk.prompt,
        choice=chunk.choice,
        text=chunk.text,
        token_ids=chunk.token_ids,
        logprobs=chunk.logprobs,
        finish_reason=_FINISH[chunk.finish_reason],
        usage=chunk.usage,
    )
    if chunk.record is not None:
        message.record.SetInParent()
        message.record.CopyFrom(_write_record(chunk.record, "record") or struct_pb2.Struct())
    return message


def read_chunk(message: decoder_pb2.DecodeResponse) -> Chunk:
    return Chunk(
        message.prompt,
        message.choice,
        message.text,
        tuple(message.token_ids),
        tuple(message.logprobs),
        values.read_struct(message.record) if message.HasField("record") else None,
        _FINISH_NAMES.get(message.finish_reason, ""),  # type: ignore[arg-type]
        dict(message.usage),
    )


def _int32(field: str, value: int) -> int:
    if not -(2**31) <= value < 2**31:
        raise InvalidParams(field, f"must fit into 32 bits (got {value})")
    return value
