"""Runtime of an autoregressive Transformer: prompt part, a constant for each further token, overhead."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

import pickaxe
from pickaxe.errors import Unmet
from pickaxe_plugins.scaling._laws import error_of, fit_line, interval, resampled_residuals

PromptMode = Literal["single_token", "intercept"]
Aggregate = Literal["mean", "min"]
Preset = Literal["idealized", "denoised", "none"]


class Quality(pickaxe.Params):
    """How well the law holds on the points that it was fitted on, and on the longest outputs when they are held out."""

    points: int = Field(description="Points (prompt size, output size) of the fit.")
    r2: float | None = Field(description="Explained share of the line of g; none when its times are constant.")
    mse: float = Field(description="Mean squared error of F(p) + (o - 1) g, in s^2.")
    max_squared_error: float = Field(description="The largest squared error, in s^2.")
    per_token_low: float | None = Field(description="Lower end of the interval of g, in s; none: no bootstrap.")
    per_token_high: float | None = Field(description="Upper end of it.")
    held_out_points: int = Field(description="Points of the largest output size, left out of a second fit.")
    held_out_error: float | None = Field(
        description="Mean relative error of that fit there; none: nothing to hold out."
    )


class Deployment(pickaxe.Params):
    """What is known of one deployment: a model on some hardware behind some software."""

    runtime_per_output_token: float = Field(ge=0, description="g: seconds for each token after the first.")
    runtime_for_prompt_tokens: dict[int, float] = Field(
        min_length=1, description="F: seconds to the first token, by prompt size in tokens."
    )
    overhead: float = Field(0.0, ge=0, description="Seconds that every request takes besides: network, queue.")
    longest_output: int | None = Field(None, ge=1, description="Largest output size that was measured.")
    num_accelerators: float | None = Field(None, gt=0, description="Accelerators that it occupies.")
    price_per_hour: float | None = Field(None, ge=0, description="Dollars for an hour of one accelerator.")
    hidden: int | None = Field(None, ge=1, description="Width of the model, for FLOPs.")
    layers: int | None = Field(None, ge=1, description="Layers of the model, for FLOPs.")
    batch_size: int = Field(1, ge=1, description="Requests that ran together; the seconds are those of the batch.")
    tokenizer: str = Field("", description="Model whose tokenizer counts texts.")
    hardware: str = Field("", description="What it ran on, in words.")
    quality: Quality | None = Field(None, description="How well the law fitted.")

    @field_validator("runtime_for_prompt_tokens")
    @classmethod
    def _usable(cls, value: dict[int, float]) -> dict[int, float]:
        if wrong := [size for size, seconds in value.items() if size < 1 or seconds < 0]:
            raise ValueError(f"prompt sizes must be at least 1 and seconds at least 0 (see size {wrong[0]})")
        return dict(sorted(value.items()))

    @property
    def longest_prompt(self) -> int:
        return max(self.runtime_for_prompt_tokens)


@functools.cache
def presets(name: Preset) -> Mapping[str, Deployment]:
    """The published tables: `idealized` (A100 80GB, Megatron) or `denoised` (the providers' own systems, 2022)."""
    if name == "none":
        return {}
    tables = json.loads((Path(__file__).parent / "_presets.json").read_text(encoding="utf-8"))
    return {key: Deployment(**value) for key, value in tables[name].items()}


# ---------------------------------------------------------------- estimate


@dataclass(frozen=True)
class Parts:
    """Seconds of requests, each (n,) float64."""

    prompt: np.ndarray
    decode: np.ndarray
    overhead: np.ndarray

    @property
    def total(self) -> np.ndarray:
        return self.prompt + self.decode + self.overhead


def estimate(deployment: Deployment, prompt_tokens: np.ndarray, output_tokens: np.ndarray) -> Parts:
    """Seconds of requests of p and o tokens, (n,) each, without loops.

    The prompt part is the throughput of the next larger measured size (of the largest one beyond it), so it jumps
    down behind every measured size.
    """
    table = deployment.runtime_for_prompt_tokens
    sizes, seconds = np.array(list(table), np.float64), np.array(list(table.values()), np.float64)
    p, o = np.asarray(prompt_tokens, np.float64), np.asarray(output_tokens, np.float64)
    at = _next_larger(sizes, p)
    # The ratio first: it is exactly 1 at a measured size.  In place: new arrays cost more than what is reckoned.
    prompt = p / sizes[at]
    prompt *= seconds[at]
    decode = np.maximum(o - 1, 0)
    decode *= deployment.runtime_per_output_token
    return Parts(prompt, decode, np.full(prompt.shape, deployment.overhead))


def _next_larger(sizes: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Place of the first size that is at least p, of the last one beyond them all."""
    longest = int(sizes[-1])
    if longest > len(p):
        return np.searchsorted(sizes[:-1], p)
    # Sizes are whole: for many requests, looking places up is several times as fast as searching them.
    places = np.searchsorted(sizes[:-1], np.arange(longest + 1))
    return places[np.ceil(np.minimum(p, longest)).astype(np.intp)]


def cost_usd(runtime_s: np.ndarray, accelerators: np.ndarray, price_per_hour: np.ndarray) -> np.ndarray:
    """Dollars of runtimes in s on so many accelerators, at dollars for an hour of one."""
    return runtime_s * accelerators * price_per_hour / 3600


def flops(hidden: np.ndarray, layers: np.ndarray, prompt_tokens: np.ndarray, output_tokens: np.ndarray) -> np.ndarray:
    """24 h^2 L for each token that passes through the model; attention over the context is left out."""
    return 24 * hidden**2 * layers * (prompt_tokens + np.maximum(output_tokens - 1, 0))


# ---------------------------------------------------------------- fit


@dataclass(frozen=True)
class Rules:
    """How a deployment is fitted; the fields are parameters of `idealized-runtime`."""

    prompt_mode: PromptMode = "single_token"
    aggregate: Aggregate = "mean"
    split_overhead: bool = False
    round_digits: int | None = None
    bootstrap: int = 0
    confidence: float = 0.95

    def rounded(self, value: np.ndarray | float) -> np.ndarray:
        return np.asarray(value) if self.round_digits is None else np.round(value, self.round_digits)


def aggregated(trials: Mapping[tuple[int, int], np.ndarray], aggregate: Aggregate) -> np.ndarray:
    """Points (p, o, seconds), (n, 3) in order, of the trials of each (p, o)."""
    reduce = np.min if aggregate == "min" else np.mean
    return np.array([(p, o, reduce(trials[p, o])) for p, o in sorted(trials)], np.float64).reshape(-1, 3)


def fit_deployment(name: str, points: np.ndarray, rules: Rules, rng: np.random.Generator) -> Deployment:
    """The law of points (p, o, seconds), (n, 3).

    Raises `Unmet` when there are fewer than two output sizes, or a prompt size lacks what the mode needs.
    """
    p, o, seconds = points.T
    if len(np.unique(o)) < 2:
        raise Unmet(
            f"deployment {name!r} has output size {o[0]:g} only: measure at least two, such as 1 and 16",
            metadata={"deployment": name},
        )
    sizes, first = _prompt_parts(name, p, o, seconds, rules)
    base = first[np.searchsorted(sizes, p)]
    # The published script throws the intercept away, and g is rounded after the line is drawn.
    line = fit_line(o - 1, seconds - base)
    g = float(rules.rounded(line.slope))
    squared = (base + (o - 1) * g - seconds) ** 2
    low, high = _slope_interval(o - 1, seconds - base, rules, rng)
    held, error = _held_out(o, seconds, base)
    quality = Quality(
        points=len(p),
        r2=_known(float(line.r2)),
        mse=float(squared.mean()),
        max_squared_error=float(squared.max()),
        per_token_low=low,
        per_token_high=high,
        held_out_points=held,
        held_out_error=error,
    )
    overhead = 0.0
    if rules.split_overhead:
        overhead = max(0.0, float(first[0]) - g)
        first = np.maximum(first - overhead, g)
    return Deployment.model_validate(
        {
            "runtime_per_output_token": max(g, 0.0),
            "runtime_for_prompt_tokens": {int(size): float(value) for size, value in zip(sizes, first, strict=True)},
            "overhead": overhead,
            "longest_output": int(o.max()),
            "quality": quality,
        }
    )


def _prompt_parts(
    name: str, p: np.ndarray, o: np.ndarray, seconds: np.ndarray, rules: Rules
) -> tuple[np.ndarray, np.ndarray]:
    """Prompt sizes in order, and F of each."""
    sizes = np.unique(p)
    first = np.empty(len(sizes))
    for place, size in enumerate(sizes):
        here = p == size
        if rules.prompt_mode == "single_token":
            single = seconds[here & (o == 1)]
            if not len(single):
                raise _unmet(name, size, "no point of 1 output token: measure it, or set prompt_mode=intercept")
            first[place] = rules.rounded(single[0])
            continue
        if here.sum() < 2:
            raise _unmet(name, size, "one output size only: prompt_mode=intercept needs two or more")
        line = fit_line(o[here], seconds[here])
        first[place] = rules.rounded(rules.rounded(line.slope) + rules.rounded(line.intercept))
    if rules.prompt_mode == "intercept":
        first = np.maximum(first, first[0])
    return sizes, first


def _unmet(name: str, size: float, what: str) -> Unmet:
    return Unmet(f"deployment {name!r}, prompt size {size:g}: {what}", metadata={"deployment": name, "size": size})


def _slope_interval(
    x: np.ndarray, y: np.ndarray, rules: Rules, rng: np.random.Generator
) -> tuple[float | None, float | None]:
    if not rules.bootstrap or len(x) < 4:
        return None, None
    line = fit_line(x, y)
    drawn = fit_line(x, resampled_residuals(line.at(x), y, 2, rules.bootstrap, rng)).slope
    low, high = interval(drawn, rules.confidence)
    return min(float(low), float(line.slope)), max(float(high), float(line.slope))


def _held_out(o: np.ndarray, seconds: np.ndarray, base: np.ndarray) -> tuple[int, float | None]:
    """Points of the largest output size, and the mean relative error there of g without them."""
    kept = o < o.max()
    if len(np.unique(o[kept])) < 2:
        return 0, None
    slope = float(fit_line(o[kept] - 1, (seconds - base)[kept]).slope)
    found = error_of(seconds[~kept], base[~kept] + (o[~kept] - 1) * slope)
    return found.points, _known(found.relative)


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
