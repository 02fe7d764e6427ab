"""Multiple choice, scored by the log-likelihoods of the options: hits, and probability of the right option."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pickaxe.errors import InvalidItems

if TYPE_CHECKING:
    from pickaxe import Call
    from pickaxe.lm import LM

LengthNorm = Literal["none", "chars", "tokens"]
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Choice:
    """One question scored."""

    correct: float
    """1 when the right option has the highest (normalised) log-likelihood; the first of equal ones counts."""
    mass: float
    """Probability of the right option among the options, of raw log-likelihoods."""
    loglikelihood: float
    """That of the right option itself, in nats."""


def score_options(loglikelihoods: np.ndarray, gold: int, lengths: np.ndarray | None = None) -> Choice:
    """Score the options (K,) in nats; with lengths the hit goes by log-likelihood per length."""
    ranked = loglikelihoods if lengths is None else loglikelihoods / lengths
    masses = option_masses(loglikelihoods)
    return Choice(float(np.argmax(ranked) == gold), float(masses[gold]), float(loglikelihoods[gold]))


def option_masses(loglikelihoods: np.ndarray) -> np.ndarray:
    """exp(ll) over their sum: renormalised over the options."""
    shifted = np.exp(loglikelihoods - loglikelihoods.max())
    found: np.ndarray = shifted / shifted.sum()
    return found


# ---------------------------------------------------------------- with a language model


@dataclass(frozen=True)
class Framing:
    """A question as a prompt, and its options as continuations."""

    prompt: str
    options: tuple[str, ...]


def cloze(question: str, options: Sequence[str]) -> Framing:
    """Each option's text as the answer."""
    return Framing(f"Question: {question}\nAnswer:", tuple(f" {option}" for option in options))


def letters(question: str, options: Sequence[str]) -> Framing:
    """The options listed under letters, and each letter as the answer."""
    names = _LETTERS[: len(options)]
    listed = "\n".join(f"{name}. {option}" for name, option in zip(names, options, strict=True))
    return Framing(f"Question: {question}\n{listed}\nAnswer:", tuple(f" {name}" for name in names))


def most_options() -> int:
    return len(_LETTERS)


def read_options(lm: LM, framing: Framing, call: Call, where: str) -> tuple[np.ndarray, np.ndarray]:
    """(log-likelihoods in nats, tokens) of the options after the prompt, which is read once; options in batches."""
    tokens = lm.tokenizer.encode_batch(list(framing.options))
    if empty := [place for place, ids in enumerate(tokens) if not ids]:
        raise InvalidItems(f"{where}.fields.options[{empty[0]}]", "has no tokens in this model's vocabulary")
    found = lm.choose(lm.tokenizer.encode(framing.prompt, add_special=True), tokens, call)
    return found, np.array([len(ids) for ids in tokens])
