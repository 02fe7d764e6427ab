"""Does a retriever extrapolate, or does it know the test queries from training?  (arXiv 2204.11447)"""

from pickaxe_plugins.evaluation.interp_extrap._evaluate import Data, evaluate
from pickaxe_plugins.evaluation.interp_extrap._method import InterpExtrap
from pickaxe_plugins.evaluation.interp_extrap._splits import label_overlap

__all__ = ["Data", "InterpExtrap", "evaluate", "label_overlap"]
