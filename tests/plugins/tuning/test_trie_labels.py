"""trie-labels: which tokens may follow, and what models say along the trie.

The walks `AUTHORS` are those of the cases that were computed with the trie of the authors' code (EQTPartners/PTEC,
MIT, commit d8cfeda); the walk through all labels, which that code cannot finish, follows from the rule.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pickaxe
from pickaxe import Completion, Message, Prompt, Sampling
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.lm import logsumexp
from pickaxe_plugins.tuning._label_trie import LabelTrie, Walk
from pickaxe_plugins.tuning.trie_labels import label_trie

LABELS = [[20, 21], [20, 22], [20, 22, 23], [30], [31, 32, 33], [31, 32]]
END, SEP, PAD = 2, 9, 0
AUTHORS: dict[tuple[int, ...], tuple[list[int], list[list[int]]]] = {
    (0,): ([20, 21, 2], [[20, 30, 31], [21, 22], [2, 9]]),
    (2, 3): ([20, 22, 23, 9, 30, 2], [[20, 30, 31], [21, 22], [2, 9, 23], [2, 9], [20, 30, 31], [2, 9]]),
    (1, 2, 0): (
        [20, 22, 9, 20, 22, 23, 9, 20, 21, 2],
        [[20, 30, 31], [21, 22], [2, 9, 23], [20, 30, 31], [21, 22], [23], [2, 9], [20, 30, 31], [21], [2, 9]],
    ),
    (4, 5, 3): (
        [31, 32, 33, 9, 31, 32, 9, 30, 2],
        [[20, 30, 31], [32], [2, 9, 33], [2, 9], [20, 30, 31], [32], [2, 9], [20, 30], [2, 9]],
    ),
    (5, 4): ([31, 32, 9, 31, 32, 33, 2], [[20, 30, 31], [32], [2, 9, 33], [20, 30, 31], [32], [33], [2, 9]]),
    (3, 1, 4): (
        [30, 9, 20, 22, 9, 31, 32, 33, 2],
        [[20, 30, 31], [2, 9], [20, 31], [21, 22], [2, 9, 23], [20, 31], [32], [2, 9, 33], [2, 9]],
    ),
    (4, 3, 2, 1, 0, 5): (
        [31, 32, 33, 9, 30, 9, 20, 22, 23, 9, 20, 22, 9, 20, 21, 9, 31, 32, 2],
        [
            [20, 30, 31], [32], [2, 9, 33], [2, 9], [20, 30, 31], [2, 9], [20, 31], [21, 22], [2, 9, 23], [2, 9],
            [20, 31], [21, 22], [2, 9], [20, 31], [21], [2, 9], [31], [32], [2],
        ],
    ),
}  # fmt: skip


def trie(labels: list[list[int]] = LABELS) -> LabelTrie:
    return LabelTrie(labels, SEP, [END], PAD)


# ---------------------------------------------------------------- the trie


@pytest.mark.parametrize("labels", AUTHORS)
def test_allowed_tokens_along_the_authors_walks(labels: tuple[int, ...]) -> None:
    tokens, allowed = AUTHORS[labels]
    walk = trie().walk()
    for token, wanted in zip(tokens, allowed, strict=True):
        assert walk.allowed().tolist() == wanted
        walk = walk.take(token)
    assert walk.labels == labels
    assert walk.ended
    assert walk.allowed().tolist() == [PAD]
    assert walk.take(PAD).allowed().tolist() == [PAD]


def test_the_state_is_a_function_of_the_prefix_and_branches_freely() -> None:
    packed = trie()
    for tokens, _ in AUTHORS.values():
        for cut in range(len(tokens)):
            assert packed.walk(tokens[:cut]) == _one_by_one(packed, tokens[:cut])
    fork = packed.walk([20, 22])
    one, other = fork.take(SEP).take(20), fork.take(23).take(SEP).take(20)
    assert one.allowed().tolist() == [21, 22]
    assert one.take(22).allowed().tolist() == [23]
    assert other.take(22).allowed().tolist() == [END, SEP]
    assert fork.allowed().tolist() == [END, SEP, 23]


def _one_by_one(packed: LabelTrie, tokens: list[int]) -> Walk:
    walk = packed.walk()
    for token in tokens:
        walk = walk.take(token)
    return walk


sequences = st.lists(
    st.lists(st.integers(10, 14), min_size=1, max_size=4).map(tuple), min_size=1, max_size=12, unique=True
)


@given(sequences, st.data())
def test_every_output_is_distinct_labels(labels: list[tuple[int, ...]], data: st.DataObject) -> None:
    most = data.draw(st.one_of(st.none(), st.integers(1, 5)))
    walk, tokens = trie([list(label) for label in labels]).walk(most=most), list[int]()
    while not walk.ended:
        allowed = walk.allowed().tolist()
        assert allowed == sorted(set(allowed))
        assert allowed
        tokens.append(data.draw(st.sampled_from(allowed)))
        walk = walk.take(tokens[-1])
    assert tokens[-1] == END
    said = _split(tokens[:-1])
    assert [labels.index(label) for label in said] == list(walk.labels)
    assert len(set(said)) == len(said) <= (most or len(labels))


def _split(tokens: list[int]) -> list[tuple[int, ...]]:
    found: list[list[int]] = [[]]
    for token in tokens:
        if token == SEP:
            found.append([])
        else:
            found[-1].append(token)
    return [tuple(each) for each in found]


@given(sequences)
def test_allowed_tokens_are_those_of_the_labels_left(labels: list[tuple[int, ...]]) -> None:
    """Against the definition, label after label in the given order."""
    walk = trie([list(label) for label in labels]).walk()
    for place, label in enumerate(labels):
        left = labels[place:]
        for depth, token in enumerate(label):
            wanted = {each[depth] for each in left if each[:depth] == label[:depth] and len(each) > depth}
            if label[:depth] in left:
                wanted |= {END, SEP}
            assert walk.allowed().tolist() == sorted(wanted)
            walk = walk.take(token)
        if len(left) > 1:
            walk = walk.take(SEP)
    assert walk.allowed().tolist() == [END]


def test_tokens_that_are_not_allowed_are_refused() -> None:
    for tokens in ([21], [20, 21, 21], [20, SEP], [END], [30, SEP, 30], [30, END, 20], [30, END, END]):
        with pytest.raises(InvalidParams, match="no label left continues with token"):
            trie().walk(tokens)
    with pytest.raises(InvalidParams, match=f"token {SEP}"):
        trie().walk([20, 21, SEP], most=1)


def test_labels_that_cannot_be_told_apart_are_refused() -> None:
    for labels, message in (
        ([], "labels: are missing"),
        ([[20], []], r"labels\[1\]: is empty"),
        ([[20], [21], [20]], r"labels\[2\]: has the same tokens as labels\[0\]"),
        ([[20, SEP]], r"labels\[0\]: holds the separator"),
        ([[20, END]], r"labels\[0\]: holds the separator or an end token"),
    ):
        with pytest.raises(InvalidParams, match=message):
            trie(labels)


# ---------------------------------------------------------------- decoding


SECTORS = ["health care", "health", "heavy industry", "software", "soft drinks", "law"]
TEXT = "A hospital that writes its own software. Sectors:"


def decoded(prompts: Any = TEXT, seed: int = 0, **params: Any) -> list[Completion]:
    decoder = pickaxe.decoder("trie-labels", **{"model": "draft", "labels": SECTORS, **params})
    return decoder.complete(prompts, seed=seed)


def labels_of(found: Completion) -> list[str]:
    return [record["label"] for record in found.records if "label" in record]


@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
def test_outputs_parse_into_distinct_labels(temperature: float) -> None:
    for each in decoded(Prompt(TEXT, sampling=Sampling(n=8)), temperature=temperature):
        said = each.text.split("; ")
        assert set(said) <= set(SECTORS)
        assert len(set(said)) == len(said)
        assert said == labels_of(each)
        assert [record["index"] for record in each.records] == [SECTORS.index(label) for label in said]
        assert each.finish_reason == "stop"
        assert each.usage["completion_tokens"] == len(each.token_ids)


def test_one_label_is_said_whatever_the_model() -> None:
    for seed in range(3):
        (found,) = decoded(labels=["quite improbable ~~ label"], temperature=5.0, seed=seed)
        assert found.text == "quite improbable ~~ label"
    assert len(decoded(temperature=5.0, max_labels=1)[0].records) == 1


def test_logprobs_are_the_models_and_the_record_has_those_among_the_allowed() -> None:
    lm = pickaxe.Host().lm("draft")
    (found,) = decoded(max_labels=2)
    walk = label_trie(SECTORS, "; ", lm.tokenizer).walk(most=2)
    ids = lm.tokenizer.encode(TEXT)
    shares = [share for record in found.records for share in record["logprobs_allowed"]]
    for token, logprob, share in zip(found.token_ids, found.logprobs, shares, strict=True):
        logits, _ = lm.prefill(ids)
        offered = logits[walk.allowed()].astype(np.float64)
        assert token == walk.allowed()[np.argmax(offered)]
        assert logprob == pytest.approx(float(logits[token] - logsumexp(logits)), abs=1e-3)
        assert share == pytest.approx(float(logits[token] - logsumexp(offered)), abs=1e-3)
        ids, walk = [*ids, token], walk.take(token)
    first = found.records[0]
    assert first["confidence"] == pytest.approx(math.exp(sum(first["logprobs_allowed"])))


def test_choices_go_by_seed_and_number_only() -> None:
    eight = decoded(Prompt(TEXT, sampling=Sampling(n=8)), temperature=2.0, seed=1)
    three = decoded(Prompt(TEXT, sampling=Sampling(n=3)), temperature=2.0, seed=1)
    assert [each.token_ids for each in eight[:3]] == [each.token_ids for each in three]
    assert len({each.text for each in eight}) > 2


def test_a_prompts_own_labels_win_and_chats_are_read() -> None:
    chat = Prompt(messages=(Message("user", "Name a colour."),), allowed=("red", "blue"))
    found = decoded([TEXT, chat], max_labels=1)
    assert found[0].text in SECTORS
    assert found[1].text in ("red", "blue")


def test_a_limit_leaves_whole_labels() -> None:
    ends = pickaxe.Host().lm("draft").tokenizer.eos_ids
    for limit in range(1, 6):
        (found,) = decoded(Prompt(TEXT, sampling=Sampling(max_tokens=limit)), labels=["heavy industry", "law"])
        assert len(found.token_ids) <= limit
        assert [label for label in found.text.split("; ") if label] == labels_of(found)
        assert found.finish_reason == ("stop" if found.token_ids[-1] in ends else "length")


def test_other_separators() -> None:
    for separator in (", ", "\n", " | "):
        (found,) = decoded(separator=separator, temperature=3.0, seed=4)
        assert set(found.text.split(separator)) <= set(SECTORS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"separator": " "}, "separator"),
        ({"separator": "<and then> "}, "separator: '<and then> ' is not one token"),
        ({"separator": ";  "}, "separator"),
        ({"labels": ["law", " "]}, r"labels\[1\]: is empty"),
        ({"labels": ["law", "law"]}, r"labels\[1\]: has the same tokens"),
        ({"labels": ["law; order"]}, r"labels\[0\]: holds the separator"),
        ({"labels": [":law"], "separator": ":"}, r"labels\[0\]: melts into the separator"),
    ],
)
def test_wrong_parameters(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        decoded(**params)


def test_wrong_prompts() -> None:
    with pytest.raises(InvalidItems, match=r"prompts\[0\]\.allowed: is missing"):
        decoded(labels=[])
    with pytest.raises(InvalidItems, match=r"prompts\[0\]\.sampling\.stop"):
        decoded(Prompt(TEXT, sampling=Sampling(stop=("x",))))
    with pytest.raises(InvalidItems, match=r"prompts\[0\]\.json_schema"):
        decoded(Prompt(TEXT, json_schema={"type": "string"}))
