"""Prepacking: prompts of unlike lengths share rows while they are read (arXiv:2404.09529)."""

from pickaxe_plugins.decoding.prepack._method import Params, Prepack
from pickaxe_plugins.decoding.prepack._plan import PlanParams, PrepackPlan, plan

__all__ = ["Params", "PlanParams", "Prepack", "PrepackPlan", "plan"]
