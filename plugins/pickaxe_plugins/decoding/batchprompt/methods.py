"""The decoder `batchprompt` and the scorer `batch-label`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pickaxe import (
    WHOLE_PROMPT,
    Call,
    Chunk,
    Column,
    Example,
    Flag,
    InputField,
    Item,
    Items,
    Prompt,
    Sampling,
    Scores,
)
from pickaxe.errors import InvalidItems, Violation
from pickaxe.hooks import hookimpl
from pickaxe_plugins.decoding.batchprompt.common import BatchMethod, Pool, label_numbers, shown
from pickaxe_plugins.decoding.batchprompt.params import labels_problem
from pickaxe_plugins.decoding.batchprompt.polling import Batch, accuracy_by_place
from pickaxe_plugins.decoding.batchprompt.voting import Rules, Standing, winner

_SMALL: Mapping[str, Any] = {
    "model": "draft", "mode": "logits", "labels": ("negative", "positive"), "batch_size": 2, "rounds": 3,
    "context_tokens": 600, "fit_batch_sizes": (2,), "fit_rounds": (1, 3),
}  # fmt: skip
_REVIEWS = (
    ("I loved every minute.", "positive"), ("A waste of time.", "negative"), ("Warm and very funny.", "positive"),
)  # fmt: skip
_EXAMPLES = tuple(Item(str(row), text, {"label": label}) for row, (text, label) in enumerate(_REVIEWS))


class BatchLabel(BatchMethod):
    """Label items with a language model that sees many of them in one prompt, several times in different orders.

    The votes of the rounds are weighted by how sure the model was; items that two rounds agree on are not asked
    about again.
    """

    scope = "pool"
    reads = (
        InputField("text", "text", "The item's text.", False),
        InputField("text_pair", "text", "Its second text, where the template names it.", False),
        InputField("label", "text", "The right label, for the report of accuracy by place.", False),
    )
    columns = (
        Column("confidence", "The label's share of the weight of all votes; 0 without a vote.", "float64"),
        Column("label_index", "Number of the label; -1 without a vote.", "int64", "", "none"),
        Column("label", "The label.", "str", "", "none", nullable=True),
        Column("votes", "Votes that the item got.", "int64", "votes", "none"),
        Column("rounds", "Prompts that the item was in.", "int64", "prompts", "none"),
    )

    @classmethod
    def example(cls) -> Example:
        """Reviews for the small model that is shipped, which does not keep the format of answers."""
        items = tuple(Item(item.id, item.text) for item in _EXAMPLES)
        return Example(params={**_SMALL, "too_long": "cut"}, items=items, examples=_EXAMPLES)

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        labels, (size, rounds) = self.labels(), self.size_and_rounds()
        truth = label_numbers(items, labels, "items")
        pool = self.pool(shown(items, self.params.template, "items"), labels, Sampling(), call, size, rounds)
        done = list(pool.poll.run(pool.batches, call))
        rules, standings = self.params.rules(rounds), pool.poll.standings
        verdicts = [winner(each.votes, rules) for each in standings]
        names = ["" if label is None else labels[label] for label, _ in verdicts]
        usage = pool.usage(done, rounds if self.params.report_like_paper else None)
        summary = {"batch_size": size, "rounds": rounds, "usage": usage, "budget_spent": pool.poll.exhausted}
        if any(label is not None for label in truth):
            summary["by_place"] = accuracy_by_place(standings, truth)
        return Scores(
            {
                "confidence": np.array([share for _, share in verdicts], np.float64),
                "label_index": np.array([-1 if label is None else label for label, _ in verdicts], np.int64),
                "label": np.array(names, np.str_),
                "votes": np.array([sum(vote is not None for vote in each.votes) for each in standings], np.int64),
                "rounds": np.array([len(each.votes) for each in standings], np.int64),
            },
            summary=summary,
            flags=tuple(_flags(items, pool, names)),
        )


def _flags(items: Items, pool: Pool, names: Sequence[str]) -> Iterator[Flag]:
    for row in pool.cut:
        yield Flag(row, "cut", f"item {items[row].id!r} was too long for a prompt of its own; its end was left out")
    for row, name in enumerate(names):
        if not name:
            yield Flag(row, "no_vote", f"item {items[row].id!r} got no answer that could be read")


class BatchPrompt(BatchMethod):
    """Answer label tasks for many prompts at once: several items in one prompt, votes over rounds, early stops.

    Every prompt is an item.  The text of its completion is a label; the record says how the votes went.
    """

    reads = (
        InputField("text", "text", "The item's text.", False),
        InputField("text_pair", "text", "Its second text, where the template names it.", False),
    )
    constraints = frozenset({"allowed"})

    @classmethod
    def example(cls) -> Example:
        """Reviews for the small model that is shipped, two of them with labels of their own."""
        prompts = tuple(Prompt(item.text) for item in _EXAMPLES)
        own = tuple(replace(prompt, allowed=("dull", "funny")) for prompt in prompts[:2])
        return Example(params=_SMALL, prompts=(*prompts, *own), examples=_EXAMPLES)

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        self._check(prompts)
        size, rounds = self.size_and_rounds()
        items = [Item(str(row), prompt.text, prompt.fields) for row, prompt in enumerate(prompts)]
        texts = shown(items, self.params.template, "prompts")
        groups: dict[tuple[tuple[str, ...], Sampling], list[int]] = {}
        for row, prompt in enumerate(prompts):
            groups.setdefault((prompt.allowed or self.params.labels, prompt.sampling), []).append(row)
        rules = self.params.rules(rounds)
        for (labels, sampling), rows in groups.items():
            pool = self.pool([texts[row] for row in rows], labels, sampling, call, size, rounds)
            for batch in pool.poll.run(pool.batches, call):
                for place in batch.rows:
                    yield _chunk(rows[place], pool.poll.standings[place], labels, rules)
                yield self._report(batch, pool, rows, rounds)

    def _check(self, prompts: Sequence[Prompt]) -> None:
        """Raise `InvalidItems` for all that cannot be honoured or is missing."""
        refused = ["max_tokens", "stop"]
        if self.params.mode == "logits":
            refused += ["temperature", "top_p", "top_k"]
        found: list[Violation] = []
        for row, prompt in enumerate(prompts):
            where = f"prompts[{row}]"
            given = [name for name in refused if getattr(prompt.sampling, name) not in (None, ())]
            given += ["n"] if prompt.sampling.n > 1 else []
            found += [Violation(f"{where}.sampling.{name}", "cannot be had: the output is one label") for name in given]
            if prompt.messages:
                found.append(Violation(f"{where}.messages", "cannot be used: an item is a text, or fields"))
            if not prompt.allowed and not self.params.labels:
                found.append(Violation(f"{where}.allowed", "is missing: name the labels here or in labels"))
            elif prompt.allowed and (problem := labels_problem(prompt.allowed)):
                found.append(Violation(f"{where}.allowed", problem))
            elif prompt.allowed and (lost := {shot.label for shot in self.params.examples} - set(prompt.allowed)):
                found.append(Violation(f"{where}.allowed", f"lacks {sorted(lost)}, which examples have"))
        if found:
            raise InvalidItems(found)

    def _report(self, batch: Batch, pool: Pool, rows: Sequence[int], rounds: int) -> Chunk:
        """What a batch took, as a record about the first of its prompts."""
        return Chunk(
            rows[batch.rows[0]],
            WHOLE_PROMPT,
            record={"batch": list(batch.number), "prompts": [rows[place] for place in batch.rows]},
            usage=pool.usage([batch], rounds if self.params.report_like_paper else None),
        )


def _chunk(row: int, standing: Standing, labels: Sequence[str], rules: Rules) -> Chunk:
    label, share = winner(standing.votes, rules)
    name = None if label is None else labels[label]
    record = {
        "label": name,
        "label_index": label,
        "confidence": share,
        "votes": [None if vote is None else [vote.label, vote.confident] for vote in standing.votes],
        "places": standing.places,
    }
    return Chunk(row, 0, name or "", record=record, finish_reason="abstain" if name is None else "stop")
