"""Quad: influential documents from many clusters, found by a bandit that probes a few of each (arXiv:2409.16986)."""

from pickaxe_plugins.selection.quad._method import Quad

__all__ = ["Quad"]
