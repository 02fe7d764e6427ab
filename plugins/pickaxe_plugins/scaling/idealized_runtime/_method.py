"""Idealized runtime: seconds and dollars of language-model requests from a small profile (arXiv 2305.02440)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import (
    ArtifactWriter,
    Call,
    Column,
    Example,
    Flag,
    InputField,
    Item,
    Items,
    Method,
    MethodRef,
    Progress,
    Scores,
)
from pickaxe.errors import InvalidItems, Unmet
from pickaxe.hooks import hookimpl
from pickaxe.randomness import generator
from pickaxe_plugins.scaling.idealized_runtime import _report
from pickaxe_plugins.scaling.idealized_runtime._model import (
    Aggregate,
    Deployment,
    Preset,
    PromptMode,
    Rules,
    aggregated,
    cost_usd,
    estimate,
    fit_deployment,
    flops,
    presets,
)
from pickaxe_plugins.scaling.idealized_runtime._points import Points, Trials
from pickaxe_plugins.scaling.idealized_runtime._profile import OUTPUT_SIZES, PROMPT_SIZES, Grid, hardware, profile
from pickaxe_plugins.scaling.idealized_runtime._requests import Requests, read_requests

TABLE = "table.json"
_TRIALS = "trials.json"


class Params(pickaxe.Params):
    """Parameters of `idealized-runtime`."""

    preset: Preset = Field("idealized", description="Published table that is used where there is no artifact.")
    table: dict[str, Deployment] = Field(
        default_factory=dict, description="Deployments given by hand; they win over the artifact and the preset."
    )
    unknown: Literal["error", "nan"] = Field("nan", description="What a deployment without an entry gives.")
    prompt_mode: PromptMode = Field(
        "single_token", description="F(p) is the time of 1 output token, or comes from the line of each prompt size."
    )
    aggregate: Aggregate = Field("mean", description="What the trials of a point become; min for remote systems.")
    split_overhead: bool = Field(False, description="Split a constant network and queue time off F(p).")
    round_digits: int | None = Field(None, ge=0, le=12, description="Decimals of F and g; 3: as published.")
    bootstrap: int = Field(200, ge=0, le=10_000, description="Bootstrap fits for the interval of g; 0: none.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Share of bootstrap fits that the interval holds.")
    tokenizer: str = Field("", description="Model whose tokenizer counts texts, where the deployment names none.")
    decoder: MethodRef | None = Field(None, description="Decoder of this product that fit profiles.")
    deployment: str = Field("", description="Name of the profiled decoder in the table; empty: the decoder's name.")
    hardware: str = Field("", description="Hardware of the profile in words; empty: what the system says.")
    prompt_sizes: tuple[int, ...] = Field(PROMPT_SIZES, min_length=1, description="Prompt sizes to profile.")
    output_sizes: tuple[int, ...] = Field(OUTPUT_SIZES, min_length=2, description="Output sizes to profile.")
    warmup: int = Field(10, ge=0, le=10_000, description="Requests before the clock counts.")
    trials: int = Field(50, ge=1, le=10_000, description="Rounds over the grid.")
    budget_s: float = Field(600.0, gt=0, description="Seconds after which profiling ends; short outputs go first.")

    @property
    def rules(self) -> Rules:
        return Rules(
            self.prompt_mode, self.aggregate, self.split_overhead, self.round_digits, self.bootstrap, self.confidence
        )

    @property
    def grid(self) -> Grid:
        return Grid(self.prompt_sizes, self.output_sizes, self.warmup, self.trials, self.budget_s)


class IdealizedRuntime(Method[Params]):
    """Estimate how long requests to a language model take and what they cost, from a small profile of it.

    Items are requests: deployment, prompt and output tokens.  `fit` makes the table of deployments from measured
    runtimes or by profiling a decoder; without it the published tables of 19 models serve.
    """

    title = "Cheaply Evaluating Inference Efficiency Metrics for Autoregressive Transformer APIs"
    paper = "arXiv:2305.02440"
    version = 1
    Params = Params
    scope = "pool"
    reads = (
        InputField("deployment", "text", "Key of the table; may be left out when the table has one entry.", False),
        InputField("num_prompt_tokens", "float64", "Tokens of the prompt, at least 1.", False),
        InputField("num_output_tokens", "float64", "Tokens generated, of all completions together.", False),
        InputField("text", "text", "The prompt, where its tokens are not counted.", False),
        InputField("completions", "texts", "What was generated, where its tokens are not counted.", False),
        InputField("echoed", "bool", "Whether the output repeats the prompt; its tokens are then taken off.", False),
        InputField("measured_runtime", "float64", "Seconds that the request took.", False),
        InputField("num_accelerators", "float64", "Accelerators, where the table does not say.", False),
        InputField("price_per_hour", "float64", "Dollars for an hour of one, where the table does not say.", False),
        InputField("quality", "float64", "How good the answer or the model is; higher is better.", False),
    )
    fit_reads = (
        InputField("deployment", "text", "Name of the deployment.", False),
        InputField("num_prompt_tokens", "float64", "Prompt size p.", False),
        InputField("num_output_tokens", "float64", "Output size o.", False),
        InputField("runtime", "float64", "Seconds of one trial.", False),
        InputField("runtimes", "tensor", "Instead: seconds of several trials, (n,).", False),
        InputField("batch_size", "float64", "Requests that ran together, 1 by default.", False),
        InputField("num_accelerators", "float64", "Accelerators of the deployment.", False),
        InputField("price_per_hour", "float64", "Dollars for an hour of one.", False),
        InputField("hidden", "float64", "Width of the model.", False),
        InputField("layers", "float64", "Layers of the model.", False),
        InputField("tokenizer", "text", "Model whose tokenizer counts texts.", False),
        InputField("hardware", "text", "What it ran on.", False),
    )
    columns = (
        Column("neg_runtime_s", "Minus the estimated runtime.", "float64", "s", nullable=True),
        Column("runtime_s", "Estimated runtime.", "float64", "s", "lower", True),
        Column("prompt_s", "Time to the first token, without overhead.", "float64", "s", "lower", True),
        Column("decode_s", "Time of the further tokens.", "float64", "s", "lower", True),
        Column("overhead_s", "Constant time of a request.", "float64", "s", "lower", True),
        Column("cost_usd", "Dollars for the accelerators during the runtime.", "float64", "USD", "lower", True),
        Column("flops", "Operations, without attention over the context.", "float64", "FLOP", "lower", True),
        Column("discrepancy_s", "Measured runtime minus the estimate.", "float64", "s", "none", True),
        Column("pareto", "1: no other deployment is both faster and better, by means.", "float64", nullable=True),
    )
    fitted = "optional"
    stages = ("profile", "fit")
    cost = "A million estimates in under 0.2 s; a profile takes trials x grid requests, or budget_s."
    reproduced = "Published fits, rounded and not, denoising with overhead, estimates, cost, FLOPs."

    @classmethod
    def example(cls) -> Example:
        """Three requests to two deployments, and a profile of both."""
        profiled = {"fast": (0.01, 0.02), "slow": (0.03, 0.05)}
        examples = tuple(
            Item(
                f"{name}-{p}-{o}",
                fields={
                    "deployment": name,
                    "num_prompt_tokens": p,
                    "num_output_tokens": o,
                    "runtimes": first + p / 1e4 + g * (o - 1) + np.array([0.0, 0.001]),
                },
            )
            for name, (first, g) in profiled.items()
            for p in (1, 64, 256)
            for o in (1, 8, 32)
        )
        items = tuple(
            Item(f"{name}-{o}", fields={"deployment": name, "num_prompt_tokens": 200, "num_output_tokens": o})
            for name, o in (("fast", 10), ("fast", 60), ("slow", 100))
        )
        return Example({}, items, True, examples)

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        table = self._table()
        requests = read_requests(items, table, self._count, self.params.unknown == "error")
        columns = {column.name: np.full(len(items), np.nan) for column in self.columns}
        flags: list[Flag] = []
        for name, rows in requests.by_deployment.items():
            call.check()
            if name in table:
                found = _estimated(requests, rows, table[name])
                for column, values in found.items():
                    columns[column][rows] = values
                flags += _beyond(requests, rows, table[name])
            else:
                flags += [Flag(int(row), "unknown-deployment", f"{name!r} is not in the table") for row in rows]
        uses = _compared(requests, columns, table)
        for use in uses:
            columns["pareto"][requests.by_deployment[use.name]] = use.best
        unknown = [name for name in requests.by_deployment if name not in table]
        summary = _report.summary(uses, unknown) if len(items) else {}
        return Scores(columns, summary=summary, flags=tuple(sorted(flags, key=lambda flag: flag.index)))

    def _table(self) -> dict[str, Deployment]:
        if self.artifact is None:
            return {**presets(self.params.preset), **self.params.table}
        fitted = self.artifact.read_json(TABLE)
        return {**{name: Deployment(**entry) for name, entry in fitted.items()}, **self.params.table}

    def _count(self, deployment: Deployment, text: str) -> int:
        model = deployment.tokenizer or self.params.tokenizer
        if not model:
            raise Unmet("texts are counted by a tokenizer: set tokenizer, or give the numbers of tokens")
        return len(self.host.lm(model).tokenizer.encode(text))

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        """Write the table of the deployments in the examples, and of the decoder that the parameters name."""
        if not out.done("profile"):
            gathered = Points.read(examples)
            if self.params.decoder is not None:
                gathered.add(*(yield from self._profile(self.params.decoder, call)))
            out.write_json(_TRIALS, gathered.as_json())
            out.finish("profile")
        points = Points.from_json(json.loads(out.file(_TRIALS).read_text(encoding="utf-8")))
        if not points.trials:
            raise InvalidItems("examples", "hold no profile points, and no decoder is named: give one of them")
        if not out.done("fit"):
            table = {}
            for step, (name, trials) in enumerate(points.trials.items(), 1):
                call.check()
                table[name] = self._fitted(name, trials, call)
                yield Progress("fit", step, len(points.trials), _metrics(table[name]))
            out.write_json(TABLE, {name: entry.model_dump(mode="json") for name, entry in table.items()})
            out.notes["deployments"] = len(table)
            out.notes["hardware"] = {name: entry.hardware for name, entry in table.items()}
            out.finish("fit")

    def _profile(self, decoder: MethodRef, call: Call) -> Any:
        """Progress of profiling; returns name, trials and facts of the decoder."""
        model = self.params.tokenizer or str(decoder.params.get("model", "lm"))
        tokenizer = self.host.lm(model).tokenizer
        trials = yield from profile(self.host.decoder(decoder), tokenizer, self.params.grid, call)
        facts = {"tokenizer": model, "hardware": self.params.hardware or hardware()}
        return self.params.deployment or decoder.name, trials, facts

    def _fitted(self, name: str, trials: Trials, call: Call) -> Deployment:
        points = aggregated(trials.seconds, self.params.aggregate)
        entry = fit_deployment(name, points, self.params.rules, generator(call.seed, "bootstrap", name))
        return entry.model_copy(update=trials.facts)


def _metrics(entry: Deployment) -> dict[str, float]:
    quality = entry.quality
    found = {"seconds_per_token": entry.runtime_per_output_token}
    return found if quality is None or quality.r2 is None else {**found, "r2": quality.r2}


def _estimated(requests: Requests, rows: np.ndarray, entry: Deployment) -> dict[str, np.ndarray]:
    """The columns of the requests to one deployment, (len(rows),) each."""
    p, o = requests.prompt[rows], requests.output[rows]
    parts = estimate(entry, p, o)
    total = parts.total
    accelerators, price = requests.accelerators[rows], requests.price[rows]
    known = [np.nan if value is None else float(value) for value in (entry.num_accelerators, entry.price_per_hour)]
    accelerators = np.where(np.isnan(accelerators), known[0], accelerators)
    price = np.where(np.isnan(price), known[1], price)
    shape = [np.nan if value is None else float(value) for value in (entry.hidden, entry.layers)]
    return {
        "neg_runtime_s": -total,
        "runtime_s": total,
        "prompt_s": parts.prompt,
        "decode_s": parts.decode,
        "overhead_s": parts.overhead,
        "cost_usd": cost_usd(total, accelerators, price),
        "flops": flops(np.array(shape[0]), np.array(shape[1]), p, o),
        "discrepancy_s": requests.measured[rows] - total,
    }


def _beyond(requests: Requests, rows: np.ndarray, entry: Deployment) -> list[Flag]:
    p, o = requests.prompt[rows], requests.output[rows]
    found = []
    if entry.quality is not None and entry.runtime_per_output_token == 0:
        found.append(Flag(int(rows[0]), "flat", "measured times do not rise with the output: measure longer outputs"))
    found += [
        Flag(int(rows[at]), "extrapolated", f"{p[at]:g} prompt tokens, measured up to {entry.longest_prompt}")
        for at in np.flatnonzero(p > entry.longest_prompt)
    ]
    if entry.longest_output is not None:
        found += [
            Flag(int(rows[at]), "extrapolated", f"{o[at]:g} output tokens, measured up to {entry.longest_output}")
            for at in np.flatnonzero(o > entry.longest_output)
        ]
    return found


def _compared(
    requests: Requests, columns: Mapping[str, np.ndarray], table: Mapping[str, Deployment]
) -> list[_report.Use]:
    """Means over the requests of each deployment that has an entry."""
    names = [name for name in requests.by_deployment if name in table]
    means = [_means(requests, columns, requests.by_deployment[name], table[name]) for name in names]
    runtimes, qualities = (np.array([each[key] for each in means]) for key in ("runtime", "quality"))
    pareto = _report.best(runtimes, qualities)
    return [
        _report.Use(name=name, deployment=table[name], best=float(best), **each)
        for name, each, best in zip(names, means, pareto, strict=True)
    ]


def _means(
    requests: Requests, columns: Mapping[str, np.ndarray], rows: np.ndarray, entry: Deployment
) -> dict[str, Any]:
    p, o, quality = requests.prompt[rows], requests.output[rows], requests.quality[rows]
    further = float(np.maximum(o - 1, 0).mean())
    runtime = float(columns["runtime_s"][rows].mean())
    fit = entry.quality
    ends = [np.nan, np.nan] if fit is None or fit.per_token_low is None or fit.per_token_high is None else [
        runtime + (end - entry.runtime_per_output_token) * further for end in (fit.per_token_low, fit.per_token_high)
    ]  # fmt: skip
    longest = np.inf if entry.longest_output is None else entry.longest_output
    discrepancy = columns["discrepancy_s"][rows]
    return {
        "rows": len(rows),
        "prompt_tokens": float(p.mean()),
        "output_tokens": float(o.mean()),
        "runtime": runtime,
        "low": min(ends[0], runtime),
        "high": max(ends[1], runtime),
        "prompt_s": float(columns["prompt_s"][rows].mean()),
        "decode_s": float(columns["decode_s"][rows].mean()),
        "overhead_s": entry.overhead,
        "cost": float(columns["cost_usd"][rows].mean()),
        "discrepancy": _mean(discrepancy),
        "measured_rows": int((~np.isnan(discrepancy)).sum()),
        "quality": _mean(quality),
        "quality_rows": int((~np.isnan(quality)).sum()),
        "beyond": int(((p > entry.longest_prompt) | (o > longest)).sum()),
    }


def _mean(values: np.ndarray) -> float:
    """The mean of what is there: rows without a value do not count."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")
