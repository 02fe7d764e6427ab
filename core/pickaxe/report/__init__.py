"""Reports: the answer in words, figures and tables of a run, as data and as one self-contained HTML page."""

from pickaxe.report.figure import Axis, Figure, Kind, Scale, Series, explain, explained
from pickaxe.report.page import Page, Table

__all__ = ["Axis", "Figure", "Kind", "Page", "Scale", "Series", "Table", "explain", "explained"]
