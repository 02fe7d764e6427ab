"""`fullrank`: always a permutation, whatever is written; labels are written permutations; the loss on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fullrank_methods import Says, texts
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems
from pickaxe_plugins.reranking.fullrank import (
    build_labels,
    importance_weights,
    label_text,
    listwise_loss,
    parse_permutation,
    write_permutation,
)

FILES = Path(__file__).parents[2] / "golden" / "files" / "68-fullrank"

pytestmark = pytest.mark.usefixtures("fullrank_methods")


# ---------------------------------------------------------------- parsing


@settings(max_examples=200, deadline=None)
@given(text=st.text(), n=st.integers(1, 12))
def test_anything_parses_to_a_permutation(text: str, n: int) -> None:
    parsed = parse_permutation(text, n)
    assert sorted(parsed.order) == list(range(n))
    assert parsed.sound == (not parsed.missing and not parsed.repeated and not parsed.out_of_range)


@settings(max_examples=50, deadline=None)
@given(order=st.permutations(range(9)))
def test_what_is_written_reads_back(order: list[int]) -> None:
    parsed = parse_permutation(write_permutation(order), 9)
    assert list(parsed.order) == order
    assert parsed.sound


def test_the_report_counts_what_was_mended() -> None:
    parsed = parse_permutation("[3] > [3] > [9] > [0] > [1]", 4)
    assert parsed.order == (2, 0, 1, 3)
    assert (parsed.missing, parsed.repeated, parsed.out_of_range) == (2, 1, 2)
    assert parse_permutation("[٣] > [١]", 3).order == (2, 0, 1)
    assert parse_permutation("[2] > [²]", 3).order == (0, 1, 2)
    assert parse_permutation("9" * 5000, 2).order == (0, 1)


@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=80), strategy=st.sampled_from(["full", "sliding", "complete"]), n=st.integers(1, 9))
def test_a_permutation_comes_out_whatever_the_decoder_writes(noise: bytes, strategy: str, n: int) -> None:
    Says.text = noise.decode("latin-1")
    ranking = pickaxe.reranker("fullrank", decoder="says", strategy=strategy, window=4, step=2).rerank(
        "query", texts(range(n))
    )
    assert sorted(entry.index for entry in ranking) == list(range(n))
    assert sorted(ranking.scores.tolist(), reverse=True) == pytest.approx([1 / rank for rank in range(1, n + 1)])


def test_prose_keeps_the_incoming_order_with_a_warning() -> None:
    Says.text = "I think they are all fine."
    ranking = pickaxe.reranker("fullrank", decoder="says").rerank("query", texts([3, 1, 2]))
    assert ranking.ids == ["c0", "c1", "c2"]
    assert ranking.record["windows"] == [
        {"passages": 3, "missing": 3, "repeated": 0, "out_of_range": 0, "max_passage_len": 100}
    ]
    assert "3 of 3 candidates were not named" in ranking.record["warnings"][0]
    Says.text = "[2]"
    assert pickaxe.reranker("fullrank", decoder="says").rerank("query", texts([3, 1, 2])).ids == ["c1", "c0", "c2"]


# ---------------------------------------------------------------- labels and loss


def test_labels_are_written_in_the_initial_numbering() -> None:
    for line in (FILES / "complete_listwise_labels_first8.jsonl").read_text().splitlines():
        label = json.loads(line)
        written = label_text(label["initial_list"], label["final_list"])
        order = parse_permutation(written, len(label["initial_list"]))
        assert order.sound
        assert [label["initial_list"][place] for place in order.order] == label["final_list"]
    with pytest.raises(InvalidItems, match="each once"):
        label_text(["a", "b"], ["a", "a"])


def test_complete_labels_come_from_any_teacher() -> None:
    lengths = np.random.default_rng(1).permutation(35).tolist()
    example = Item("q", "the longest", {"passages": ["x" * length for length in lengths]})
    teacher = pickaxe.reranker("fullrank", ranker="longest")
    (label,) = build_labels([example], teacher, window=10, step=5)
    order = label.fields["permutation"]
    assert isinstance(order, np.ndarray)
    assert [lengths[place] for place in order] == sorted(lengths, reverse=True)
    assert label.fields["target"] == write_permutation(order.tolist())
    assert label.fields["passes"] == 6
    with pytest.raises(InvalidItems, match="field passages"):
        list(build_labels([Item("q", "the longest")], teacher))


def test_weights_start_at_2_fall_and_tend_to_1() -> None:
    separator, targets = 9, np.array([5, 9] * 2000)
    weights = importance_weights(targets, separator)
    assert weights[0] == 2
    assert (weights[1::2] == 1).all()
    assert (np.diff(weights[::2]) < 0).all()
    assert 1 < weights[-2] < 1.1


def test_weights_of_1_give_the_language_model_loss() -> None:
    random = np.random.default_rng(0)
    logits, targets = random.standard_normal((6, 4)), np.array([-100, -100, 1, 3, 0, 2])
    assert listwise_loss(logits, targets, np.ones(4)) == pytest.approx(listwise_loss(logits, targets))
    rows = logits[1:5] - np.log(np.exp(logits[1:5]).sum(1, keepdims=True))
    assert listwise_loss(logits, targets) == pytest.approx(-rows[range(4), targets[2:]].mean())
    with pytest.raises(InvalidItems, match="at least one token"):
        listwise_loss(logits, np.full(6, -100))
