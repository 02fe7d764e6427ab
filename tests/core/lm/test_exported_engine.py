"""The engine over an exported decoder: rows that come and go, of any length, each as if it were alone."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from exporter import Kind

from pickaxe import Call, Host, Prompt
from pickaxe.data import Sampling
from pickaxe.errors import Cancelled, MethodFailed
from pickaxe.lm import LM, EngineSettings, Generation, Grammar, OnlyTokens, TokenTrie, WithoutTokens

PROMPTS = [[10, 200, 33], list(range(60, 160)), [7, 7], [5], list(range(40, 52)), list(range(30, 130))]
KINDS = {
    "any": Kind(),
    "like": Kind(masked=False),
    "one by one": Kind(merged=True),
    "alone": Kind(quantised=True),
    "half": Kind(half=True),
}


@pytest.fixture(scope="module", params=KINDS)
def exported(request, reference, open_export) -> LM:
    return open_export(reference, KINDS[request.param])


@pytest.fixture(scope="module")
def plain(reference, open_export) -> LM:
    return open_export(reference)


@pytest.fixture
def shapes(plain, monkeypatch) -> list[tuple[int, int]]:
    """(rows, tokens per row) of every run of a graph."""
    seen: list[tuple[int, int]] = []
    run = type(plain.network).run

    def spy(network, ids, *args):
        seen.append(ids.shape)
        return run(network, ids, *args)

    monkeypatch.setattr(type(plain.network), "run", spy)
    return seen


def with_settings(lm: LM, **settings) -> LM:
    return LM(lm.name, lm.network, lm.tokenizer, EngineSettings(**settings))


def drawn(prompt, n: int = 1, tokens: int = 12, seed: int = 3) -> Generation:
    return Generation(prompt, Sampling(max_tokens=tokens, temperature=8.0, n=n, seed=seed))


def greedy(prompt, tokens: int = 12) -> Generation:
    return Generation(prompt, Sampling(max_tokens=tokens, temperature=0))


def steps_of(lm: LM, requests: list[Generation], call: Call | None = None) -> list[dict[int, list]]:
    found = [defaultdict(list) for _ in requests]
    for number, step in lm.generate_all(requests, call or Call()):
        found[number][step.sample].append((step.token_id, step.logprob))
    return [dict(each) for each in found]


def assert_same(found: list[dict[int, list]], expected: list[dict[int, list]], atol: float = 1e-4) -> None:
    assert [each.keys() for each in found] == [each.keys() for each in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for sample in ours:
            assert [token for token, _ in ours[sample]] == [token for token, _ in theirs[sample]]
            np.testing.assert_allclose([p for _, p in ours[sample]], [p for _, p in theirs[sample]], atol=atol)


def test_requests_get_together_what_each_gets_alone(exported):
    requests = [drawn(prompt, n, seed=place) for place, prompt in enumerate(PROMPTS) for n in (1, 3)]
    alone = [steps_of(with_settings(exported, prefix_bytes=0), [each])[0] for each in requests]
    atol = 0.05 if exported.network.layout.half else 1e-4
    assert_same(steps_of(with_settings(exported, rows=8), requests), alone, atol)


def test_callers_of_many_threads(plain):
    requests = [drawn(prompt, 2, seed=place) for place, prompt in enumerate(PROMPTS)]
    shared = with_settings(plain, rows=8, chunk_beside=16)
    alone = [steps_of(with_settings(plain, prefix_bytes=0), [each])[0] for each in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        assert_same([each[0] for each in pool.map(lambda each: steps_of(shared, [each]), requests)], alone)


def test_tokens_are_those_of_our_own_graphs(plain, tiny):
    requests = [drawn(prompt, 2, 30, seed=place) for place, prompt in enumerate(PROMPTS)]
    assert_same(steps_of(plain, requests), steps_of(tiny, requests))


def test_rows_of_all_lengths_share_a_run_where_the_mask_is_heeded(plain, reference, open_export, shapes):
    requests = [greedy(prompt, 40) for prompt in PROMPTS]
    steps_of(with_settings(plain), requests)
    assert (len(PROMPTS), 1) in shapes
    counting = open_export(reference, Kind(masked=False))
    shapes.clear()
    steps_of(with_settings(counting), [greedy([token] * length, 5) for length in (4, 9) for token in (20, 21, 22)])
    assert (3, 1) in shapes  # the three of either length
    assert (6, 1) not in shapes


def test_a_long_prompt_is_read_in_pieces(plain, shapes):
    lm = with_settings(plain, chunk_beside=16, prefix_bytes=0)
    expected = steps_of(with_settings(plain, prefix_bytes=0), [greedy(PROMPTS[1], 3)])
    writing = lm.generate(greedy([9, 8], 100), Call())
    next(writing)
    shapes.clear()
    assert_same(steps_of(lm, [greedy(PROMPTS[1], 3)]), expected)
    pieces = [tokens for _, tokens in shapes if tokens > 1]
    assert len(pieces) >= 6
    assert max(pieces) <= 16
    writing.close()


def test_prompts_that_begin_alike_share_what_was_read(exported, shapes):
    lm = with_settings(exported)
    beginning = list(range(100, 150))
    first, second = greedy([*beginning, 1, 2, 3]), greedy([*beginning, 4, 5, 6, 7])
    expected = steps_of(with_settings(exported, prefix_bytes=0), [second])
    steps_of(lm, [first])
    shapes.clear()
    assert_same(steps_of(lm, [second]), expected, 0.05 if exported.network.layout.half else 1e-4)
    read = sum(tokens for _, tokens in shapes) - 11  # the 11 tokens that were decoded
    assert read == (54 if exported.network.habits.rows == "alone" else 4)  # it rounds by the piece it reads


def test_closing_a_request_frees_its_rows_at_once(plain, shapes):
    steps = plain.generate(drawn([1, 2], 4, tokens=300), Call())
    next(steps)
    steps.close()
    shapes.clear()
    steps_of(plain, [greedy([3, 4], 3)])
    assert shapes == [(1, 2), (1, 1), (1, 1)]


def test_a_cancelled_call_stops_and_a_failed_run_leaves_the_engine_alive(plain, monkeypatch):
    lm, call = with_settings(plain), Call()
    steps = lm.generate(greedy([1, 2], 300), call)
    next(steps)
    call.cancel()
    with pytest.raises(Cancelled):
        list(steps)
    with monkeypatch.context() as patch:
        patch.setattr(type(lm.network), "run", lambda *_: (_ for _ in ()).throw(MethodFailed("out of memory")))
        with pytest.raises(MethodFailed, match="out of memory"):
            steps_of(lm, [greedy([1, 2])])
    assert_same(steps_of(lm, [greedy([1, 2])]), steps_of(plain, [greedy([1, 2])]))


def test_processors_tries_and_grammars(plain, tiny):
    sampling = Sampling(max_tokens=12, temperature=4.0, n=3, seed=1)
    requests = [
        Generation([1, 2], sampling, (OnlyTokens([65, 66, 67]),)),
        Generation([1, 2], sampling, (WithoutTokens(range(200)),)),
        Generation([1, 2], sampling, allowed=TokenTrie([[65, 66], [65, 67, 68], [70]])),
        Generation([1, 2], sampling, grammar=Grammar.of_regex("[0-9]{3}(abc)?", plain.tokenizer)),
    ]
    assert_same(steps_of(plain, requests), steps_of(tiny, requests))


def test_decoding_over_grpc(reference, tmp_path: Path, write_export):
    from pickaxe_services import LocalServer, Settings, connect

    models = tmp_path / "models"
    models.mkdir()
    write_export(reference, tmp_path / "exported")
    (models / "models.toml").write_text('[foreign]\npath = "../exported"\nkind = "lm"\n')
    prompt = Prompt("Once upon", sampling=Sampling(max_tokens=20, temperature=2.0, seed=5))
    expected = Host(models=models).decoder("repeated-sampling", model="foreign").complete(prompt)
    with LocalServer(Settings(port=0, root=tmp_path / "server", models=models)) as address, connect(address) as client:
        decoder = client.decoder("repeated-sampling", model="foreign")
        chunks = list(decoder.decode(prompt))
        assert decoder.complete(prompt) == expected
    assert sum(len(chunk.token_ids) for chunk in chunks) == 20
