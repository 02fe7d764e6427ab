"""The version of the distribution, from its metadata."""

from importlib.metadata import version

__version__ = version("pickaxe")
