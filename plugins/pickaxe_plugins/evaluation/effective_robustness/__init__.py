"""Is a model more robust than its accuracy explains, and which training source makes it so?  (arXiv 2208.05516)"""

from pickaxe_plugins.evaluation.effective_robustness._method import EffectiveRobustness
from pickaxe_plugins.evaluation.effective_robustness._mixing import gaussian_mix, output_mixing, similarity_filter

__all__ = ["EffectiveRobustness", "gaussian_mix", "output_mixing", "similarity_filter"]
