"""What every stage dropped and why: counts that add up over parts of a corpus, and the report made of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pickaxe.report import Axis, Figure, Series, explain, number

BEFORE = -2
"""`dropped_by` of texts that no stage saw: empty or too long ones."""
KEPT = -1
_SNIPPET = 160
_MOST_REASONS = 30
_MOST_GROUPS = 40
OTHERS = "(others)"


class Funnel:
    """Counts of items and characters by (stage, reason) and by (group, stage), with the first examples."""

    def __init__(self, examples: int) -> None:
        self.examples = examples
        self.items: dict[tuple[int, str], int] = defaultdict(int)
        self.characters: dict[tuple[int, str], int] = defaultdict(int)
        self.groups: dict[tuple[str, int], int] = defaultdict(int)
        self.shown: dict[tuple[int, str], list[tuple[str, str]]] = defaultdict(list)
        self.uses = 0

    def add(self, stage: int, reason: str, characters: int, group: str = "", uses: int = 0) -> bool:
        """Count one item; whether an example of its kind is still wanted."""
        key = stage, reason
        self.items[key] += 1
        self.characters[key] += characters
        if group and len(self.groups) >= 100_000 and (group, stage) not in self.groups:
            group = OTHERS
        self.groups[group, stage] += 1
        self.uses += uses
        return stage != KEPT and len(self.shown[key]) < self.examples

    def show(self, stage: int, reason: str, id: str, text: str) -> None:
        self.shown[stage, reason].append((id, snippet(text)))

    def merge(self, other: Funnel) -> None:
        """Add the counts of a later part of the corpus."""
        for mine, theirs in (
            (self.items, other.items),
            (self.characters, other.characters),
            (self.groups, other.groups),
        ):
            for key, count in theirs.items():
                mine[key] += count  # type: ignore[index]  # the keys are those of the same table
        for place, found in other.shown.items():
            self.shown[place] += found[: max(0, self.examples - len(self.shown[place]))]
        self.uses += other.uses

    def to_json(self) -> dict[str, Any]:
        return {
            "examples": self.examples,
            "uses": self.uses,
            **{name: [[*key, value] for key, value in getattr(self, name).items()] for name in _TABLES},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Funnel:
        made = cls(value["examples"])
        made.uses = value["uses"]
        for name in _TABLES:
            for *key, cell in value[name]:
                getattr(made, name)[tuple(key)] = [tuple(each) for each in cell] if name == "shown" else cell
        return made

    # ------------------------------------------------------------ sums

    def dropped(self, stage: int) -> int:
        return sum(count for (at, _), count in self.items.items() if at == stage)

    @property
    def total(self) -> int:
        return sum(self.items.values())

    @property
    def kept(self) -> int:
        return self.dropped(KEPT)


_TABLES = ("items", "characters", "groups", "shown")


def snippet(text: str) -> str:
    """The beginning of a text in one line."""
    line = " ".join(text[: 4 * _SNIPPET].split())
    return line if len(line) <= _SNIPPET else f"{line[: _SNIPPET - 1]}…"


def summary(
    funnel: Funnel, stages: Sequence[str], axes: Sequence[Mapping[str, str]], warnings: Iterable[str]
) -> dict[str, Any]:
    """The report: an answer in words, two figures, and the tables."""
    names = {BEFORE: "before all stages", **dict(enumerate(stages))}
    rows, left = [], funnel.total
    for place, name in names.items():
        gone = funnel.dropped(place)
        characters = sum(count for (at, _), count in funnel.characters.items() if at == place)
        rows.append({
            "stage": name, "reached": left, "dropped": gone, "share dropped": gone / left if left else 0.0,
            "characters dropped": characters, "left": left - gone,
        })  # fmt: skip
        left -= gone
    reasons = sorted(
        ((names[stage], reason, count, stage) for (stage, reason), count in funnel.items.items() if stage != KEPT),
        key=lambda row: (-row[2], row[3], row[1]),
    )
    tables: dict[str, Any] = {"Funnel": rows}
    if reasons:
        tables["Reasons"] = [
            {"stage": name, "reason": reason, "items": count, "share of all": count / funnel.total}
            for name, reason, count, _ in reasons
        ]
    shown = [
        {"stage": names[stage], "reason": reason, "id": id, "text": text}
        for (stage, reason), found in sorted(funnel.shown.items())
        for id, text in found
    ]
    if shown:
        tables["Examples of what was dropped"] = shown
    if groups := _groups(funnel, names):
        tables["Groups"] = groups
    tables["Stages"] = [{"stage": name, **each} for name, each in zip(stages, axes, strict=True)]
    return {**explain(list(_answer(funnel, rows, reasons, warnings)), list(_figures(funnel, rows, reasons))), **tables}


def _answer(
    funnel: Funnel, rows: list[dict[str, Any]], reasons: Sequence[Any], warnings: Iterable[str]
) -> Iterable[str]:
    total = funnel.total
    if not total:
        yield "There were no items."
        return
    share = number(100 * funnel.kept / total, 3)
    extra = f", used {funnel.uses} times in all" if funnel.uses != funnel.kept else ""
    yield f"{funnel.kept} of {total} items are kept ({share}%){extra}."
    if reasons:
        most = max(rows, key=lambda row: row["dropped"])
        yield (
            f"Most were dropped by {most['stage']}: {most['dropped']} of the {most['reached']} that reached it "
            f"({number(100 * most['share dropped'], 3)}%)."
        )
        name, reason, count, _ = reasons[0]
        yield f"The most frequent reason is {reason} ({name}): {count} items."
    yield from list(warnings)[:3]


def _figures(funnel: Funnel, rows: list[dict[str, Any]], reasons: Sequence[Any]) -> Iterable[Figure]:
    if not funnel.total:
        return
    names = ("all", *(row["stage"] for row in rows))
    shown = names[:40]
    left = [funnel.total, *(row["left"] for row in rows)][: len(shown)]
    yield Figure(
        "Items left after every stage",
        Axis("items"),
        Axis("stage", categories=shown),
        (Series("left", "bars", left, range(len(shown))),),
        "From top to bottom in the order of the stages.",
    )
    if reasons:
        top = reasons[:_MOST_REASONS]
        yield Figure(
            "Items dropped for every reason",
            Axis("items"),
            Axis("reason", categories=tuple(f"{name}: {reason}" for name, reason, _, _ in top)),
            (Series("dropped", "bars", [count for _, _, count, _ in top], range(len(top))),),
            f"The {len(top)} most frequent of {len(reasons)}." if len(reasons) > len(top) else "",
        )


def _groups(funnel: Funnel, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """One row per group: items, kept, and what every stage dropped; the largest groups."""
    table: dict[str, dict[int, int]] = defaultdict(dict)
    for (group, stage), count in funnel.groups.items():
        table[group][stage] = count
    if set(table) <= {""}:
        return []
    order = sorted(table, key=lambda group: (-sum(table[group].values()), group))
    return [
        {
            "group": group or "(none)",
            "items": sum(table[group].values()),
            "kept": table[group].get(KEPT, 0),
            **{f"dropped by {name}": table[group].get(place, 0) for place, name in names.items()},
        }
        for group in order[:_MOST_GROUPS]
    ]
