"""What travels between callers and methods: items in; scores, hits, rankings and chunks out.

Frozen dataclasses with NumPy inside; the same objects in process, in the command line and in the gRPC client.
"""

from pickaxe.data.declarations import Column, DType, Example, InputField
from pickaxe.data.decoding import WHOLE_PROMPT, Chunk, Completion, FinishReason, Message, Prompt, Sampling, completions
from pickaxe.data.items import FieldValue, Handle, Item, Items, Json, kind_of
from pickaxe.data.progress import Progress
from pickaxe.data.rankings import Hit, HitTable, Ranked, Ranking, SearchResults, Span
from pickaxe.data.scores import Flag, Groups, Scores, Segment, Timings

__all__ = [
    "WHOLE_PROMPT",
    "Chunk",
    "Column",
    "Completion",
    "DType",
    "Example",
    "FieldValue",
    "FinishReason",
    "Flag",
    "Groups",
    "Handle",
    "Hit",
    "HitTable",
    "InputField",
    "Item",
    "Items",
    "Json",
    "Message",
    "Progress",
    "Prompt",
    "Ranked",
    "Ranking",
    "Sampling",
    "Scores",
    "SearchResults",
    "Segment",
    "Span",
    "Timings",
    "completions",
    "kind_of",
]
