"""WRAP: rephrase the web, and train on the rephrases beside the originals (arXiv:2401.16380)."""

from pickaxe_plugins.generation.wrap._check import WrapCheck
from pickaxe_plugins.generation.wrap._chunks import Passage, count_words, passages
from pickaxe_plugins.generation.wrap._cleaning import Cleaned, Cleaning, cleaned, parse_qa, write_qa
from pickaxe_plugins.generation.wrap._method import Wrap
from pickaxe_plugins.generation.wrap._mix import interleaved, mixed
from pickaxe_plugins.generation.wrap._projection import Projection, projected
from pickaxe_plugins.generation.wrap._styles import Style, styles

__all__ = [
    "Cleaned",
    "Cleaning",
    "Passage",
    "Projection",
    "Style",
    "Wrap",
    "WrapCheck",
    "cleaned",
    "count_words",
    "interleaved",
    "mixed",
    "parse_qa",
    "passages",
    "projected",
    "styles",
    "write_qa",
]
