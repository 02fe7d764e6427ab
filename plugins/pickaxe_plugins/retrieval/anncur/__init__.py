"""ANNCUR: nearest neighbours under a cross-encoder by a CUR decomposition of its scores (arXiv:2210.12579)."""

from pickaxe_plugins.retrieval.anncur._method import AnnCur

__all__ = ["AnnCur"]
