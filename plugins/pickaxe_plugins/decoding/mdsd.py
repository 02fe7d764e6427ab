"""Multi-draft speculative decoding: trees of drafts, verified position by position (arXiv 2502.18779)."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pydantic
from pydantic import Field

from pickaxe import Call, Chunk, Example, InputField, Method, Prompt, Sampling
from pickaxe.hooks import hookimpl
from pickaxe.lm import Draw, read_prompts
from pickaxe.randomness import generator
from pickaxe_plugins.decoding._speculation.auto import Auto
from pickaxe_plugins.decoding._speculation.multidraft import Law, most_probable
from pickaxe_plugins.decoding._speculation.multiverify import PAIRS, Rule, acceptance, draw, trial
from pickaxe_plugins.decoding._speculation.rounds import Fixed, Plan, Planner, Speculation, Verifier
from pickaxe_plugins.decoding._speculation.sources import DraftParams, open_draft
from pickaxe_plugins.decoding._speculation.transport import Distribution
from pickaxe_plugins.decoding._speculation.tree import Tree

REMEMBERED = 16
"""Rounds whose distributions decide what is taken next."""
_SAMPLES = 128
_NEGLIGIBLE = 1e-4

CANDIDATES: dict[Law, tuple[tuple[Law, Rule], ...]] = {
    "greedy": (("greedy", "greedy_optimal"), ("without", "rrs")),
    "without": (("without", "rrs"), ("greedy", "greedy_optimal")),
    "with": (("with", "k_sequential"), ("with", "rrs")),
}
"""What verify=auto takes one of, by the parameter law; the first of them to begin with."""
UNFILTERED = Draw()


class Params(DraftParams):
    """Parameters of `mdsd`."""

    num_drafts: int = Field(4, ge=1, le=16, description="Drafts of a position (n); with auto the most.")
    depth: int = Field(4, ge=1, le=16, description="Tokens ahead (L); with auto the most.")
    width: int = Field(
        2, ge=1, le=64, description="Nodes of a level that are drafted on from, the draft's most probable ones."
    )
    law: Law = Field("greedy", description="How drafts are chosen; with verify=auto, to begin with.")
    verify: Literal["auto"] | Rule = Field(
        "auto", description="How drafts are verified; auto goes by what would have accepted more so far."
    )

    auto: bool = Field(False, description="Choose n and depth for each round from measured times; width is 1 then.")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Params:
        if self.verify != "auto" and (self.law, self.verify) not in PAIRS:
            raise ValueError(f"verify={self.verify} does not fit drafts of law={self.law}")
        return self


class Mdsd(Method[Params]):
    """Decode several tokens with one call of the model, which checks a tree of drafts position by position.

    What comes out is distributed as the model's own samples, whatever the drafts are; at temperature 0 it is the
    model's greedy text.
    """

    title = "Towards Optimal Multi-draft Speculative Decoding"
    paper = "arXiv:2502.18779"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "The prompt, where it has no messages.", False),)
    constraints = frozenset({"allowed"})
    cost = (
        "Per round one call of the model on 1 + n (1 + width (depth - 1)) tokens at most, and depth calls of the draft."
        "  On two cores the usual shape takes longer than plain decoding: set auto there."
    )
    reproduced = (
        "Output law of every verifier, exactly and on 200,000 samples.  SmolLM2-135M with its small draft, 200 "
        "positions, 4 drafts: greedy_optimal accepts 0.712 at T = 0.7 where rrs_without accepts 0.699; at T = 1 0.678 "
        "and 0.702."
    )

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._measured: dict[bool, Auto] = {}
        self._lock = threading.Lock()

    @classmethod
    def example(cls) -> Example:
        """The small model that is shipped, drafted for by its own first layer."""
        return Example(
            params={"model": "draft", "draft": "layers", "draft_layers": 1, "num_drafts": 2, "depth": 2},
            prompts=(
                Prompt("One and one is", sampling=Sampling(max_tokens=8)),
                Prompt("The sky is", sampling=Sampling(max_tokens=6, n=2)),
            ),
        )

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        if not prompts:
            return
        lm = self.host.lm(self.params.model, self.params.precision)
        how = Speculation(
            lm,
            open_draft(self.host, self.params, lm),
            self._verifier,
            self._planner,
            self.params.tree_attention,
            lambda drawn: UNFILTERED if drawn.temperature == 0 else drawn,
        )
        for request in read_prompts(prompts, lm, self.params, call.seed, "mdsd"):
            yield from how.decode(request, call)

    def _verifier(self, drawn: Draw) -> Verifier:
        if drawn.temperature == 0:
            return TopDrafts()
        law, rule = self.params.law, self.params.verify
        return MultiDraft(CANDIDATES[law] if rule == "auto" else ((law, rule),))

    def _planner(self, drawn: Draw) -> Planner:
        params, greedy = self.params, drawn.temperature == 0
        if not params.auto:
            return Fixed(Plan(params.num_drafts, params.depth, params.width))
        with self._lock:  # what was learned serves all calls
            return self._measured.setdefault(greedy, Narrow(params.num_drafts, params.depth))


class Narrow(Auto):
    """Trees that go on from one node of a level."""

    def plan(self) -> Plan:
        return replace(super().plan(), width=1)


class TopDrafts:
    """Temperature 0: the draft's most probable tokens, of which the target's best is taken."""

    def propose(self, tree: Tree, node: int, law: Distribution, random: np.random.Generator) -> Sequence[int]:
        n = min(tree.copies[0], int(np.count_nonzero(law.probs)))
        return [law.id(place) for place in most_probable(law.probs, n).tolist()]

    def verify(
        self, target: Distribution, law: Distribution, drafted: Sequence[int], random: np.random.Generator
    ) -> tuple[int, bool]:
        token = target.token(0.0)
        return token, token in drafted

    def record(self) -> dict[str, Any]:
        return {}


@dataclass
class MultiDraft:
    """Drafts by a law, put on trial by a rule.

    Of several candidates, each round takes the one that would have accepted most at the first positions of the
    last rounds.  What it takes depends on rounds that are over, so the output stays the target's.
    """

    candidates: Sequence[tuple[Law, Rule]]
    taken: Counter[tuple[Law, Rule]] = field(default_factory=Counter)
    _current: tuple[Law, Rule] = field(init=False)
    _unseen: bool = False
    _measured: deque[list[float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def __post_init__(self) -> None:
        self._current = self.candidates[0]
        self._random = generator(0, "mdsd", "auto")

    def propose(self, tree: Tree, node: int, law: Distribution, random: np.random.Generator) -> Sequence[int]:
        if node == 0:
            self._begin_round()
        return draw(self._current[0], law, tree.copies[0], random)

    def verify(
        self, target: Distribution, law: Distribution, drafted: Sequence[int], random: np.random.Generator
    ) -> tuple[int, bool]:
        if self._unseen and len(self.candidates) > 1:
            self._measure(target, law, len(drafted))
        self._unseen = False
        return trial(*self._current, target, law, drafted).select(random)

    def record(self) -> dict[str, Any]:
        """Rounds by law and rule."""
        return {"rounds": {f"{law}/{rule}": count for (law, rule), count in self.taken.items()}}

    def _begin_round(self) -> None:
        if self._measured:
            self._current = self.candidates[int(np.argmax(np.mean(self._measured, axis=0)))]
        self.taken[self._current] += 1
        self._unseen = True

    def _measure(self, target: Distribution, law: Distribution, n: int) -> None:
        arrays = worth_counting(target, law)
        self._measured.append([acceptance(*each, *arrays, n, _SAMPLES, self._random) for each in self.candidates])


def worth_counting(target: Distribution, draft: Distribution) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays over the tokens that matter to one of them, renormed."""
    if target.ids is None or draft.ids is None:
        frame = Distribution(np.zeros(max(_reach(target), _reach(draft))))
    else:
        ids = np.union1d(target.ids, draft.ids)
        frame = Distribution(np.zeros(len(ids)), ids)
    t, d = target.over(frame), draft.over(frame)
    kept = (t > _NEGLIGIBLE * t.max()) | (d > _NEGLIGIBLE * d.max())
    return t[kept] / t[kept].sum(), d[kept] / d[kept].sum()


def _reach(distribution: Distribution) -> int:
    """Token ids from 0 on that hold all its tokens."""
    return len(distribution) if distribution.ids is None else int(distribution.ids[-1]) + 1
