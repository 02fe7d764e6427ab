"""MATES: training data by its predicted influence on the model as it is now (arXiv:2406.06046)."""

from pickaxe_plugins.selection.mates._method import Mates, Schedule, standardised

__all__ = ["Mates", "Schedule", "standardised"]
