"""QTA: queries rewritten in the words of tools, by a model that learns from retrieval ranks (arXiv:2410.03212)."""

from pickaxe_plugins.retrieval.qta._method import Qta

__all__ = ["Qta"]
