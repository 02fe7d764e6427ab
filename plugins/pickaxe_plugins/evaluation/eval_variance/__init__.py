"""Is a difference between two scores real?  Variance of benchmarks over seeds and items (arXiv 2406.10229)."""

from pickaxe_plugins.evaluation.eval_variance._method import EvalVariance

__all__ = ["EvalVariance"]
