"""RegMix (arXiv 2407.01492): the data mixture as a regression over small proxy runs, and proposals for those runs."""

from pickaxe_plugins.scaling.regmix._method import RegMix
from pickaxe_plugins.scaling.regmix._params import Params
from pickaxe_plugins.scaling.regmix._proposals import propose

__all__ = ["Params", "RegMix", "propose"]
