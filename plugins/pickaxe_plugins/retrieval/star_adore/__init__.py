"""STAR and ADORE: dense retrieval trained against the documents that it wrongly puts first (arXiv:2104.08051)."""

from pickaxe_plugins.retrieval.star_adore._method import Params, Recipe, StarAdore

__all__ = ["Params", "Recipe", "StarAdore"]
