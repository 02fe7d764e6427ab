"""TILDEv2: a weight for each token of a passage, and exact matches with the query (arXiv:2108.08513)."""

from pickaxe_plugins.reranking.tildev2._method import TildeV2, impacts
from pickaxe_plugins.reranking.tildev2._params import Params

__all__ = ["Params", "TildeV2", "impacts"]
