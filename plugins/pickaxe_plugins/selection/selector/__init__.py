"""Pipelines of utilities and selection mechanisms (arXiv 2402.16827)."""

from pickaxe_plugins.selection.selector._method import Selector
from pickaxe_plugins.selection.selector._spec import Params

__all__ = ["Params", "Selector"]
