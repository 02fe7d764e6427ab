"""Which batch size and how many rounds: accuracy against tokens on labelled items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pickaxe_plugins.decoding.batchprompt.polling import Batch, totals
from pickaxe_plugins.decoding.batchprompt.voting import Rules, Standing, winner


def frontier(
    size: int,
    rounds: Sequence[int],
    standings: Sequence[Standing],
    batches: Sequence[Batch],
    truth: Sequence[int],
    rules: Rules,
) -> Iterator[dict[str, float]]:
    """Accuracy and cost after each of these numbers of rounds of one poll.

    A poll of fewer rounds is the beginning of a longer one: orders and early stops do not look ahead.
    """
    for count in rounds:
        found = [winner(each.votes[:count], rules)[0] for each in standings]
        right = sum(label == wanted for label, wanted in zip(found, truth, strict=True))
        spent = totals(batches, count)
        yield {
            "batch_size": size,
            "rounds": count,
            "accuracy": right / len(truth),
            "tokens": spent["input_tokens"] + spent["output_tokens"],
            "calls": spent["calls"],
        }


def choose(points: Sequence[dict[str, float]], tolerance: float) -> dict[str, float]:
    """The point of fewest tokens whose accuracy is at most `tolerance` below the first one's, single prompting.

    `saving` is the share of single prompting's tokens that it does without.
    """
    single = points[0]
    good = [point for point in points if point["accuracy"] >= single["accuracy"] - tolerance]
    best = min(good, key=lambda point: (point["tokens"], -point["accuracy"]))
    return {
        **best,
        "saving": 1 - best["tokens"] / single["tokens"],
        "single_accuracy": single["accuracy"],
        "single_tokens": single["tokens"],
    }
