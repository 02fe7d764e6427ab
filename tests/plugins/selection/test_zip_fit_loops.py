"""zip-fit's compiled loops: the sizes of the libraries, to the byte."""

from __future__ import annotations

import os
import pydoc_data.topics
import random
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe.errors import MethodFailed
from pickaxe_plugins.selection.zip_fit import _compressors, _deflate_loop
from pickaxe_plugins.selection.zip_fit._compressors import Gzip
from pickaxe_plugins.selection.zip_fit._deflate_loop import LEVELS, DeflateLoop
from pickaxe_plugins.selection.zip_fit._lz4_loop import Lz4Loop
from pickaxe_plugins.selection.zip_fit._texts import Texts

PROSE = "\n".join(pydoc_data.topics.topics.values()).encode()
CODE = "".join(path.read_text("utf-8") for path in sorted(Path(os.__file__).parent.glob("*.py"))[:20]).encode()
PARTS = st.one_of(
    st.binary(max_size=300),
    st.text("ab", max_size=600).map(str.encode),
    st.builds(lambda unit, times: unit * times, st.binary(min_size=1, max_size=40), st.integers(1, 100)),
    st.builds(lambda seed, size: random.Random(seed).randbytes(size), st.integers(0, 9), st.integers(0, 3000)),
    st.builds(
        lambda text, start, size: text[start : start + size],
        st.sampled_from([PROSE, CODE]), st.integers(0, 100_000), st.integers(0, 2000),
    ),
)  # fmt: skip
"""At most 4000 bytes."""
SOURCES = st.builds(lambda *parts: b"".join(parts), PARTS, PARTS, PARTS)


def sizes(loop: Any, source: bytes, targets: list[bytes], start: int = 0) -> list[int]:
    found: list[int] = loop.after(source, Texts(targets))(start, len(targets)).tolist()
    return found


# ---------------------------------------------------------------- LZ4


@settings(max_examples=60)
@given(source=SOURCES, targets=st.lists(PARTS, min_size=1, max_size=4), large=st.booleans(), data=st.data())
def test_sizes_are_those_of_lz4(source: bytes, targets: list[bytes], large: bool, data: Any) -> None:
    source = CODE[:200_000] * large + source
    start = data.draw(st.integers(0, len(targets) - 1))
    for level in (-5, 0, 1, 3, 9, 12, 16):
        wanted = [len(lz4.frame.compress(source + each, level)) for each in targets[start:]]
        assert sizes(Lz4Loop(level), source, targets, start) == wanted


def test_an_error_of_lz4_is_raised() -> None:
    loop = Lz4Loop(0)
    loop._bound = lambda most, preferences: 1
    with pytest.raises(MethodFailed, match="lz4 cannot compress"):
        sizes(loop, b"source", [PROSE])


# ---------------------------------------------------------------- deflate


@settings(max_examples=300)
@given(source=SOURCES, targets=st.lists(PARTS, min_size=1, max_size=4), level=st.sampled_from(LEVELS), data=st.data())
def test_sizes_are_those_of_zlib(source: bytes, targets: list[bytes], level: int, data: Any) -> None:
    start = data.draw(st.integers(0, len(targets) - 1))
    wanted = [len(zlib.compress(source + each, level, -15)) for each in targets[start:]]
    assert sizes(DeflateLoop(level), source, targets, start) == wanted


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["prose", "code", "one byte", "noise", "two periods"])
def test_sizes_up_to_the_longest_are_those_of_zlib(level: int, kind: str) -> None:
    most, draw = DeflateLoop.longest, random.Random(1)
    text = {
        "prose": PROSE, "code": CODE, "one byte": b"x" * most, "noise": draw.randbytes(most),
        "two periods": (b"abcde" * 3000 + draw.randbytes(200)) * 2,
    }[kind][:most]  # fmt: skip
    for cut in (0, 1, most // 2, most - 259, most - 3, most):
        targets = [text[cut:], b"", text[cut : cut + 300][::-1][: most - cut]]
        assert sizes(DeflateLoop(level), text[:cut], targets) == [
            len(zlib.compress(text[:cut] + each, level, -15)) for each in targets
        ]


@pytest.mark.parametrize("level", LEVELS)
def test_a_zlib_that_matches_otherwise_is_not_imitated(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DeflateLoop(level).agrees()
    usual = zlib.compress
    for other in (3, level + 1 if level < 7 else 6):
        patched = lambda data, _, bits, other=other: usual(data, other, bits)  # noqa: E731
        monkeypatch.setattr(_deflate_loop.zlib, "compress", patched)
        assert not DeflateLoop(level).agrees()


def test_levels_that_match_otherwise_have_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(Gzip(6).make_loop(), DeflateLoop)
    assert Gzip(3).make_loop() is None
    monkeypatch.setattr(DeflateLoop, "agrees", lambda loop: False)
    assert Gzip(6).make_loop() is None


# ---------------------------------------------------------------- in the method


@pytest.mark.parametrize(("compressor", "loop"), [("lz4", Lz4Loop), ("gzip", DeflateLoop), ("zlib", DeflateLoop)])
def test_the_loop_takes_over_in_long_runs_without_a_difference(
    compressor: str, loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prose = PROSE.decode()
    texts = [prose[start : start + 300] for start in range(0, 3000, 100)] + ["", prose[:20_000]]
    targets = [prose[start : start + 500] for start in (5000, 9000, 20_000)]

    def scored() -> np.ndarray:
        found: np.ndarray = pickaxe.scorer("zip-fit", compressor=compressor).fit(targets).score(texts)["alignment"]
        return found

    calls: list[int] = []
    monkeypatch.setattr(loop, "after", lambda *given, real=loop.after: calls.append(1) or real(*given))
    monkeypatch.setattr(_compressors, "WORTH_COMPILING", 10**12)
    usual = scored()
    assert not calls
    monkeypatch.setattr(_compressors, "WORTH_COMPILING", -1)
    assert (scored() == usual).all()
    seen = len(calls)
    assert seen >= len(texts) - 1  # the longest text is too long for the loop of deflate
    monkeypatch.setattr(_compressors, "find_spec", lambda name: None)
    assert (scored() == usual).all()
    assert len(calls) == seen


def test_threads_share_a_loop() -> None:
    loop, packed = DeflateLoop(6), Texts([PROSE[start : start + 400] for start in range(0, 8000, 400)])
    sources = [CODE[start : start + 700] for start in range(0, 28_000, 700)]

    def work(source: bytes) -> list[int]:
        found: list[int] = loop.after(source, packed)(0, 20).tolist()
        return found

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, sources)) == [work(source) for source in sources]
