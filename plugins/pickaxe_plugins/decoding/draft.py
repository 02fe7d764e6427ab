"""A draft model for any target, distilled from the target's own samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydantic import Field

from pickaxe import Artifact, ArtifactWriter, Call, Chunk, Example, InputField, Item, Method, Progress, Prompt, Sampling
from pickaxe.extras import require
from pickaxe.hooks import hookimpl
from pickaxe.lm import LMParams, read_prompts
from pickaxe_plugins.decoding._drafting import Drafting
from pickaxe_plugins.decoding._streams import streamed
from pickaxe_plugins.train.settings import Recipe, Shape


class Params(LMParams):
    """Parameters of `draft`; `model` is the target."""

    shape: Shape = Field(Shape(layers=3, width=256, heads=4, kv_heads=4), description="Fit: the size of a new draft.")
    base: str | None = Field(
        None, min_length=1, description="Fit: a draft with the target's tokenizer to train further; null: a new one."
    )
    samples: int = Field(
        1,
        ge=0,
        le=1000,
        description="Fit: continuations that the target samples per example; 0: the texts are learned.",
    )
    chat: bool = Field(False, description="Fit: examples are messages of a user, put through the chat template.")
    length: int = Field(
        256, ge=2, description="Fit: tokens of a sequence, of which a prompt may be half: its last ones."
    )
    sharpen: float = Field(
        0.25, ge=0, le=1, description="Fit: last share of the steps, which maximise acceptance in place of likeness."
    )
    steps: int | None = Field(
        None, ge=0, description="Fit: training steps; null: as the recipe's epochs say; 0: none, to measure `base`."
    )
    recipe: Recipe = Field(
        Recipe(epochs=2, batch=4, rate=2e-3, warmup=100, checkpoint=100), description="Fit: how it is trained."
    )


class Draft(Method[Params]):
    """Make a small model that drafts for a large one in speculative decoding, and let it speak.

    `fit` distils the target into a small network with the same tokenizer.  The artifact is a model folder: its path is
    what `draft_model` of `spectr` and `mdsd` takes.  Decoding is the draft's own, to see what it has learned.
    """

    title = "Draft models by distillation"
    paper = "own work"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "The prompt, where it has no messages.", False),)
    fit_reads = (InputField("text", "text", "A prompt that the target continues, or a text; empty: from nothing."),)
    fitted = "required"
    stages = ("sample", "train", "measure")
    cost = "Fit: sampling from the target, then one reading by the target and three by the draft per token and epoch."
    reproduced = (
        "SmolLM2-135M on one kind of text, 6,144 tokens of samples: the shipped draft trained further accepts 0.479 "
        "instead of 0.426 of its tokens, a new one 0.182."
    )

    @classmethod
    def example(cls) -> Example:
        """A tiny draft of the small model that is shipped."""
        return Example(
            params={
                "model": "draft",
                "precision": "fp32",
                "max_tokens": 6,
                "shape": {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1},
                "length": 16,
                "recipe": {"epochs": 2, "batch": 2, "warmup": 1, "checkpoint": 1},
            },
            examples=(Item("boils", "Water boils at"), Item("moon", "The Moon"), Item("nothing", "")),
            prompts=(Prompt("Water boils"), Prompt("The Moon", sampling=Sampling(n=2))),
        )

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        init_from: Artifact | None,
        out: ArtifactWriter,
        call: Call,
    ) -> Iterator[Progress]:
        require("jax", extra="train")
        target = self.host.lm(self.params.model, self.params.precision)
        yield from Drafting(self.params, self.host, target, out, call).run(examples, validation, init_from)

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        if not prompts:
            return
        assert self.artifact is not None
        lm = self.host.lm_at(self.artifact.path, self.params.precision)
        yield from streamed(lm, read_prompts(prompts, lm, self.params, call.seed, "draft"), call)
