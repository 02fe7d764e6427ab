"""Where models come from.  `pickaxe models pull NAME` is the only thing that touches a network."""

from __future__ import annotations

from pickaxe.models.known import KNOWN, Model
from pickaxe.models.store import ModelEntry, ModelStore, graph_cache_limit

__all__ = ["KNOWN", "Model", "ModelEntry", "ModelStore", "graph_cache_limit"]
