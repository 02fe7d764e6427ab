"""resampling-limits: closed forms against random permutations, and additions by the model `lm` with a weak verifier.

The verifier of the additions looks at the last digit only, so that some wrong sums pass it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import median
from pickaxe import WHOLE_PROMPT, Column, InputField, Item, Items, Method, Prompt, Sampling, Scores, catalog
from pickaxe.hooks import hookimpl
from pickaxe_plugins.decoding._resampling import Counts, Stakes, best, exact_curves

LOSSES = (0.0, -1.0, -2.0, -4.0, -8.0)
ROUNDS = 1000
PROBLEMS, SAMPLES = 60, 40
SHOTS = "Q: What is 21 + 34?\nA: 55\n\nQ: What is 48 + 17?\nA: 65\n\n"


def run() -> Iterator[dict[str, Any]]:
    yield from curves()
    yield from additions()
    for shots in (1, 8):
        for batch in (1, 8):
            yield shared_prompt(shots, batch)


# ---------------------------------------------------------------- curves


def curves(tasks: int = 1000, samples: int = 200) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    u = rng.binomial(samples, rng.beta(1.0, 1.0, tasks))
    v = u + rng.binomial(samples - u, 0.2)
    counts = Counts(np.full(tasks, samples), v, u, u)

    def ours() -> np.ndarray:
        found = exact_curves(counts, samples)
        rewards = np.array([found.reward(Stakes(wrong=loss)) for loss in LOSSES])
        for reward in rewards:
            best(reward)
        return rewards

    passed = np.arange(samples) < v[:, None]
    right = np.arange(samples) < u[:, None]
    begin = time.perf_counter()
    simulated, error = permuted(passed, right, np.random.default_rng(1))
    peer = time.perf_counter() - begin
    apart = np.abs(simulated - ours())
    seconds = median(ours)
    note = (
        f"peer: {ROUNDS} permutations per task; differences at most {float((apart / error).max()):.1f} standard errors"
    )
    yield row(f"{tasks} tasks, {samples} attempts, {len(LOSSES)} costs", seconds * 1e3, peer * 1e3, "ms", tasks, note)
    items = [
        Item(str(task), fields={"n": samples, "v": int(v[task]), "g": int(u[task]), "u": int(u[task])})
        for task in range(tasks)
    ]
    scorer = pickaxe.scorer("resampling-limits", false_positive_values=LOSSES)
    whole = median(lambda: scorer.score(items))
    yield row("the same by the whole scorer", whole * 1e3, peer * 1e3, "ms", tasks, "aim: 20 ms, ratio 100")


def permuted(passed: np.ndarray, right: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rewards by loss and K with their standard errors, in the manner of the notebooks: order by order."""
    tasks, samples = passed.shape
    total, spread = np.zeros((len(LOSSES), samples)), np.zeros((len(LOSSES), samples))
    for task in range(tasks):
        first, correct = np.full(ROUNDS, samples), np.zeros(ROUNDS, np.bool_)
        for turn in range(ROUNDS):
            order = rng.permutation(samples)
            found = np.where(passed[task][order])[0]
            if len(found):
                first[turn], correct[turn] = found[0], right[task][order[found[0]]]
        within = first[:, None] <= np.arange(samples)
        for place, loss in enumerate(LOSSES):
            reward = np.where(correct, 1.0, loss)[:, None] * within
            total[place] += reward.mean(axis=0)
            spread[place] += reward.var(axis=0)
    return total / tasks, np.sqrt(spread / ROUNDS) / tasks + 1e-9


# ---------------------------------------------------------------- additions


class LastDigit(Method):
    """Pass a sum whose last digit is right."""

    scope = "item"
    reads = (InputField("text", "text", "The sample."), InputField("sum", "int64", "The right sum."))
    columns = (Column("passed", "1 when the last digit is right."),)

    @hookimpl
    def score(self, items: Items) -> Scores:
        return Scores({"passed": np.array([float(weak(item.text or "", right_sum(item))) for item in items])})


def right_sum(asked: Item | Prompt) -> int:
    found = asked.fields["sum"]
    assert isinstance(found, int)
    return found


def number(text: str) -> str:
    return next(iter(text.split()), "").rstrip(".")


def weak(text: str, right: int) -> bool:
    said = number(text)
    return said.isdigit() and said[-1] == str(right)[-1]


def prompts(shots: int = 1) -> list[Prompt]:
    pairs = np.random.default_rng(0).integers(10, 100, (PROBLEMS, 2))
    return [
        Prompt(f"{SHOTS * shots}Q: What is {a} + {b}?\nA:", sampling=Sampling(stop=("\n",)), fields={"sum": int(a + b)})
        for a, b in pairs
    ]


def additions() -> Iterator[dict[str, Any]]:
    sampler: dict[str, Any] = {"temperature": 1.0, "max_tokens": 8}
    asked = prompts()
    found = pickaxe.decoder("repeated-sampling", n=SAMPLES, batch=20, **sampler).complete(asked)
    texts: list[list[str]] = [[] for _ in asked]
    for each in found:
        if each.choice != WHOLE_PROMPT:
            texts[each.prompt].append(each.text)
    tasks = [judged(str(place), said, right_sum(asked[place])) for place, said in enumerate(texts)]
    scores = pickaxe.scorer("resampling-limits", drop_false_negative_tasks=False).score(tasks)
    report = scores.summary["groups"]["all"]
    accuracy = report["curves"]["accuracy"]
    bins = [each for each in report["false_positive_bins"] if each["share"] >= 0.01]
    late = f"attempts {bins[-1]['from']} to {bins[-1]['to']}"
    choices = ", ".join(
        f"{each['false_positive_value']:g}: {each['k_best']}" for each in report["by_false_positive_value"]
    )
    for name, value, note in (
        ("accuracy of one sample", report["single"], ""),
        (f"accuracy of {SAMPLES} attempts", accuracy[-1], f"{accuracy[SAMPLES // 2 - 1]:.3f} at half of them"),
        (
            "limit, unsolved tasks as right",
            report["limit_best"],
            f"{report['unsolved']} unsolved; conditional {report['conditional']:.3f}",
        ),
        ("soundness of the last digit", report["soundness"], f"best K by value of a false positive: {choices}"),
        ("false positives, attempt 1", bins[0]["false_positive_rate"], "share of first passes that are wrong"),
        (f"false positives, {late}", bins[-1]["false_positive_rate"], f"of {bins[-1]['share']:.0%} of the tasks"),
    ):
        yield row(f"additions: {name}", value, None, "share", PROBLEMS * SAMPLES, note)
    yield deployed(asked, report, sampler)


def judged(name: str, texts: list[str], right: int) -> Item:
    return Item(
        name,
        fields={
            "verifier": np.array([weak(text, right) for text in texts]),
            "truth": np.array([number(text) == str(right) for text in texts]),
        },
    )


def deployed(asked: list[Prompt], report: dict[str, Any], sampler: dict[str, Any], attempts: int = 8) -> dict[str, Any]:
    """The decoder on the same tasks with fresh samples, against the curve."""
    with catalog.register(LastDigit, "last-digit", "scorer"):
        decoder = pickaxe.decoder(
            "resample-until-pass",
            verifier="last-digit",
            attempts=attempts,
            decoder={"name": "repeated-sampling", "params": sampler},
        )
        found = decoder.complete(asked, seed=1)
    right = [number(each.text) == str(right_sum(asked[each.prompt])) for each in found]
    expected = report["curves"]["accuracy"][attempts - 1]
    note = (
        f"the curve says {expected:.3f}; {np.mean([each.usage['attempts'] for each in found]):.1f} attempts on average"
    )
    return row(f"additions: decoder with {attempts} attempts", float(np.mean(right)), None, "share", PROBLEMS, note)


# ---------------------------------------------------------------- decoder


def shared_prompt(shots: int, batch: int, attempts: int = 8) -> dict[str, Any]:
    """Attempts at prompts of which none passes, against the same number of separate decodes."""
    asked = prompts(shots)[:2]
    sampler: dict[str, Any] = {"temperature": 1.0, "max_tokens": 8}
    alone = pickaxe.decoder("repeated-sampling", **sampler)
    with catalog.register(LastDigit, "last-digit", "scorer"):
        decoder = pickaxe.decoder(
            "resample-until-pass",
            verifier="last-digit",
            threshold=2.0,
            attempts=attempts,
            decoder={"name": "repeated-sampling", "params": {**sampler, "batch": batch}},
        )
        decoder.complete(asked)
        ours, peer = [], []
        for _ in range(5):
            ours.append(median(lambda: decoder.complete(asked), 1))
            peer.append(median(lambda: [alone.complete(asked, seed=seed) for seed in range(attempts)], 1))
    n = len(asked) * attempts
    name = f"attempts on a prompt of {2 * shots} examples, batch {batch}"
    rates = n / statistics.median(ours), n / statistics.median(peer)
    return row(name, *rates, "attempts/s", n, "peer: a decode each", higher=True)


def row(
    name: str, ours: float, peer: float | None, unit: str, n: int, note: str, higher: bool = False
) -> dict[str, Any]:
    ratio = None if peer is None else (ours / peer if higher else peer / ours)
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}
