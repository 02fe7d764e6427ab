"""The pipeline as a scorer (arXiv 2402.16827): a utility and a mechanism per stage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice

import numpy as np

from pickaxe import Call, Column, Example, Flag, InputField, Item, Items, Method, Progress, Scores, hookimpl
from pickaxe.artifact import Artifact, ArtifactWriter
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe.params import canonical
from pickaxe_plugins.selection.selector import _funnel
from pickaxe_plugins.selection.selector._funnel import Funnel
from pickaxe_plugins.selection.selector._passing import (
    Part,
    Passed,
    Supplier,
    look,
    screened,
    settle,
    tell,
    through,
)
from pickaxe_plugins.selection.selector._spec import Params
from pickaxe_plugins.selection.selector._stages import Features, Runner, needs_fit

_PART = 1024


class Selector(Method[Params]):
    """Select training data by a pipeline of stages, each a utility with a selection mechanism.

    Utilities are columns of any scorer or fields of the items.  Mechanisms are thresholds, quantiles, the best k or
    the best share (of items, tokens, characters, or per group), draws with and without replacement, epochs per group,
    diversity within a budget, and deduplication by hash, MinHash and embedding.  Every dropped item has a stage and a
    reason.
    """

    title = "A Survey on Data Selection for Language Models"
    paper = "arXiv:2402.16827"
    version = 1
    Params = Params
    scope = "pool"
    reads = (InputField("text", "text", "The text; empty and blank ones are dropped first, reason `empty`."),)
    fit_reads = (InputField("text", "text", "A text of the pool."),)
    columns = (
        Column("priority", "the last utility, better end up; -inf for dropped items, 0 without a utility", "float64"),
        Column("keep", "1 for kept items, 0 for dropped ones", "int64"),
        Column("count", "how often the item is used: 0 for dropped ones, above 1 after resampling", "int64"),
        Column("dropped_by", "the stage's number from 0; -1 kept, -2 dropped before all", "int64", direction="none"),
        Column("reason", "why the item was dropped", "str", direction="none", nullable=True),
    )
    fitted = "optional"
    stages = ("statistics",)
    cost = (
        "The scorers' own, and O(n log n) numbers per stage.  Memory besides the items: per item and stage 8 bytes, "
        "16 for exact_dedup, 112 for minhash_dedup, 4 per dimension of an embedding."
    )
    reproduced = (
        "Every mechanism of the golden file exactly: prefixes by tokens and by group, Pareto probabilities and draws, "
        "Jaccard similarities and the probability of meeting in a band."
    )

    @classmethod
    def example(cls) -> Example:
        texts = (
            "wool and silk",
            "silk, linen and wool, or jute",
            "Wool and  silk",
            "",
            "linen",
            "silk and hemp and jute",
        )
        items = tuple(Item(f"d{row}", text) for row, text in enumerate(texts))
        words = {"name": "rules-gopher-quality", "column": "n_words"}
        stages = [
            {"name": "exact", "utility": words, "mechanism": {"kind": "exact_dedup"}},
            {"name": "longer", "utility": words, "mechanism": {"kind": "quantile", "q": 0.5}},
        ]
        return Example(params={"stages": stages}, items=items, examples=items)

    def declared_columns(self) -> tuple[Column, ...]:
        scored = [stage for stage in self.params.stages if stage.scored]
        utilities = [
            Column(each.name, f"utility of stage {each.name}", "float64", direction="none", nullable=True)
            for each in scored
        ]
        edited = [Column("text", "the text as the stages left it", "str", direction="none", nullable=True)]
        return (*self.columns[:3], *utilities, *self.columns[3:], *(edited if self.edits else []))

    @property
    def edits(self) -> bool:
        """Whether a stage changes texts."""
        return any(stage.edit for stage in self.params.stages)

    @cached_property
    def runner(self) -> Runner:
        """The stages with their scorers opened; raises what opening them raises."""
        fitted = {}
        if self.artifact is not None:
            names = self.artifact.notes["fitted"]
            fitted = {name: np.asarray(self.artifact.read_array(file)) for name, file in names.items()}
        return Runner(self.params, self.host, fitted)

    # ------------------------------------------------------------ all at once

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        supply = Supplier(self.runner, items, call)
        passed = screened(items, self.params.max_characters)
        through(self.runner, passed, supply, range(len(self.params.stages)), call.seed)
        told = Funnel(self.params.examples)
        for row, item in enumerate(items):
            stage, reason = int(passed.dropped_by[row]), str(passed.reasons[row])
            tell(told, item, stage, reason, self.params.by, int(passed.counts[row]))
        kept = passed.counts > 0
        columns = {
            "priority": passed.priority,
            "keep": kept.astype(np.int64),
            "count": passed.counts,
            **passed.values,
            "dropped_by": passed.dropped_by,
            "reason": passed.reasons.astype(str),
        }
        if self.edits:
            texts = [item.text if keep else "" for item, keep in zip(supply.items, kept, strict=True)]
            columns["text"] = np.array(texts, object)
        flags = tuple(_repeated(items))
        twice = f"{len(flags)} items have an id that came before." if flags else ""
        return Scores(columns, summary=self.summary(told, [*passed.warnings, *filter(None, [twice])]), flags=flags)

    # ------------------------------------------------------------ in a stream

    def streams(self) -> None:
        """Raise `Unmet` unless the pipeline can run on a stream: no scorer may need all items at once."""
        for stage in self.params.stages:
            if found := self.runner.whole_pool(stage):
                raise Unmet(
                    f"stage {stage.name!r} needs {found[0]}, which has to see all items at once: write its column with "
                    f"`pickaxe score {found[0]}` first and use that, or score `selector` itself"
                )

    def look(self, items: Sequence[Item], call: Call) -> Part:
        """A part of the stream after the item-wise leading stages."""
        return look(self.runner, self.params, items, call)

    def settle(self, features: Features, n: int, seed: int) -> Passed:
        """The fate of all n items that `look` left, from the features of every part, joined in order."""
        return settle(self.runner, features, n, seed)

    def edited(self, items: Sequence[Item], call: Call) -> list[str]:
        """The texts of kept items as the stages leave them."""
        supply = Supplier(self.runner, items, call)
        for row, stage in enumerate(self.params.stages):
            if stage.edit:
                supply(row, np.arange(len(items)))
        return [item.text or "" for item in supply.items]

    def funnel(self) -> Funnel:
        """Counts of nothing yet."""
        return Funnel(self.params.examples)

    def summary(self, told: Funnel, warnings: Iterable[str] = ()) -> dict[str, object]:
        """What the report of a run shows."""
        stages = self.params.stages
        return _funnel.summary(told, [stage.name for stage in stages], [stage.axes() for stage in stages], warnings)

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        wanted = [stage.name for stage in self.params.stages if needs_fit(stage)]
        if not wanted:
            raise InvalidParams("stages", "have nothing to fit: neither a quantile nor a normalised sum is among them")
        known: dict[str, np.ndarray] = {}
        size = -1
        for step, name in enumerate(wanted):
            yield Progress("statistics", step, len(wanted))
            table, seen = self._statistics(name, known, examples, call)
            if size not in (-1, seen):
                raise InvalidItems("examples", "can be read only once, and this pipeline needs them again: give a file")
            if not seen:
                raise InvalidItems("examples", "are empty: give the pool, or a sample of it")
            size, known[name] = seen, table
        self._write(out, known, size)
        yield Progress("statistics", len(wanted), len(wanted))

    def _statistics(
        self, name: str, known: dict[str, np.ndarray], examples: Iterable[Item], call: Call
    ) -> tuple[np.ndarray, int]:
        """The stage's utilities of all items that reach it by the item-wise stages before it; and all items."""
        runner = Runner(self.params, self.host, known)
        target = next(row for row, stage in enumerate(self.params.stages) if stage.name == name)
        before = [row for row in range(target) if runner.itemwise(row)]
        rows, seen, left = [], 0, iter(examples)
        while part := tuple(islice(left, _PART)):
            call.check()
            seen += len(part)
            supply, passed = Supplier(runner, part, call), screened(part, self.params.max_characters)
            for row in before:
                through(runner, passed, supply, range(row, row + 1), call.seed)
            rows.append(runner.to_fit(target, supply(target, passed.alive)))
        table = np.concatenate(rows) if rows else np.zeros((0, 1))
        return table[np.lexsort(table.T)], seen

    def _write(self, out: ArtifactWriter, known: dict[str, np.ndarray], size: int) -> None:
        files = {name: f"statistics-{row}.npy" for row, name in enumerate(known)}
        for name, file in files.items():
            out.write_array(file, known[name])
        spec = hashlib.sha256(canonical(self.params).encode()).hexdigest()
        axes = {stage.name: stage.axes() for stage in self.params.stages}
        out.notes.update(fitted=files, items=size, pipeline=spec, axes=axes)

    @hookimpl
    def merge(self, artifacts: Sequence[Artifact], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        names = sorted({name for each in artifacts for name in each.notes["fitted"]})
        if len(names) != 1 or len({each.notes["pipeline"] for each in artifacts}) != 1:
            raise Unmet(
                "only fits of one pipeline with one fitted stage add up: a later stage was fitted on what the shard's "
                "own earlier one left; fit the whole pool instead"
            )
        name = names[0]
        parts = [each.read_array(each.notes["fitted"][name]) for each in artifacts]
        table = np.concatenate(parts)
        self._write(out, {name: table[np.lexsort(table.T)]}, sum(each.notes["items"] for each in artifacts))
        yield Progress("statistics", len(artifacts), len(artifacts))


def _repeated(items: Iterable[Item]) -> Iterator[Flag]:
    seen: set[str] = set()
    for row, item in enumerate(items):
        if item.id in seen:
            yield Flag(row, "repeated-id", f"{item.id!r} came before")
        seen.add(item.id)
