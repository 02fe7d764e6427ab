"""Parameters of batchprompt and batch-label."""

from __future__ import annotations

from typing import Literal

import pydantic
from pydantic import Field

import pickaxe
from pickaxe import MethodRef
from pickaxe.lm import LMParams
from pickaxe_plugins.decoding.batchprompt.task import Template
from pickaxe_plugins.decoding.batchprompt.voting import Rules


class Shot(pickaxe.Params):
    """A worked example of the prompt."""

    label: str = Field(description="Its label, one of labels.")
    text: str = Field("", description="Its text.")
    fields: dict[str, str] = Field(default_factory=dict, description="Further fields that the template names.")
    confident: bool = Field(True, description="Whether the shown answer is marked as confident.")

    def get(self, name: str) -> str | None:
        return self.text if name == "text" else self.fields.get(name)


class Params(LMParams):
    """Parameters of `batchprompt` and `batch-label`."""

    temperature: float = Field(0.0, ge=0, allow_inf_nan=False, description="Where the request has none; 0 is greedy.")
    max_tokens: int = Field(8192, ge=1, description="Most tokens of the answer to one prompt; bounds its items.")
    decoder: MethodRef | None = Field(None, description="The decoder that answers; null: `model`.")
    mode: Literal["text", "logits"] = Field(
        "text",
        description="text: the model writes its answers; logits: it only says which label number is likeliest next, "
        "for small models that do not keep the format.",
    )
    instruction: str = Field("Classify every input.", max_length=100_000, description="What is to be done.")
    labels: tuple[str, ...] = Field((), max_length=1000, description="Label names, in the order of their numbers.")
    examples: tuple[Shot, ...] = Field((), max_length=256, description="Worked examples that the prompt shows.")
    template: str = Field("{text}", max_length=100_000, description="How an item is shown; {name} is a field.")
    batch_size: int = Field(32, ge=1, le=256, description="Most items of a prompt.")
    rounds: int = Field(5, ge=1, le=15, description="How often an item is asked about at most; odd.")
    early_stop: bool = Field(True, description="Close an item after two consecutive equal votes.")
    require_confident: bool = Field(True, description="Close an item only when both of them are confident.")
    weight_unsure: float = Field(0.2, ge=0, le=1, description="What a vote that is not confident counts.")
    margin: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="Mode logits: nats by which the best label of a sure vote leads."
    )
    retry: int = Field(1, ge=0, le=10, description="How often a refused prompt is put again before it is split.")
    context_tokens: int | None = Field(
        None, ge=1, description="Tokens of prompt and answer; null: the model's context, or no limit for a decoder."
    )
    too_long: Literal["error", "cut"] = Field(
        "error", description="What becomes of an item that is too long even alone: an error, or its end is cut off."
    )
    parallel: int = Field(8, ge=1, le=1024, description="Prompts put side by side; changes speed, not results.")
    report_like_paper: bool = Field(
        False, description="Also count as the published evaluation did: instruction once a batch, all rounds as calls."
    )
    fit_batch_sizes: tuple[int, ...] = Field((4, 8, 16, 32), min_length=1, description="Fit: batch sizes to try.")
    fit_rounds: tuple[int, ...] = Field((1, 3, 5), min_length=1, description="Fit: numbers of rounds to try.")
    tolerance: float = Field(
        0.01, ge=0, le=1, description="Fit: accuracy that may be lost against prompts of one item."
    )

    @pydantic.field_validator("labels")
    @classmethod
    def _named(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if problem := labels_problem(labels) if labels else "":
            raise ValueError(problem)
        return labels

    @pydantic.field_validator("template")
    @classmethod
    def _readable(cls, template: str) -> str:
        Template(template)
        return template

    @pydantic.field_validator("fit_batch_sizes", "fit_rounds")
    @classmethod
    def _in_range(cls, values: tuple[int, ...], info: pydantic.ValidationInfo) -> tuple[int, ...]:
        most = 256 if info.field_name == "fit_batch_sizes" else 15
        if any(not 1 <= value <= most for value in values):
            raise ValueError(f"each must be in [1, {most}]")
        return tuple(sorted(set(values)))

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Params:
        if self.decoder is not None and self.mode == "logits":
            raise ValueError("mode logits needs the logits of `model`: leave decoder out")
        names = Template(self.template).fields
        for place, shot in enumerate(self.examples):
            missing = [name for name in names if shot.get(name) is None]
            if missing:
                raise ValueError(f"examples[{place}] lacks {', '.join(missing)}, which the template names")
            if self.labels and shot.label not in self.labels:
                raise ValueError(f"examples[{place}] has label {shot.label!r}, which is not among labels")
        return self

    def rules(self, rounds: int) -> Rules:
        return Rules(rounds, self.early_stop, self.require_confident, 1.0, self.weight_unsure)

    @property
    def marks(self) -> bool:
        """Whether it matters how sure an answer is."""
        return self.weight_unsure != 1 or (self.early_stop and self.require_confident)


def labels_problem(labels: tuple[str, ...]) -> str:
    """What is wrong with a list of labels; "" when nothing is."""
    if len(labels) < 2:
        return f"are {len(labels)}; give at least 2"
    if len(set(labels)) < len(labels):
        return "hold one label twice"
    if any(not label.strip() for label in labels):
        return "hold an empty one"
    return ""
