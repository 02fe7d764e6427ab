"""Numbered tags in a text, by which a model names spans (arXiv 2502.15854)."""

from __future__ import annotations


def tagged(text: str, piece: int) -> tuple[str, list[int]]:
    """The text in pieces of at most `piece` characters between <start_chunk_i> and <end_chunk_i>, and their edges.

    A piece ends after its last space; the last one is not cut back, and its edge is `piece` after its start even
    past the text's end, as in the published code: slicing clamps it.
    """
    parts: list[str] = []
    edges, start = [0], 0
    while start < len(text):
        end = start + piece
        if end < len(text) and (space := text.rfind(" ", start, end)) > start:
            end = space + 1
        parts.append(f"<start_chunk_{len(parts)}>{text[start:end]}<end_chunk_{len(parts)}>")
        edges.append(end)
        start = end
    return "".join(parts), edges
