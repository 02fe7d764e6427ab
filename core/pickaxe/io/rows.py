"""Results as rows of plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pickaxe.data import Completion, Hit, Ranking, Scores

Row = dict[str, Any]


def score_rows(ids: Sequence[str], scores: Scores) -> list[Row]:
    """One row per item: id, the columns in order, then `flag` and `segments` where there are any.

    When the method has a column of such a name, see `free_names`.  NaN, which says "no value", becomes null;
    infinities become "Infinity" and "-Infinity".  A float32 is written with all digits of its double, so that
    comparing for equality works without a cast.  `flag_reasons` takes the flags of a row apart again.
    """
    columns = [values.tolist() for values in scores.columns.values()]
    names = ["id", *column_names(scores.columns)]
    flag_name, segments_name = free_names(scores.columns)
    rows = [dict(zip(names, map(_plain, values), strict=True)) for values in zip(ids, *columns, strict=True)]
    for flag in scores.flags:
        message = flag.message.replace(";", ",")  # a semicolon parts the flags of an item
        text = f"{flag.reason}: {message}" if message else flag.reason
        held = rows[flag.index].get(flag_name)
        rows[flag.index][flag_name] = f"{held}; {text}" if held else text
    for row, segments in zip(rows, scores.segments, strict=False):
        row[segments_name] = [[part.start, part.end, part.score] for part in segments]
    return rows


def flag_reasons(text: str) -> list[str]:
    """The reasons of the flags in a row's flag cell."""
    return [part.partition(": ")[0] for part in text.split("; ")] if text else []


def column_names(columns: Iterable[str]) -> list[str]:
    """What the method's columns are called in a row: `id_` if it has one called `id`."""
    return ["id_" if name == "id" else name for name in columns]


def free_names(columns: Iterable[str]) -> tuple[str, str]:
    """What the columns of flags and segments are called: `flag_` and `segments_` if the method has such columns."""
    taken = set(columns)
    flag, segments = (f"{name}_" if name in taken else name for name in ("flag", "segments"))
    return flag, segments


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def in_order(value: Any) -> Any:
    """The JSON value with the keys of all its objects sorted: what passed through gRPC has lost their order."""
    if isinstance(value, Mapping):
        return {key: in_order(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [in_order(part) for part in value]
    return value


def group_rows(scores: Scores) -> list[Row]:
    """One row per group, like `score_rows`."""
    if scores.groups is None:
        return []
    columns = [values.tolist() for values in scores.groups.columns.values()]
    names = ["group", *scores.groups.columns]
    return [
        dict(zip(names, map(_plain, values), strict=True)) for values in zip(scores.groups.keys, *columns, strict=True)
    ]


def hit_row(hit: Hit) -> Row:
    row: Row = {"id": hit.id, "score": _plain(hit.score)}
    if hit.columns:
        row["columns"] = {name: _plain(hit.columns[name]) for name in sorted(hit.columns)}
    if hit.spans:
        row["spans"] = [[span.start, span.end] for span in hit.spans]
    return row


def ranking_row(query: str, ranking: Ranking) -> Row:
    row: Row = {
        "query": query,
        "ranking": [{"id": each.id, "index": each.index, "score": _plain(each.score)} for each in ranking],
        "scores": [_plain(value) for value in ranking.scores.tolist()],
    }
    optional = {"cut": ranking.cut, "usage": in_order(ranking.usage), "record": in_order(ranking.record)}
    return row | {key: value for key, value in optional.items() if value}


def completion_row(prompt: str, completion: Completion) -> Row:
    """`choice` -1 is a record about all choices of a prompt."""
    row: Row = {"id": prompt, "choice": completion.choice, "text": completion.text}
    if completion.token_ids:
        row["token_ids"] = list(completion.token_ids)
    if completion.logprobs:
        row["logprobs"] = [_plain(value) for value in completion.logprobs]
    optional: Mapping[str, Any] = {
        "records": in_order(completion.records),
        "finish_reason": completion.finish_reason,
        "usage": in_order(completion.usage),
    }
    return row | {key: value for key, value in optional.items() if value}
