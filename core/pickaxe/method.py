"""What a plugin author subclasses: declarations as class attributes, behaviour as hooks."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pickaxe.data import Column, Example, InputField
from pickaxe.params import Params, schema

if TYPE_CHECKING:
    from pickaxe.artifact import Artifact
    from pickaxe.host import Host

Scope = Literal["item", "group", "pool"]
Fitted = Literal["never", "optional", "required"]
Constraint = Literal["allowed", "json_schema", "regex"]

P = TypeVar("P", bound=Params)


class Method(Generic[P]):
    """Base of every method.  The constructor does no work: models and files are opened by the hooks.

    The class docstring is the method's page in short: its first line is the summary.
    """

    title: ClassVar[str] = ""
    """The paper's title."""
    paper: ClassVar[str] = ""
    """Where it is from, e.g. "arXiv:2310.16789"."""
    version: ClassVar[int] = 1
    """Grows when results change; artifacts remember it."""
    Params: ClassVar[type[Params]] = Params
    scope: ClassVar[Scope] = "pool"
    """What a row's score depends on: its own item, its `group`, or the whole pool."""
    reads: ClassVar[tuple[InputField, ...]] = (InputField("text", "text", "The text."),)
    """Fields of items, documents, queries and candidates."""
    fit_reads: ClassVar[tuple[InputField, ...]] = ()
    """Fields of the examples given to `fit`."""
    columns: ClassVar[tuple[Column, ...]] = ()
    """Score columns, primary first.  See `declared_columns` for columns that depend on parameters."""
    fitted: ClassVar[Fitted] = "never"
    """Whether scoring, reranking or decoding needs an artifact of `fit`."""
    stages: ClassVar[tuple[str, ...]] = ()
    """Names of the stages of `fit`, in order."""
    grows: ClassVar[bool] = False
    """Whether `index` can start from an index that is there already; only such methods take `base` and `remove`."""
    constraints: ClassVar[frozenset[Constraint]] = frozenset()
    """Which fields of a prompt that bind its output this decoder keeps to; prompts with others are refused."""
    cost: ClassVar[str] = ""
    """What it costs in time and memory, in one sentence."""
    reproduced: ClassVar[str] = ""
    """What of the paper was reproduced, with figures, in one or two sentences."""

    def __init__(self, params: P, host: Host, artifact: Artifact | None = None) -> None:
        self.params: P = params
        self.host = host
        self.artifact = artifact

    def declared_columns(self) -> tuple[Column, ...]:
        """The columns of this opened method; override when parameters or the artifact decide."""
        return self.columns

    @classmethod
    def example(cls) -> Example:
        """Small inputs for every role and for fit, which must work without a network."""
        return Example()


@dataclass(frozen=True)
class Card:
    """Everything a method says about itself."""

    name: str
    roles: tuple[str, ...]
    distribution: str
    title: str
    summary: str
    description: str
    paper: str
    version: int
    params_schema: dict[str, Any]
    scope: Scope
    reads: tuple[InputField, ...]
    fit_reads: tuple[InputField, ...]
    columns: tuple[Column, ...]
    fitted: Fitted
    trainable: bool
    stages: tuple[str, ...]
    cost: str
    reproduced: str
    example: Example = field(default_factory=Example)
    grows: bool = False


def card_of(kind: type[Method[Any]], name: str, roles: tuple[str, ...], distribution: str) -> Card:
    """The card of a loaded method class."""
    from pickaxe.hooks import implemented

    text = inspect.getdoc(kind) or ""
    return Card(
        name=name,
        roles=roles,
        distribution=distribution,
        title=kind.title,
        summary=text.split("\n", 1)[0],
        description=text,
        paper=kind.paper,
        version=kind.version,
        params_schema=schema(kind.Params),
        scope=kind.scope,
        reads=kind.reads,
        fit_reads=kind.fit_reads,
        columns=kind.columns,
        fitted=kind.fitted,
        trainable="fit" in implemented(kind),
        stages=kind.stages,
        cost=kind.cost,
        reproduced=kind.reproduced,
        example=kind.example(),
        grows=kind.grows,
    )
