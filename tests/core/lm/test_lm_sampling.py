from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pickaxe.data import Sampling
from pickaxe.errors import InvalidParams, Unmet
from pickaxe.lm import Draw, FollowTrie, OnlyTokens, TokenTrie, WithoutTokens, logsumexp, same_tokenizer
from pickaxe.lm.sampling import StopText

LOGITS = arrays.arrays(np.float32, st.integers(1, 300), elements=st.floats(-20, 20, width=32))


def plain_distribution(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """By sorting everything."""
    order = np.argsort(-logits, kind="stable")
    weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    kept = order[: top_k or len(order)]
    before = np.cumsum(weights[kept]) - weights[kept]
    kept = kept[before < top_p * weights[kept].sum()]
    result = np.zeros(len(logits))
    result[kept] = weights[kept] / weights[kept].sum()
    return result


@given(LOGITS, st.sampled_from([0.3, 1.0, 2.0]), st.integers(0, 20), st.sampled_from([0.1, 0.5, 0.95, 1.0]))
def test_distribution_equals_sorting_everything(logits, temperature, top_k, top_p):
    ids, probabilities = Draw(temperature, top_k, top_p).distribution(logits)
    assert (np.diff(ids) > 0).all()
    found = np.zeros(len(logits))
    found[ids] = probabilities
    expected = plain_distribution(logits, temperature, top_k, top_p)
    assert found.sum() == pytest.approx(1)
    # a token on the very edge of the nucleus may fall to either side by rounding
    assert np.abs(found - expected).max() < 1e-4 or abs(len(ids) - np.count_nonzero(expected)) <= 1


def test_draws_follow_the_distribution():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    random = np.random.default_rng(0)
    counts = np.bincount([Draw().token(logits, random) for _ in range(20_000)], minlength=4)
    np.testing.assert_allclose(counts / 20_000, [0.5, 0.3, 0.15, 0.05], atol=0.01)


def test_temperature_zero_takes_the_first_best_and_no_random_number():
    random = np.random.default_rng(0)
    assert Draw(temperature=0).token(np.array([1, 3, 3], np.float32), random) == 1
    assert random.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (Sampling(temperature=-1), "temperature"),
        (Sampling(temperature=float("nan")), "temperature"),
        (Sampling(top_k=-1), "top_k"),
        (Sampling(top_p=0), "top_p"),
        (Sampling(top_p=1.1), "top_p"),
    ],
)
def test_values_out_of_range(sampling, field):
    with pytest.raises(InvalidParams) as caught:
        Draw.of(sampling)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_everything_forbidden_is_an_error():
    with pytest.raises(Unmet, match="every token is forbidden"):
        Draw().token(np.full(4, -np.inf, np.float32), np.random.default_rng(0))


@given(LOGITS)
def test_logsumexp(logits):
    assert logsumexp(logits) == pytest.approx(np.log(np.exp(logits.astype(np.float64)).sum()), abs=1e-4)


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), st.data())
def test_stop_text_in_any_pieces_equals_the_whole(text, stop, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    finder, shown = StopText(stop), ""
    for piece in pieces:
        kept, reached = finder.push(piece)
        shown += kept
        if reached:
            break
    else:
        shown += finder.flush()
    # the stop string that is complete first ends the text; at one place, the one that began first
    ends = [text.find(each) + len(each) for each in stop if each in text]
    if not ends:
        assert shown == text
        return
    assert text.startswith(shown)
    assert not any(each in shown for each in stop)
    assert any(text.startswith(each, len(shown)) for each in stop)


def test_processors_forbid():
    logits = np.arange(6, dtype=np.float32)
    assert np.flatnonzero(OnlyTokens([4, 1])([], logits) > -np.inf).tolist() == [1, 4]
    assert np.flatnonzero(WithoutTokens([5])([], logits) > -np.inf).tolist() == [0, 1, 2, 3, 4]
    assert logits.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(InvalidParams, match="at least one"):
        OnlyTokens([])


def test_trie():
    trie = TokenTrie([[1, 2], [1, 2, 3], [4]])
    assert trie.follow([]) == ([1, 4], False)
    assert trie.follow([1, 2]) == ([3], True)
    assert trie.follow([4]) == ([], True)
    follow = FollowTrie(trie, [9])
    assert np.flatnonzero(follow([1, 2], np.zeros(10)) > -np.inf).tolist() == [3, 9]
    assert follow.finished([4])
    assert not follow.finished([1, 2])
    with pytest.raises(InvalidParams, match="token 7"):
        trie.follow([7])
    with pytest.raises(InvalidParams, match="empty text"):
        TokenTrie([[]])
    with pytest.raises(InvalidParams, match="at least one"):
        TokenTrie([])


def test_same_tokenizer(smollm, tiny):
    same_tokenizer(smollm.tokenizer, smollm.tokenizer)
    with pytest.raises(Unmet, match="different tokenizers"):
        same_tokenizer(smollm.tokenizer, tiny.tokenizer)
