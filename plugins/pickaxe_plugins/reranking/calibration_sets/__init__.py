"""Which candidates to calibrate a fine-tuned model on, and the calibration (arXiv:2305.07615)."""

from pickaxe_plugins.reranking.calibration_sets._losses import contrastive, rank_scores, ranking, unlikelihood
from pickaxe_plugins.reranking.calibration_sets._method import CalibrationSets, Params
from pickaxe_plugins.reranking.calibration_sets._strategies import Pool, faithful_set, relevant_set
from pickaxe_plugins.reranking.calibration_sets._text import Fragments, SelfBleu, fragments, rouge

__all__ = [
    "CalibrationSets",
    "Fragments",
    "Params",
    "Pool",
    "SelfBleu",
    "contrastive",
    "faithful_set",
    "fragments",
    "rank_scores",
    "ranking",
    "relevant_set",
    "rouge",
    "unlikelihood",
]
