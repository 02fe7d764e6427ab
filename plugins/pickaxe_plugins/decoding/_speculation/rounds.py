"""Decoding in rounds: draft a tree, read it with one call of the target, keep what a verifier accepts."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pickaxe import Chunk
from pickaxe.errors import DoesNotFit
from pickaxe.lm import Draw, Request, Step, TokenTrie, Transcript, logsumexp
from pickaxe.lm.processors import FollowTrie
from pickaxe.randomness import generator
from pickaxe_plugins.decoding._speculation.drafts import Draft, Shape
from pickaxe_plugins.decoding._speculation.transport import Distribution
from pickaxe_plugins.decoding._speculation.tree import TAIL, BatchReader, Reader, Tree, TreeReader

if TYPE_CHECKING:
    from pickaxe import Call
    from pickaxe.lm import LM


class Verifier(Protocol):
    """How drafts are drawn from the draft's distribution, and which of them the target takes.

    One of them serves one sample.  Whatever it does, the tokens must come out distributed as the target's.
    """

    def propose(self, tree: Tree, node: int, law: Distribution, random: np.random.Generator) -> Sequence[int]:
        """Tokens drafted after this node, in the order in which `verify` gets them; repeats are allowed."""
        ...

    def verify(
        self, target: Distribution, law: Distribution, drafted: Sequence[int], random: np.random.Generator
    ) -> tuple[int, bool]:
        """The next token, and whether it is one of those that `propose` drafted from `law` (at least one)."""
        ...

    def record(self) -> dict[str, Any]:
        """What the sample's record says about it, beside what `Usage` does."""
        ...


@dataclass(frozen=True)
class Plan:
    """One round: drafts side by side, and how many tokens ahead (0: plain decoding).

    `width`: from how many nodes of a level drafting goes on, the draft's most probable ones; None: from all.
    `least`: drafting goes on only from nodes whose `Tree.reach` is at least this.  Both look at what was drafted
    before a token and never at the token itself, so they bias nothing.
    """

    count: int
    length: int
    width: int | None = None
    least: float = 0.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One token: after which node, and of how many drafts (0: the target drew it) it was an accepted one."""

    node: int
    token: int
    drafts: int
    accepted: bool


@dataclass(frozen=True)
class Round:
    """What one round did, for `Planner.learn`: seconds in the draft, in the target and in all."""

    plan: Plan
    nodes: int
    levels: int
    trials: Sequence[Trial]
    drafting: float
    reading: float
    seconds: float


class Planner(Protocol):
    """Chooses each round's plan and is told what came of it."""

    def plan(self) -> Plan: ...

    def learn(self, done: Round) -> None: ...


@dataclass(frozen=True)
class Fixed:
    """The same plan in every round."""

    chosen: Plan

    def plan(self) -> Plan:
        return self.chosen

    def learn(self, done: Round) -> None:
        """Nothing would change."""


@dataclass
class Usage:
    """What one sample took.  `at` lists count positions ahead: how often a draft was checked there, and accepted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    target_calls: int = 0
    draft_calls: int = 0
    drafted: int = 0
    accepted: int = 0
    checked_at: Counter[int] = field(default_factory=Counter)
    accepted_at: Counter[int] = field(default_factory=Counter)

    def counters(self) -> dict[str, float]:
        names = ("prompt_tokens", "completion_tokens", "target_calls", "draft_calls", "drafted", "accepted")
        return {name: getattr(self, name) for name in names}

    def record(self) -> dict[str, Any]:
        """Checked and accepted drafts by position ahead, the first token of a round first."""
        reach = range(max(self.checked_at, default=-1) + 1)
        return {
            "checked_at": [self.checked_at[depth] for depth in reach],
            "accepted_at": [self.accepted_at[depth] for depth in reach],
        }


@dataclass
class Speculation:
    """How the samples of a call are decoded: which target, drafts from where, checked how.

    `begin(ids, call)` gives the draft that has read a prompt; `verifier()` and `planner()` one of each for a
    sample.  `draft_draw` is how drafts are drawn where that differs from how the target's tokens are.
    """

    lm: LM
    begin: Callable[[Sequence[int], Call], Draft]
    verifier: Callable[[Draw], Verifier]
    planner: Callable[[Draw], Planner]
    tree_attention: bool = True
    draft_draw: Callable[[Draw], Draw] | None = None

    def decode(self, request: Request, call: Call) -> Iterator[Chunk]:
        """The samples of one prompt, one after the other, in a chunk per round."""
        limit = self._limit(request)
        prompt = TreeReader(self.lm)
        alone = request.sampling.n == 1 and self.tree_attention  # several samples share what was read of the prompt
        prompt.catch_up(request.ids, call, TAIL if alone else 0)
        draft = self.begin(request.ids, call)
        for sample in range(request.sampling.n):
            reader = prompt.fork() if self.tree_attention else BatchReader(self.lm, prompt.cache)
            yield from Sample(self, request, sample, limit, reader, draft.fork()).chunks(call)

    def _limit(self, request: Request) -> int:
        """Most tokens of a sample: what was asked for, or what the context leaves."""
        room = self.lm.context_length - len(request.ids)
        if room < 1:
            raise DoesNotFit(
                f"{len(request.ids)} prompt tokens leave no room in the {self.lm.context_length} of model "
                f"{self.lm.name!r}: shorten the prompt",
                metadata={"prompt_tokens": len(request.ids), "context": self.lm.context_length},
            )
        wanted = request.sampling.max_tokens
        return room if wanted is None else min(wanted, room)


class Sample:
    """One continuation of a prompt on its way."""

    def __init__(
        self, how: Speculation, request: Request, sample: int, limit: int, reader: Reader, draft: Draft
    ) -> None:
        self.how, self.request, self.sample, self.reader, self.draft = how, request, sample, reader, draft
        lm, sampling = how.lm, request.sampling
        draw = Draw.of(sampling)
        trie = TokenTrie.of_texts(request.prompt.allowed, lm.tokenizer) if request.prompt.allowed else None
        self.transcript = Transcript(lm.tokenizer, limit, sample=sample, stop=sampling.stop, allowed=trie)
        self._follow = FollowTrie(trie, lm.tokenizer.eos_ids) if trie else None
        processors = (self._follow,) if self._follow else ()
        self.shape = Shape(draw, lm.vocab_size)
        self._unshaped = draw == Draw() and self.transcript.free
        drafts = how.draft_draw(draw) if how.draft_draw else draw
        self.draft_shape = Shape(drafts, lm.vocab_size, processors)
        self.verifier, self.planner = how.verifier(draw), how.planner(draw)
        self.random = generator(request.seed, "sample", sample)
        self.context = list(request.ids)
        self.usage = Usage(len(request.ids) if sample == 0 else 0)
        self._ends = frozenset(lm.tokenizer.eos_ids)

    def chunks(self, call: Call) -> Iterator[Chunk]:
        """A chunk per round; the last one has the finish reason, the usage and the record."""
        while not self.transcript.finished:
            call.check()
            yield self._round(call)

    def _round(self, call: Call) -> Chunk:
        begin = time.perf_counter()
        behind = self.reader.behind(self.context)
        plan = self.planner.plan()
        tree, levels = self._grow(plan, call)
        drafted = time.perf_counter()
        order = tree.preorder()
        logits = dict(zip(order, self.reader.read(tree, order, call), strict=True))
        read = time.perf_counter()
        steps, trials = self._verify(tree, logits)
        path = [trial.node for trial in trials]
        self.reader.keep(tree, path)
        self.draft.keep(tree, path)
        self._count(tree, trials)
        end = time.perf_counter()
        if not behind:  # reading the prompt says nothing of what a tree takes
            self.planner.learn(Round(plan, len(tree), levels, trials, drafted - begin, read - drafted, end - begin))
        done = self.transcript.finished
        return Chunk(
            self.request.row,
            self.sample,
            "".join(step.text for step in steps),
            tuple(step.token_id for step in steps),
            tuple(min(step.logprob, 0.0) for step in steps),
            {**self.usage.record(), **self.verifier.record()} if done else None,
            steps[-1].finish_reason,
            self.usage.counters() if done else {},
        )

    # ------------------------------------------------------------ drafting

    def _grow(self, plan: Plan, call: Call) -> tuple[Tree, int]:
        """The drafted tree, and how many levels the draft was asked for."""
        tree = Tree(self.context, plan.count)
        length = min(plan.length, self.transcript.left - 1)
        room = self.how.lm.context_length - len(self.context)
        level, levels = [0], 0
        while level and levels < length and len(tree) <= room:
            laws = self.draft.laws(tree, level, self.draft_shape, self.transcript.generated, call)
            grown = tree.likeliest(self._next_level(tree, level, laws, room), plan.width)
            level, levels = [node for node in grown if tree.reach[node] >= plan.least], levels + 1
        return tree, levels

    def _next_level(
        self, tree: Tree, level: Sequence[int], laws: Sequence[Distribution | None], room: int
    ) -> list[int]:
        grown: list[int] = []
        for node, law in zip(level, laws, strict=True):
            if law is None:
                continue
            proposed = self.verifier.propose(tree, node, law, self.random)
            if len(tree) - 1 + len(proposed) > room:  # not by how many differ: what was drawn must not decide
                break
            grown += [child for child in tree.add(node, law, proposed) if not self._is_end(tree, child)]
        return grown

    def _is_end(self, tree: Tree, node: int) -> bool:
        """Whether nothing can follow this node."""
        if tree.tokens[node] in self._ends:
            return True
        return self._follow is not None and self._follow.finished([*self.transcript.generated, *tree.after(node)])

    # ------------------------------------------------------------ verifying

    def _verify(self, tree: Tree, logits: dict[int, np.ndarray]) -> tuple[list[Step], list[Trial]]:
        """The tokens that this round says, and what was verified."""

        laws: dict[int, Distribution] = {}

        def target(node: int) -> Distribution:
            laws[node] = self.shape.distribution(self.transcript.processed(logits[node]))
            return laws[node]

        steps: list[Step] = []
        trials: list[Trial] = []
        for trial in walk(tree, target, self.verifier, self.random):
            trials.append(trial)
            logprob = self._logprob(logits[trial.node], laws[trial.node], trial.token)
            steps.append(self.transcript.take(trial.token, logprob))
            self.context.append(trial.token)
            if self.transcript.finished:
                break
        return steps, trials

    def _logprob(self, row: np.ndarray, law: Distribution, token: int) -> float:
        """Of a token that the target said, by its logits; `law` is what it was drawn from."""
        if self._unshaped:
            return math.log(law.of(token))
        return float(row[token] - logsumexp(row))

    def _count(self, tree: Tree, trials: Sequence[Trial]) -> None:
        usage = self.usage
        usage.completion_tokens += len(trials)
        usage.target_calls += 1
        usage.draft_calls = self.draft.calls
        usage.drafted += sum(len(each) for each in tree.drafted)
        for depth, trial in enumerate(trials):
            if trial.drafts:
                usage.checked_at[depth] += 1
                usage.accepted_at[depth] += trial.accepted
                usage.accepted += trial.accepted


def walk(
    tree: Tree, target: Callable[[int], Distribution], verifier: Verifier, random: np.random.Generator
) -> Iterator[Trial]:
    """The tokens that follow node 0: drafts as long as they are accepted, and one that the target draws.

    `target(node)` is the target's distribution after that node; it is asked for nodes on the accepted path only,
    each when the token before has been taken.
    """
    node = 0
    while True:
        law, drafted = tree.laws[node], tree.drafted[node]
        if law is None or not drafted:
            yield Trial(node, target(node).token(random.random()), 0, False)
            return
        token, accepted = verifier.verify(target(node), law, drafted, random)
        yield Trial(node, token, len(drafted), accepted)
        if not accepted:
            return
        node = tree.children[node][token]
