"""Languini: perplexity per character, compute classes, trends, plans, queues and windows, errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems, Unmet
from pickaxe.report import explained
from pickaxe_plugins.scaling.languini._stream import (
    END,
    distribute,
    learning_rate,
    scored_targets,
    stream,
    windows,
    worker_rows,
)

HOURS = (6.0, 12.0, 24.0, 48.0, 96.0)


def run(hours: float = 6.0, ppl: float = 2.5, name: str = "run", **fields: Any) -> Item:
    """A run of so many hours at 1000 tokens/s."""
    trained = {"tokens_per_second": 1000, "steps": 3600 * hours, "batch": 10, "seq_len": 100}
    scored = {"total_nll": 1000 * math.log(ppl), "string_length": 1000}
    kept = {**trained, **scored, **fields}
    return Item(name, fields={key: value for key, value in kept.items() if value is not None})


def measured(speed: float, **fields: Any) -> Item:
    return Item("measured", fields={"model": "gpt", "config": "small", "tokens_per_second": speed, **fields})


def score(*items: Item, **params: Any) -> Any:
    return pickaxe.scorer("languini", **params).score(items)


def laws() -> list[Item]:
    """Two models on exact power laws, that cross at exp(ln(1.3) / 0.05) hours."""
    return [
        run(hours, scale * hours**slope, f"{model}-{hours:g}", model=model)
        for model, scale, slope in (("gpt", 3.0, -0.08), ("lstm", 3.9, -0.13))
        for hours in HOURS
    ]


# ---------------------------------------------------------------- perplexity


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(-20, -1e-3), min_size=1, max_size=30), st.integers(1, 10))
def test_the_tokenizer_does_not_matter_and_padding_changes_nothing(logprobs: list[float], pads: int) -> None:
    """The same total probability over one token or many, and with padding behind it."""
    many = np.array(logprobs)
    padded = np.concatenate([many, np.full(pads, -3.0)])
    targets = np.concatenate([np.full(len(many), 7), np.zeros(pads, np.int64)])
    text = "The tide came in"
    found = score(
        Item("many", text, {"token_logprobs": many}),
        Item("one", text, {"token_logprobs": np.array([many.sum()])}),
        Item("padded", text, {"token_logprobs": padded, "targets": targets}),
    )
    assert found["normalised_ppl"] == pytest.approx(found["normalised_ppl"][0])
    assert found["token_ppl"][2] == pytest.approx(found["token_ppl"][0])


def test_characters_or_bytes() -> None:
    text, nll = "Käse für Åse", 12 * math.log(3)
    item = Item("run", text, {"total_nll": nll, "token_count": 5})
    by_chars, by_bytes = score(item), score(item, length_unit="bytes")
    assert by_chars["normalised_ppl"][0] == pytest.approx(3)
    assert by_bytes["normalised_ppl"][0] == pytest.approx(math.exp(nll / 15))
    assert by_chars["normalised_ppl_bytes"][0] == by_bytes["normalised_ppl_bytes"][0] == by_bytes["normalised_ppl"][0]
    assert by_chars["bytes_per_token"][0] == 3
    assert "per char" in explained(by_chars.summary)[0][0]
    assert "per byte" in explained(by_bytes.summary)[0][0]


def test_of_windows_the_last_targets_count() -> None:
    logprobs = np.log([[0.5, 0.5, 0.1, 0.1], [0.5, 0.5, 0.2, 0.2]])
    item = Item("run", "abcd", {"token_logprobs": logprobs})
    assert score(item, last_n=2)["normalised_ppl"][0] == pytest.approx((0.1**2 * 0.2**2) ** (-1 / 4))
    assert score(item)["normalised_loss"][0] == score(item, last_n=4)["normalised_loss"][0]


# ---------------------------------------------------------------- compute


def test_hours_classes_ranks_and_frontier() -> None:
    items = [run(6.0, 2.5), run(6.1, 2.4), run(12.0, 2.45), run(12.0, 2.3), run(9.0, 2.6), run(tokens_per_second=None)]
    found = score(*items)
    assert found["accelerator_hours"][:5] == pytest.approx([6, 6.1, 12, 12, 9])
    assert found["class"].tolist() == [6, 6, 12, 12, 0, 0]
    assert found["rank_in_class"][:4].tolist() == [2, 1, 2, 1]
    assert np.isnan(found["rank_in_class"][4:]).all()
    assert found["frontier"][:5].tolist() == [1, 1, 0, 1, 0]
    assert [(flag.index, flag.reason) for flag in found.flags] == [(4, "off-class"), (5, "no-hours")]
    assert found["tokens"].tolist()[0] == 21_600_000


def test_splits_are_not_compared() -> None:
    found = score(run(ppl=2.5, split="java"), run(ppl=9.0, split="french"))
    assert found["rank_in_class"].tolist() == [1, 1]
    assert found["frontier"].tolist() == [1, 1]


def test_trends_cross_where_their_lines_do() -> None:
    found = score(*laws())
    answer, figures = explained(found.summary)
    hours = math.exp(math.log(1.3) / 0.05)
    (met,) = found.summary["crossings"]
    assert met["hours"] == pytest.approx(hours)
    assert met["times beyond the data"] == pytest.approx(hours / 96)
    assert answer[0].startswith("At 96 accelerator hours, gpt is best")
    assert "The trends of gpt and lstm cross at 190 hours, 1.98 times beyond the data: an extrapolation." in answer
    assert figures[0].series[0].y == pytest.approx(found["normalised_ppl"][:5])
    assert found["trend_ppl"] == pytest.approx(found["normalised_ppl"])
    for trend in found.summary["trends"]:
        assert trend["r2"] == pytest.approx(1)
        assert trend["held-out error"] == pytest.approx(0, abs=1e-9)
        assert trend["slope low"] <= trend["slope"] <= trend["slope high"]


def test_the_best_run_of_a_class_makes_the_trend() -> None:
    worse = [run(hours, 5.0, f"worse-{hours:g}", model="gpt") for hours in HOURS]
    plain, more = score(*laws()), score(*laws(), *worse)
    assert more.summary["trends"][0]["slope"] == plain.summary["trends"][0]["slope"]


def test_fit_keeps_trends_for_later_runs() -> None:
    handle = pickaxe.scorer("languini").fit(laws())
    found = handle.score([run(192.0, 2.0, model="gpt"), run(6.0, 2.0, model="other")])
    assert found["trend_ppl"][0] == pytest.approx(3.0 * 192**-0.08)
    assert np.isnan(found["trend_ppl"][1])
    assert ("extrapolated", 0) in [(flag.reason, flag.index) for flag in found.flags]
    with pytest.raises(Unmet, match="two compute classes or more"):
        pickaxe.scorer("languini").fit([run(6.0), run(6.0)])


def test_one_class_gives_no_trend_and_says_so() -> None:
    assert "No trend can be given" in explained(score(run(), run()).summary)[0][-1]


# ---------------------------------------------------------------- plans


def test_a_plan_takes_the_best_throughput_of_the_device() -> None:
    items = [
        measured(50_000, device="RTX 3090", batch_size=8),
        measured(55_416, device="RTX 3090", batch_size=34),
        measured(200_000, device="A100", batch_size=64),
        measured(0, device="RTX 3090", batch_size=64),
        measured(0, device="RTX 3090", batch_size=1, config="huge"),
    ]
    found = score(*items, mode="plan")
    assert found["best_tokens_per_second"][:2].tolist() == [55_416, 55_416]
    assert found["steps"].tolist() == [18_265, 18_265, 0, 18_265, 0]
    assert found["gradient_accumulation"][:2].tolist() == [4, 4]
    assert [flag.reason for flag in found.flags] == ["other-device", "does-not-fit"]
    assert score(*items, mode="plan", round="floor")["steps"][0] == 18_264
    answer, _ = explained(found.summary)
    assert answer[0] == (
        "gpt small: 6 hours at 55,416 tokens/s on RTX 3090 are 1.2 billion tokens, 18,265 steps of 128 x 512."
    )
    with pytest.raises(InvalidItems, match="mixes 'RTX 3090' and 'A100' in one plan"):
        score(*items, mode="plan", reference_device="")


# ---------------------------------------------------------------- streams


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 8))
def test_books_go_to_the_shortest_queue(lengths: list[int], queues: int) -> None:
    totals, plain = [0] * queues, [[] for _ in range(queues)]  # type: ignore[var-annotated]
    for book, length in enumerate(lengths):
        queue = int(np.argmin(totals))
        totals[queue] += length
        plain[queue].append(book)
    assert distribute(lengths, queues) == plain
    assert max(totals) - min(totals) <= max(lengths, default=0)


def test_books_of_a_queue_are_one_stream() -> None:
    assert stream([np.array([5, 6]), np.array([7])]).tolist() == [5, 6, END, 7, END]


@settings(deadline=None)
@given(st.integers(0, 200), st.sampled_from([(8, 1), (8, 2), (8, 4), (8, 8), (12, 3)]))
def test_every_target_is_scored_at_most_once_with_enough_context(tokens: int, sizes: tuple[int, int]) -> None:
    seq_len, last_n = sizes
    starts, scored = windows(tokens, seq_len, last_n), scored_targets(tokens, seq_len, last_n)
    assert len(np.unique(scored)) == scored.size
    assert (scored < tokens).all()
    # A target at position t is predicted from the tokens start .. t - 1.
    assert (scored - starts[:, None] > seq_len - last_n).all()
    if last_n == seq_len:
        assert scored.ravel().tolist() == list(range(1, 1 + scored.size))
        assert starts.tolist() == list(range(0, max(tokens - seq_len, 0), seq_len))


@pytest.mark.parametrize("last_n", [0, 3, 16])
def test_windows_must_be_divided(last_n: int) -> None:
    with pytest.raises(ValueError, match="must divide"):
        windows(100, 8, last_n)


def test_workers_and_accumulation_make_the_same_step() -> None:
    rng = np.random.default_rng(0)
    losses = rng.random((12, 16))
    one = np.mean([losses[rows].mean() for rows in worker_rows(12, 1, 0, accumulation=4)])
    four = np.mean([losses[worker_rows(12, 4, worker)[0]].mean() for worker in range(4)])
    assert one == pytest.approx(four, abs=1e-5)
    assert sorted(row for worker in range(4) for row in worker_rows(12, 4, worker)[0]) == list(range(12))


def test_learning_rate() -> None:
    cosine = 6e-6 + (1 + math.cos(math.pi * 200 / 1000)) / 2 * (6e-4 - 6e-6)
    found = learning_rate(np.array([100, 200, 1000, 5000]), 1000)
    assert found[1:] == pytest.approx([cosine, 6e-6, 6e-6])
    half = 6e-6 + (1 + math.cos(math.pi * 100 / 1000)) / 2 * (6e-4 - 6e-6)
    assert found[0] == pytest.approx(half / 2)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"string_length": 0}, "string_length: must be a number above 0"),
        ({"string_length": None}, "string_length: is missing"),
        ({"total_nll": None}, "total_nll: is missing"),
        ({"total_nll": -1.0}, "total_nll: must be at least 0"),
        ({"total_nll": 1e9, "string_length": 1000.0}, "total_nll: is 1e.09 nats for a length of "),
        ({"total_nll": 1e6, "token_count": 10.0}, "total_nll: is 1e.06 nats for a length of 10: "),
        ({"tokens_per_second": 0}, "tokens_per_second: must be a number above 0"),
        ({"tokens_per_second": -5}, "tokens_per_second: must be a number above 0"),
        ({"token_logprobs": np.array([-1.0])}, "total_nll: is missing: give total_nll or token_logprobs, and not both"),
        ({"total_nll": None, "token_logprobs": np.array([0.5])}, "token_logprobs: must be natural logarithms"),
        ({"total_nll": None, "token_logprobs": np.array([-np.inf])}, "token_logprobs: must be natural logarithms"),
        (
            {"total_nll": None, "token_logprobs": np.array([-1.0, -1.0]), "targets": np.zeros(2)},
            "token_logprobs: holds nothing but padding",
        ),
        (
            {"total_nll": None, "token_logprobs": np.array([-1.0, -1.0]), "targets": np.zeros(3)},
            "targets: has shape",
        ),
    ],
)
def test_wrong_runs(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidItems, match=rf"items\[0\].fields.{said}"):
        score(run(**fields))


def test_wrong_windows_texts_and_plans() -> None:
    window = Item("run", "abcd", {"token_logprobs": np.full((2, 4), -1.0)})
    with pytest.raises(InvalidItems, match="windows of 4 targets, which last_n=3 does not divide"):
        score(window, last_n=3)
    with pytest.raises(InvalidItems, match="text: is empty"):
        score(Item("run", "", {"total_nll": 1.0}))
    with pytest.raises(InvalidItems, match="tokens_per_second: must be above 0, or 0 where memory was exceeded"):
        score(measured(-1), mode="plan")
    with pytest.raises(InvalidItems, match="tokens_per_second: is missing"):
        score(Item("plan", fields={"model": "gpt"}), mode="plan")


def test_devices_are_not_mixed() -> None:
    items = [run(device="3090"), run(device="A100")]
    with pytest.raises(InvalidItems, match=r"items\[1\].fields.device: mixes devices \(3090, A100\)"):
        score(*items)
    assert len(score(*items, allow_mixed=True)) == 2
