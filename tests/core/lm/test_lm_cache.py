from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from pickaxe.errors import ArtifactCorrupt, InvalidParams
from pickaxe.lm import KV, LM, rotate

FIRST, SECOND = [10, 200, 33, 7, 7], [91, 64, 128]


@pytest.fixture
def read(tiny: LM):
    """Read token lists of any lengths as rows of one cache."""

    def cache(*rows: list[int], past: KV | None = None) -> KV:
        width = max(map(len, rows))
        ids = [row + [0] * (width - len(row)) for row in rows]
        return tiny.forward(ids, lengths=[len(row) for row in rows], past=past, logits_at="none")[1]

    return cache


def following(lm: LM, cache: KV, token: int = 42, **options) -> np.ndarray:
    """Logits after one more token in every row; says everything about what the cache holds."""
    return lm.forward([[token]] * cache.rows, past=cache, **options)[0]


def test_two_pieces_equal_one(tiny, read, reference):
    logits = following(tiny, read(SECOND, past=read(FIRST)))
    np.testing.assert_allclose(logits[0], reference.logits([*FIRST, *SECOND, 42])[-1], atol=1e-4)


def test_rows_grow_from_their_own_lengths(tiny, read, reference):
    cache = read([1], [2, 3, 4], past=read(FIRST, SECOND))
    assert cache.lengths.tolist() == [6, 6]
    logits = following(tiny, cache)
    np.testing.assert_allclose(logits[0], reference.logits([*FIRST, 1, 42])[-1], atol=1e-4)
    np.testing.assert_allclose(logits[1], reference.logits([*SECOND, 2, 3, 4, 42])[-1], atol=1e-4)


def test_gather_and_tile(tiny, read):
    cache = read(FIRST, SECOND)
    expected = following(tiny, cache)
    np.testing.assert_array_equal(following(tiny, cache.gather([1, 0, 1])), expected[[1, 0, 1]])
    np.testing.assert_array_equal(following(tiny, cache.tile(2)), expected[[0, 0, 1, 1]])


def test_truncate(tiny, read):
    cache = read(FIRST, SECOND)
    np.testing.assert_array_equal(following(tiny, cache.truncate(2)), following(tiny, read(FIRST[:2], SECOND[:2])))
    shorter = cache.truncate(np.array([4, 99]))
    assert shorter.lengths.tolist() == [4, 3]


def test_left_pad(tiny, read):
    cache = read(FIRST, SECOND)
    padded = cache.left_pad(7)
    assert padded.lengths.tolist() == [7, 7]
    bias = np.zeros((2, 1, 1, 8))
    bias[0, ..., :2] = bias[1, ..., :4] = -1e9
    logits = following(tiny, padded, positions=np.array([[5], [3]]), bias=bias)
    np.testing.assert_allclose(logits, following(tiny, cache), atol=1e-5)
    with pytest.raises(InvalidParams, match="longest row has 5"):
        cache.left_pad(4)


def test_concatenate_rows_and_tokens(tiny, read, reference):
    rows = KV.concatenate([read(FIRST), read(SECOND)])
    np.testing.assert_array_equal(following(tiny, rows), following(tiny, read(FIRST, SECOND)))
    # the second part was read at its final positions, but without sight of the first
    _, alone = tiny.forward([SECOND], positions=np.arange(5, 8)[None], logits_at="none")
    joined = KV.concatenate([read(FIRST), alone], axis="tokens")
    ids, apart = [*FIRST, *SECOND, 42], np.zeros((9, 9))
    apart[5:8, :5] = -1e9
    np.testing.assert_allclose(following(tiny, joined)[0], reference.logits(ids, bias=apart)[-1], atol=1e-4)
    with pytest.raises(InvalidParams, match="join row by row"):
        KV.concatenate([rows, alone], axis="tokens")


def test_take_refuses_slots_beyond_the_row(read):
    with pytest.raises(InvalidParams, match=r"\[5, 3\]"):
        read(FIRST, SECOND).take(np.array([0, 4]))


def test_branches_do_not_disturb_each_other(tiny, read):
    prefix = read(FIRST)
    expected = [following(tiny, read([*FIRST, token])) for token in (1, 2)]
    branches = [read([token], past=prefix) for token in (1, 2)]
    for branch, logits in zip(branches, expected, strict=True):
        np.testing.assert_allclose(following(tiny, branch), logits, atol=1e-5)
    assert prefix.lengths.tolist() == [5]


def test_dropped_branches_give_their_room_back(read):
    prefix = read([1], past=read(FIRST))  # growing made room for more
    for token in range(3):
        assert read([token], past=prefix).tensors is prefix.tensors
    kept = read([1], past=prefix)
    assert kept.tensors is prefix.tensors
    assert read([2], past=prefix).tensors is not prefix.tensors


def test_threads_extend_one_prefix(tiny, read):
    prefix = read([1], past=read(FIRST))
    expected = [following(tiny, prefix, token) for token in range(8)]
    results: dict[int, np.ndarray] = {}

    def extend(token: int) -> None:
        cache = tiny.forward([[token]], past=prefix, logits_at="none")[1]
        results[token] = following(tiny, cache.truncate(6), token)

    threads = [threading.Thread(target=extend, args=(token,)) for token in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for token, logits in enumerate(expected):
        np.testing.assert_array_equal(results[token], logits)


def test_save_and_load(tiny, read, tmp_path: Path):
    cache = read(FIRST, SECOND)
    cache.save(tmp_path / "kv.safetensors", {"model": tiny.digest})
    loaded = KV.load(tmp_path / "kv.safetensors")
    np.testing.assert_array_equal(following(tiny, loaded), following(tiny, cache))
    (tmp_path / "kv.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactCorrupt, match=r"kv\.safetensors"):
        KV.load(tmp_path / "kv.safetensors")


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_keys_before_rotary(kind, open_tiny, reference):
    lm = open_tiny(reference, kind)
    architecture = lm.network.architecture
    keys = [
        lm.forward([FIRST], positions=positions[None], logits_at="none")[1].keys(0)
        for positions in (np.arange(5), np.arange(20, 25))
    ]
    plain = [
        rotate(found, positions, architecture, inverse=True)
        for found, positions in zip(keys, (np.arange(5), np.arange(20, 25)), strict=True)
    ]
    np.testing.assert_allclose(plain[0], plain[1], atol=1e-5)
    np.testing.assert_allclose(rotate(plain[0], np.arange(20, 25), architecture), keys[1], atol=1e-5)
    assert np.abs(keys[0] - keys[1]).max() > 0.1
