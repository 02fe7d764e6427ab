"""The outcome of `pickaxe compare` as JSON, as tables, in words and as a page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pickaxe.comparison import Quality, quality
from pickaxe.report import Axis, Figure, Page, Series, Table, number
from pickaxe.version import __version__
from pickaxe_services.cli.contests import Agreement, Findings
from pickaxe_services.cli.entrants import Ran

_UNITS = {"scorer": "items", "retriever": "queries", "reranker": "queries", "decoder": "prompts"}


@dataclass(frozen=True)
class Compared:
    """A finished comparison."""

    role: str
    methods: tuple[Mapping[str, Any], ...]
    """Of each: label, method, version, params, artifact, seconds, usage."""
    given: int
    compared: int
    judged: int
    agreement: Agreement
    quality: Quality | None
    inputs: tuple[str, ...]
    seed: int
    draws: int
    level: float

    @classmethod
    def of(
        cls,
        role: str,
        ran: Sequence[Ran[Any]],
        found: Findings,
        inputs: Sequence[str],
        seed: int,
        draws: int,
        level: float,
    ) -> Compared:
        """Draws the bootstrap where there is something to judge by."""
        methods = tuple(
            {
                "label": each.label,
                "method": each.entrant.card.name,
                "version": each.entrant.card.version,
                "params": dict(each.entrant.params),
                "artifact": each.entrant.artifact or "",
                "seconds": round(each.seconds, 3),
                "usage": dict(each.usage),
            }
            for each in ran
        )
        judged = quality(found.statistics, found.judged, draws=draws, level=level, seed=seed) if found.judged else None
        return cls(
            role, methods, found.given, found.compared, found.judged, found.agreement, judged, tuple(inputs),
            seed, draws, level,
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """Everything, with null where there is no value."""
        known = self.quality
        value: dict[str, Any] = _finite(
            {
                "role": self.role,
                "input": list(self.inputs),
                _UNITS[self.role]: {"given": self.given, "compared": self.compared, "judged": self.judged},
                "methods": list(self.methods),
                "agreement": [{"first": a, "second": b, **values} for a, b, values in self.agreement],
                "quality": [
                    {"measure": measure, "method": label, **asdict(estimate)}
                    for measure, estimates in (known.estimates if known else {}).items()
                    for label, estimate in estimates.items()
                ],
                "differences": [asdict(each) for each in (known.differences if known else ())],
                "bootstrap": {"draws": self.draws, "level": self.level, "seed": self.seed},
            }
        )
        return value


def tables(done: Compared) -> list[Table]:
    """Cost, agreement, quality and differences."""
    counters = list(dict.fromkeys(name for each in done.methods for name in each["usage"]))
    found = [
        Table(
            "Cost",
            ("label", "method", "seconds", *counters),
            tuple(
                (each["label"], each["method"], each["seconds"], *(each["usage"].get(name) for name in counters))
                for each in done.methods
            ),
            "Seconds of the calls, with loading of models; each method ran alone, one after the other.",
        ),
        Table(
            "Agreement",
            ("first", "second", *done.agreement[0][2]),
            tuple((a, b, *map(_known, values.values())) for a, b, values in done.agreement),
        ),
    ]
    if done.quality is not None:
        found += _quality_tables(done, done.quality)
    return found


def _quality_tables(done: Compared, known: Quality) -> Iterator[Table]:
    share = f"{100 * done.level:g} %"
    yield Table(
        "Quality",
        ("method", "measure", "value", "low", "high"),
        tuple(
            (label, measure, *map(_known, (each.value, each.low, each.high)))
            for measure, estimates in known.estimates.items()
            for label, each in estimates.items()
        ),
        f"{done.judged} judged {_UNITS[done.role]}; {share} intervals of {done.draws} bootstrap draws.",
    )
    yield Table(
        "Differences",
        ("first", "second", "measure", "first - second", "low", "high", "p", "p (Holm)"),
        tuple(
            (each.first, each.second, each.measure,
             *map(_known, (each.value, each.low, each.high, each.p, each.adjusted)))
            for each in known.differences
        ),
        f"Paired bootstrap; p (Holm) is corrected for all {len(known.differences)} differences.",
    )  # fmt: skip


def answer(done: Compared) -> Iterator[str]:
    """The outcome in plain sentences."""
    unit = _UNITS[done.role]
    left = done.given - done.compared
    rest = f"; {left} more have no value from one of them or more" if left else ""
    yield f"{len(done.methods)} {done.role}s were compared on {done.compared} {unit}{rest}."
    measure = next(iter(done.agreement[0][2]))
    ranked = [(values[measure], a, b) for a, b, values in done.agreement if not math.isnan(values[measure])]
    if ranked:
        value, a, b = max(ranked, key=lambda each: each[0])
        pair = f"{a} and {b} agree the most:" if len(ranked) > 1 else f"Between {a} and {b},"
        yield f"{pair} {measure} is {number(value)}."
    for measure, estimates in (done.quality.estimates if done.quality else {}).items():
        known = {label: each.value for label, each in estimates.items() if not math.isnan(each.value)}
        yield _winner(done, measure, known) if known else f"By {measure}, no method has a value."


def _winner(done: Compared, measure: str, values: Mapping[str, float]) -> str:
    assert done.quality is not None
    if len(values) > 1 and len(set(values.values())) == 1:
        return f"By {measure}, all are equal with {number(next(iter(values.values())))}."
    first = max(values, key=lambda label: values[label])
    equal = [
        each.second if each.first == first else each.first
        for each in done.quality.differences
        if each.measure == measure and first in (each.first, each.second) and not each.adjusted <= 1 - done.level
    ]
    told = f"By {measure}, {first} is the best with {number(values[first])}"
    if not equal:
        return f"{told}, and it is told apart from all others."
    return f"{told}, but it cannot be told apart from {' or '.join(equal)} (Holm's correction, {done.level:g})."


def _figures(done: Compared) -> Iterator[Figure]:
    for measure, estimates in (done.quality.estimates if done.quality else {}).items():
        found = list(estimates.values())
        series = Series(
            measure,
            "points",
            [each.value for each in found],
            range(len(found)),
            [each.low for each in found],
            [each.high for each in found],
        )
        yield Figure(
            f"{measure} of the methods",
            Axis(measure),
            Axis("method", categories=tuple(estimates)),
            (series,),
            f"Intervals of {100 * done.level:g} %. Overlapping intervals may still differ: see the paired differences.",
        )


def page(done: Compared) -> Page:
    """The comparison as a report."""
    labels = [each["label"] for each in done.methods]
    made = {
        "input": ", ".join(done.inputs),
        **{
            each["label"]: " ".join(
                filter(None, (
                    f"{each['method']}, version {each['version']}",
                    each["artifact"],
                    json.dumps(each["params"], ensure_ascii=False, sort_keys=True) if each["params"] else "",
                ))
            )
            for each in done.methods
        },
        "seed": str(done.seed),
    }  # fmt: skip
    return Page(
        title=f"Comparison of {', '.join(labels)}",
        lead=f"{done.role.capitalize()}s on the same {_UNITS[done.role]}.",
        answer=tuple(answer(done)),
        figures=tuple(_figures(done)),
        tables=tuple(tables(done)),
        made=(Table("The run", ("what", "value"), tuple(made.items())),),
        footer=f"Made by pickaxe {__version__}.",
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
