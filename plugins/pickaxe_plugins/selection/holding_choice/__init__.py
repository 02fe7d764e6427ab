"""Which of several holdings does a citing text refer to?  Multiple choice with a small BERT (arXiv:2104.08671)."""

from pickaxe_plugins.selection.holding_choice._method import HoldingChoice, Params

__all__ = ["HoldingChoice", "Params"]
