"""How often a training set shows each concept, and what accuracy follows from that (arXiv:2404.04125)."""

from pickaxe_plugins.selection.concept_frequency._method import ConceptFrequency

__all__ = ["ConceptFrequency"]
