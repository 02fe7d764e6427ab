from __future__ import annotations

import numpy as np
import pytest

from pickaxe.call import Call
from pickaxe.errors import Cancelled, DoesNotFit, InvalidItems


def test_logprobs_equal_an_independent_decoder(tiny, reference):
    ids = [10, 200, 33, 7, 7, 91]
    expected = reference.logprobs(ids)
    np.testing.assert_allclose(tiny.full_logprobs(ids), expected, atol=1e-4)
    (found,) = tiny.token_logprobs([ids])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected[np.arange(5), ids[1:]], atol=1e-4)


def test_moments_equal_an_independent_decoder(tiny, reference):
    ids = [10, 200, 33, 7, 7, 91]
    every = reference.logprobs(ids)[:-1]
    mean = (np.exp(every) * every).sum(-1)
    deviation = np.sqrt((np.exp(every) * (every - mean[:, None]) ** 2).sum(-1))
    (found,) = tiny.token_moments([ids])
    np.testing.assert_allclose(found, [every[np.arange(5), ids[1:]], mean, deviation], atol=2e-4)


@pytest.mark.parametrize("model", ["tiny", "smollm"])
def test_an_item_scores_the_same_in_any_batch(model, request):
    lm = request.getfixturevalue(model)
    random = np.random.default_rng(0)
    lists = [random.integers(0, 250, size) for size in (3, 17, 2, 40, 1, 0, 23, 17, 64)]
    together = lm.token_logprobs(lists)
    for batch_tokens in (1, 100):
        for one, other in zip(together, lm.token_logprobs(lists, batch_tokens=batch_tokens), strict=True):
            np.testing.assert_array_equal(one, other)
    assert [len(row) for row in together] == [2, 16, 1, 39, 0, 0, 22, 16, 63]


def test_texts_longer_than_a_chunk(tiny, reference):
    random = np.random.default_rng(0)
    lists = [random.integers(0, 250, size) for size in (600, 513, 512, 40)]
    for tokens, found in zip(lists, tiny.token_logprobs(lists, batch_tokens=4000), strict=True):
        expected = reference.logprobs(tokens.tolist())[np.arange(len(tokens) - 1), tokens[1:]]
        np.testing.assert_allclose(found, expected, atol=2e-4)


def test_nothing_to_score(tiny):
    assert tiny.token_logprobs([]) == []
    assert [rows.shape for rows in tiny.token_moments([[5], []])] == [(3, 0), (3, 0)]


def test_refusals_name_the_item(tiny):
    with pytest.raises(DoesNotFit, match="item 1 has 641 tokens") as caught:
        tiny.token_logprobs([[1, 2], [0] * 641])
    assert caught.value.metadata == {"item": "1", "tokens": "641", "context": "640"}
    with pytest.raises(InvalidItems, match=r"items\[1\]"):
        tiny.token_logprobs([[1, 2], [1, 258]])


def test_cancelled_scoring(tiny):
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        tiny.token_logprobs([[1, 2, 3]], call)


def test_choose_equals_scoring_the_whole(tiny, reference):
    prompt, options = [10, 200, 33], [[7], [91, 64], [128, 5, 250]]
    expected = []
    for option in options:
        every = reference.logprobs(prompt + option)
        expected.append(sum(every[2 + place, token] for place, token in enumerate(option)))
    np.testing.assert_allclose(tiny.choose(prompt, options), expected, atol=2e-4)
    np.testing.assert_allclose(
        tiny.choose(prompt, options, normalise="tokens"), np.array(expected) / [1, 2, 3], atol=2e-4
    )
    assert tiny.tokenizer.id_to_bytes(257) == b"zq"
    one, merged = (tiny.choose(prompt, [[257]], normalise=kind)[0] for kind in ("bytes", "none"))
    assert one == pytest.approx(merged / 2)
    with pytest.raises(InvalidItems, match=r"continuations\[1\]"):
        tiny.choose(prompt, [[1], []])


def test_choice_of_the_real_model(smollm):
    prompt = smollm.tokenizer.encode("The capital of France is")
    names = [" Paris", " Berlin", " a very big banana"]
    scores = smollm.choose(prompt, [smollm.tokenizer.encode(name) for name in names])
    assert scores.argmax() == 0
    assert (scores < 0).all()
