from pickaxe.v1 import data_pb2 as _data_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchRequest(_message.Message):
    __slots__ = ("use", "queries", "k", "options")
    USE_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    use: _data_pb2.MethodUse
    queries: _containers.RepeatedCompositeFieldContainer[_data_pb2.Item]
    k: int
    options: _data_pb2.CallOptions
    def __init__(self, use: _Optional[_Union[_data_pb2.MethodUse, _Mapping]] = ..., queries: _Optional[_Iterable[_Union[_data_pb2.Item, _Mapping]]] = ..., k: _Optional[int] = ..., options: _Optional[_Union[_data_pb2.CallOptions, _Mapping]] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("id", "score", "columns", "spans")
    class ColumnsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    id: str
    score: float
    columns: _containers.ScalarMap[str, float]
    spans: _containers.RepeatedCompositeFieldContainer[_data_pb2.Span]
    def __init__(self, id: _Optional[str] = ..., score: _Optional[float] = ..., columns: _Optional[_Mapping[str, float]] = ..., spans: _Optional[_Iterable[_Union[_data_pb2.Span, _Mapping]]] = ...) -> None: ...

class Hits(_message.Message):
    __slots__ = ("hits",)
    HITS_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("results", "usage", "timings")
    class UsageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Hits]
    usage: _containers.ScalarMap[str, float]
    timings: _data_pb2.Timings
    def __init__(self, results: _Optional[_Iterable[_Union[Hits, _Mapping]]] = ..., usage: _Optional[_Mapping[str, float]] = ..., timings: _Optional[_Union[_data_pb2.Timings, _Mapping]] = ...) -> None: ...
