"""One epoch over more data: plans, the power law of the test loss, speed-ups, and a recipe (arXiv 1906.06669)."""

from pickaxe_plugins.scaling.one_epoch._method import OneEpoch

__all__ = ["OneEpoch"]
