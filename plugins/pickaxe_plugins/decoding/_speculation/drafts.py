"""Where drafts come from: another model, the target's first layers, an n-gram table of the text so far, or both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pickaxe.errors import Unmet
from pickaxe.lm import Draw, LogitsProcessor, same_tokenizer
from pickaxe_plugins.decoding._speculation.transport import Distribution, Greedy, Softmax
from pickaxe_plugins.decoding._speculation.tree import Tree, TreeReader

if TYPE_CHECKING:
    from pickaxe import Call
    from pickaxe.lm import LM
    from pickaxe.lm.network import Network


Counts = dict[tuple[int, ...], dict[int, int]]
"""How often each token followed these."""


class Shape:
    """From what a model says to what a token is drawn from: processors, temperature, top-k, top-p."""

    def __init__(self, draw: Draw, vocab: int, processors: Sequence[LogitsProcessor] = ()) -> None:
        self.draw = draw
        self.vocab = vocab
        self._processors = tuple(processors)
        self._whole = draw.temperature > 0 and draw.top_p == 1 and not 0 < draw.top_k < vocab

    def processed(self, logits: np.ndarray, generated: Sequence[int]) -> np.ndarray:
        """Logits (V,), or of the first ids only, after `generated`, as the processors leave them."""
        if self._processors and len(logits) < self.vocab:
            logits = np.pad(logits, (0, self.vocab - len(logits)), constant_values=-np.inf)
        for processor in self._processors:
            logits = processor(generated, logits)
        return logits

    def distribution(self, logits: np.ndarray) -> Distribution:
        """Of processed logits (V,)."""
        if self._whole and logits.max() > -np.inf:
            return Softmax(logits, self.draw.temperature)
        ids, probs = self.draw.distribution(logits)
        return Greedy(logits, int(ids[0])) if self.draw.temperature == 0 else Distribution(probs, ids)

    def among(self, ids: np.ndarray, probs: np.ndarray, generated: Sequence[int]) -> Distribution | None:
        """Of a few tokens (ids ascending) with these probabilities; None when the processors forbid them all."""
        logits = np.log(probs)
        if self._processors:
            every = np.full(self.vocab, -np.inf, np.float32)
            every[ids] = logits
            logits = self.processed(every, generated)[ids]
            ids, logits = ids[logits > -np.inf], logits[logits > -np.inf]
        if not len(ids):
            return None
        law = self.distribution(logits.astype(np.float32))
        return Distribution(law.probs, ids if law.ids is None else ids[law.ids], law.surest)


class Draft(Protocol):
    """What drafts for one sample.  `begin` gives one that knows the prompt, `fork` one for each sample of it."""

    @property
    def calls(self) -> int:
        """Runs of a model so far."""
        ...

    def fork(self) -> Draft: ...

    def laws(
        self, tree: Tree, nodes: Sequence[int], shape: Shape, generated: Sequence[int], call: Call
    ) -> list[Distribution | None]:
        """What to draw from after each of these nodes, all of one level of the tree; None: no idea.

        `generated` are the certain tokens behind the prompt, as processors want them.
        """
        ...

    def keep(self, tree: Tree, path: Sequence[int]) -> None:
        """The round is over: the nodes on this path (from 0) have become certain."""
        ...


def same_vocabulary(draft: LM, target: LM) -> None:
    """Raise `Unmet` unless both models mean the same by every token id."""
    same_tokenizer(draft.tokenizer, target.tokenizer)
    if draft.vocab_size != target.vocab_size:
        raise Unmet(
            f"draft model {draft.name!r} has {draft.vocab_size} tokens, {target.name!r} has {target.vocab_size}: "
            "use models of one family",
            metadata={"draft": draft.vocab_size, "target": target.vocab_size},
        )


class ModelDraft:
    """Drafts of a smaller model, or of the target's first layers, with a cache of its own."""

    def __init__(self, reader: TreeReader) -> None:
        self._reader = reader

    @classmethod
    def begin(cls, lm: LM, prompt: Sequence[int], call: Call, network: Network | None = None) -> ModelDraft:
        """One that has read the prompt; `network` drafts in place of the model's own, see `TreeReader`."""
        reader = TreeReader(lm, network=network)
        if len(prompt) <= lm.context_length:
            reader.catch_up(prompt, call)
        return cls(reader)

    @property
    def calls(self) -> int:
        return self._reader.calls

    def fork(self) -> ModelDraft:
        return ModelDraft(self._reader.fork())

    def laws(
        self, tree: Tree, nodes: Sequence[int], shape: Shape, generated: Sequence[int], call: Call
    ) -> list[Distribution | None]:
        if not nodes or self._reader.room(tree) < len(tree):
            return [None] * len(nodes)
        logits = self._reader.read(tree, nodes, call)
        return [
            shape.distribution(shape.processed(row, [*generated, *tree.after(node)]))
            for node, row in zip(nodes, logits, strict=True)
        ]

    def keep(self, tree: Tree, path: Sequence[int]) -> None:
        self._reader.keep(tree, path)


class NgramDraft:
    """Drafts of what followed the last tokens before, in the prompt, in what was generated, or in `samples`.

    Counts of up to `order` tokens of context are interpolated as by Witten and Bell: the share of an order is
    c / (c + u) for c occurrences of its context with u different continuations; the rest is left to the order
    below.  Nothing is drafted unless at least `least` tokens of context were seen before.
    """

    calls = 0

    def __init__(self, order: int = 4, least: int = 1, samples: Iterable[Sequence[int]] = ()) -> None:
        self.order, self.least = order, least
        self._shared: Counts = {}
        self._counts: Counts = {}
        self._seen: list[int] = []
        for sample in samples:
            self._seen = []
            self._learn(sample)
        self._shared, self._counts, self._seen = self._counts, {}, []

    def begin(self, prompt: Sequence[int]) -> NgramDraft:
        """One that also knows this prompt."""
        started = self.fork()
        started._learn(prompt)
        return started

    def fork(self) -> NgramDraft:
        other = NgramDraft(self.order, self.least)
        other._shared = self._shared
        other._counts = {context: dict(counts) for context, counts in self._counts.items()}
        other._seen = list(self._seen)
        return other

    def laws(
        self, tree: Tree, nodes: Sequence[int], shape: Shape, generated: Sequence[int], call: Call
    ) -> list[Distribution | None]:
        self._learn(tree.context[len(self._seen) :])
        found: list[Distribution | None] = []
        for node in nodes:
            drafted = tree.after(node)
            law = self._law([*self._seen[-self.order :], *drafted])
            found.append(None if law is None else shape.among(*law, [*generated, *drafted]))
        return found

    def keep(self, tree: Tree, path: Sequence[int]) -> None:
        """Nothing to do: the next tree's context says what became certain."""

    def _learn(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            for size in range(1, min(self.order, len(self._seen)) + 1):
                counts = self._counts.setdefault(tuple(self._seen[-size:]), {})
                counts[token] = counts.get(token, 0) + 1
            self._seen.append(int(token))

    def _counts_after(self, context: tuple[int, ...]) -> dict[int, int]:
        shared, own = self._shared.get(context), self._counts.get(context)
        if shared and own:
            return {token: shared.get(token, 0) + own.get(token, 0) for token in (*shared, *own)}
        return shared or own or {}

    def _law(self, context: Sequence[int]) -> tuple[np.ndarray, np.ndarray] | None:
        last = tuple(context[-self.least :])
        if len(last) < self.least or not (last in self._counts or last in self._shared):
            return None
        probs: dict[int, float] = {}
        for size in range(1, min(self.order, len(context)) + 1):
            counts = self._counts_after(tuple(context[-size:]))
            if not counts:
                break
            total = sum(counts.values())
            rest = len(counts) / (total + len(counts)) if probs else 0.0
            probs = {token: rest * value for token, value in probs.items()}
            for token, count in counts.items():
                probs[token] = probs.get(token, 0.0) + (1 - rest) * count / total
        ids = np.array(sorted(probs), dtype=np.int64)
        return ids, np.array([probs[token] for token in ids.tolist()])


class EitherDraft:
    """Drafts of an n-gram table where it knows the text so far, else of a model: a round is drafted by one of them."""

    def __init__(self, table: NgramDraft, model: ModelDraft) -> None:
        self._table, self._model = table, model
        self._drafting: NgramDraft | ModelDraft = model
        """The one that drafts this round."""

    @property
    def calls(self) -> int:
        return self._model.calls

    def fork(self) -> EitherDraft:
        return EitherDraft(self._table.fork(), self._model.fork())

    def laws(
        self, tree: Tree, nodes: Sequence[int], shape: Shape, generated: Sequence[int], call: Call
    ) -> list[Distribution | None]:
        if 0 in nodes:  # a round begins
            found = self._table.laws(tree, nodes, shape, generated, call)
            if found[0] is not None:
                self._drafting = self._table
                return found
            self._drafting = self._model
        return self._drafting.laws(tree, nodes, shape, generated, call)

    def keep(self, tree: Tree, path: Sequence[int]) -> None:
        self._model.keep(tree, path)
