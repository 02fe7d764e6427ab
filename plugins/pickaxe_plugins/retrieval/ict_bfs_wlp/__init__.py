"""Two towers pre-trained on what pages say of themselves: ICT, BFS and WLP (arXiv:2002.03932)."""

from pickaxe_plugins.retrieval.ict_bfs_wlp._method import IctBfsWlp, Params

__all__ = ["IctBfsWlp", "Params"]
