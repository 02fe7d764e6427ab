"""A method whose module imports a heavy library at its top."""

import onnxruntime  # noqa: F401
from broken import fails
from good import GoodGroupScorer


@fails("anyrole.light_import")
class HeavyImport(GoodGroupScorer):
    """Is slow to import."""
