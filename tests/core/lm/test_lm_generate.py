from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from pickaxe.call import Call
from pickaxe.data import Message, Sampling
from pickaxe.errors import Cancelled, DeadlineExceeded, DoesNotFit, InvalidParams
from pickaxe.lm import LM, Generation, OnlyTokens, TokenTrie
from pickaxe.session import Session

PROMPT = [10, 200, 33]


def samples(lm: LM, request: Generation, call: Call | None = None) -> list[list]:
    """The steps of each sample."""
    found = defaultdict(list)
    for step in lm.generate(request, call or Call()):
        found[step.sample].append(step)
    return [found[sample] for sample in sorted(found)]


def ids(steps: list) -> list[int]:
    return [step.token_id for step in steps]


def text(steps: list) -> str:
    return "".join(step.text for step in steps)


def test_greedy_equals_an_independent_decoder(tiny, reference):
    (steps,) = samples(tiny, Generation(PROMPT, Sampling(max_tokens=12, temperature=0)))
    expected, logprobs = list(PROMPT), []
    for _ in range(12):
        row = reference.logprobs(expected)[-1]
        expected.append(int(row.argmax()))
        logprobs.append(row.max())
    assert ids(steps) == expected[3:]
    np.testing.assert_allclose([step.logprob for step in steps], logprobs, atol=2e-4)
    assert [step.finish_reason for step in steps] == [""] * 11 + ["length"]


@pytest.mark.parametrize("model", ["tiny", "smollm"])
def test_a_sample_is_the_same_whatever_is_decoded_beside_it(model, request):
    lm = request.getfixturevalue(model)
    size, temperature = (12, 8.0) if model == "tiny" else (5, 1.2)

    def drawn(n: int, batch: int, call: Call | None = None, seed: int | None = 3) -> list[list]:
        sampling = Sampling(max_tokens=size, temperature=temperature, top_p=0.95, seed=seed, n=n)
        return samples(lm, Generation(PROMPT, sampling, batch=batch), call)

    eight = drawn(8, 8)
    assert drawn(8, 3) == eight
    assert drawn(1, 1) == eight[:1]
    assert drawn(24, 16)[:8] == eight
    assert drawn(8, 8, Call(seed=3), seed=None) == eight
    assert drawn(8, 8, seed=4) != eight
    assert len({tuple(ids(steps)) for steps in eight}) > 4


def test_samples_that_end_make_room_for_others(tiny):
    ends = OnlyTokens([65, 66, 256])  # a third of the weight or so ends a sample at each step
    sampling = Sampling(max_tokens=30, temperature=8.0, n=12, seed=1)
    alone = samples(tiny, Generation(PROMPT, sampling, (ends,), batch=12))
    assert samples(tiny, Generation(PROMPT, sampling, (ends,), batch=2)) == alone
    assert len({len(steps) for steps in alone}) > 3
    for steps in alone:
        assert [bool(step.finish_reason) for step in steps] == [False] * (len(steps) - 1) + [True]
        assert (steps[-1].finish_reason == "stop") == (steps[-1].token_id == 256)


def test_logprobs_are_those_of_the_untempered_model(tiny, reference):
    sampling = Sampling(max_tokens=6, temperature=0.5, top_k=5)
    (steps,) = samples(tiny, Generation(PROMPT, sampling, (OnlyTokens(range(60, 90)),)))
    every = reference.logprobs(PROMPT + ids(steps))
    expected = [every[2 + place, step.token_id] for place, step in enumerate(steps)]
    np.testing.assert_allclose([step.logprob for step in steps], expected, atol=2e-4)
    assert all(60 <= token < 90 for token in ids(steps))


def test_a_long_sample_outgrows_its_first_memory(tiny, reference):
    (steps,) = samples(tiny, Generation(PROMPT, Sampling(max_tokens=400, temperature=0)))
    every = reference.logits(PROMPT + ids(steps)[:-1])
    assert every[-1].argmax() == steps[-1].token_id
    assert every[300].argmax() == steps[298].token_id


def test_a_prompt_that_goes_on_from_a_cache(tiny):
    sampling = Sampling(max_tokens=6, temperature=0)
    expected = samples(tiny, Generation([*PROMPT, 9, 8], sampling))
    _, past = tiny.prefill(PROMPT)
    for _ in range(2):  # the cache is still good after the first use
        found = samples(tiny, Generation([9, 8], sampling, past=past))
        assert ids(found[0]) == ids(expected[0])
    with pytest.raises(DoesNotFit, match="5 prompt tokens and 636 new ones"):
        tiny.generate(Generation([9, 8], Sampling(max_tokens=636), past=past), Call())


class Spell:
    """Says one given text."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens

    def __call__(self, generated, logits):
        return OnlyTokens([self.tokens[len(generated)]])(generated, logits)


@pytest.mark.parametrize(
    ("said", "stop", "shown", "reason"),
    [
        ("one, two. three", ("two.",), "one, ", "stop"),
        ("one, two. three", ("tree", "x"), "one, two. three", "length"),
        ("aab", ("ab",), "a", "stop"),
        ("end th", ("the",), "end th", "length"),
        ("größer", ("ß",), "grö", "stop"),
    ],
)
def test_stop_strings(tiny, said, stop, shown, reason):
    tokens = tiny.tokenizer.encode(said)
    sampling = Sampling(max_tokens=len(tokens), stop=stop)
    (steps,) = samples(tiny, Generation(PROMPT, sampling, (Spell(tokens),)))
    assert (text(steps), steps[-1].finish_reason) == (shown, reason)


def test_text_is_held_back_while_it_may_become_a_stop_string(tiny):
    tokens = tiny.tokenizer.encode("a<en<end>")
    sampling = Sampling(max_tokens=len(tokens), stop=("<end>",))
    (steps,) = samples(tiny, Generation(PROMPT, sampling, (Spell(tokens),)))
    assert [step.text for step in steps] == ["a", "", "", "", "<en", "", "", "", ""]


def test_an_end_token_ends(tiny):
    tokens = [72, 105, 256]
    (steps,) = samples(tiny, Generation(PROMPT, Sampling(max_tokens=9), (Spell(tokens),)))
    assert ids(steps) == tokens
    assert text(steps) == bytes([72, 105]).decode()
    assert steps[-1].finish_reason == "stop"


def test_output_is_one_of_the_allowed(tiny):
    allowed = ["yes", "yesterday", "no"]
    trie = TokenTrie.of_texts(allowed, tiny.tokenizer)
    sampling = Sampling(max_tokens=20, temperature=5.0, n=40, seed=2)
    found = {text(steps): steps for steps in samples(tiny, Generation(PROMPT, sampling, allowed=trie))}
    assert set(found) <= set(allowed)
    assert len(found) > 1
    assert all(steps[-1].finish_reason == "stop" for steps in found.values())


def test_what_does_not_fit_is_said_at_once(tiny):
    with pytest.raises(DoesNotFit, match="3 prompt tokens and 638 new ones exceed the 640") as caught:
        tiny.generate(Generation(PROMPT, Sampling(max_tokens=638)), Call())
    assert caught.value.metadata == {"prompt_tokens": "3", "max_tokens": "638", "context": "640"}
    with pytest.raises(DoesNotFit):
        tiny.generate(Generation([1] * 640), Call())
    (steps,) = samples(tiny, Generation([1] * 637, processors=(OnlyTokens([65]),)))
    assert text(steps) == tiny.tokenizer.decode([65] * 3)
    for request in (
        Generation([]),
        Generation(PROMPT, Sampling(max_tokens=0)),
        Generation(PROMPT, Sampling(n=0)),
        Generation(PROMPT, batch=0),
    ):
        with pytest.raises(InvalidParams):
            tiny.generate(request, Call())


def test_cancel_takes_effect_within_a_step(tiny):
    call = Call()
    steps = tiny.generate(Generation(PROMPT, Sampling(max_tokens=300, temperature=0)), call)
    for _ in range(5):
        next(steps)
    call.cancel()
    with pytest.raises(Cancelled):
        next(steps)
    assert list(steps) == []


def test_cancel_interrupts_a_run_in_flight(smollm):
    prompt = [5] * 2000
    with pytest.raises(DeadlineExceeded):
        next(smollm.generate(Generation(prompt, Sampling(max_tokens=1)), Call(timeout=0.3)))


def test_closing_ends_it(tiny):
    steps = tiny.generate(Generation(PROMPT, Sampling(max_tokens=300, n=4)), Call())
    next(steps)
    steps.close()
    assert list(steps) == []


def test_the_real_model_answers(smollm):
    question = Message("user", "What is the capital of France? Answer in one sentence.")
    prompt = smollm.tokenizer.encode_chat([question])
    (steps,) = samples(smollm, Generation(prompt, Sampling(max_tokens=30, temperature=0)))
    assert text(steps) == "The capital of France is Paris."
    assert steps[-1].finish_reason == "stop"


def test_memory_that_the_device_does_not_share(tiny, monkeypatch):
    sampling = Sampling(max_tokens=12, temperature=8.0, n=5, seed=1)
    request = Generation(PROMPT, sampling, (OnlyTokens([65, 66, 67, 256]),), batch=3)
    expected = samples(tiny, request)
    share = Session.ort_value
    monkeypatch.setattr(Session, "ort_value", lambda self, array, *rest: share(self, array.copy(), *rest))
    monkeypatch.setattr(type(tiny.network.runtime), "shares_memory", False)
    assert samples(tiny, request) == expected
    _, cache = tiny.forward([PROMPT], logits_at="none")
    logits, longer = tiny.forward([[7]], past=cache)
    np.testing.assert_allclose(logits, tiny.forward([[*PROMPT, 7]])[0], atol=1e-4)
    assert np.abs(longer.gather([0]).keys(1)[:, :, 3]).max() > 0
