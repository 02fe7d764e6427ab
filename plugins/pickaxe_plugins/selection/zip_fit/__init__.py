"""ZIP-FIT: how well a text compresses together with examples of what one wants (arXiv:2410.18194)."""

from pickaxe_plugins.selection.zip_fit._method import ZipFit, dataset_alignment

__all__ = ["ZipFit", "dataset_alignment"]
