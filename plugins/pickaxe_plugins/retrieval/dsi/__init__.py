"""Generative retrieval: a model that says the identifiers of documents (arXiv:2305.11841)."""

from pickaxe_plugins.retrieval.dsi._method import Dsi, Params

__all__ = ["Dsi", "Params"]
