"""The FM-index against plain search in the text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickaxe.artifact import Artifact, writing
from pickaxe.errors import ArtifactCorrupt, InvalidItems, InvalidParams
from pickaxe.fm_index import FMIndex

TEXTS = st.lists(st.integers(0, 4) | st.sampled_from([7, 300, 70_000, 2**40]), max_size=80)


def places(text: list[int], pattern: list[int]) -> list[int]:
    """Where the pattern starts; the empty one also at the end."""
    return [at for at in range(len(text) - len(pattern) + 1) if text[at : at + len(pattern)] == pattern]


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(1, 9), st.integers(1, 9), st.data())
def test_all_queries_agree_with_plain_search(text: list[int], step: int, stride: int, data: st.DataObject) -> None:
    index = FMIndex.build(text, step=step, stride=stride)
    start = data.draw(st.integers(0, len(text)))
    cut = text[start : start + data.draw(st.integers(0, 6))]
    patterns = [cut, data.draw(st.lists(st.integers(0, 5), max_size=4)), [], [999], [*cut, 2**50]]
    low, high = index.find(patterns)
    assert index.count(patterns).tolist() == [len(places(text, pattern)) for pattern in patterns]
    symbols, counts, offsets = index.preceding(low, high)
    for row, pattern in enumerate(patterns):
        found = places(text, pattern)
        assert sorted(index.locate(np.arange(low[row], high[row])).tolist()) == found
        mine = slice(offsets[row], offsets[row + 1])
        assert dict(zip(symbols[mine], counts[mine], strict=True)) == Counter(text[at - 1] for at in found if at)
        size = offsets[row + 1] - offsets[row]
        first, last = index.extend(np.repeat(low[row], size), np.repeat(high[row], size), symbols[mine])
        assert (last - first == counts[mine]).all()
    stop = data.draw(st.integers(start, len(text)))
    assert index.extract(start, stop).tolist() == text[start:stop]


def test_a_large_text_in_blocks_and_many_patterns_in_turns() -> None:
    random = np.random.default_rng(0)
    text = (random.zipf(1.3, 30_000) % 5_000).astype(np.int32)
    index = FMIndex.build(text)
    starts = random.integers(0, len(text) - 8, 500)
    lengths = random.integers(1, 8, 500)
    patterns = [text[at : at + n] for at, n in zip(starts, lengths, strict=True)]
    low, high = index.find(patterns)
    for row in range(0, 500, 50):
        found = index.locate(np.arange(low[row], high[row]))
        assert starts[row] in found
        assert len(found) == len(places(text.tolist(), patterns[row].tolist()))
    every = np.random.default_rng(1).permutation(len(text) + 1)
    assert (np.sort(index.locate(every)) == np.arange(len(text) + 1)).all()
    assert (index.extract(0, len(text)) == text).all()


def test_a_text_of_one_symbol_over_and_over() -> None:
    index = FMIndex.build(b"a" * 5_000)
    assert index.count([b"a", b"aaa", b"b", b"a" * 5_000, b"a" * 5_001]).tolist() == [5_000, 4_998, 0, 1, 0]
    assert sorted(index.locate(np.arange(5_001)).tolist()) == list(range(5_001))


def test_words_take_less_than_a_quarter_of_the_suffix_array() -> None:
    random = np.random.default_rng(0)
    words = [bytes(random.integers(97, 123, size).astype(np.uint8)) for size in random.integers(2, 9, 300)]
    text = b" ".join(words[place] for place in random.zipf(1.4, 40_000) % 300)
    assert FMIndex.build(text).nbytes < len(text)


def test_files_give_back_the_same_bits(tmp_path: Path) -> None:
    index = FMIndex.build(b"she sells sea shells by the sea shore")
    with writing(tmp_path / "index", kind="index", method="t", method_version=1, params={}) as out:
        index.save(out)
    mapped = FMIndex.open(Artifact.open(tmp_path / "index"))
    assert mapped.count([b"sea", b"sh", b""]).tolist() == index.count([b"sea", b"sh", b""]).tolist() == [2, 3, 38]
    assert bytes(mapped.extract(4, 9).astype(np.uint8)) == b"sells"
    for name in ("words", "marks", "samples", "rows", "children"):
        assert np.array_equal(getattr(mapped, name), getattr(index, name))


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    index, other = FMIndex.build(b"one text"), FMIndex.build(b"another and a longer text" * 9)
    with writing(tmp_path / "index", kind="index", method="t", method_version=1, params={}) as out:
        index.save(out)
        out.write_array("fm_children.npy", other.children)
    with pytest.raises(ArtifactCorrupt, match="does not hold together"):
        FMIndex.open(Artifact.open(tmp_path / "index"))


def test_what_is_refused() -> None:
    with pytest.raises(InvalidItems, match="at least 0"):
        FMIndex.build([3, -1])
    with pytest.raises(InvalidItems, match="integers"):
        FMIndex.build(np.array([0.5]))
    with pytest.raises(InvalidParams, match="at least 1"):
        FMIndex.build(b"a", step=0)
    index = FMIndex.build(b"abc")
    with pytest.raises(InvalidParams, match="within"):
        index.extract(2, 5)
    with pytest.raises(InvalidParams, match="must lie"):
        index.locate([4])
    with pytest.raises(InvalidParams, match="ranges within"):
        index.extend([0], [9], [97])
    with pytest.raises(InvalidParams, match=r"must be \(m,\)"):
        index.preceding([0, 1], [2])
    with pytest.raises(InvalidParams, match="the ranges"):
        index.extend([0], [1], [97, 98])
    with pytest.raises(InvalidItems, match="integers"):
        index.count([[0.5]])
