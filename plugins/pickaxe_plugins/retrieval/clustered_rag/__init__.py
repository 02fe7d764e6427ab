"""CRAG: summaries of clusters take the place of retrieved texts, so prompts stay short (arXiv:2406.00029)."""

from pickaxe_plugins.retrieval.clustered_rag._method import ClusteredRag

__all__ = ["ClusteredRag"]
