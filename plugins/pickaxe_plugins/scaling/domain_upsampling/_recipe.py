"""The recipe of `fit`: one base run a seed, and branches from its checkpoint with other final mixes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pickaxe import ArtifactWriter, Call, Item, Progress
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe_plugins.scaling.domain_upsampling import _training as training
from pickaxe_plugins.scaling.domain_upsampling._data import Benchmark, Streams, benchmarks, by_domain, documents
from pickaxe_plugins.scaling.domain_upsampling._mix import Domains, Plan, final_mix, utilities, without
from pickaxe_plugins.scaling.domain_upsampling._params import Params
from pickaxe_plugins.train import llama, vocabulary

UTILITY, MIXES, MEASURED = "utility.npy", "mixes.json", "measured.json"
STAGES = ("base", "branches")


@dataclass(frozen=True)
class Branch:
    """A last phase: from the base run's state after `switch` steps, on `mix`."""

    name: str
    mix: np.ndarray
    switch: int


@dataclass
class Recipe:
    """Everything that a fit has read and decided; `run` trains and writes the artifact."""

    params: Params
    domains: Domains
    tokens: Mapping[str, list[np.ndarray]]
    measures: list[Benchmark]
    settings: training.Settings
    branches: list[Branch]
    out: ArtifactWriter
    call: Call
    _steps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))

    @classmethod
    def of(
        cls,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        params: Params,
        out: ArtifactWriter,
        call: Call,
    ) -> Recipe:
        if validation is None:
            raise Unmet("fit measures domains on held-out benchmarks: give validation items with a field `benchmark`")
        found = documents(examples)
        if len({each.domain for each in found}) < 2:
            raise InvalidItems("examples", "are of fewer than two domains: give documents of two or more")
        tokenizer = vocabulary.learn((each.text for each in found), params.net.vocab, out.path)
        tokens = by_domain(found, tokenizer)
        groups = {each.domain: each.group for each in found}
        sizes = [sum(map(len, tokens[name])) for name in tokens]
        base = [float(size) for size in sizes]
        if params.base_mix:
            if set(params.base_mix) != set(tokens):
                odd = sorted(set(params.base_mix) ^ set(tokens))[0]
                raise InvalidParams(f"base_mix.{odd}", f"must name exactly the domains {', '.join(tokens)}")
            base = [params.base_mix[name] for name in tokens]
        domains = Domains.of(
            list(tokens), [groups[name] for name in tokens], base, [float(n) for n in sizes], "domains"
        )
        measures = benchmarks(validation, tokenizer, params.length)
        net, total = params.net, params.total_tokens or float(sum(sizes))
        settings = training.Settings(
            net.architecture(tokenizer.vocab_size), params.steps(total), params.rate, params.warmup, params.schedule,
            params.decay, params.clip,
        )  # fmt: skip
        return cls(params, domains, tokens, measures, settings, _branches(domains, params, settings.steps), out, call)

    # ------------------------------------------------------------ training

    def run(self) -> Iterator[Progress]:
        base: list[Mapping[str, Any]] = []
        for seed in range(self.params.seeds):
            base.append((yield from self._base(seed)))
        values: dict[str, list[list[float]]] = {"base": [each["values"] for each in base]}
        counts: dict[str, list[int]] = {"base": base[0]["counts"]}
        for seed in range(self.params.seeds):
            for branch in self.branches:
                told = yield from self._branch(seed, branch)
                values.setdefault(branch.name, []).append(told["values"])
                counts.setdefault(branch.name, told["counts"])
        self._write({name: np.array(each) for name, each in values.items()}, counts)

    def _base(self, seed: int) -> Generator[Progress, None, Mapping[str, Any]]:
        """Train on the base mix to the end, keeping the state at every switch; what it reached."""
        stage = f"base-{seed}"
        if not self.out.done(stage):
            state = self._fresh(seed)
            for until in sorted({each.switch for each in self.branches}):
                state = yield from self._advance("base", seed, state, self.domains.base, until)
                training.keep(state, self._file(seed, until))
            state = yield from self._advance("base", seed, state, self.domains.base, self.settings.steps)
            self.out.finish(stage, **self._reached(state))
        self._steps["base"] = (seed + 1) * self.settings.steps
        return self.out.stage_notes(stage)

    def _branch(self, seed: int, branch: Branch) -> Generator[Progress, None, Mapping[str, Any]]:
        stage, before = f"branch-{seed}-{branch.name}", self._steps["branches"]
        if not self.out.done(stage):
            if self.params.branch_from == "retrain":
                state = self._fresh(seed)
                state = yield from self._advance("branches", seed, state, self.domains.base, branch.switch)
            else:
                state = training.restore(self.settings, len(self.domains.names), self._file(seed, branch.switch))
            state = yield from self._advance("branches", seed, state, branch.mix, self.settings.steps)
            if branch.name == "upsampled" and seed == 0:
                llama.save(state.tree[0], self.settings.architecture, self.out.path)
            self.out.finish(stage, **self._reached(state))
        self._steps["branches"] = before + self._length(branch)
        return self.out.stage_notes(stage)

    def _advance(
        self, stage: str, seed: int, state: training.State, mix: np.ndarray, until: int
    ) -> Generator[Progress, None, training.State]:
        branches = self.params.seeds * sum(map(self._length, self.branches))
        total = self.params.seeds * self.settings.steps if stage == "base" else branches
        running = training.advance(self.settings, state, self._streams(seed), mix, until, self.params.batch)
        while True:
            try:
                _, loss = next(running)
            except StopIteration as ended:
                reached: training.State = ended.value
                return reached
            self.call.check()
            self._steps[stage] += 1
            yield Progress(stage, self._steps[stage], total, {"loss": loss, "seed": seed})

    def _length(self, branch: Branch) -> int:
        return self.settings.steps - (0 if self.params.branch_from == "retrain" else branch.switch)

    def _fresh(self, seed: int) -> training.State:
        return training.begin(self.settings, len(self.domains.names), self._seed(seed))

    def _streams(self, seed: int) -> Streams:
        return Streams(list(self.tokens.values()), self.params.length, self._seed(seed))

    def _seed(self, seed: int) -> int:
        return self.call.seed + seed

    def _file(self, seed: int, step: int) -> Any:
        return self.out.file(f"state-{seed}-{step}.safetensors")

    def _reached(self, state: training.State) -> dict[str, Any]:
        values = training.evaluate(self.settings, state, self.measures)
        return {"values": values, "counts": state.credits.counts.tolist()}

    # ------------------------------------------------------------ artifact

    def _write(self, values: Mapping[str, np.ndarray], counts: Mapping[str, list[int]]) -> None:
        """`values[branch]` (S, B), `counts[branch]` (D,) sequences of the first seed."""
        names, steps = self.domains.names, self.settings.steps
        mixes = {"base": self.domains.base} | {each.name: each.mix for each in self.branches}
        upsampled = next(each for each in self.branches if each.name == "upsampled")
        total = float(steps * self.params.batch * self.params.length)
        plan = Plan.of(self.domains, upsampled.mix, total, (steps - upsampled.switch) / steps)
        full = values["upsampled"].mean(0)
        left_out = np.stack([values.get(_left_out(name), values["upsampled"]).mean(0) for name in names])
        sign = np.array([each.sign for each in self.measures])
        self.out.write_array(UTILITY, utilities(full, left_out, sign))
        self.out.write_json(MIXES, {name: dict(zip(names, mix.tolist(), strict=True)) for name, mix in mixes.items()})
        spread = values["upsampled"].std(0, ddof=1).tolist() if self.params.seeds > 1 else None
        drawn = np.array(counts["upsampled"]) / sum(counts["upsampled"])
        self.out.write_json(
            MEASURED,
            {
                "domains": list(names), "groups": list(self.domains.groups),
                "available_tokens": self.domains.tokens.tolist(), "base_weight": self.domains.base.tolist(),
                "final_weight": plan.final.tolist(), "upsampling_factor": _plain(plan.factor),
                "tokens_seen": plan.tokens_seen.tolist(), "epochs": _plain(plan.epochs),
                "achieved_share": drawn.tolist(), "total_tokens": total, "switch_token": plan.switch,
                "benchmarks": [each.name for each in self.measures], "sign": sign.tolist(),
                "kinds": [each.kind for each in self.measures], "sigma": spread, "seeds": self.params.seeds,
                "values": {name: each.mean(0).tolist() for name, each in values.items()},
                "deltas": {each.name: (steps - each.switch) / steps for each in self.branches},
            },
        )  # fmt: skip
        for path in self.out.path.glob("state-*.safetensors"):
            path.unlink()
        self.out.notes.update(tokens=total, steps=steps, seeds=[self._seed(each) for each in range(self.params.seeds)])


def _branches(domains: Domains, params: Params, steps: int) -> list[Branch]:
    """The upsampled one, one without each domain that it holds, and the final mix at the other deltas."""
    final, switch = final_mix(domains, params.group_share), params.switch(steps, params.delta)
    if np.count_nonzero(final) < 2:
        raise InvalidParams("group_share", "leaves a single domain in the final mix: none can be left out")
    found = [Branch("upsampled", final, switch)]
    found += [
        Branch(_left_out(name), without(final, place), switch)
        for place, name in enumerate(domains.names)
        if final[place]
    ]
    others = sorted({params.switch(steps, delta): delta for delta in params.sweep if delta != params.delta}.items())
    return found + [Branch(f"upsampled at delta {delta:g}", final, switch) for switch, delta in others]


def _left_out(name: str) -> str:
    return f"without {name}"


def _plain(values: np.ndarray) -> list[float | None]:
    """NaN as None."""
    return [float(each) if np.isfinite(each) else None for each in values]
