"""A full-text index of symbols (bytes, token ids): find, extend and read back substrings without the text.

The FM-index of Ferragina and Manzini (2000): the Burrows-Wheeler transform of the text in a Huffman-shaped wavelet
tree, with samples of the suffix array.  Every query takes many patterns or ranges at once.
"""

from pickaxe.fm_index.index import FMIndex

__all__ = ["FMIndex"]
