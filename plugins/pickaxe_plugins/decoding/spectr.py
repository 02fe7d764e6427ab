"""SpecTr: several drafts of the next tokens, verified together by optimal transport (arXiv 2310.15141)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from pickaxe import Call, Chunk, Example, InputField, Method, Prompt, Sampling
from pickaxe.hooks import hookimpl
from pickaxe.lm import Draw, read_prompts
from pickaxe_plugins.decoding._speculation.auto import Auto
from pickaxe_plugins.decoding._speculation.rounds import Fixed, Plan, Planner, Speculation
from pickaxe_plugins.decoding._speculation.sources import DraftParams, open_draft
from pickaxe_plugins.decoding._speculation.transport import Distribution, Greedy, KSequential
from pickaxe_plugins.decoding._speculation.tree import Tree


class Params(DraftParams):
    """Parameters of `spectr`."""

    num_drafts: int = Field(8, ge=1, le=64, description="Drafts side by side (K); with auto the most.")
    draft_length: int = Field(8, ge=1, le=32, description="Tokens of a draft (L); with auto the most.")
    confidence: float = Field(
        0, ge=0, le=1, description="A draft goes on while the product of its laws' largest probabilities is this."
    )
    auto: bool = Field(False, description="Choose K and L for each round from measured times and acceptance.")
    rho_tolerance: float = Field(1e-12, gt=0, le=1e-3, description="Relative width to which rho is found.")


class Sequential:
    """K independent drafts, and at each position k-sequential selection among those still alive."""

    def __init__(self, tolerance: float = 1e-12) -> None:
        self._tolerance = tolerance

    def propose(self, tree: Tree, node: int, law: Distribution, random: np.random.Generator) -> list[int]:
        return law.tokens(random.random(tree.copies[node]))

    def verify(
        self, target: Distribution, law: Distribution, drafted: Sequence[int], random: np.random.Generator
    ) -> tuple[int, bool]:
        if isinstance(target, Greedy):
            return target.top, target.top in drafted
        return KSequential(target, law, len(drafted), self._tolerance).select(drafted, random)

    def record(self) -> dict[str, Any]:
        """Nothing beyond what is counted anyway."""
        return {}


class Spectr(Method[Params]):
    """Decode faster with several drafts of the next tokens that the model verifies in one call.

    What comes out is distributed exactly as the model's own samples, whatever the drafts are.
    """

    title = "SpecTr: Fast Speculative Decoding via Optimal Transport"
    paper = "arXiv:2310.15141"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "The prompt, where it has no messages.", False),)
    constraints = frozenset({"allowed"})
    cost = (
        "Per round one call of the model on K L + 1 tokens at most, and L calls of the draft.  K = L = 8 is the "
        "paper's, for large models on GPUs; on two cores it takes five times as long as plain decoding: set auto there."
    )
    reproduced = (
        "Tokens per target call grow with the drafts: 1.81, 2.10 and 2.26 for 1, 4 and 8 of them, 4 tokens long "
        "(SmolLM2-135M, T = 1). On two CPU cores one short draft is 1.13 times as fast as plain decoding, with n-grams "
        "1.69 times where answers repeat the prompt; several lose."
    )

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._auto: dict[bool, Auto] = {}
        self._lock = threading.Lock()

    @classmethod
    def example(cls) -> Example:
        """The small model that is shipped, drafted for by its own first layer and by repetition."""
        return Example(
            params={"model": "draft", "draft": "layers", "draft_layers": 1, "num_drafts": 2, "draft_length": 2},
            prompts=(
                Prompt("One and one is", sampling=Sampling(max_tokens=8)),
                Prompt("The sky is", sampling=Sampling(max_tokens=6, n=2)),
            ),
        )

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        if not prompts:
            return
        params = self.params
        lm = self.host.lm(params.model, params.precision)
        how = Speculation(
            lm,
            open_draft(self.host, params, lm),
            lambda draw: Sequential(params.rho_tolerance),
            self._planner,
            params.tree_attention,
        )
        for request in read_prompts(prompts, lm, params, call.seed, "spectr"):
            yield from how.decode(request, call)

    def _planner(self, draw: Draw) -> Planner:
        """At temperature 0 all drafts are the same, so one is enough."""
        params, greedy = self.params, draw.temperature == 0
        count = 1 if greedy else params.num_drafts
        if not params.auto:
            return Fixed(Plan(count, params.draft_length, least=params.confidence))
        with self._lock:  # what was learned serves all calls
            return self._auto.setdefault(greedy, Auto(count, params.draft_length))
