"""DRAG and IterDRAG: retrieval-augmented answers that scale with the context (arXiv:2410.04343)."""

from pickaxe_plugins.generation.drag._method import Drag, Params

__all__ = ["Drag", "Params"]
