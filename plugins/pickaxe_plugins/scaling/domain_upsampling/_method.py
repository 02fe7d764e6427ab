"""The scorer `domain-upsampling`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from pickaxe import ArtifactWriter, Call, Column, Example, Flag, InputField, Item, Items, Method, Progress, Scores
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe.hooks import hookimpl
from pickaxe.randomness import generator
from pickaxe_plugins.scaling.domain_upsampling._mix import Domains, Plan, final_mix
from pickaxe_plugins.scaling.domain_upsampling._params import Params
from pickaxe_plugins.scaling.domain_upsampling._recipe import MEASURED, STAGES, UTILITY, Recipe
from pickaxe_plugins.scaling.domain_upsampling._report import plan_report, utility_report

_FINAL = Column("final_weight", "Weight in the final mix.", "float64", nullable=True)
_FACTOR = Column("upsampling_factor", "Final weight over base weight.", "float64", nullable=True)
_EPOCHS = Column("epochs", "Passes over the domain's tokens.", "float64", direction="lower", nullable=True)
_WARNING = Column("repeat_warning", "Whether that is more than epochs_cap.", "bool", direction="none")
_PLAN = (
    _FINAL,
    Column("tokens_seen", "Tokens of the domain in both phases.", "float64", "tokens", "none"),
    _EPOCHS,
    Column("effective_weight", "Weight over both phases.", "float64", direction="none"),
    _FACTOR,
    _WARNING,
)
_WORTH = Column("utility", "What leaving the domain out of the last phase costs.", "float64", nullable=True)


class DomainUpsampling(Method[Params]):
    """Plan a last training phase that upsamples small domains, or measure what each domain is worth in it.

    Without an artifact items are domains and the answer is the plan; fit trains small models with and without every
    domain, and then domains, or documents that carry a domain, are scored by what was measured.
    """

    title = "Does your data spark joy? Performance gains from domain upsampling at the end of training"
    paper = "arXiv:2406.03476"
    version = 1
    Params = Params
    scope = "pool"
    reads = (
        InputField("domain", "text", "The domain; the item's id where it is missing.", False),
        InputField("group", "text", "The domain's group; the domain itself where it is missing.", False),
        InputField("base_weight", "float64", "Plan: the domain's weight in the first phase.", False),
        InputField("available_tokens", "float64", "Plan: the tokens that the domain has.", False),
    )
    fit_reads = (
        InputField("text", "text", "A document, or a benchmark's text or question."),
        InputField("domain", "text", "The document's domain.", False),
        InputField("group", "text", "The domain's group; the domain itself where it is missing.", False),
        InputField("benchmark", "text", "Validation: the benchmark that the text belongs to.", False),
        InputField("choices", "texts", "Validation: the answers to choose from.", False),
        InputField("answer", "int64", "Validation: which of them is right, from 0.", False),
    )
    columns = _PLAN
    fitted = "optional"
    stages = STAGES
    cost = (
        "A plan costs nothing; a fit (1 - delta) T + delta T (domains + 2) tokens a seed, one small network at a time."
    )
    reproduced = (
        "On synthetic sources the final mix lowers the domain's loss and raises the web's little, and leaving the "
        "domain out is worse than the base mix; figures on the page."
    )

    def declared_columns(self) -> tuple[Column, ...]:
        if self._mode == "plan":
            return _PLAN
        names = self._measured["benchmarks"] if self.artifact is not None else ()
        text = "What leaving the domain out costs on {}, in its unit; above 0: the domain helps."
        each = tuple(Column(f"utility:{name}", text.format(name), "float64", nullable=True) for name in names)
        return (_WORTH, *each, _FINAL, _FACTOR, _EPOCHS, _WARNING)

    @classmethod
    def example(cls) -> Example:
        """Two domains of made-up words, and a held-out text of each."""
        words = {"web": "the cat sat on a mat and saw a dog", "code": "def return if else for while in not or"}
        texts = {
            name: [" ".join(generator(0, name, row).permutation(line.split())) for row in range(12)]
            for name, line in words.items()
        }
        documents = tuple(
            Item(f"{name}-{row}", text, {"domain": name}) for name in words for row, text in enumerate(texts[name][:10])
        )
        held = tuple(Item(f"held-{name}", " ".join(texts[name][10:]), {"benchmark": name}) for name in words)
        items = (*(Item(name, fields={"domain": name}) for name in words), Item("other", fields={"domain": "law"}))
        params = {"group_share": {"web": 0.5, "code": 0.5}, "base_mix": {"web": 0.9, "code": 0.1}, "delta": 0.5,
                  "net": {"layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "vocab": 260, "context": 16},
                  "length": 16, "batch": 2, "total_tokens": 256, "warmup": 2}  # fmt: skip
        return Example(params=params, items=items, examples=documents, validation=held)

    @property
    def _mode(self) -> str:
        if self.params.mode != "auto":
            return self.params.mode
        return "plan" if self.artifact is None else "utility"

    @cached_property
    def _measured(self) -> Mapping[str, Any]:
        assert self.artifact is not None
        found: Mapping[str, Any] = self.artifact.read_json(MEASURED)
        return found

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        """Train the base run and its branches, and measure them on the validation items."""
        yield from Recipe.of(_labelled(examples), validation, self.params, out, call).run()

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        if self._mode == "plan":
            return self._plan(items) if len(items) else Scores({each.name: np.empty(0) for each in _PLAN})
        if self.artifact is None:
            raise Unmet(
                "utility is measured by fit: call fit(documents, validation=benchmarks) first, or set mode=plan"
            )
        return self._utility(items)

    # ------------------------------------------------------------ plan

    def _plan(self, items: Items) -> Scores:
        domains = self._domains(items)
        final = final_mix(domains, self.params.group_share)
        total = self.params.total_tokens or float(domains.tokens.sum())
        plan = Plan.of(domains, final, total, self.params.delta)
        over = np.nan_to_num(plan.epochs) > self.params.epochs_cap
        columns = {
            "final_weight": plan.final,
            "tokens_seen": plan.tokens_seen,
            "epochs": plan.epochs,
            "effective_weight": plan.effective,
            "upsampling_factor": plan.factor,
            "repeat_warning": over,
        }
        summary = plan_report(domains, plan, total, self.params.delta, self.params.epochs_cap)
        return Scores(columns, summary=summary, flags=_repeated(over, plan.epochs))

    def _domains(self, items: Items) -> Domains:
        names = [_domain(item) for item in items]
        for row, name in enumerate(names):
            if name in names[:row]:
                raise InvalidItems(f"items[{row}]", f"domain {name!r} was given before: give one item a domain")
        for row, item in enumerate(items):
            for field in ("base_weight", "available_tokens"):
                if item.get(field) is None and not (field == "base_weight" and self.params.base_mix):
                    raise InvalidItems(
                        f"items[{row}].fields.{field}", f"is missing (domain {names[row]!r}): a plan needs it"
                    )
        base = self.params.base_mix
        if base and set(base) != set(names):
            odd = sorted(set(base) ^ set(names))[0]
            raise InvalidParams(f"base_mix.{odd}", f"must name exactly the domains {', '.join(names)}")
        return Domains.of(
            names,
            [str(item.get("group") or name) for item, name in zip(items, names, strict=True)],
            [base[name] if base else item.get("base_weight") for item, name in zip(items, names, strict=True)],  # type: ignore[misc]
            [item.get("available_tokens") for item in items],  # type: ignore[misc]
            "items",
        )

    # ------------------------------------------------------------ utility

    def _utility(self, items: Items) -> Scores:
        measured = self._measured
        assert self.artifact is not None
        utility = np.asarray(self.artifact.read_array(UTILITY))
        worth = self._worth(utility)
        place = {name: row for row, name in enumerate(measured["domains"])}
        rows = np.array([place.get(_domain(item), -1) for item in items], np.int64)
        epochs = _of(rows, measured["epochs"])
        over = np.nan_to_num(epochs) > self.params.epochs_cap
        columns = {"utility": _of(rows, worth)}
        columns |= {f"utility:{name}": _of(rows, utility[:, b]) for b, name in enumerate(measured["benchmarks"])}
        columns |= {
            "final_weight": _of(rows, measured["final_weight"]),
            "upsampling_factor": _of(rows, measured["upsampling_factor"]),
            "epochs": epochs,
            "repeat_warning": over,
        }
        unknown = tuple(
            Flag(int(row), "unknown-domain", f"domain {_domain(items[int(row)])!r} was not in the fit")
            for row in np.flatnonzero(rows < 0)
        )
        summary = utility_report(measured, utility, worth, self.params.epochs_cap)
        return Scores(columns, summary=summary, flags=(*unknown, *_repeated(over, epochs)))

    def _worth(self, utility: np.ndarray) -> np.ndarray:
        """All benchmarks together (D,): weighted, or meaned in units of the spread over seeds where that is known."""
        names = self._measured["benchmarks"]
        if weights := self.params.benchmark_weights:
            if strange := sorted(set(weights) - set(names)):
                raise InvalidParams(f"benchmark_weights.{strange[0]}", f"is no benchmark; known are {', '.join(names)}")
            weighted: np.ndarray = utility @ np.array([weights.get(name, 0.0) for name in names])
            return weighted
        sigma = np.array(self._measured["sigma"] or [0.0] * len(names))
        known = sigma > 0
        worth: np.ndarray = (utility[:, known] / sigma[known]).mean(1) if known.any() else utility.mean(1)
        return worth


def _labelled(examples: Iterable[Item]) -> Iterator[Item]:
    for row, item in enumerate(examples):
        if not item.get("domain"):
            raise InvalidItems(f"examples[{row}].fields.domain", f"is missing (item {item.id!r}): name its domain")
        yield item


def _domain(item: Item) -> str:
    return str(item.get("domain") or item.id)


def _of(rows: np.ndarray, values: Any) -> np.ndarray:
    """The values of those rows, NaN for row -1."""
    padded = np.append(np.array([np.nan if each is None else each for each in values], float), np.nan)
    found: np.ndarray = padded[rows]
    return found


def _repeated(over: np.ndarray, epochs: np.ndarray) -> tuple[Flag, ...]:
    return tuple(
        Flag(int(row), "repeats", f"{epochs[row]:.3g} epochs: repeated tokens teach less and less")
        for row in np.flatnonzero(over)
    )
