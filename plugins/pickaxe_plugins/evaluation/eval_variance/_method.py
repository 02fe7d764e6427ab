"""Is a difference between two scores real?  Variance of benchmarks over seeds and items (arXiv 2406.10229)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import ArtifactWriter, Call, Column, Example, Flag, InputField, Item, Items, Method, Progress, Scores
from pickaxe.errors import ArtifactMismatch, InvalidItems
from pickaxe.hooks import hookimpl
from pickaxe.randomness import generator
from pickaxe_plugins.evaluation.eval_variance import _choices, _item_response, _report, _seed_stats
from pickaxe_plugins.evaluation.eval_variance._benchmarks import Model2PL, Settings, Standing, measure
from pickaxe_plugins.evaluation.eval_variance._columns import BENCHMARK, BY_MODE, PRIMARY
from pickaxe_plugins.evaluation.eval_variance._read import Place, benchmark, places

_A, _B, _THETA = "a.npy", "b.npy", "theta.npy"
Mode = Literal["benchmark", "compare", "items", "irt", "choices"]


class Params(pickaxe.Params):
    """Parameters of `eval-variance`."""

    mode: Mode = Field(
        "benchmark",
        description="What items are: benchmark (runs of one), compare (runs of A and of B), items (questions answered "
        "by many models), irt (models that answered some items; needs fit), choices (multiple-choice questions).",
    )
    primary: Literal["snr", "monotonicity", "neg_std"] = Field(
        "snr", description="First column of mode benchmark: what makes a benchmark trustworthy."
    )
    ddof: Literal[0, 1] = Field(1, description="Standard deviations divide by runs - ddof.")
    bootstrap: int = Field(1000, ge=0, le=100_000, description="Resamples of the items; 0: analytic intervals.")
    ties: Literal["tau_b"] = Field("tau_b", description="Rank correlation: tau-b, which allows for ties.")
    drop_quantile: float = Field(0.25, ge=0, lt=1, description="Share of least discriminating items to drop.")
    length_norm: _choices.LengthNorm = Field(
        "none", description="Length by which log-likelihoods are divided before the best option is chosen."
    )
    irt_items: int = Field(100, ge=1, description="Items that a p-IRT estimate of a whole benchmark sees.")
    rounds: int = Field(200, ge=1, description="Most rounds of fit.")
    tolerance: float = Field(1e-4, gt=0, description="Change of log a, b and theta at which fit ends.")
    model: str = Field("lm", min_length=1, description="Language model that reads choices without log-likelihoods.")
    precision: Literal["auto", "fp32", "fp16", "int8", "int4"] = Field("auto", description="Precision of its weights.")

    def settings(self) -> Settings:
        return Settings(self.ddof, self.bootstrap, self.drop_quantile, self.irt_items)


class EvalVariance(Method[Params]):
    """Is a difference between two scores real?  Seed noise, item noise and steadiness of benchmarks.

    Items are benchmarks with the scores of several seeds; other modes compare two models, judge single questions,
    estimate whole benchmarks from some answers (p-IRT), or score multiple-choice questions.
    """

    title = "Quantifying Variance in Evaluation Benchmarks"
    paper = "arXiv:2406.10229"
    version = 1
    Params = Params
    scope = "group"
    reads = (
        InputField("scores", "tensor", "benchmark: (S,) or seeds x checkpoints.", False),
        InputField("item_scores", "tensor", "benchmark: seeds x items (x samples) at the last checkpoint.", False),
        InputField("item_trajectories", "tensor", "benchmark: seeds x checkpoints x items.", False),
        InputField(
            "responses", "tensor", "benchmark: models x items; items: (models,); irt, fit: answers 0 to 1.", False
        ),
        InputField("checkpoint_tokens", "tensor", "benchmark: tokens seen at each checkpoint, rising.", False),
        InputField("kind", "text", "benchmark: accuracy: scores must be 0 to 1.", False),
        InputField("direction", "text", "benchmark, compare: higher (default) or lower is better.", False),
        InputField("a", "tensor", "compare: scores of A, one per seed.", False),
        InputField("b", "tensor", "compare: scores of B, one per seed.", False),
        InputField("seed_std", "float64", "compare: known spread over seeds, for single runs.", False),
        InputField("seen", "tensor", "irt: places of the answered items; absent: all.", False),
        InputField("option_loglikelihoods", "tensor", "choices: (K,), nats.", False),
        InputField("option_lengths", "tensor", "choices: (K,), in the unit of length_norm.", False),
        InputField("options", "texts", "choices: for a model to read, with the question as text.", False),
        InputField("gold", "int64", "choices: place of the right option.", False),
        InputField("group", "text", "items: benchmark of the question; else shown apart.", False),
    )
    fit_reads = (InputField("responses", "tensor", "Answers of one model to all items, (n,), 0 to 1."),)
    columns = BENCHMARK
    fitted = "optional"
    stages = ("2pl",)
    cost = "Milliseconds; 1,000 resamples of 1,000 items and 20 seeds well under a second."
    reproduced = (
        "Golden cases; on five seeds of a small next-token net the continuous metric has a higher signal-to-noise "
        "ratio and tau than accuracy, as in the paper."
    )

    @classmethod
    def example(cls) -> Example:
        """Three benchmarks of three seeds, four checkpoints and 20 items; eight models for fit."""
        rng = np.random.default_rng(0)
        items = []
        for name, group, noise in (("mass", "choice", 0.002), ("accuracy", "choice", 0.02), ("match", "qa", 0.05)):
            scores = 0.3 + 0.1 * np.log(np.arange(1, 5)) + rng.normal(0, noise, (3, 4))
            answers = (rng.random((3, 20)) < 0.4).astype(np.float64)
            items.append(Item(name, fields={"scores": scores, "item_scores": answers, "group": group}))
        models = (rng.random((8, 20)) < np.linspace(0.2, 0.9, 8)[:, None]).astype(np.float64)
        examples = tuple(Item(f"model {row}", fields={"responses": line}) for row, line in enumerate(models))
        return Example({"bootstrap": 50}, tuple(items), True, examples)

    def declared_columns(self) -> tuple[Column, ...]:
        if self.params.mode != "benchmark":
            return BY_MODE[self.params.mode]
        first = PRIMARY[self.params.primary]
        return (first, *(column for column in BENCHMARK if column is not first))

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        columns = {each.name: np.zeros(len(items), each.dtype) for each in self.declared_columns()}
        modes = {
            "benchmark": self._benchmarks,
            "compare": self._compare,
            "items": self._items,
            "irt": self._irt,
            "choices": self._choices,
        }
        read = places(items)
        rows, summary, flags = modes[self.params.mode](read, call)
        for place, row in zip(read, rows, strict=True):
            for name in columns:
                columns[name][place.row] = row[name]
        return Scores(columns, summary=summary if len(items) else {}, flags=tuple(flags))

    def _benchmarks(self, read: Sequence[Place], call: Call) -> _Found:
        model = self._fitted()
        found = measure([benchmark(place) for place in read], self.params.settings(), model, call)
        flags = [flag for each in found for flag in _flags(each, model)]
        return [_row(each) for each in found], _report.benchmarks(found, self.params.primary, flags), flags

    def _compare(self, read: Sequence[Place], call: Call) -> _Found:
        found, flags = [], []
        for place in read:
            call.check()
            a, b = place.needed("a", 1), place.needed("b", 1)
            sign = 1 if place.one_of("direction", "higher", "lower") == "higher" else -1
            each = _seed_stats.compare(sign * a, sign * b, self.params.ddof, place.number("seed_std"))
            found.append((place.name, each, len(a), len(b)))
            if math.isnan(each.std):
                what = "one run of each says nothing of seed noise: give two or more seeds of one, or seed_std"
                flags.append(Flag(place.row, "one-seed", what))
            elif each.std == 0:
                flags.append(Flag(place.row, "no-spread", "all seeds of a side score the same: did the seed change?"))
        rows = [
            {
                "diff": each.diff, "z": each.z, "detectable": each.detectable, "p_value": each.p,
                "seed_std": each.std, "min_detectable_difference": each.least, "n_a": n_a, "n_b": n_b,
            }
            for _, each, n_a, n_b in found
        ]  # fmt: skip
        return rows, _report.comparisons(found), flags

    def _items(self, read: Sequence[Place], call: Call) -> _Found:
        groups: dict[str, list[Place]] = {}
        for place in read:
            groups.setdefault(place.group, []).append(place)
        rows: dict[int, dict[str, float]] = {}
        flags, told = [], []
        for name, members in groups.items():
            call.check()
            responses = _stacked(members)
            analysis = _item_response.analyse(responses)
            keep = _item_response.kept(analysis.corrected, self.params.drop_quantile)
            told.append((name, [place.name for place in members], responses, analysis, keep))
            for at, place in enumerate(members):
                rows[place.row] = {
                    "corrected_discrimination": analysis.corrected[at],
                    "discrimination": analysis.discrimination[at],
                    "difficulty": analysis.difficulty[at],
                    "keep": int(keep[at]),
                }
                if np.isnan(analysis.corrected[at]):
                    flags.append(Flag(place.row, "no-variance", _undefined(responses, at)))
        flags.sort(key=lambda flag: flag.index)
        return [rows[place.row] for place in read], _report.questions(told), flags

    def _irt(self, read: Sequence[Place], call: Call) -> _Found:
        model = self._fitted()
        if model is None:
            raise ArtifactMismatch("p-IRT needs the items' parameters: make them with fit(examples), one model each")
        rows, n = [], len(model.a)
        for place in read:
            call.check()
            responses = place.shares("responses", 1)
            seen = np.arange(n) if place.item.get("seen") is None else place.places_of("seen", n)
            if len(seen) != len(responses):
                raise place.error("responses", f"holds {len(responses)} answers, to {len(seen)} items")
            each = _item_response.estimate(responses[None], seen, model.a, model.b)
            rows.append(
                {
                    "p_irt": float(each.p_irt[0]), "p_irt_error": float(each.error[0]), "theta": float(each.theta[0]),
                    "theta_error": float(each.theta_error[0]), "seen_mean": float(responses.mean()),
                    "n_seen": len(seen),
                }
            )  # fmt: skip
        return rows, _report.estimates([place.name for place in read], rows, n), []

    def _choices(self, read: Sequence[Place], call: Call) -> _Found:
        rows = []
        for place in read:
            call.check()
            found, lengths = place.array("option_loglikelihoods", 1), place.array("option_lengths", 1)
            letter = None
            if found is None:
                found, lengths, letter = self._read_choice(place, call)
            gold = place.item.get("gold")
            if not isinstance(gold, (int, np.integer)) or not 0 <= gold < len(found):
                raise place.error("gold", f"must be the place of the right option, 0 to {len(found) - 1}")
            if self.params.length_norm == "none":
                lengths = None
            elif lengths is None or len(lengths) != len(found) or (lengths <= 0).any():
                raise place.error("option_lengths", f"must be {len(found)} positive lengths, or set length_norm=none")
            each = _choices.score_options(found, int(gold), lengths)
            named = None if letter is None else _choices.score_options(letter, int(gold))
            rows.append(
                {
                    "correct_mass": each.mass, "correct": each.correct, "loglikelihood": each.loglikelihood,
                    "letter_mass": math.nan if named is None else named.mass,
                    "letter_correct": math.nan if named is None else named.correct,
                }
            )  # fmt: skip
        return rows, _report.choices(rows), []

    def _read_choice(self, place: Place, call: Call) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-likelihoods and lengths of the options' texts, and log-likelihoods of their letters."""
        options, text = place.item.get("options"), place.item.text
        if not text or not isinstance(options, (list, tuple)):
            raise place.error(
                "option_loglikelihoods", "is missing: give them, or the question as text with options for a model"
            )
        if not 2 <= len(options) <= _choices.most_options() or not all(options):
            raise place.error("options", f"must be 2 to {_choices.most_options()} texts, none empty")
        lm = self.host.lm(self.params.model, self.params.precision)
        found, tokens = _choices.read_options(lm, _choices.cloze(text, options), call, place.where)
        letter, _ = _choices.read_options(lm, _choices.letters(text, options), call, place.where)
        characters = np.array([len(option) for option in options])
        return found, tokens if self.params.length_norm == "tokens" else characters, letter

    def _fitted(self) -> Model2PL | None:
        if self.artifact is None:
            return None
        return Model2PL(np.array(self.artifact.read_array(_A)), np.array(self.artifact.read_array(_B)))

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        """Learn the 2PL parameters of the items from the answers of many models."""
        responses = _answers(examples, "examples")
        if len(responses) < 2:
            raise InvalidItems("examples", "are answers of one model: two or more are needed, better dozens")
        found = None
        for step, found in enumerate(_item_response.fit_2pl(responses, self.params.rounds, self.params.tolerance), 1):
            call.check()
            metrics = {"log_posterior": found.posterior, "change": found.change}
            yield Progress("2pl", step, self.params.rounds, metrics)
        assert found is not None
        for name, array in ((_A, found.a), (_B, found.b), (_THETA, found.theta)):
            out.write_array(name, array)
        out.notes |= {
            "models": len(responses), "items": responses.shape[1], "rounds": step, "change": found.change,
            "converged": found.change < self.params.tolerance,
        }  # fmt: skip
        held = None if validation is None else _answers(validation, "validation", responses.shape[1])
        if held is not None and len(held):
            out.notes |= self._held_out(held, found, call)

    def _held_out(self, held: np.ndarray, found: _item_response.Fitted, call: Call) -> dict[str, float]:
        """How well half of the answers of other models say the rest."""
        n = held.shape[1]
        seen = np.sort(generator(call.seed, "held-out", n).choice(n, max(1, n // 2), replace=False))
        each = _item_response.estimate(held[:, seen], seen, found.a, found.b)
        rest = np.setdiff1d(np.arange(n), seen)
        notes = {"held_out_error": float(np.abs(each.p_irt - held.mean(axis=1)).mean())}
        if len(rest):
            total = _item_response.log_likelihood(held[:, rest], each.theta, found.a[rest], found.b[rest])
            notes["held_out_log_likelihood"] = total / held[:, rest].size
        return notes


_Found = tuple[list[dict[str, float]], dict[str, object], list[Flag]]
"""A row per item, the summary, flags."""


def _row(each: Standing) -> dict[str, float]:
    return {
        "snr": each.snr,
        "monotonicity": each.tau,
        "neg_std": -each.std,
        "seed_mean": each.mean,
        "seed_std": each.std,
        "min_detectable_difference": each.least,
        "ci95_half_width": each.half_width,
        "ci95_analytic": each.analytic,
        "ci95_low": each.ends[0],
        "ci95_high": each.ends[1],
        "wilson_low": each.wilson[0],
        "wilson_high": each.wilson[1],
        "monotonicity_min": each.tau_min,
        "n_seeds": each.seeds,
        "n_checkpoints": each.checkpoints,
        "n_constant": each.constant,
    }


def _flags(each: Standing, model: Model2PL | None) -> Iterator[Flag]:
    row = each.benchmark.place.row
    if each.seeds < 2:
        yield Flag(row, "one-seed", "one seed only: no spread can be given, give two or more")
    elif each.std == 0:
        what = "all seeds score the same: did the seed change the training, or only the evaluation's sampling?"
        yield Flag(row, "no-spread", what)
    if each.checkpoints < 2:
        yield Flag(row, "one-checkpoint", "one checkpoint only: monotonicity needs two or more")
    elif each.constant:
        yield Flag(row, "constant", f"{each.constant} of {each.seeds} trajectories never move: tau-b is undefined")
    items = each.benchmark.items
    if model is not None and items is not None and items.shape[1] != len(model.a):
        what = f"the artifact is of {len(model.a)} items, the benchmark of {items.shape[1]}: no p-IRT estimate"
        yield Flag(row, "other-items", what)


def _undefined(responses: np.ndarray, at: int) -> str:
    if len(responses) < 2:
        return "one model only: correlations over models need two or more"
    if np.ptp(responses[:, at]) == 0:
        return "all models answer alike: the item tells none apart"
    return "the other items' totals are the same for all models"


def _stacked(members: Sequence[Place]) -> np.ndarray:
    """(models, items) from items that each hold the answers of all models."""
    lines = [place.shares("responses", 1) for place in members]
    for place, line in zip(members, lines, strict=True):
        if len(line) != len(lines[0]):
            what = f"is of {len(line)} models, that of item {members[0].item.id!r} of {len(lines[0])}"
            raise place.error("responses", what)
    return np.stack(lines, axis=1)


def _answers(items: Iterable[Item], where: str, n: int | None = None) -> np.ndarray:
    """(models, n)."""
    lines = []
    for place in places(list(items), where):
        line = place.shares("responses", 1)
        n = len(line) if n is None else n
        if len(line) != n:
            raise place.error("responses", f"holds {len(line)} answers, wanted {n}: one per item, from every model")
        lines.append(line)
    return np.stack(lines) if lines else np.empty((0, n or 0))
