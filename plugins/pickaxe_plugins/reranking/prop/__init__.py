"""PROP: a cross-encoder that learns from documents alone which words represent them (arXiv:2010.10137)."""

from pickaxe_plugins.reranking.prop._method import Prop
from pickaxe_plugins.reranking.prop._scorer import PropPairs

__all__ = ["Prop", "PropPairs"]
