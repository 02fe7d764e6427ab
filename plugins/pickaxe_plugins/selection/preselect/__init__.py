"""PreSelect: the data that predicts is the data that teaches (arXiv:2503.00808)."""

from pickaxe_plugins.selection.preselect._method import PreSelect

__all__ = ["PreSelect"]
