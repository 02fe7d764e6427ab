"""PCB: which items to label next, informative ones in balance over pseudo classes (arXiv 2311.11178)."""

from pickaxe_plugins.selection.pcb._classes import class_matrix
from pickaxe_plugins.selection.pcb._method import PCB
from pickaxe_plugins.selection.pcb._pick import balanced

__all__ = ["PCB", "balanced", "class_matrix"]
