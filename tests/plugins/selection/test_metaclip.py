"""metaclip: matching, probabilities, draws, languages, merging, and what balancing does to Zipf-distributed entries."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe_plugins.selection import _entries
from pickaxe_plugins.selection._curation import pattern, probabilities, spaced, tail_share, threshold
from pickaxe_plugins.selection._entries import Matcher
from pickaxe_plugins.selection._keyed_draws import keys, philox, uniforms

ENTRIES = ("dog", "cat", "red car", "car", "axolotl", "the", "a.m", "C++", "New York", "red car race")
POOL = [
    "the dog",
    "the cat, the car",
    "a red car",
    "the dog and the cat",
    "an axolotl",
    "the dog",
    "nothing",
    "the",
] * 3
WORDS = st.sampled_from(
    ["a", "b", "ab", "a b", "é", "日本", "b,", "'a'", "A", " ", "\t", "\ud800", "b b", ".", "𝒳", "a-b"]
)


def fitted(pool: Any = POOL, entries: Any = ENTRIES, **params: Any) -> Any:
    return pickaxe.scorer("metaclip", metadata=entries, **{"t": 4, **params}).fit(pool)


def counts(handle: Any) -> list[int]:
    return handle.artifact.read_array("counts.npy").tolist()


# ---------------------------------------------------------------- matching


@settings(max_examples=150, deadline=None)
@given(
    entries=st.lists(st.lists(WORDS, min_size=1, max_size=3).map("".join), min_size=1, max_size=8, unique=True),
    text=st.lists(WORDS, max_size=15).map("".join),
    multilingual=st.booleans(),
)
def test_matching_is_the_naive_search(entries: list[str], text: str, multilingual: bool) -> None:
    patterns = [pattern(each, multilingual) for each in entries]
    matcher = Matcher([each.encode("utf-8", "surrogatepass") for each in patterns])
    naive = [row for row, each in enumerate(patterns) if each in spaced(text)]
    assert matcher.found(spaced(text).encode("utf-8", "surrogatepass")) == naive


@pytest.mark.parametrize("window", [1, 7, 64])
def test_a_huge_text_is_searched_in_windows(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = [pattern(each, False).encode() for each in ENTRIES]
    text = spaced(" ".join(random.Random(0).choices(["red", "car", "race", "dog", "New", "York"], k=300))).encode()
    whole = Matcher(patterns).found(text)
    monkeypatch.setattr(_entries, "WINDOW", window)
    assert Matcher(patterns).found(text) == whole
    assert whole


def test_one_entry_counts_once_a_text_and_overlaps_all_count() -> None:
    handle = fitted(["dog dog dog", "red car race"])
    assert dict(zip(ENTRIES, counts(handle), strict=True)) == {
        **dict.fromkeys(ENTRIES, 0), "dog": 1, "red car": 1, "car": 1, "red car race": 1
    }  # fmt: skip


@pytest.mark.parametrize("text", ["hotdog", "Dog", "red  car"])
def test_whole_words_case_and_blanks_count(text: str) -> None:
    found = fitted(entries=("dog", "red car")).score([text])
    assert (found["n_matched"][0], found["keep_prob"][0], found["keep"][0]) == (0, 0, 0)
    assert np.isnan(found["min_count"][0])


def test_case_folding() -> None:
    handle = fitted(["DOG", "Dog, dog"], ("dog", "cat"), case_fold=True)
    assert counts(handle) == [2, 0]


# ---------------------------------------------------------------- probabilities


def test_the_closed_form() -> None:
    handle, naive = fitted(matched=True), dict.fromkeys(ENTRIES, 0)
    for text in POOL:
        for entry in ENTRIES:
            naive[entry] += f" {entry} " in spaced(text)
    assert counts(handle) == list(naive.values())
    scores = handle.score(POOL)
    for row, text in enumerate(POOL):
        matched = [entry for entry in ENTRIES if f" {entry} " in spaced(text)]
        p = [4 / max(naive[entry], 4) for entry in matched]
        assert scores["keep_prob"][row] == pytest.approx(1 - math.prod(1 - each for each in p), abs=1e-12)
        assert scores["keep_prob"][row] >= max(p, default=0) - 1e-12
        assert [ENTRIES[each] for each in json.loads(scores["matched"][row])] == matched
        assert scores["tail"][row] == any(naive[entry] <= 4 for entry in matched)
        if matched:
            assert scores["min_count"][row] == min(naive[entry] for entry in matched)


def test_an_entry_that_matches_nothing_changes_nothing() -> None:
    items = [Item(f"i{row}", text) for row, text in enumerate(POOL)]
    before, after = (fitted(entries=entries, t=2).score(items) for entries in (ENTRIES, ("never seen", *ENTRIES)))
    for name in before.columns:
        np.testing.assert_array_equal(before[name], after[name])


def test_a_larger_t_keeps_more_and_the_largest_count_keeps_all() -> None:
    handle = fitted()
    path, most = str(handle.artifact.path), max(counts(handle))
    curves = [pickaxe.scorer("metaclip", artifact=path, t=t).score(POOL)["keep_prob"] for t in range(1, most + 1)]
    assert (np.diff(curves, axis=0) >= 0).all()
    scores = pickaxe.scorer("metaclip", artifact=path, t=most).score(POOL)
    np.testing.assert_array_equal(scores["keep_prob"], scores["n_matched"] > 0)
    np.testing.assert_array_equal(scores["keep"], scores["n_matched"] > 0)


@given(values=st.lists(st.integers(0, 1000), min_size=1, max_size=30), share=st.floats(0.01, 1))
def test_thresholds(values: list[int], share: float) -> None:
    array = np.array(values, np.uint64)
    t = threshold(array, share)
    assert t == 1 or t in values
    p = probabilities(array, t)
    assert ((p > 0) & (p <= 1)).all()
    assert 0 <= tail_share(array, t) <= 1


def test_tail_share_chooses_t() -> None:
    handle = fitted()
    array = np.array(counts(handle), np.uint64)
    chosen = pickaxe.scorer("metaclip", artifact=str(handle.artifact.path), t=None, tail_share=0.3)
    named = pickaxe.scorer("metaclip", artifact=str(handle.artifact.path), t=threshold(array, 0.3))
    np.testing.assert_array_equal(chosen.score(POOL)["keep_prob"], named.score(POOL)["keep_prob"])


# ---------------------------------------------------------------- draws


def test_philox_gives_the_published_numbers() -> None:
    """The known answers of the Random123 distribution."""
    zero, full = (tuple(np.array([word], np.uint64) for _ in range(4)) for word in (0, 0xFFFFFFFF))
    words = [f"{int(each[0]):08x}" for each in philox(zero, (0, 0))]  # type: ignore[arg-type]
    assert words == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    words = [f"{int(each[0]):08x}" for each in philox(full, (0xFFFFFFFF, 0xFFFFFFFF))]  # type: ignore[arg-type]
    assert words == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]


def test_draws_are_uniform_and_differ_by_seed_item_and_entry() -> None:
    names = keys(f"name {row}" for row in range(300))
    items, entries = np.repeat(names, 300), np.tile(names, 300)
    one, other = uniforms(0, items, entries), uniforms(1, items, entries)
    assert (one >= 0).all()
    assert (one < 1).all()
    assert len(np.unique(one)) == len(one)
    histogram = np.histogram(one, 20, (0, 1))[0]
    assert ((histogram - 4500) ** 2 / 4500).sum() < 50  # chi-square of 19 degrees of freedom, p about 1e-4
    for shifted in (other, uniforms(0, entries, items)):
        off = items != entries
        assert abs(np.corrcoef(one[off], shifted[off])[0, 1]) < 4 / math.sqrt(len(one))


def test_the_empirical_rate_is_the_probability() -> None:
    handle = fitted(t=3)
    items = [Item(f"i{row}", text) for row, text in enumerate(POOL[:8])]
    p, seeds = handle.score(items)["keep_prob"], 2000
    rate = np.mean([handle.score(items, seed=seed)["keep"] for seed in range(seeds)], axis=0)
    assert (np.abs(rate - p) <= 4 * np.sqrt(p * (1 - p) / seeds) + 1e-12).all()
    assert ((p > 0) & (p < 1)).sum() >= 3


def test_draws_do_not_depend_on_order_or_batch() -> None:
    handle = fitted(t=2)
    items = [Item(f"i{row}", text) for row, text in enumerate(POOL)]
    whole = dict(zip([item.id for item in items], handle.score(items, seed=7)["keep"], strict=True))
    mixed = random.Random(0).sample(items, len(items))
    parts = [part["keep"] for part in handle.stream(mixed, batch=5, seed=7)]
    assert dict(zip([item.id for item in mixed], np.concatenate(parts), strict=True)) == whole
    assert any(handle.score(items, seed=seed)["keep"].tolist() != list(whole.values()) for seed in range(5))


def test_one_of_several_texts_is_drawn() -> None:
    handle = fitted(t=1000)
    item = Item("many", fields={"texts": ["a dog", "nothing here"]})
    seen = {int(handle.score([item], seed=seed)["n_matched"][0]) for seed in range(20)}
    assert seen == {0, 1}
    assert handle.score([Item("none", fields={"texts": []})])["keep_prob"].tolist() == [0]
    assert counts(fitted([item]))[0] == 1


# ---------------------------------------------------------------- languages


def test_languages_have_their_own_lists_and_thresholds() -> None:
    metadata = {"en": ["dog", "cat"], "ja": ["猫", "犬"]}
    pool = [Item(f"e{row}", "a dog" if row % 4 else "a cat", {"language": "en"}) for row in range(40)]
    pool += [Item(f"j{row}", "黒猫です" if row % 2 else "犬です", {"language": "ja"}) for row in range(10)]
    given = {"spacing": "multilingual", "t": 11, "reference_language": "en"}
    handle = fitted(pool, metadata, **given)
    assert counts(handle) == [30, 10, 5, 5]
    scores = handle.score([*pool, Item("x", "a dog", {"language": "xx"})])
    share = tail_share(np.array([30, 10], np.uint64), 11)
    t = threshold(np.array([5, 5], np.uint64), share)
    assert scores["keep_prob"][1] == pytest.approx(11 / 30)
    assert scores["keep_prob"][41] == pytest.approx(t / 5)
    assert scores["keep_prob"][-1] == 0
    assert [flag.reason for flag in scores.flags] == ["unknown-language"]


def test_a_default_list_takes_other_languages() -> None:
    metadata = {"": ["dog"], "ja": ["犬"]}
    scores = fitted(["a dog"], metadata, spacing="multilingual").score([Item("x", "dog", {"language": "xx"})])
    assert scores["n_matched"].tolist() == [1]


# ---------------------------------------------------------------- artifacts and files


def test_shards_add_up() -> None:
    whole = fitted()
    parts = [fitted(POOL[start::3]) for start in range(3)]
    merged = whole.merge([part.artifact.path for part in parts])
    assert counts(merged) == counts(whole)
    assert merged.artifact.notes == whole.artifact.notes
    for other, match in ((fitted(entries=("dog",)), "metadata"), (fitted(spacing="multilingual"), "settings")):
        with pytest.raises(ArtifactMismatch, match=f"other {match}"):
            whole.merge([whole.artifact.path, other.artifact.path])
    with pytest.raises(InvalidItems, match="none"):
        whole.merge([])


@pytest.mark.parametrize("suffix", ["txt", "json"])
def test_metadata_of_a_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"entries.{suffix}"
    file.write_text("\n".join(ENTRIES) if suffix == "txt" else json.dumps(ENTRIES), "utf-8")
    handle = pickaxe.scorer("metaclip", metadata_file=str(file), t=4).fit(POOL)
    file.unlink()  # the artifact holds the entries
    np.testing.assert_array_equal(handle.score(POOL)["keep_prob"], fitted().score(POOL)["keep_prob"])


def test_an_artifact_of_other_metadata_is_refused() -> None:
    handle = fitted()
    path = str(handle.artifact.path)
    assert len(pickaxe.scorer("metaclip", artifact=path, metadata=list(ENTRIES)).score(POOL)) == len(POOL)
    for changed in ({"metadata": ["dog"]}, {"case_fold": True}, {"spacing": "multilingual"}):
        with pytest.raises(ArtifactMismatch):
            pickaxe.scorer("metaclip", artifact=path, **changed).score(POOL)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "params",
    [
        {"metadata": ["a"], "t": 1, "tail_share": 0.1}, {"metadata": ["a"]}, {"metadata": ["a"], "t": 0},
        {"metadata": ["a"], "tail_share": 0}, {"t": 1}, {"metadata": ["a", " "], "t": 1}, {"metadata": [""], "t": 1},
        {"metadata": ["a"], "metadata_file": "x", "t": 1}, {"metadata_file": "no such file", "t": 1},
        {"metadata": {"en": []}, "t": 1}, {"metadata": ["a"], "t": 1, "reference_language": "en"},
        {"metadata": ["a"], "tail_share": 0.1, "reference_language": "en"}, {"metadata": ["a"], "t": float("nan")},
    ],
)  # fmt: skip
def test_wrong_parameters(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        pickaxe.scorer("metaclip", **params).fit(POOL)


def test_duplicate_entries_are_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="1 duplicates"):
        assert counts(fitted(entries=("dog", "cat", "dog"))) == [9, 6]


@pytest.mark.parametrize("content", ["[1, 2]", "{broken", '"text"'])
def test_a_wrong_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "entries.json"
    file.write_text(content)
    with pytest.raises(InvalidParams, match="metadata_file"):
        pickaxe.scorer("metaclip", metadata_file=str(file), t=4).fit(POOL)


def test_empty_pool_empty_text_and_missing_text() -> None:
    with pytest.raises(InvalidItems, match="empty"):
        fitted([])
    assert fitted().score([""])["keep_prob"].tolist() == [0]
    assert len(fitted().score([])) == 0
    for work in (lambda: fitted([Item("x")]), lambda: fitted().score([Item("x")])):
        with pytest.raises(InvalidItems, match="'x'"):
            work()


def test_the_rarest_matches_are_listed() -> None:
    scores = fitted(matched=True, max_matches=1).score(["the axolotl and the dog"])
    assert json.loads(scores["matched"][0]) == [ENTRIES.index("axolotl")]
    assert scores["n_matched"].tolist() == [3]


# ---------------------------------------------------------------- what it is for


@pytest.mark.parametrize(("each", "cut"), [(1, 3.0), (2, 1.2)])
def test_balancing_cuts_the_head_and_keeps_the_tail(each: int, cut: float) -> None:
    """Zipf-distributed entries, exponent 1.1, 20,000 texts, t a tenth of the top count (bench: 100,000).

    With two entries a text the head is cut far less: it rides along on texts that a rare entry keeps.
    """
    weights = 1 / np.arange(1, 2001) ** 1.1
    drawn = np.random.default_rng(0).choice(2000, (20_000, each), p=weights / weights.sum())
    pool = [" ".join(f"w{entry}" for entry in row) for row in drawn]
    handle = fitted(pool, [f"w{row}" for row in range(2000)], t=1)
    before = np.array(counts(handle))
    t = int(before.max()) // 10
    scores = pickaxe.scorer("metaclip", artifact=str(handle.artifact.path), t=t).score(pool)
    kept = [np.unique(row) for row in drawn[scores["keep"] == 1]]
    after = np.bincount(np.concatenate(kept), minlength=2000)
    assert entropy(after) > entropy(before)
    assert before[0] / after[0] > cut
    assert scores["keep"][scores["tail"] == 1].all()


def entropy(histogram: np.ndarray) -> float:
    p = histogram[histogram > 0] / histogram.sum()
    return float(-(p * np.log(p)).sum())
