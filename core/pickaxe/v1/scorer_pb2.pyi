from google.protobuf import struct_pb2 as _struct_pb2
from pickaxe.v1 import data_pb2 as _data_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Groups(_message.Message):
    __slots__ = ("keys", "columns", "schema")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    columns: _containers.RepeatedCompositeFieldContainer[_data_pb2.Column]
    schema: _containers.RepeatedCompositeFieldContainer[_data_pb2.ColumnSpec]
    def __init__(self, keys: _Optional[_Iterable[str]] = ..., columns: _Optional[_Iterable[_Union[_data_pb2.Column, _Mapping]]] = ..., schema: _Optional[_Iterable[_Union[_data_pb2.ColumnSpec, _Mapping]]] = ...) -> None: ...

class Flag(_message.Message):
    __slots__ = ("index", "reason", "message")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    index: int
    reason: str
    message: str
    def __init__(self, index: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Segments(_message.Message):
    __slots__ = ("segments",)
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    segments: _containers.RepeatedCompositeFieldContainer[_data_pb2.Segment]
    def __init__(self, segments: _Optional[_Iterable[_Union[_data_pb2.Segment, _Mapping]]] = ...) -> None: ...

class Scores(_message.Message):
    __slots__ = ("columns", "schema", "groups", "summary", "flags", "segments")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[_data_pb2.Column]
    schema: _containers.RepeatedCompositeFieldContainer[_data_pb2.ColumnSpec]
    groups: Groups
    summary: _struct_pb2.Struct
    flags: _containers.RepeatedCompositeFieldContainer[Flag]
    segments: _containers.RepeatedCompositeFieldContainer[Segments]
    def __init__(self, columns: _Optional[_Iterable[_Union[_data_pb2.Column, _Mapping]]] = ..., schema: _Optional[_Iterable[_Union[_data_pb2.ColumnSpec, _Mapping]]] = ..., groups: _Optional[_Union[Groups, _Mapping]] = ..., summary: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., flags: _Optional[_Iterable[_Union[Flag, _Mapping]]] = ..., segments: _Optional[_Iterable[_Union[Segments, _Mapping]]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("use", "items", "options")
    USE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    use: _data_pb2.MethodUse
    items: _containers.RepeatedCompositeFieldContainer[_data_pb2.Item]
    options: _data_pb2.CallOptions
    def __init__(self, use: _Optional[_Union[_data_pb2.MethodUse, _Mapping]] = ..., items: _Optional[_Iterable[_Union[_data_pb2.Item, _Mapping]]] = ..., options: _Optional[_Union[_data_pb2.CallOptions, _Mapping]] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("scores", "timings")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    scores: Scores
    timings: _data_pb2.Timings
    def __init__(self, scores: _Optional[_Union[Scores, _Mapping]] = ..., timings: _Optional[_Union[_data_pb2.Timings, _Mapping]] = ...) -> None: ...

class ScoreStreamOpen(_message.Message):
    __slots__ = ("use", "options")
    USE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    use: _data_pb2.MethodUse
    options: _data_pb2.CallOptions
    def __init__(self, use: _Optional[_Union[_data_pb2.MethodUse, _Mapping]] = ..., options: _Optional[_Union[_data_pb2.CallOptions, _Mapping]] = ...) -> None: ...

class ItemBatch(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[_data_pb2.Item]
    def __init__(self, items: _Optional[_Iterable[_Union[_data_pb2.Item, _Mapping]]] = ...) -> None: ...

class ScoreStreamRequest(_message.Message):
    __slots__ = ("open", "batch")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    open: ScoreStreamOpen
    batch: ItemBatch
    def __init__(self, open: _Optional[_Union[ScoreStreamOpen, _Mapping]] = ..., batch: _Optional[_Union[ItemBatch, _Mapping]] = ...) -> None: ...

class ScoreStreamResponse(_message.Message):
    __slots__ = ("offset", "scores", "timings")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    offset: int
    scores: Scores
    timings: _data_pb2.Timings
    def __init__(self, offset: _Optional[int] = ..., scores: _Optional[_Union[Scores, _Mapping]] = ..., timings: _Optional[_Union[_data_pb2.Timings, _Mapping]] = ...) -> None: ...
