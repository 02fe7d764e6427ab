"""Learning curves extrapolated: what more data would bring, and when to stop (arXiv 2402.02515)."""

from pickaxe_plugins.scaling.learning_curve._method import LearningCurve

__all__ = ["LearningCurve"]
