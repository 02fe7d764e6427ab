"""Quality, toxicity and word-list filters, and what age and sources of pre-training data cost (arXiv:2305.13169)."""

from pickaxe_plugins.selection.pretrainers_guide._method import PretrainersGuide

__all__ = ["PretrainersGuide"]
