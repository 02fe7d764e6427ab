from google.protobuf import struct_pb2 as _struct_pb2
from pickaxe.v1 import data_pb2 as _data_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_SCORER: _ClassVar[Role]
    ROLE_RETRIEVER: _ClassVar[Role]
    ROLE_RERANKER: _ClassVar[Role]
    ROLE_DECODER: _ClassVar[Role]

class Scope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCOPE_UNSPECIFIED: _ClassVar[Scope]
    SCOPE_ITEM: _ClassVar[Scope]
    SCOPE_GROUP: _ClassVar[Scope]
    SCOPE_POOL: _ClassVar[Scope]

class Fitted(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FITTED_UNSPECIFIED: _ClassVar[Fitted]
    FITTED_NEVER: _ClassVar[Fitted]
    FITTED_OPTIONAL: _ClassVar[Fitted]
    FITTED_REQUIRED: _ClassVar[Fitted]

class MethodView(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METHOD_VIEW_UNSPECIFIED: _ClassVar[MethodView]
    METHOD_VIEW_BASIC: _ClassVar[MethodView]
    METHOD_VIEW_FULL: _ClassVar[MethodView]
ROLE_UNSPECIFIED: Role
ROLE_SCORER: Role
ROLE_RETRIEVER: Role
ROLE_RERANKER: Role
ROLE_DECODER: Role
SCOPE_UNSPECIFIED: Scope
SCOPE_ITEM: Scope
SCOPE_GROUP: Scope
SCOPE_POOL: Scope
FITTED_UNSPECIFIED: Fitted
FITTED_NEVER: Fitted
FITTED_OPTIONAL: Fitted
FITTED_REQUIRED: Fitted
METHOD_VIEW_UNSPECIFIED: MethodView
METHOD_VIEW_BASIC: MethodView
METHOD_VIEW_FULL: MethodView

class InputField(_message.Message):
    __slots__ = ("name", "kind", "doc", "required")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DOC_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    doc: str
    required: bool
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., doc: _Optional[str] = ..., required: bool = ...) -> None: ...

class Example(_message.Message):
    __slots__ = ("params", "items", "ordered", "examples", "validation", "documents", "queries", "query", "candidates", "prompts")
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ORDERED_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    params: _struct_pb2.Struct
    items: _containers.RepeatedCompositeFieldContainer[_data_pb2.Item]
    ordered: bool
    examples: _containers.RepeatedCompositeFieldContainer[_data_pb2.Item]
    validation: _containers.RepeatedCompositeFieldContainer[_data_pb2.Item]
    documents: _containers.RepeatedCompositeFieldContainer[_data_pb2.Item]
    queries: _containers.RepeatedCompositeFieldContainer[_data_pb2.Item]
    query: _data_pb2.Item
    candidates: _containers.RepeatedCompositeFieldContainer[_data_pb2.Item]
    prompts: _containers.RepeatedCompositeFieldContainer[_data_pb2.Prompt]
    def __init__(self, params: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., items: _Optional[_Iterable[_Union[_data_pb2.Item, _Mapping]]] = ..., ordered: bool = ..., examples: _Optional[_Iterable[_Union[_data_pb2.Item, _Mapping]]] = ..., validation: _Optional[_Iterable[_Union[_data_pb2.Item, _Mapping]]] = ..., documents: _Optional[_Iterable[_Union[_data_pb2.Item, _Mapping]]] = ..., queries: _Optional[_Iterable[_Union[_data_pb2.Item, _Mapping]]] = ..., query: _Optional[_Union[_data_pb2.Item, _Mapping]] = ..., candidates: _Optional[_Iterable[_Union[_data_pb2.Item, _Mapping]]] = ..., prompts: _Optional[_Iterable[_Union[_data_pb2.Prompt, _Mapping]]] = ...) -> None: ...

class Method(_message.Message):
    __slots__ = ("name", "roles", "distribution", "title", "summary", "description", "paper", "version", "params_schema", "scope", "reads", "fit_reads", "columns", "fitted", "trainable", "stages", "cost", "reproduced", "example", "error", "grows")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    DISTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PAPER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARAMS_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    FIT_READS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    FITTED_FIELD_NUMBER: _ClassVar[int]
    TRAINABLE_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    REPRODUCED_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    GROWS_FIELD_NUMBER: _ClassVar[int]
    name: str
    roles: _containers.RepeatedScalarFieldContainer[Role]
    distribution: str
    title: str
    summary: str
    description: str
    paper: str
    version: int
    params_schema: _struct_pb2.Struct
    scope: Scope
    reads: _containers.RepeatedCompositeFieldContainer[InputField]
    fit_reads: _containers.RepeatedCompositeFieldContainer[InputField]
    columns: _containers.RepeatedCompositeFieldContainer[_data_pb2.ColumnSpec]
    fitted: Fitted
    trainable: bool
    stages: _containers.RepeatedScalarFieldContainer[str]
    cost: str
    reproduced: str
    example: Example
    error: _data_pb2.Error
    grows: bool
    def __init__(self, name: _Optional[str] = ..., roles: _Optional[_Iterable[_Union[Role, str]]] = ..., distribution: _Optional[str] = ..., title: _Optional[str] = ..., summary: _Optional[str] = ..., description: _Optional[str] = ..., paper: _Optional[str] = ..., version: _Optional[int] = ..., params_schema: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., scope: _Optional[_Union[Scope, str]] = ..., reads: _Optional[_Iterable[_Union[InputField, _Mapping]]] = ..., fit_reads: _Optional[_Iterable[_Union[InputField, _Mapping]]] = ..., columns: _Optional[_Iterable[_Union[_data_pb2.ColumnSpec, _Mapping]]] = ..., fitted: _Optional[_Union[Fitted, str]] = ..., trainable: bool = ..., stages: _Optional[_Iterable[str]] = ..., cost: _Optional[str] = ..., reproduced: _Optional[str] = ..., example: _Optional[_Union[Example, _Mapping]] = ..., error: _Optional[_Union[_data_pb2.Error, _Mapping]] = ..., grows: bool = ...) -> None: ...

class ListMethodsRequest(_message.Message):
    __slots__ = ("role", "view", "page_size", "page_token")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    role: Role
    view: MethodView
    page_size: int
    page_token: str
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., view: _Optional[_Union[MethodView, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListMethodsResponse(_message.Message):
    __slots__ = ("methods", "next_page_token")
    METHODS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    methods: _containers.RepeatedCompositeFieldContainer[Method]
    next_page_token: str
    def __init__(self, methods: _Optional[_Iterable[_Union[Method, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetMethodRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetMethodResponse(_message.Message):
    __slots__ = ("method",)
    METHOD_FIELD_NUMBER: _ClassVar[int]
    method: Method
    def __init__(self, method: _Optional[_Union[Method, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_items_per_request", "max_items_waiting", "max_message_bytes", "max_artifact_bytes", "max_jobs")
    MAX_ITEMS_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_WAITING_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ARTIFACT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_JOBS_FIELD_NUMBER: _ClassVar[int]
    max_items_per_request: int
    max_items_waiting: int
    max_message_bytes: int
    max_artifact_bytes: int
    max_jobs: int
    def __init__(self, max_items_per_request: _Optional[int] = ..., max_items_waiting: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_artifact_bytes: _Optional[int] = ..., max_jobs: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class GetServerRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerResponse(_message.Message):
    __slots__ = ("version", "providers", "limits", "models", "resources", "draining")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROVIDERS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    version: str
    providers: _containers.RepeatedScalarFieldContainer[str]
    limits: Limits
    models: _containers.RepeatedCompositeFieldContainer[Model]
    resources: _containers.RepeatedScalarFieldContainer[str]
    draining: bool
    def __init__(self, version: _Optional[str] = ..., providers: _Optional[_Iterable[str]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., resources: _Optional[_Iterable[str]] = ..., draining: bool = ...) -> None: ...
