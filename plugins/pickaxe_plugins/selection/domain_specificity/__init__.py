"""Domain specificity: how much better a domain's model predicts a text than a general one (arXiv:2104.08671)."""

from pickaxe_plugins.selection.domain_specificity._method import DomainSpecificity

__all__ = ["DomainSpecificity"]
