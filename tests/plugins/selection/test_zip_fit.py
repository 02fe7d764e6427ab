"""zip-fit: sizes, the formula, its invariances, and what it prefers on real text."""

import gzip
import lzma
import os
import pydoc_data.topics
import random
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import brotli
import lz4.frame
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe.errors import ArtifactMismatch, Cancelled, InvalidItems, InvalidParams, RuntimeMissing
from pickaxe_plugins.selection.zip_fit import _compressors, dataset_alignment
from pickaxe_plugins.selection.zip_fit._compressors import COMPRESSORS, COPY_FROM
from pickaxe_plugins.selection.zip_fit._texts import Texts

PEERS = {
    "gzip": lambda data, level: gzip.compress(data, level),
    "zlib": lambda data, level: zlib.compress(data, level),
    "lz4": lambda data, level: lz4.frame.compress(data, compression_level=level),
    "zstd": lambda data, level: zstandard.ZstdCompressor(level=level).compress(data),
    "brotli": lambda data, level: brotli.compress(data, quality=level),
    "lzma": lambda data, level: lzma.compress(data, preset=level),
}
LEVELS = {
    "gzip": range(10),
    "zlib": range(10),
    "lz4": (-5, 0, 3, 16),
    "zstd": (-3, 1, 3),
    "brotli": (0, 5, 11),
    "lzma": (0, 6),
}
BYTES = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda unit, times: unit * times, st.binary(min_size=1, max_size=40), st.integers(1, 120)),
    st.builds(lambda seed, size: random.Random(seed).randbytes(size), st.integers(0, 9), st.integers(0, 5000)),
)

PROSE = "\n".join(pydoc_data.topics.topics.values())
CODE = "".join(path.read_text("utf-8") for path in sorted(Path(os.__file__).parent.glob("*.py"))[:80])


def chunks(text: str, count: int, length: int, seed: int) -> list[str]:
    """Disjoint stretches of the text, drawn from all over it."""
    starts = random.Random(seed).sample(range(len(text) // length), count)
    return [text[start * length : (start + 1) * length] for start in starts]


TARGETS = chunks(PROSE, 4, 300, 1)
TEXTS = [*chunks(PROSE, 6, 500, 2), *chunks(CODE, 6, 1700, 3), "", "x", "åß∂ 日本語"]


def ncd(source: str, target: str, compressor: str = "gzip", level: int = 6) -> float:
    def size(text: str) -> int:
        return len(PEERS[compressor](text.encode(), level))

    both = size(source), size(target)
    return (size(source + target) - min(both)) / max(both)


def scored(items: Any = TEXTS, targets: Any = TARGETS, **params: Any) -> pickaxe.Scores:
    return pickaxe.scorer("zip-fit", **params).fit(targets).score(items)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("name", COMPRESSORS)
@settings(max_examples=30, deadline=None)
@given(source=BYTES, target=BYTES)
def test_sizes_are_those_of_the_library(name: Any, source: bytes, target: bytes) -> None:
    for level in LEVELS[name]:
        compressor = COMPRESSORS[name](level)
        assert compressor.sizer()(source) == len(PEERS[name](source, level))
        assert compressor.after(source, Texts([target]))(0, 1) == [len(PEERS[name](source + target, level))]


@settings(max_examples=60, deadline=None)
@given(source=BYTES, targets=st.lists(BYTES, min_size=1, max_size=3), seed=st.integers(0, 99))
def test_copied_deflate_states_give_one_shot_sizes(source: bytes, targets: list[bytes], seed: int) -> None:
    source = random.Random(seed).choice([b"", PROSE[:COPY_FROM].encode(), CODE[:31_000].encode()]) + source
    for level in range(1, 10):
        after = _compressors.Gzip(level).after(source, Texts(targets))
        assert after(0, len(targets)) == [len(gzip.compress(source + each, level)) for each in targets]


@pytest.mark.parametrize("total", [250, 251, 762, 763, 7930, 7931, 32506, 32507, 40_000])
def test_the_smallest_window_that_holds_both_changes_no_size(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compressors, "COPY_FROM", 0)
    text = (CODE[:60] + PROSE)[: total - 60].encode()[: total - 60] + CODE[:60].encode()
    for level in (1, 4, 6, 9):
        assert _compressors.Gzip(level).after(text[:-90], Texts([text[-90:]]))(0, 1) == [
            len(gzip.compress(text, level))
        ]


# ---------------------------------------------------------------- the formula


@pytest.mark.parametrize(("compressor", "level"), [("gzip", 1), ("gzip", 6), ("zlib", 9), ("lz4", 0), ("zstd", 3)])
def test_alignment_is_the_formula(compressor: Any, level: int) -> None:
    scores = scored(compressor=compressor, level=level)
    for row, text in enumerate(TEXTS):
        distances = [ncd(text, target, compressor, level) for target in TARGETS]
        assert scores["alignment"][row] == pytest.approx(1 - sum(distances) / len(distances), abs=1e-9)
        assert scores["ncd_min"][row] == pytest.approx(min(distances), abs=1e-9)


def test_columns_of_the_text_itself() -> None:
    scores = scored(["aaaa" * 100, "", "日本"])
    assert scores["bytes"].tolist() == [400, 0, 6]
    assert scores["compressed_ratio"][0] == len(gzip.compress(b"a" * 400, 6)) / 400
    assert np.isnan(scores["compressed_ratio"][1])


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_default_levels(compressor: str) -> None:
    level = {"gzip": 6, "zlib": 6, "lz4": 0, "zstd": 3, "brotli": 11, "lzma": 6}[compressor]
    plain, named = (scored(TEXTS[:3], compressor=compressor, **given) for given in ({}, {"level": level}))
    np.testing.assert_array_equal(plain["alignment"], named["alignment"])


def test_gzip_level_0_is_a_length_score_and_says_so() -> None:
    with pytest.warns(UserWarning, match="without compressing"):
        handle = pickaxe.scorer("zip-fit", level=0).fit(TARGETS)
    scores = handle.score(TEXTS)
    for row, text in enumerate(TEXTS):
        size, sizes = len(text.encode()) + 23, [len(target.encode()) + 23 for target in TARGETS]
        assert scores["alignment"][row] == pytest.approx(np.mean([23 / max(size, each) for each in sizes]), abs=1e-9)
    assert {flag.reason for flag in scores.flags} == {"not-compressed"}
    assert handle.artifact is not None
    assert "without compressing" in handle.artifact.notes["warning"]


def test_lz4_level_0_is_its_normal_mode() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not scored(compressor="lz4", level=0).flags


# ---------------------------------------------------------------- invariances


def test_alignment_is_the_mean_over_single_targets() -> None:
    single = [scored(targets=[target])["alignment"] for target in TARGETS]
    np.testing.assert_allclose(scored()["alignment"], np.mean(single, axis=0), rtol=0, atol=1e-12)


def test_order_and_duplication_of_targets_change_nothing() -> None:
    plain = scored()["alignment"]
    np.testing.assert_array_equal(scored(targets=TARGETS[::-1])["alignment"], plain)
    np.testing.assert_allclose(scored(targets=TARGETS * 3)["alignment"], plain, rtol=0, atol=1e-15)


@pytest.mark.parametrize("compressor", ["gzip", "lz4"])
def test_batches_and_threads_change_nothing(compressor: str) -> None:
    texts = TEXTS * 20
    whole = scored(texts, compressor=compressor, threads=1)
    for threads in (2, 5):
        handle = pickaxe.scorer("zip-fit", compressor=compressor, threads=threads).fit(TARGETS)
        for batch in (1, 7, 1000):
            parts = pickaxe.Scores.concatenate(list(handle.stream(texts, batch=batch)))
            for name, values in whole.columns.items():
                np.testing.assert_array_equal(parts[name], values)


@pytest.mark.parametrize("params", [{"level": 6}, {"compressor": "lz4"}])
def test_a_text_equal_to_the_target_comes_first(params: dict[str, Any]) -> None:
    target = chunks(PROSE, 1, 600, 5)[0]
    scores = scored([*chunks(CODE, 30, 600, 6), target], [target], **params)
    assert scores["ncd_min"][-1] < 0.1
    assert scores["alignment"].argmax() == 30


# ---------------------------------------------------------------- what it prefers


def precision_at_100(wanted: str, params: dict[str, Any]) -> float:
    code, prose = chunks(CODE, 170, 600, 0), chunks(PROSE, 170, 600, 0)
    targets = (code if wanted == "code" else prose)[150:]
    best = np.argsort(-scored(code[:150] + prose[:150], targets, **params)["alignment"], kind="stable")[:100]
    return float(np.mean((best < 150) == (wanted == "code")))


@pytest.mark.parametrize("level", [1, 6])
def test_code_targets_pick_code(level: int) -> None:
    assert precision_at_100("code", {"level": level}) >= 0.85


@pytest.mark.parametrize("params", [{"level": 6}, {"compressor": "lz4"}])
def test_prose_targets_pick_prose(params: dict[str, Any]) -> None:
    assert precision_at_100("prose", params) > 0.65


# ---------------------------------------------------------------- parameters


def test_max_bytes_takes_the_head_and_counts() -> None:
    text = "é" * 50 + "tail"
    scores = scored([text, "short"], max_bytes=21)
    assert scores["bytes"].tolist() == [20, 5]  # no character is split
    assert [(flag.index, flag.reason) for flag in scores.flags] == [(0, "truncated")]
    np.testing.assert_array_equal(
        scores["alignment"], scored(["é" * 10, "short"], [each[:21] for each in TARGETS])["alignment"]
    )


def test_concat_compares_with_one_joined_target() -> None:
    joined = scored(targets=["".join(TARGETS)])
    np.testing.assert_array_equal(scored(target_mode="concat")["alignment"], joined["alignment"])


def test_target_sample_is_drawn_by_the_seed() -> None:
    targets = chunks(PROSE, 30, 300, 8)
    sampler = pickaxe.scorer("zip-fit", target_sample=5)
    first, again, other = (sampler.fit(targets, seed=seed).score(TEXTS)["alignment"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(
        scored(targets=targets, target_sample=99)["alignment"], scored(targets=targets)["alignment"]
    )


@pytest.mark.parametrize(("pool", "pooled"), [("mean", np.mean), ("max", np.max)])
def test_chunks_are_scored_apart(pool: str, pooled: Any) -> None:
    text = "".join(chunks(CODE, 2, 500, 9)) + "日本語 " * 100 + PROSE[:900]
    scores = scored([text, ""], chunk=1000, chunk_pool=pool)
    parts = [text[segment.start : segment.end] for segment in scores.segments[0]]
    assert "".join(parts) == text
    sizes = [len(part.encode()) for part in parts]
    assert max(sizes) - min(sizes) <= 6
    alone = scored(parts)
    np.testing.assert_allclose([segment.score for segment in scores.segments[0]], alone["alignment"], atol=1e-7)
    assert scores["alignment"][0] == pytest.approx(pooled(alone["alignment"]), abs=1e-12)
    assert scores["ncd_min"][0] == alone["ncd_min"].min()
    assert scores["compressed_ratio"][0] == scored([text])["compressed_ratio"][0]
    assert scores["alignment"][1] == scored([""])["alignment"][0]


def test_chunks_reach_over_the_deflate_window() -> None:
    """A source's head that is more than 32 KiB away from the target helps only when it is scored apart."""
    target = chunks(PROSE, 1, 800, 10)[0]
    text = target + random.Random(0).randbytes(30_000).hex()
    whole, apart = (scored([text], [target], **params)["ncd_min"][0] for params in ({}, {"chunk": 1000}))
    assert apart < 0.3 < 0.9 < whole


def test_a_lone_surrogate_is_three_bytes() -> None:
    scores = scored(["\ud800"], ["\udfff target"], chunk=2)
    assert scores["bytes"].tolist() == [3]


# ---------------------------------------------------------------- artifact


def test_stored_sizes_are_used_only_for_what_they_were_made_with(tmp_path: Path) -> None:
    pickaxe.scorer("zip-fit", level=6).fit(TARGETS, out=tmp_path / "art")
    other = pickaxe.scorer("zip-fit", artifact=tmp_path / "art", compressor="lz4", level=0, target_mode="concat")
    wanted = scored(compressor="lz4", target_mode="concat")
    np.testing.assert_array_equal(other.score(TEXTS)["alignment"], wanted["alignment"])
    same = pickaxe.scorer("zip-fit", artifact=tmp_path / "art")
    np.testing.assert_array_equal(same.score(TEXTS)["alignment"], scored()["alignment"])
    assert same.artifact is not None
    notes = same.artifact.notes
    assert notes["targets"] == len(TARGETS)
    assert notes["sizes_of"]["library"] == f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
    assert same.artifact.read_array("sizes.npy").tolist() == [len(gzip.compress(t.encode(), 6)) for t in TARGETS]


# ---------------------------------------------------------------- errors


def test_no_targets() -> None:
    with pytest.raises(InvalidItems, match="at least one target"):
        pickaxe.scorer("zip-fit").fit([])


def test_scoring_needs_a_fit() -> None:
    with pytest.raises(ArtifactMismatch, match="fit"):
        pickaxe.scorer("zip-fit").score(["text"])


def test_missing_text_names_the_item() -> None:
    with pytest.raises(InvalidItems, match="lacking"):
        scored([pickaxe.Item("fine", "text"), pickaxe.Item("lacking")])
    with pytest.raises(InvalidItems, match="lacking"):
        pickaxe.scorer("zip-fit").fit([pickaxe.Item("lacking")])


@pytest.mark.parametrize(
    "params",
    [
        {"compressor": "rar"}, {"level": 10}, {"level": -1}, {"compressor": "lz4", "level": 17},
        {"compressor": "zstd", "level": 23}, {"compressor": "brotli", "level": 12}, {"compressor": "lzma", "level": 10},
    ],
)  # fmt: skip
def test_unknown_compressor_or_level(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams) as caught:
        pickaxe.scorer("zip-fit", **params)
    assert [violation.field for violation in caught.value.violations] == [
        "level" if "level" in params else "compressor"
    ]


@pytest.mark.parametrize(("compressor", "module"), [("lz4", "lz4"), ("zstd", "zstandard"), ("brotli", "brotli")])
def test_a_missing_library_names_its_extra(compressor: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RuntimeMissing, match=r"pickaxe\[compressors\]"):
        pickaxe.scorer("zip-fit", compressor=compressor).fit(TARGETS)


def test_a_cancelled_call_stops() -> None:
    handle = pickaxe.scorer("zip-fit", threads=2).fit(TARGETS)
    call = pickaxe.Call()
    seen = 0

    def texts() -> Any:
        nonlocal seen
        for seen in range(100_000):
            if seen == 50:
                call.cancel()
            yield "text"

    with pytest.raises(Cancelled):
        list(handle.stream(texts(), batch=10, call=call))
    assert seen < 100


# ---------------------------------------------------------------- two datasets


def test_dataset_alignment_is_the_mean_over_all_pairs() -> None:
    expected = np.mean([1 - ncd(text, target) for text in TEXTS for target in TARGETS])
    assert dataset_alignment(TEXTS, TARGETS) == pytest.approx(expected, abs=1e-9)
    assert dataset_alignment(iter(TEXTS), iter(TARGETS), threads=2) == pytest.approx(expected, abs=1e-9)


def test_dataset_alignment_with_an_empty_side_is_0() -> None:
    assert dataset_alignment([], TARGETS) == 0
    assert dataset_alignment(TEXTS, []) == 0


def test_the_docs_page_names_every_parameter() -> None:
    page = (Path(__file__).parents[3] / "docs/methods/zip-fit.md").read_text("utf-8")
    for name in type(pickaxe.scorer("zip-fit").params).model_fields:
        assert f"`{name}`" in page
