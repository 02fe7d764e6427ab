"""MetaCLIP: keep texts so that the entries of a word list are balanced (arXiv:2309.16671)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

import pickaxe
from pickaxe import (
    Artifact,
    ArtifactWriter,
    Call,
    Column,
    Example,
    Flag,
    InputField,
    Item,
    Items,
    Method,
    Progress,
    Scores,
    hookimpl,
)
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe.randomness import uniform
from pickaxe_plugins.selection._curation import pattern, probabilities, spaced, tail_share, threshold
from pickaxe_plugins.selection._entries import Matcher, checked_list, digest, read_list
from pickaxe_plugins.selection._keyed_draws import keys, uniforms

_ENTRIES, _COUNTS, _STEP = "entries.json", "counts.npy", 10_000


class Params(pickaxe.Params):
    metadata: tuple[str, ...] | dict[str, tuple[str, ...]] = Field(
        (), description="The entries to balance, or one list for each language."
    )
    metadata_file: str = Field(
        "",
        description="Instead of metadata: a text file of one entry a line, or a .json file of a list or of lists by "
        "language; on a server the name of a resource.",
    )
    t: int | None = Field(
        None, ge=1, description="Texts wanted of each entry: those found in more are thinned out to about so many."
    )
    tail_share: float | None = Field(
        None, gt=0, le=1, description="Instead of t: the share of all matches that entries below t shall have."
    )
    reference_language: str = Field(
        "", description="t is of this language; each other one gets the t of equal tail share.  Empty: one t for all."
    )
    spacing: Literal["v1", "multilingual"] = Field(
        "v1", description="multilingual: no blank is asked for beside marks and scripts that are written without."
    )
    case_fold: bool = Field(False, description="Whether upper and lower case are the same.")
    matched: bool = Field(False, description="Whether to return the column matched.")
    max_matches: int | None = Field(
        None, ge=1, description="At most so many entries, the rarest, in the column matched; None: all."
    )

    @model_validator(mode="after")
    def _one_of_each(self) -> Params:
        if self.t is not None and self.tail_share is not None:
            raise ValueError("give one of t and tail_share, not both")
        if self.metadata and self.metadata_file:
            raise ValueError("give one of metadata and metadata_file, not both")
        if self.reference_language and self.tail_share is not None:
            raise ValueError("reference_language goes with t: tail_share holds for every language anyway")
        return self

    def check_limit(self) -> None:
        """Raise `InvalidParams` when there is neither t nor tail_share."""
        if self.t is None and self.tail_share is None:
            raise InvalidParams("t", "is missing, and so is tail_share: give one of them")

    def folded(self, text: str) -> str:
        return text.casefold() if self.case_fold else text


class MetaClip(Method[Params]):
    """Keep texts so that frequent entries of a word list are thinned out and rare ones stay.

    count[e] is the number of texts of the pool with entry e, p[e] = t / max(count[e], t), and a text is kept with
    probability 1 - product over its entries of (1 - p[e]); without any entry it is dropped.
    """

    title = "Demystifying CLIP Data"
    paper = "arXiv:2309.16671"
    version = 1
    Params = Params
    scope = "item"
    reads = (
        InputField("text", "text", "The text; may be empty.", False),
        InputField("texts", "texts", "Several texts of one item, of which one is drawn.", False),
        InputField("language", "text", "Which of several metadata lists.", False),
    )
    fit_reads = reads
    columns = (
        Column("keep_prob", "probability that the text is kept, 0 to 1", "float64"),
        Column("keep", "1: kept by the draw of this seed", "int64", direction="none"),
        Column("n_matched", "entries that occur in the text", "int64", direction="none"),
        Column("min_count", "count of the rarest of them", "float64", direction="lower", nullable=True),
        Column("tail", "1: one of them has a count of at most t", "int64", direction="none"),
    )
    fitted = "required"
    stages = ("count",)
    cost = (
        "One pass of an automaton over each text, whatever the number of entries: 500,000 entries load in 4 s into "
        "110 MB.  Memory: the entries and one batch."
    )
    reproduced = (
        "Matches, counts, probabilities and tail shares of the published functions (golden cases); on Zipf-distributed "
        "entries the head is cut, the entropy grows and no text with a tail entry is lost.  No model was trained."
    )

    @classmethod
    def example(cls) -> Example:
        texts = ["a dog and a cat", "an axolotl", "the dog, again", "dog!", "nothing here", "a cat and an axolotl"]
        pool = tuple(Item(f"pool-{row}", text) for row, text in enumerate(texts))
        items = (Item("rare", "an axolotl, a dog"), Item("common", "my dog"), Item("none", "hotdog stand"))
        return Example({"metadata": ("dog", "cat", "axolotl"), "t": 2}, items, True, pool)

    def declared_columns(self) -> tuple[Column, ...]:
        listed = Column("matched", "JSON list of the positions of the entries", "str", direction="none")
        return (*self.columns, listed) if self.params.matched else self.columns

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        self.params.check_limit()
        metadata = self._given()
        matchers = {language: self._matcher(entries) for language, entries in metadata.items()}
        counts = {language: np.zeros(len(entries), np.uint64) for language, entries in metadata.items()}
        items = texts = without = 0
        for row, item in enumerate(examples):
            language = _language(item, metadata)
            for text in _texts(item, f"examples[{row}]"):
                found = [] if language is None else matchers[language].found(self._bytes(text))
                if found:
                    counts[language or ""][found] += np.uint64(1)
                texts, without = texts + 1, without + (not found)
            items = row + 1
            if items % _STEP == 0:
                call.check()
                yield Progress("count", items, metrics={"texts": texts, "without": without})
        if not items:
            raise InvalidItems("examples", "are empty: give the pool that is to be balanced")
        _write(out, metadata, counts, {"items": items, "texts": texts, "without": without}, self._settings())
        yield Progress("count", items, items, {"texts": texts, "without": without})

    @hookimpl
    def merge(self, artifacts: Sequence[Artifact], out: ArtifactWriter) -> Iterator[Progress]:
        if not artifacts:
            raise InvalidItems("artifacts", "are none: name at least one")
        first = artifacts[0]
        for part in artifacts:
            for what in ("metadata", "settings"):
                if part.notes[what] != first.notes[what]:
                    raise ArtifactMismatch(
                        f"{str(part.path)!r} was counted with other {what} than {str(first.path)!r}",
                        metadata={"artifact": part.path},
                    )
        metadata = first.read_json(_ENTRIES)
        counts = np.stack([part.read_array(_COUNTS) for part in artifacts]).sum(axis=0, dtype=np.uint64)
        totals = {name: sum(part.notes["totals"][name] for part in artifacts) for name in first.notes["totals"]}
        _write(out, metadata, _split(counts, metadata), totals, first.notes["settings"])
        yield Progress("count", totals["items"], totals["items"])

    def _given(self) -> dict[str, tuple[str, ...]]:
        """The entries by language, "" for a single list."""
        params = self.params
        if not params.metadata and not params.metadata_file:
            raise InvalidParams("metadata", "is empty, and so is metadata_file: give the entries to balance")
        field = "metadata_file" if params.metadata_file else "metadata"
        given = read_list(params.metadata_file, self.host, field) if params.metadata_file else params.metadata
        lists: Mapping[str, object] = given if isinstance(given, dict) else {"": given}
        found = {
            name: checked_list(each, f"{field}.{name}" if name else field, params.folded)
            for name, each in lists.items()
        }
        if params.reference_language and params.reference_language not in found:
            raise InvalidParams("reference_language", f"has no metadata; there are {', '.join(found)}")
        return found

    def _settings(self) -> dict[str, Any]:
        return self.params.model_dump(include={"spacing", "case_fold"})

    def _matcher(self, entries: Iterable[str]) -> Matcher:
        multilingual = self.params.spacing == "multilingual"
        return Matcher([_utf8(pattern(entry, multilingual)) for entry in entries])

    def _bytes(self, text: str) -> bytes:
        return _utf8(spaced(self.params.folded(text)))

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        self.params.check_limit()
        tables, flags = self._tables, []
        rows: list[int] = []
        matched: list[int] = []
        listed: list[str] = []
        for row, item in enumerate(items):
            language = _language(item, tables)
            if language is None:
                flags.append(Flag(row, "unknown-language", f"no metadata for {item.get('language')!r}: not kept"))
            text = _drawn(_texts(item, f"items[{row}]"), call.seed, item.id)
            found = [] if language is None or not text else tables[language].matcher.found(self._bytes(text))
            offset = tables[language].offset if found and language is not None else 0
            rows += [row] * len(found)
            matched += [offset + each for each in found]
            if self.params.matched:
                listed.append(json.dumps(self._rarest(found, offset)))
        columns = self._columns(items.ids, np.array(rows, np.intp), np.array(matched, np.intp), call.seed)
        if self.params.matched:
            columns["matched"] = np.array(listed, np.str_)
        return Scores(columns, flags=tuple(flags))

    def _columns(self, ids: Sequence[str], rows: np.ndarray, matched: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """All numbers of a batch out of its pairs of a row and an entry."""
        n, counts, p = len(ids), self._counts[matched], self._probabilities[matched]
        dropped, least = np.ones(n), np.full(n, np.inf)
        np.multiply.at(dropped, rows, 1 - p)
        np.minimum.at(least, rows, counts)
        n_matched = np.bincount(rows, minlength=n)
        keep, tail = np.zeros(n, np.int64), np.zeros(n, np.int64)
        keep[rows[uniforms(seed, keys(ids)[rows], self._keys[matched]) < p]] = 1
        tail[rows[p == 1]] = 1
        return {
            "keep_prob": np.where(n_matched > 0, 1 - dropped, 0.0),
            "keep": keep,
            "n_matched": n_matched.astype(np.int64),
            "min_count": np.where(n_matched > 0, least, np.nan),
            "tail": tail,
        }

    def _rarest(self, found: Sequence[int], offset: int) -> list[int]:
        most = self.params.max_matches
        if most is None or len(found) <= most:
            return list(found)
        return sorted(sorted(found, key=lambda each: self._counts[offset + each])[:most])

    @cached_property
    def _entries(self) -> dict[str, list[str]]:
        """The artifact's entries, once nothing that counts depend on was changed."""
        artifact = self.artifact
        assert artifact is not None  # the handle sees to it: `fitted` is "required"
        if artifact.notes["settings"] != self._settings():
            raise ArtifactMismatch(
                f"the counts were made with {artifact.notes['settings']}, not {self._settings()}: fit again",
                metadata={"artifact": artifact.path},
            )
        given = self.params.model_dump(mode="json", include={"metadata", "metadata_file"})
        made = artifact.manifest["params"]
        if (
            any(made[name] != value for name, value in given.items())
            and _digests(self._given()) != artifact.notes["metadata"]
        ):
            raise ArtifactMismatch(
                "the counts are of other metadata: fit again, or leave the metadata out",
                metadata={"artifact": artifact.path},
            )
        entries: dict[str, list[str]] = artifact.read_json(_ENTRIES)
        return entries

    @cached_property
    def _counts(self) -> np.ndarray:
        assert self.artifact is not None
        return np.array(self.artifact.read_array(_COUNTS))

    @cached_property
    def _probabilities(self) -> np.ndarray:
        parts = _split(self._counts, self._entries)
        ts = self._thresholds(parts)
        return np.concatenate([probabilities(part, ts[language]) for language, part in parts.items()])

    def _thresholds(self, counts: Mapping[str, np.ndarray]) -> dict[str, int]:
        """t of each language."""
        params, share = self.params, self.params.tail_share
        if params.t is not None:
            if not params.reference_language:
                return dict.fromkeys(counts, params.t)
            if params.reference_language not in counts:
                raise InvalidParams("reference_language", f"has no metadata; there are {', '.join(counts)}")
            share = tail_share(counts[params.reference_language], params.t)
        assert share is not None  # the parameters hold one of both
        found = {language: threshold(part, share) for language, part in counts.items()}
        return {**found, params.reference_language: params.t} if params.t is not None else found

    @cached_property
    def _keys(self) -> np.ndarray:
        """Draws belong to the entry's text, so that they stay when other entries are added."""
        return keys(f"{language}\x1f{entry}" for language, entries in self._entries.items() for entry in entries)

    @cached_property
    def _tables(self) -> dict[str, _Table]:
        offset, tables = 0, {}
        for language, entries in self._entries.items():
            tables[language] = _Table(self._matcher(entries), offset)
            offset += len(entries)
        return tables


class _Table:
    """A language's automaton and where its entries begin among those of all languages."""

    def __init__(self, matcher: Matcher, offset: int) -> None:
        self.matcher, self.offset = matcher, offset


def _language(item: Item, metadata: Mapping[str, object]) -> str | None:
    """The list for the item: a single one is for all, otherwise its language's or that of ""; None: no list."""
    if "" in metadata and len(metadata) == 1:
        return ""
    named = str(item.get("language") or "")
    return named if named in metadata else "" if "" in metadata else None


def _texts(item: Item, place: str) -> Sequence[str]:
    texts = item.get("texts")
    if texts is None and item.text is None:
        raise InvalidItems(f"{place}.text", f"is missing, and so is texts (item {item.id!r})")
    return [item.text or ""] if texts is None else list(texts)  # type: ignore[arg-type]  # the handle checked the kind


def _drawn(texts: Sequence[str], seed: int, name: str) -> str:
    """One of an item's texts, the same for equal seed and id; "" of none."""
    if len(texts) < 2:
        return texts[0] if texts else ""
    return texts[int(uniform(seed, name, "texts") * len(texts))]


def _utf8(text: str) -> bytes:
    """Lone surrogates, which JSON can bring in, count as three bytes instead of failing."""
    return text.encode("utf-8", "surrogatepass")


def _split(counts: np.ndarray, metadata: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    ends = np.cumsum([len(entries) for entries in metadata.values()])[:-1]
    return dict(zip(metadata, np.split(counts, ends), strict=True))


def _digests(metadata: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {language: digest(entries) for language, entries in sorted(metadata.items())}


def _write(
    out: ArtifactWriter,
    metadata: Mapping[str, Sequence[str]],
    counts: Mapping[str, np.ndarray],
    totals: Mapping[str, int],
    settings: Mapping[str, Any],
) -> None:
    """Languages in sorted order, in which JSON objects are written too."""
    order = sorted(metadata)
    out.write_json(_ENTRIES, {language: list(metadata[language]) for language in order})
    out.write_array(_COUNTS, np.concatenate([counts[language] for language in order]))
    out.notes.update(
        metadata=_digests(metadata),
        settings=dict(settings),
        totals=dict(totals),
        never_matched={language: int((counts[language] == 0).sum()) for language in order},
        matches={language: int(counts[language].sum()) for language in order},
    )
