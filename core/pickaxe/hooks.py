"""The contract: one class of hook specs per role, and the relay that carries a call to one opened method.

A method implements any hooks it wants with `@hookimpl` and may leave out arguments that it does not use.
Everything long is a generator: the caller pulls, and `close()` ends the work.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pluggy

from pickaxe.errors import BrokenMethod

if TYPE_CHECKING:
    from pickaxe.artifact import Artifact, ArtifactWriter
    from pickaxe.call import Call
    from pickaxe.data import Chunk, Item, Items, Progress, Prompt, Ranking, Scores, SearchResults

hookspec = pluggy.HookspecMarker("pickaxe")
hookimpl = pluggy.HookimplMarker("pickaxe")


class Scorer:
    @hookspec(firstresult=True)
    def score(self, items: Items, call: Call) -> Scores:  # type: ignore[empty-body]
        """Score the items: one row each in the declared columns.

        What "higher" means is fixed: the primary column's highest rows are the ones to pick.
        """


class Retriever:
    @hookspec(firstresult=True)
    def index(  # type: ignore[empty-body]
        self,
        documents: Iterable[Item],
        out: ArtifactWriter,
        base: Artifact | None,
        remove: frozenset[str],
        call: Call,
    ) -> Iterator[Progress]:
        """Write an index of the documents into `out`, yielding progress.  The result must be relocatable.

        A method whose class says `grows` may be given the index to start from (`base`), which holds the documents
        already, and the ids (`remove`) that leave it.
        """

    @hookspec(firstresult=True)
    def search(self, queries: Items, k: int, call: Call) -> SearchResults:  # type: ignore[empty-body]
        """The best `k` documents of the opened index for each query, best first."""


class Reranker:
    @hookspec(firstresult=True)
    def rerank(self, query: Item, candidates: Items, top_n: int, call: Call) -> Ranking:  # type: ignore[empty-body]
        """Order the candidates, best first: at most `top_n` of them, each at most once."""


class Decoder:
    @hookspec(firstresult=True)
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:  # type: ignore[empty-body]
        """Yield chunks; exactly one with a finish reason per prompt and choice."""


class Trainable:
    @hookspec(firstresult=True)
    def fit(  # type: ignore[empty-body]
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        unlabelled: Iterable[Item] | None,
        out: ArtifactWriter,
        init_from: Artifact | None,
        call: Call,
    ) -> Iterator[Progress]:
        """Learn from the examples and write an artifact into `out`, yielding progress.

        `out.stages` makes finished stages survive a crash; `init_from` is an artifact to start from.
        """

    @hookspec(firstresult=True)
    def merge(self, artifacts: Sequence[Artifact], out: ArtifactWriter, call: Call) -> Iterator[Progress]:  # type: ignore[empty-body]
        """Add up artifacts that were fitted on parts of the data."""


SPECS = (Scorer, Retriever, Reranker, Decoder, Trainable)

HOOKS: dict[str, tuple[str, ...]] = {
    spec.__name__.lower(): tuple(name for name in vars(spec) if not name.startswith("_")) for spec in SPECS
}
"""Spec → its hook names, e.g. "retriever" → ("index", "search")."""


class Relay(pluggy.PluginManager):
    """The hooks of one opened method, wrapped by the observers."""

    def __init__(self, method: object, observers: Sequence[object] = ()) -> None:
        super().__init__("pickaxe")
        for spec in SPECS:
            self.add_hookspecs(spec)
        try:
            for plugin in (method, *observers):
                self.register(plugin)
            self.check_pending()  # a misspelt hook is an error, not silence
        except pluggy.PluginValidationError as error:
            raise BrokenMethod(f"{type(method).__name__} does not follow the contract: {error}") from error

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """Properties are not looked at: that would run them, and some of them load models."""
        if isinstance(inspect.getattr_static(plugin, name, None), (property, cached_property)):
            return None
        return super().parse_hookimpl_opts(plugin, name)

    def implements(self, hook: str) -> bool:
        """Whether a plugin (and not only an observer) implements the hook."""
        caller = getattr(self.hook, hook)
        return any(not impl.hookwrapper and not impl.wrapper for impl in caller.get_hookimpls())

    def dissolve(self) -> None:
        """Let go of the method: managers and their callers refer to each other, and its models would wait for them."""
        for plugin in self.get_plugins():
            self.unregister(plugin)

    def call(self, hook: str, **arguments: Any) -> Any:
        return getattr(self.hook, hook)(**arguments)


def implemented(kind: type) -> frozenset[str]:
    """The hooks that a method class implements, without opening it."""
    return frozenset(
        name for hooks in HOOKS.values() for name in hooks if hasattr(getattr(kind, name, None), "pickaxe_impl")
    )
