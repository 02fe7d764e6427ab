"""Coverage of repeated sampling: pass@k, the exponentiated power law, selection and cost (arXiv 2407.21787)."""

from pickaxe_plugins.decoding.coverage._method import Coverage

__all__ = ["Coverage"]
