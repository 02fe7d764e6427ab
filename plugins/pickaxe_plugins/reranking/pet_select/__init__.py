"""Which prompting technique to spend on a query (arXiv:2409.16416)."""

from pickaxe_plugins.reranking.pet_select._complexity import METRICS, WEIGHTS, Bounds, complexity
from pickaxe_plugins.reranking.pet_select._method import Params, PetSelect
from pickaxe_plugins.reranking.pet_select._routing import Routed, quality, rank, route, triplet_loss

__all__ = [
    "METRICS",
    "WEIGHTS",
    "Bounds",
    "Params",
    "PetSelect",
    "Routed",
    "complexity",
    "quality",
    "rank",
    "route",
    "triplet_loss",
]
