"""Checks for every method, whatever it does: card, parameters, imports, determinism, cancelling."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

from pickaxe import catalog
from pickaxe.call import Call
from pickaxe.data import Column, DType, Example
from pickaxe.errors import InvalidParams, MethodFailed, PickaxeError
from pickaxe.method import Fitted, Scope, card_of
from pickaxe.params import Params, parse, schema
from pickaxe.testing import elsewhere
from pickaxe.testing.check import Failed, check, require
from pickaxe.testing.plain import difference, plain, same
from pickaxe.testing.subject import Subject, answer, enlarged

HEAVY = ("onnxruntime", "onnx", "fasttext", "jax", "torch", "tokenizers", "grpc", "pyarrow", "scipy")
"""What a method's module must not import when it is itself imported."""

CANCEL_BOUND = 10.0
"""Seconds within which a cancelled call must be over."""

KINDS = ("text", "texts", "bool", "int64", "float64", "tensor", "struct", "checkpoint", "database")
NEEDS: Mapping[str, tuple[str, ...]] = {
    "scorer": ("items",),
    "retriever": ("documents", "queries"),
    "reranker": ("query", "candidates"),
    "decoder": ("prompts",),
}
"""Which parts of an example a role needs."""


@check()
def loads(subject: Subject) -> None:
    """The class loads in every role it is listed for and follows the contract."""
    for role in subject.roles:
        catalog.load(subject.name, role)
    require(subject.roles, "the class implements no hook of any role")
    require(issubclass(subject.kind.Params, Params), "Params is not a subclass of pickaxe.Params")
    require(subject.kind.scope in get_args(Scope), f"scope is {subject.kind.scope!r}, wanted {get_args(Scope)}")
    require(subject.kind.fitted in get_args(Fitted), f"fitted is {subject.kind.fitted!r}, wanted {get_args(Fitted)}")
    require(subject.kind.fitted != "required" or subject.trainable, "needs an artifact of fit but has no fit")


@check()
def card(subject: Subject) -> None:
    """The card is complete: summary, title, paper, version, and every field, column and parameter explained."""
    made = card_of(subject.kind, subject.name, subject.roles, "")
    require(vars(subject.kind).get("__doc__"), "the class has no docstring")
    require(made.title, "title is empty: give the paper's, or the method's own")
    require(made.paper, 'paper is empty: give "arXiv:…", or "own work"')
    require(isinstance(made.version, int) and made.version >= 1, f"version is {made.version!r}, wanted 1 or more")
    for each in (*made.reads, *made.fit_reads):
        require(each.doc, f"field {each.name!r} is not explained")
        require(each.kind in KINDS, f"field {each.name!r} has kind {each.kind!r}, wanted one of {KINDS}")
    for column in made.columns:
        _documented(column)
    for name, described in made.params_schema.get("properties", {}).items():
        require(described.get("description"), f"parameter {name!r} has no description")


def _documented(column: Column) -> None:
    require(column.doc, f"column {column.name!r} is not explained")
    require(column.dtype in get_args(DType), f"column {column.name!r} has dtype {column.dtype!r}")


@check()
def example(subject: Subject) -> None:
    """The example holds inputs for every role and for fit."""
    given = subject.example
    for role in subject.roles:
        for part in NEEDS[role]:
            require(getattr(given, part), f"example().{part} is empty but the method is a {role}")
    require(not subject.trainable or given.examples, "example().examples is empty but the method can be fitted")


@check()
def light_import(subject: Subject) -> None:
    """Importing the module pulls in no heavy library."""
    found = set(elsewhere.imported(subject.target, subject.kind.__module__)) & set(HEAVY)
    require(not found, f"importing {subject.kind.__module__} imports {sorted(found)}: import them inside the hooks")


class _Untouchable:
    """Stands for a host or an artifact that must not be used yet."""

    def __init__(self, label: str) -> None:
        object.__setattr__(self, "_label", label)

    def __getattr__(self, name: str) -> Any:
        raise Failed(f"the constructor uses {object.__getattribute__(self, '_label')}.{name}: leave that to the hooks")


@check()
def constructor(subject: Subject) -> None:
    """The constructor does no work: it touches neither host nor artifact."""
    params = parse(subject.kind.Params, subject.params)
    subject.kind(params, _Untouchable("host"), _Untouchable("artifact"))  # type: ignore[arg-type]


@check()
def defaults(subject: Subject) -> None:
    """The example's parameters and the defaults are valid."""
    kind = subject.kind.Params
    parse(kind, subject.params)
    given = {name: each.get_default(call_default_factory=True) for name, each in kind.model_fields.items()
             if not each.is_required()}  # fmt: skip
    needed = {name: value for name, value in subject.params.items() if kind.model_fields[name].is_required()}
    parse(kind, {**given, **needed})


@check()
def schema_round_trip(subject: Subject) -> None:
    """Parameters survive JSON, and JSON whose numbers are all doubles, as over gRPC."""
    kind = subject.kind.Params
    json.dumps(schema(kind))
    params = parse(kind, subject.params)
    sent = json.loads(params.model_dump_json())
    for form, values in (("JSON", sent), ("JSON with doubles", _doubles(sent))):
        try:
            back = parse(kind, values)
        except InvalidParams as error:
            raise Failed(f"parameters do not survive {form}: {error}") from error
        require(back == params, f"parameters do not survive {form}: {params!r} became {back!r}")


def _doubles(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int():
            return float(value)
        case dict():
            return {key: _doubles(part) for key, part in value.items()}
        case list():
            return [_doubles(part) for part in value]
    return value


@check(wire=True)
def bounds(subject: Subject) -> None:
    """Every value outside a declared bound or choice is refused with its field named."""
    for name, value in _outside(schema(subject.kind.Params)):
        _refused(subject, name, value)


@check(wire=True)
def unknown_parameter(subject: Subject) -> None:
    """A parameter that does not exist is refused by its name."""
    _refused(subject, "no_such_parameter", 1)


def _refused(subject: Subject, name: str, value: Any) -> None:
    try:
        subject.ask(subject.roles[0], **{name: value})
    except InvalidParams as error:
        named = [violation.field for violation in error.violations]
        hit = any(field.partition(".")[0].partition("[")[0] == name for field in named)
        require(hit, f"{name}={value!r} is refused, but the violation names {named}")
    else:
        raise Failed(f"{name}={value!r} is accepted")


def _outside(declared: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """(field, value) just beyond every bound in a JSON schema's own properties."""
    steps = {"minimum": -1, "maximum": 1, "exclusiveMinimum": 0, "exclusiveMaximum": 0}
    for name, described in declared.get("properties", {}).items():
        for option in (described, *described.get("anyOf", ())):
            for bound, step in steps.items():
                if bound in option:
                    yield name, option[bound] + step
            if "enum" in option:
                yield name, "no such choice"


@check(wire=True)
def repeatable(subject: Subject) -> None:
    """The same inputs and seed give the same result on the same and on a new handle."""
    for role in subject.roles:
        handle = subject.handle(role)
        for turn in ("a new handle", "the same handle"):
            same(subject.outcome(role), answer(handle, role, subject.example), f"{role} differs on {turn}")


@check(wire=True)
def threads(subject: Subject) -> None:
    """Calls from several threads at once give each the same result."""
    for role in subject.roles:
        handle = subject.handle(role)
        barrier = threading.Barrier(2)

        def ask(handle: Any = handle, role: str = role, barrier: threading.Barrier = barrier) -> Any:
            barrier.wait()
            return [answer(handle, role, subject.example) for _ in range(3)]

        with ThreadPoolExecutor(2) as pool:
            for running in [pool.submit(ask) for _ in range(2)]:
                for result in running.result():
                    same(subject.outcome(role), result, f"{role} differs when called from two threads")


@check()
def processes(subject: Subject) -> None:
    """A second process, with another hash seed, gives the same result."""
    there = elsewhere.answers(subject.target, {role: subject.artifact(role) for role in subject.roles})
    for role in subject.roles:
        here = json.loads(json.dumps(plain(subject.outcome(role))))
        if found := difference(here, there[role]):
            raise Failed(f"{role} differs in a second process: {found}")


@check()
def input_kept(subject: Subject) -> None:
    """Inputs are left as they were."""
    for role in subject.roles:
        handle, given = subject.handle(role), subject.example
        before = copy.deepcopy(given)
        answer(handle, role, given)
        _kept(before, given, role)
    if subject.trainable:
        given = subject.example
        before = copy.deepcopy(given)
        for _ in subject.fitting(subject.scratch(), example=given):
            pass
        _kept(before, given, "fit")


def _kept(before: Example, after: Example, what: str) -> None:
    if found := difference(plain(before), plain(after)):
        raise Failed(f"{what} changes its inputs: {found}")


@check()
def cancel(subject: Subject) -> None:
    """A call that is cancelled is over soon after."""
    for role in subject.roles:
        subject.outcome(role)  # models load outside the measured time
        _over_soon(role, subject.handle(role), _larger(subject.example))


def _larger(given: Example) -> Example:
    """Work enough that a call is still running when it is cancelled."""
    return Example(
        params=given.params,
        items=enlarged(given.items, 64),
        documents=given.documents,
        queries=enlarged(given.queries, 64),
        query=given.query,
        candidates=enlarged(given.candidates, 32),
        prompts=given.prompts * 16,
    )


def _over_soon(role: str, handle: Any, given: Example) -> None:
    call = Call()
    unexpected: list[Exception] = []

    def work() -> None:
        try:
            answer(handle, role, given, call=call)
        except MethodFailed as error:
            unexpected.append(error)
        except PickaxeError:
            pass  # Cancelled; or the method refuses so large an input, which is an end as well

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(0.05)
    call.cancel()
    worker.join(CANCEL_BOUND)
    require(not worker.is_alive(), f"{role} goes on {CANCEL_BOUND:g} s after it was cancelled: call call.check()")
    require(not unexpected, f"{role} fails when cancelled: {unexpected and unexpected[0]}")
