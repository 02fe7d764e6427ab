"""Idealized runtime: seconds and dollars of language-model requests from a small profile (arXiv 2305.02440)."""

from pickaxe_plugins.scaling.idealized_runtime._method import IdealizedRuntime

__all__ = ["IdealizedRuntime"]
