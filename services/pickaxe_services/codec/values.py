"""Structs, tensors, fields, items, prompts: values that every service exchanges.

Reading raises `InvalidItems` or `InvalidParams` naming the field, as `items[3].fields.pair`; so does writing,
for what the wire cannot hold: integers beyond 2^53 in JSON, lone surrogates, object arrays.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2
from google.rpc import code_pb2

from pickaxe.data import FieldValue, Handle, Item, Items, Message, Prompt, Sampling, Timings, kind_of
from pickaxe.errors import InvalidItems, InvalidParams, PickaxeError, Violation, from_reason
from pickaxe.jsonable import MAX_EXACT
from pickaxe.v1 import data_pb2 as pb
from pickaxe_services.records import Options, Use

MAX_DEPTH = 30
"""How deep JSON may nest: protobuf parsers stop at a hundred messages, three per level."""
MAX_DIMENSIONS = 32
_HALF_PAIR = "half a surrogate pair, which is not Unicode text"

DTYPES: dict[str, Any] = {
    name: getattr(pb, f"DATA_TYPE_{name.upper()}")
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64", "complex64", "complex128",
    )
}  # fmt: skip
_DTYPE_NAMES = {number: name for name, number in DTYPES.items()}
_HANDLE_KINDS = {"checkpoint": pb.Handle.KIND_CHECKPOINT, "database": pb.Handle.KIND_DATABASE}
_HANDLE_NAMES = {number: name for name, number in _HANDLE_KINDS.items()}


class Unwritable(ValueError):
    """A value that the wire cannot hold; `path` leads to it from the outermost value."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or 'the value'} {problem}")
        self.path = path
        self.problem = problem


# ---------------------------------------------------------------- JSON


def write_struct(record: Mapping[str, Any], message: struct_pb2.Struct | None = None) -> struct_pb2.Struct:
    """A JSON object; raises `Unwritable`."""
    struct = struct_pb2.Struct() if message is None else message
    _fill_struct(record, struct, "", 0)
    return struct


def _fill_struct(record: Mapping[str, Any], struct: struct_pb2.Struct, path: str, depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise Unwritable(path, f"nests deeper than {MAX_DEPTH} levels")
    struct.fields.clear()  # marks an empty object as present
    for key, value in record.items():
        if not isinstance(key, str):
            raise Unwritable(path, f"has the key {key!r}; JSON keys are text")
        _fill_value(value, struct.fields[key], f"{path}.{key}" if path else key, depth)


def _fill_value(value: Any, message: struct_pb2.Value, path: str, depth: int) -> None:
    match value:
        case None:
            message.null_value = struct_pb2.NULL_VALUE
        case bool() | np.bool_():
            message.bool_value = bool(value)
        case int() | np.integer():
            if abs(int(value)) > MAX_EXACT:
                raise Unwritable(path, f"is {value}, beyond 2^53: write such integers as text")
            message.number_value = int(value)
        case float() | np.floating():
            message.number_value = float(value)
        case str():
            message.string_value = value
        case Mapping():
            message.struct_value.SetInParent()
            _fill_struct(value, message.struct_value, path, depth + 1)
        case list() | tuple():
            if depth + 1 >= MAX_DEPTH:
                raise Unwritable(path, f"nests deeper than {MAX_DEPTH} levels")
            message.list_value.SetInParent()
            for place, part in enumerate(value):
                _fill_value(part, message.list_value.values.add(), f"{path}[{place}]", depth + 1)
        case _:
            raise Unwritable(path, f"is of type {type(value).__name__}, which is not JSON")


def read_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """The JSON object; whole numbers become int, as `json.loads` would give them.

    Keys come sorted: a map on the wire has no order, and none by chance may reach a method.
    """
    return {key: _read_value(struct.fields[key]) for key in sorted(struct.fields)}


def _read_value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        whole = number.is_integer() and abs(number) <= MAX_EXACT and (number or math.copysign(1, number) > 0)
        return int(number) if whole else number
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return read_struct(value.struct_value)
    if kind == "list_value":
        return [_read_value(part) for part in value.list_value.values]
    return None


# ---------------------------------------------------------------- fields and items


def write_tensor(array: np.ndarray) -> pb.Tensor:
    """Little-endian, C order; raises `Unwritable` for element types other than NumPy's numbers and bool."""
    number = DTYPES.get(array.dtype.name)
    if number is None:
        raise Unwritable("", f"is an array of {array.dtype}; supported are {', '.join(DTYPES)}")
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return pb.Tensor(data_type=number, shape=array.shape, data=data)


def read_tensor(tensor: pb.Tensor, where: str) -> np.ndarray:
    """A read-only array."""
    name = _DTYPE_NAMES.get(tensor.data_type)
    if name is None:
        raise InvalidItems(f"{where}.data_type", f"must be one of {', '.join(DTYPES)} (got {tensor.data_type})")
    shape = tuple(tensor.shape)
    if len(shape) > MAX_DIMENSIONS or any(length < 0 for length in shape):
        raise InvalidItems(f"{where}.shape", f"must be at most {MAX_DIMENSIONS} lengths of at least 0")
    dtype = np.dtype(name).newbyteorder("<")
    expected = math.prod(shape) * dtype.itemsize
    if len(tensor.data) != expected:
        raise InvalidItems(
            f"{where}.data", f"has {len(tensor.data)} bytes; {name} of shape {list(shape)} takes {expected}"
        )
    if name == "bool":
        array = np.frombuffer(tensor.data, np.uint8) != 0
        array.flags.writeable = False
    else:
        array = np.frombuffer(tensor.data, dtype)
    return array.reshape(shape)


def _write_field(value: Any) -> pb.Field:
    match kind_of(value):
        case "text":
            return pb.Field(text=value)
        case "texts":
            return pb.Field(texts=pb.Texts(values=value))
        case "float64":
            return pb.Field(number=float(value))
        case "int64":
            if not -(2**63) <= int(value) < 2**63:
                raise Unwritable("", f"is {value}, beyond 64 bits")
            return pb.Field(integer=int(value))
        case "bool":
            return pb.Field(boolean=bool(value))
        case "tensor":
            return pb.Field(tensor=write_tensor(value))
        case "struct":
            return pb.Field(record=write_struct(value))
        case "checkpoint" | "database" as kind:
            return pb.Field(handle=pb.Handle(kind=_HANDLE_KINDS[kind], name=value.name))
    raise Unwritable("", f"is of type {type(value).__name__}, which no field holds")


def _read_field(message: pb.Field, where: str) -> FieldValue:
    match message.WhichOneof("kind"):
        case "text":
            return message.text
        case "number":
            return message.number
        case "integer":
            return message.integer
        case "boolean":
            return message.boolean
        case "texts":
            return tuple(message.texts.values)
        case "tensor":
            return read_tensor(message.tensor, where)
        case "record":
            return read_struct(message.record)
        case "handle":
            kind = _HANDLE_NAMES.get(message.handle.kind)
            if kind is None:
                raise InvalidItems(f"{where}.kind", "must be CHECKPOINT or DATABASE")
            return Handle(kind, message.handle.name)  # type: ignore[arg-type]
    raise InvalidItems(where, "has no value")


def write_fields(fields: Mapping[str, FieldValue], where: str) -> dict[str, pb.Field]:
    written = {}
    for name, value in fields.items():
        try:
            written[name] = _write_field(value)
        except Unwritable as error:
            inner = f".{error.path}" if error.path else ""
            raise InvalidItems(f"{where}.fields.{name}{inner}", error.problem) from None
    return written


def read_fields(fields: Mapping[str, pb.Field], where: str) -> dict[str, FieldValue]:
    return {name: _read_field(fields[name], f"{where}.fields.{name}") for name in sorted(fields)}


def write_item(item: Item, where: str) -> pb.Item:
    try:
        return pb.Item(id=item.id, text=item.text, fields=write_fields(item.fields, where))
    except UnicodeEncodeError:
        raise InvalidItems(where, f"holds {_HALF_PAIR} (item {item.id!r})") from None
    except TypeError as error:
        raise InvalidItems(where, f"has an id or text that is not text: {error}") from None


def write_items(items: Iterable[Item], where: str = "items") -> list[pb.Item]:
    return [write_item(item, f"{where}[{row}]") for row, item in enumerate(items)]


def read_item(message: pb.Item, where: str) -> Item:
    text = message.text or (message.text if message.HasField("text") else None)
    return Item(message.id, text, read_fields(message.fields, where) if message.fields else {})


def read_items(messages: Sequence[pb.Item], where: str = "items") -> Items:
    return Items([read_item(message, f"{where}[{row}]") for row, message in enumerate(messages)])


# ---------------------------------------------------------------- prompts


def write_prompts(prompts: Sequence[Prompt]) -> list[pb.Prompt]:
    return [_write_prompt(prompt, f"prompts[{row}]") for row, prompt in enumerate(prompts)]


def _write_prompt(prompt: Prompt, where: str) -> pb.Prompt:
    sampling = prompt.sampling
    try:
        return pb.Prompt(
            text=prompt.text,
            messages=[pb.Message(role=turn.role, content=turn.content) for turn in prompt.messages],
            context=write_items(prompt.context, f"{where}.context"),
            sampling=pb.Sampling(
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                stop=sampling.stop,
                seed=sampling.seed,
                n=sampling.n,
            ),
            allowed=prompt.allowed,
            fields=write_fields(prompt.fields, where),
            json_schema="" if prompt.json_schema is None else json.dumps(prompt.json_schema, allow_nan=False),
            regex=prompt.regex,
        )
    except (UnicodeEncodeError, TypeError, ValueError, OverflowError) as error:
        raise InvalidItems(where, f"cannot be sent: {error}") from None


def read_prompts(messages: Sequence[pb.Prompt], where: str = "prompts") -> list[Prompt]:
    return [_read_prompt(message, f"{where}[{row}]") for row, message in enumerate(messages)]


def _read_prompt(message: pb.Prompt, where: str) -> Prompt:
    drawn = message.sampling
    return Prompt(
        text=message.text if message.HasField("text") else None,
        messages=tuple(Message(turn.role, turn.content) for turn in message.messages),
        context=tuple(read_items(message.context, f"{where}.context")),
        sampling=Sampling(
            max_tokens=drawn.max_tokens if drawn.HasField("max_tokens") else None,
            temperature=drawn.temperature if drawn.HasField("temperature") else None,
            top_p=drawn.top_p if drawn.HasField("top_p") else None,
            top_k=drawn.top_k if drawn.HasField("top_k") else None,
            stop=tuple(drawn.stop),
            seed=drawn.seed if drawn.HasField("seed") else None,
            n=drawn.n or 1,
        ),
        allowed=tuple(message.allowed),
        fields=read_fields(message.fields, where),
        json_schema=_read_schema(message.json_schema, f"{where}.json_schema") if message.json_schema else None,
        regex=message.regex,
    )


def _read_schema(text: str, where: str) -> Mapping[str, Any]:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidItems(where, f"is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise InvalidItems(where, "is not a JSON object")
    return schema


# ---------------------------------------------------------------- use, options, timings, times, errors


def write_use(use: Use) -> pb.MethodUse:
    try:
        return pb.MethodUse(method=use.method, params=write_struct(use.params), artifact=use.artifact)
    except Unwritable as error:
        raise InvalidParams(error.path or "(all)", error.problem) from None
    except UnicodeEncodeError:
        raise InvalidParams("(all)", f"hold {_HALF_PAIR}") from None


def read_use(message: pb.MethodUse) -> Use:
    if not message.method:
        raise InvalidParams("use.method", "is missing: name the method")
    return Use(message.method, read_struct(message.params), message.artifact)


def write_options(options: Options) -> pb.CallOptions:
    if not 0 <= options.seed < 2**64:
        raise InvalidParams("seed", f"must be between 0 and 2^64 - 1 (got {options.seed})")
    if options.budget is not None and not 0 <= options.budget < 2**63:
        raise InvalidParams("budget", f"must be between 0 and 2^63 - 1 (got {options.budget})")
    return pb.CallOptions(seed=options.seed, budget=options.budget, tenant=options.tenant)


def read_options(message: pb.CallOptions) -> Options:
    budget = message.budget if message.HasField("budget") else None
    if budget is not None and budget < 0:
        raise InvalidParams("options.budget", f"must be at least 0 (got {budget})")
    return Options(message.seed, budget, message.tenant)


def write_duration(seconds: float) -> duration_pb2.Duration:
    nanos = round(seconds * 1e9)
    return duration_pb2.Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def _read_duration(message: duration_pb2.Duration) -> float:
    return message.seconds + message.nanos / 1e9


def write_timings(timings: Timings | None) -> pb.Timings | None:
    if timings is None:
        return None
    return pb.Timings(
        queued=write_duration(timings.queued),
        ran=write_duration(timings.ran),
        batched_with=timings.batched_with,
    )


def read_timings(message: pb.Timings) -> Timings:
    return Timings(_read_duration(message.queued), _read_duration(message.ran), message.batched_with)


def write_time(moment: datetime.datetime | None) -> timestamp_pb2.Timestamp | None:
    if moment is None:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def read_time(stamp: timestamp_pb2.Timestamp) -> datetime.datetime:
    return stamp.ToDatetime(datetime.UTC)


def write_error(error: PickaxeError) -> pb.Error:
    violations = [pb.Violation(field=each.field, description=each.description) for each in error.violations]
    return pb.Error(
        code=code_pb2.Code.Value(error.code),
        reason=error.reason,
        message=error.message,
        metadata=error.metadata,
        violations=violations,
    )


def read_error(message: pb.Error) -> PickaxeError:
    return from_reason(
        message.reason,
        message.message,
        metadata=dict(message.metadata),
        violations=[Violation(each.field, each.description) for each in message.violations],
    )
