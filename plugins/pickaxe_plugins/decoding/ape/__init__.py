"""Adaptive parallel encoding: contexts read apart and attended to together (arXiv:2502.05431)."""

from pickaxe_plugins.decoding.ape._contexts import assemble, encode
from pickaxe_plugins.decoding.ape._method import Ape, Params
from pickaxe_plugins.decoding.ape._request import Asked, around_user, position_ids

__all__ = ["Ape", "Asked", "Params", "around_user", "assemble", "encode", "position_ids"]
