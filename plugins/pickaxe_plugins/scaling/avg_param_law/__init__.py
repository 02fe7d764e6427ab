"""One scaling law for sparse and dense pre-training, in average active parameters (arXiv 2501.12486)."""

from pickaxe_plugins.scaling.avg_param_law._method import AvgParamLaw

__all__ = ["AvgParamLaw"]
