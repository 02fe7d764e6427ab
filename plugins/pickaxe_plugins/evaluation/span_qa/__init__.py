"""Questions with the exact places of their answers, written by a model for your corpus (arXiv 2502.15854)."""

from pickaxe_plugins.evaluation.span_qa._method import SpanQa

__all__ = ["SpanQa"]
