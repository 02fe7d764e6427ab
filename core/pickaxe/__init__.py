"""pickaxe: published methods to pick data, documents, orders and tokens, behind one small contract.

    import pickaxe
    scores = pickaxe.scorer("zip-fit", level=6).fit(["a target text"]).score(["one", "two"])

Names are resolved when first used, so that `import pickaxe` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "pickaxe.api": ("scorer", "retriever", "reranker", "decoder", "methods", "show"),
    "pickaxe.artifact": ("Artifact", "ArtifactWriter"),
    "pickaxe.call": ("Call",),
    "pickaxe.data": (
        "Chunk", "Column", "Completion", "Example", "Flag", "Groups", "Handle", "Hit", "InputField", "Item",
        "Items", "Message", "Progress", "Prompt", "Ranked", "Ranking", "Sampling", "Scores", "SearchResults",
        "Segment", "Span", "WHOLE_PROMPT", "completions",
    ),
    "pickaxe.errors": ("PickaxeError",),
    "pickaxe.hooks": ("hookimpl",),
    "pickaxe.host": ("Host", "configure"),
    "pickaxe.method": ("Card", "Method"),
    "pickaxe.params": ("MethodRef", "Params"),
    "pickaxe.pipelines": ("Pipeline", "pipeline"),
    "pickaxe.randomness": ("generator",),
    "pickaxe.version": ("__version__",),
}  # fmt: skip
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from pickaxe.api import decoder, methods, reranker, retriever, scorer, show
    from pickaxe.artifact import Artifact, ArtifactWriter
    from pickaxe.call import Call
    from pickaxe.data import (
        WHOLE_PROMPT,
        Chunk,
        Column,
        Completion,
        Example,
        Flag,
        Groups,
        Handle,
        Hit,
        InputField,
        Item,
        Items,
        Message,
        Progress,
        Prompt,
        Ranked,
        Ranking,
        Sampling,
        Scores,
        SearchResults,
        Segment,
        Span,
        completions,
    )
    from pickaxe.errors import PickaxeError
    from pickaxe.hooks import hookimpl
    from pickaxe.host import Host, configure
    from pickaxe.method import Card, Method
    from pickaxe.params import MethodRef, Params
    from pickaxe.pipelines import Pipeline, pipeline
    from pickaxe.randomness import generator
    from pickaxe.version import __version__


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module 'pickaxe' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
