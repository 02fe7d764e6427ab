"""What the indexes of all retrievers share: documents, growth, and the structures that are searched.

An index is an artifact of kind "index", so it can be moved, is checked when opened, and appears in one rename.  It is
never changed: growing one writes another, and the old one serves until the new one takes its place.
"""

from __future__ import annotations

from pickaxe.index.approximate import ApproximateIndex, write_graph
from pickaxe.index.bm25 import Bm25Index, Bm25Writer
from pickaxe.index.dense import DenseIndex, VectorWriter
from pickaxe.index.documents import Documents, DocumentWriter, batched
from pickaxe.index.identity import check_model, check_params, record_model
from pickaxe.index.sparse import SparseIndex, SparseQueries

__all__ = [
    "ApproximateIndex",
    "Bm25Index",
    "Bm25Writer",
    "DenseIndex",
    "DocumentWriter",
    "Documents",
    "SparseIndex",
    "SparseQueries",
    "VectorWriter",
    "batched",
    "check_model",
    "check_params",
    "record_model",
    "write_graph",
]
