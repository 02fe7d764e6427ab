"""Languini: language models compared at equal accelerator hours, by perplexity per character (arXiv 2309.11197)."""

from pickaxe_plugins.scaling.languini._method import Languini

__all__ = ["Languini"]
