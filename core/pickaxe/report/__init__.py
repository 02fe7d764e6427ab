"""Reports: the answer in words, figures and tables of a run, as data and as one self-contained HTML page."""

from pickaxe.report.figure import Axis, Figure, Kind, Scale, Series, explain, explained
from pickaxe.report.page import Page, Table
from pickaxe.report.run import Run, run_page, scores_page
from pickaxe.report.tally import Tally
from pickaxe.report.words import number

__all__ = [
    "Axis",
    "Figure",
    "Kind",
    "Page",
    "Run",
    "Scale",
    "Series",
    "Table",
    "Tally",
    "explain",
    "explained",
    "number",
    "run_page",
    "scores_page",
]
