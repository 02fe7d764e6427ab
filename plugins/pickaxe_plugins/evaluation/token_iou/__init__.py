"""How well do retrieved chunks cover what answers a question?  Span metrics of arXiv 2502.15854."""

from pickaxe_plugins.evaluation.token_iou._method import TokenIou, evaluate, sentences

__all__ = ["TokenIou", "evaluate", "sentences"]
