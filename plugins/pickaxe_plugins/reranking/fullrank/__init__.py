"""Listwise reranking in full or sliding windows (arXiv:2412.14574)."""

from pickaxe_plugins.reranking.fullrank._labels import build_labels, label_text
from pickaxe_plugins.reranking.fullrank._loss import IGNORED, importance_weights, listwise_loss
from pickaxe_plugins.reranking.fullrank._method import FullRank, Params
from pickaxe_plugins.reranking.fullrank._permutation import Parsed, parse_permutation, write_permutation
from pickaxe_plugins.reranking.fullrank._prompt import listwise_messages, neutral
from pickaxe_plugins.reranking.fullrank._windows import complete_order, one_pass, schedule

__all__ = [
    "IGNORED",
    "FullRank",
    "Params",
    "Parsed",
    "build_labels",
    "complete_order",
    "importance_weights",
    "label_text",
    "listwise_loss",
    "listwise_messages",
    "neutral",
    "one_pass",
    "parse_permutation",
    "schedule",
    "write_permutation",
]
