"""Retrieval as studied in The Chronicles of RAG (arXiv:2401.07883): BM25, dense, custom, hybrid, reranked."""

from pickaxe_plugins.retrieval.chronicles._method import Chronicles

__all__ = ["Chronicles"]
