"""Min-K% Prob: was this text in the pretraining data?  (arXiv 2310.16789; Min-K%++ is arXiv 2404.02936)"""

from pickaxe_plugins.selection.min_k_prob._method import MinKProb, ratio_column

__all__ = ["MinKProb", "ratio_column"]
