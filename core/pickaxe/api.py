"""The embedded API: one function per role.

Each opens a method by name with its parameters; `artifact` names what an earlier `fit` or `index` made.
Raises `UnknownMethod`, `WrongRole`, `InvalidParams`, `UnknownArtifact`, `ArtifactMismatch` or `ArtifactCorrupt`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pickaxe import catalog
from pickaxe.handle import DecoderHandle, RerankerHandle, RetrieverHandle, ScorerHandle
from pickaxe.host import Host, default_host
from pickaxe.method import Card

Path = str | os.PathLike[str] | None


def scorer(name: str, *, artifact: Path = None, host: Host | None = None, **params: Any) -> ScorerHandle:
    """A method that scores items: `scorer("zip-fit", level=6).fit(targets).score(items)`."""
    return (host or default_host()).open(name, "scorer", params, artifact)


def retriever(name: str, *, artifact: Path = None, host: Host | None = None, **params: Any) -> RetrieverHandle:
    """A method that finds documents: `retriever("chronicles").index(documents).search(queries, k=10)`."""
    return (host or default_host()).open(name, "retriever", params, artifact)


def reranker(name: str, *, artifact: Path = None, host: Host | None = None, **params: Any) -> RerankerHandle:
    """A method that orders candidates: `reranker("fullrank").rerank(query, candidates)`."""
    return (host or default_host()).open(name, "reranker", params, artifact)


def decoder(name: str, *, artifact: Path = None, host: Host | None = None, **params: Any) -> DecoderHandle:
    """A method that writes: `decoder("repeated-sampling").complete("Once upon a time")`."""
    return (host or default_host()).open(name, "decoder", params, artifact)


def methods() -> Mapping[str, tuple[tuple[str, ...], str]]:
    """name → (roles, "distribution version") of every installed method; imports no plugin."""
    return catalog.table()


def show(name: str) -> Card:
    """Everything a method says about itself."""
    return catalog.describe(name)
