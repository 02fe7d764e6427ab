from google.protobuf import struct_pb2 as _struct_pb2
from pickaxe.v1 import data_pb2 as _data_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RerankRequest(_message.Message):
    __slots__ = ("use", "query", "candidates", "top_n", "options")
    USE_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    use: _data_pb2.MethodUse
    query: _data_pb2.Item
    candidates: _containers.RepeatedCompositeFieldContainer[_data_pb2.Item]
    top_n: int
    options: _data_pb2.CallOptions
    def __init__(self, use: _Optional[_Union[_data_pb2.MethodUse, _Mapping]] = ..., query: _Optional[_Union[_data_pb2.Item, _Mapping]] = ..., candidates: _Optional[_Iterable[_Union[_data_pb2.Item, _Mapping]]] = ..., top_n: _Optional[int] = ..., options: _Optional[_Union[_data_pb2.CallOptions, _Mapping]] = ...) -> None: ...

class Ranked(_message.Message):
    __slots__ = ("index", "id", "score")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    index: int
    id: str
    score: float
    def __init__(self, index: _Optional[int] = ..., id: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("ranked", "scores", "cut", "usage", "record", "timings")
    class UsageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RANKED_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    ranked: _containers.RepeatedCompositeFieldContainer[Ranked]
    scores: _containers.RepeatedScalarFieldContainer[float]
    cut: str
    usage: _containers.ScalarMap[str, float]
    record: _struct_pb2.Struct
    timings: _data_pb2.Timings
    def __init__(self, ranked: _Optional[_Iterable[_Union[Ranked, _Mapping]]] = ..., scores: _Optional[_Iterable[float]] = ..., cut: _Optional[str] = ..., usage: _Optional[_Mapping[str, float]] = ..., record: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., timings: _Optional[_Union[_data_pb2.Timings, _Mapping]] = ...) -> None: ...
