"""Profiling a decoder of this product on a grid of prompt and output sizes."""

from __future__ import annotations

import platform
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from pickaxe import WHOLE_PROMPT, Call, Progress, Prompt, Sampling
from pickaxe.errors import DoesNotFit, Unmet
from pickaxe.handle import DecoderHandle
from pickaxe.randomness import generator
from pickaxe.tokenizers import Tokenizer

PROMPT_SIZES = (1, 16, 32, 64, 128, 192, 256, 320, 384, 428, 472, 512, 576, 640, 704, 768, 832, 896, 960, 1024, 1152,
                1280, 1408, 1536, 1664, 1792, 1920)  # fmt: skip
OUTPUT_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
_WORDS = (
    "time work people place house water road light paper story river night world money school door field music table "
    "ground letter color winter summer city garden stone horse glass tree bird island north south"
)
_TRIES = 5

Trial = tuple[int, int, float]
"""Prompt tokens, output tokens, seconds."""


@dataclass(frozen=True)
class Grid:
    """What to measure, and for how long at most."""

    prompt_sizes: Sequence[int]
    output_sizes: Sequence[int]
    warmup: int
    trials: int
    budget_s: float

    @property
    def points(self) -> list[tuple[int, int]]:
        """Short outputs first: whatever is cut off by the budget, every prompt size keeps its first token."""
        return [(p, o) for o in sorted(set(self.output_sizes)) for p in sorted(set(self.prompt_sizes))]


def hardware() -> str:
    """This machine in words."""
    return f"{platform.machine()}, {platform.system()}"


def profile(
    decoder: DecoderHandle, tokenizer: Tokenizer, grid: Grid, call: Call
) -> Generator[Progress, None, list[Trial]]:
    """Time the decoder in rounds over the grid until `trials` rounds or `budget_s` are over; returns the trials.

    Points that do not fit the model's context are left out, as are outputs that end early for every prompt tried:
    no time is ever counted for fewer tokens than it is written down for.
    """
    timer = _Timer(decoder, tokenizer, call)
    points, found, begun = grid.points, list[Trial](), time.monotonic()
    for turn in range(grid.warmup):
        timer.seconds(*points[0], turn - grid.warmup)
    total, step = len(points) * grid.trials, 0
    for turn in range(grid.trials):
        for p, o in list(points):
            if time.monotonic() - begun > grid.budget_s:
                return _enough(found, grid)
            step += 1
            seconds = timer.seconds(p, o, turn)
            if seconds is None:
                points.remove((p, o))
                continue
            found.append((p, o, seconds))
            yield Progress("profile", step, total, {"prompt_tokens": p, "output_tokens": o, "seconds": seconds})
    return found


def _enough(found: list[Trial], grid: Grid) -> list[Trial]:
    if len({o for _, o, _ in found}) < 2:
        raise Unmet(
            f"budget_s={grid.budget_s:g} was over after {len(found)} requests, before two output sizes were measured: "
            "raise it, or give fewer prompt_sizes",
            metadata={"budget_s": grid.budget_s, "requests": len(found)},
        )
    return found


class _Timer:
    def __init__(self, decoder: DecoderHandle, tokenizer: Tokenizer, call: Call) -> None:
        self._decoder, self._tokenizer, self._call = decoder, tokenizer, call
        self._words = [word for word in _WORDS.split() if self._tokens(word) == self._tokens(f" {word}") == 1]
        if len(self._words) < 8:
            raise Unmet(
                "the tokenizer knows too few common English words as single tokens to make prompts of exact size"
            )

    def _tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text))

    def seconds(self, p: int, o: int, turn: int) -> float | None:
        """Wall seconds of one request that generates exactly o tokens; None when there is none."""
        for attempt in range(_TRIES):
            self._call.check()
            # Every trial reads other words, or a cache of prefixes would answer for the model.
            rng = generator(self._call.seed, "profile", p, o, turn, attempt)
            text = " ".join(self._words[index] for index in rng.integers(0, len(self._words), p))
            prompt = Prompt(text, sampling=Sampling(max_tokens=o, temperature=0.0))
            begun = time.perf_counter()
            try:
                done = self._decoder.complete([prompt], call=self._call)
            except DoesNotFit:
                return None
            taken = time.perf_counter() - begun
            if sum(len(each.token_ids) for each in done if each.choice != WHOLE_PROMPT) == o:
                return taken
        return None
