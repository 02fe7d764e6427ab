"""Opened methods as users call them: inputs checked once, results checked once, errors from one vocabulary."""

from pickaxe.handle.base import MethodHandle, as_items
from pickaxe.handle.decoder import DecoderHandle
from pickaxe.handle.reranker import RerankerHandle
from pickaxe.handle.retriever import RetrieverHandle
from pickaxe.handle.scorer import ScorerHandle

HANDLES: dict[str, type[MethodHandle]] = {
    "scorer": ScorerHandle,
    "retriever": RetrieverHandle,
    "reranker": RerankerHandle,
    "decoder": DecoderHandle,
}

__all__ = [
    "HANDLES",
    "DecoderHandle",
    "MethodHandle",
    "RerankerHandle",
    "RetrieverHandle",
    "ScorerHandle",
    "as_items",
]
