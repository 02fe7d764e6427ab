"""Cutting texts where one sentence does not go on from the one before: SAGE's segmentation (arXiv:2503.01713)."""

from pickaxe_plugins.retrieval.sage_segment._method import Params, SageSegment

__all__ = ["Params", "SageSegment"]
