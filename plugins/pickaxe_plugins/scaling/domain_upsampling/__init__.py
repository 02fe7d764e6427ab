"""Domain upsampling at the end of training (arXiv 2406.03476): plans, measured worth of domains, and draws."""

from pickaxe_plugins.scaling.domain_upsampling._method import DomainUpsampling
from pickaxe_plugins.scaling.domain_upsampling._params import Params
from pickaxe_plugins.scaling.domain_upsampling._schedule import Credits, schedule

__all__ = ["Credits", "DomainUpsampling", "Params", "schedule"]
