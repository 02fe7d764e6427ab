"""S2L: a balanced choice over clusters of loss trajectories of a small model (arXiv 2403.07384)."""

from pickaxe_plugins.selection.s2l._balance import answer_loss, cluster_quotas, quotas, thinned
from pickaxe_plugins.selection.s2l._method import S2L

__all__ = ["S2L", "answer_loss", "cluster_quotas", "quotas", "thinned"]
