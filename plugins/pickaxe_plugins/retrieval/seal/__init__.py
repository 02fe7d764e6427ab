"""SEAL: a language model says n-grams that the documents hold, and these find the documents (arXiv:2204.10628)."""

from pickaxe_plugins.retrieval.seal._method import Params, Seal, TokenizerOf

__all__ = ["Params", "Seal", "TokenizerOf"]
