"""Identifiers of documents, and the token sequences that a model says for them.

A document's code is a tuple of numbers: its row (atomic), the digits of its row (naive), or its path in a tree of
clusters (semantic, semantic2d).  The tokens of a code are `PAD` = 0 (never said), `END` = 1, which closes every
identifier but an atomic one, and from `FIRST` = 2 on the numbers, each depth with numbers of its own in semantic2d.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from pickaxe.artifact import Artifact, ArtifactWriter
from pickaxe.errors import InvalidItems, Unmet

Kind = Literal["atomic", "naive", "semantic", "semantic2d"]
Code = tuple[int, ...]
Split = Callable[[np.ndarray, Code], np.ndarray]
"""(rows of the documents of a set (m,), its path) -> the group of each (m,)."""

PAD, END, FIRST = 0, 1, 2


def semantic_codes(count: int, leaf: int, base: int, split: Split) -> list[Code]:
    """Paths in the tree that `split` makes of `count` documents.

    A set of at most `leaf` members is a leaf: the last number is the place in it, in the order of rows; a single
    member has none.  A larger set that does not split is numbered in several digits of the given base.
    """
    found: list[Code] = [()] * count
    waiting: list[tuple[np.ndarray, Code]] = [(np.arange(count), ())]
    while waiting:
        rows, path = waiting.pop()
        groups = split(rows, path) if len(rows) > leaf and len(rows) > 1 else np.zeros(len(rows), np.int64)
        names = np.unique(groups)
        if len(names) > 1:
            waiting += [(rows[groups == name], (*path, int(name))) for name in names]
            continue
        width = digits_of(len(rows), base)
        for place, row in enumerate(rows.tolist()):
            found[row] = (*path, *in_base(place, base, width))
    return found


def digits_of(count: int, base: int) -> int:
    """How many digits number so many members: none for a single one."""
    width = 0
    while base**width < count:
        width += 1
    return width


def in_base(number: int, base: int, width: int) -> Code:
    return tuple(number // base ** (width - 1 - place) % base for place in range(width))


@dataclass(frozen=True)
class Clusters:
    """The tree of semantic codes: the groups that each inner path has, and their centroids."""

    groups: dict[Code, tuple[int, ...]]
    centroids: dict[Code, np.ndarray]
    """(groups, d) float32, by path."""

    def leaf_of(self, vector: np.ndarray) -> Code:
        """The leaf that a vector falls into, by the nearest centroid at each depth."""
        path: Code = ()
        while path in self.groups:
            nearest = int(((self.centroids[path] - vector) ** 2).sum(1).argmin())
            path = (*path, self.groups[path][nearest])
        return path

    def save(self, out: ArtifactWriter) -> None:
        paths = list(self.groups)
        out.write_json("clusters.json", [[list(path), list(self.groups[path])] for path in paths])
        if paths:
            out.write_array("centroids.npy", np.concatenate([self.centroids[path] for path in paths]))

    @classmethod
    def open(cls, artifact: Artifact) -> Clusters:
        stored = [(tuple(path), tuple(groups)) for path, groups in artifact.read_json("clusters.json")]
        if not stored:
            return cls({}, {})
        cuts = np.cumsum([len(groups) for _, groups in stored])[:-1]
        parts = np.split(artifact.read_array("centroids.npy"), cuts)
        return cls(dict(stored), {path: part for (path, _), part in zip(stored, parts, strict=True)})


@dataclass(frozen=True)
class Identifiers:
    """Every document's id and code."""

    kind: Kind
    base: int
    """K: numbers of one depth, at least 2."""
    ids: tuple[str, ...]
    codes: tuple[Code, ...]
    vocabulary: int
    """How many tokens there are; it stays when documents are added, except for atomic identifiers."""

    def __post_init__(self) -> None:
        if len(set(self.codes)) < len(self.codes):
            raise InvalidItems("codes", "are not unique")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def depth(self) -> int:
        """Numbers of the longest code."""
        return max(map(len, self.codes))

    @property
    def longest(self) -> int:
        """Tokens of the longest identifier."""
        return 1 if self.kind == "atomic" else self.depth + 1

    def encode(self, row: int) -> tuple[int, ...]:
        """The tokens of a document's identifier."""
        return to_tokens(self.kind, self.codes[row], self.base)

    def decode(self, tokens: Sequence[int]) -> int:
        """The document with these tokens; raises `InvalidItems` when there is none."""
        row = self._rows.get(to_code(self.kind, tokens, self.base), -1)
        if row < 0:
            raise InvalidItems("tokens", f"{list(tokens)} are no document's identifier")
        return row

    @property
    def _rows(self) -> dict[Code, int]:
        return {code: row for row, code in enumerate(self.codes)}

    # ------------------------------------------------------------ growing

    def extended(self, ids: Sequence[str], clusters: Clusters, vectors: np.ndarray | None) -> Identifiers:
        """With more documents: in the leaves that their vectors fall into, or with the next numbers.

        Raises `Unmet` when a leaf is full: then only a new fit helps.
        """
        codes = list(self.codes)
        taken = set(codes)
        for place in range(len(ids)):
            if self.kind in ("atomic", "naive"):
                code = row_code(self.kind, len(codes))
            else:
                assert vectors is not None  # the caller embeds documents for semantic identifiers
                code = self._free(clusters.leaf_of(vectors[place]), taken)
            codes.append(code)
            taken.add(code)
        vocabulary = len(codes) if self.kind == "atomic" else self.vocabulary
        return Identifiers(self.kind, self.base, (*self.ids, *ids), tuple(codes), vocabulary)

    def _free(self, leaf: Code, taken: set[Code]) -> Code:
        for last in range(self.base):
            code = (*leaf, last)
            if code not in taken:
                return code
        raise Unmet(f"the leaf {list(leaf)} is full with {self.base} documents: needs a refit of all documents")

    # ------------------------------------------------------------ files

    def save(self, out: ArtifactWriter) -> None:
        out.write_array("codes.npy", np.array([number for code in self.codes for number in code], np.int32))
        out.write_array("code_offsets.npy", np.concatenate([[0], np.cumsum([len(code) for code in self.codes])]))
        out.write_json("identifiers.json", {"kind": self.kind, "base": self.base, "ids": list(self.ids),
                                             "vocabulary": self.vocabulary})  # fmt: skip

    @classmethod
    def open(cls, artifact: Artifact) -> Identifiers:
        told = artifact.read_json("identifiers.json")
        flat, offsets = artifact.read_array("codes.npy").tolist(), artifact.read_array("code_offsets.npy").tolist()
        codes = tuple(tuple(flat[start:end]) for start, end in pairwise(offsets))
        return cls(told["kind"], told["base"], tuple(told["ids"]), codes, told["vocabulary"])


def row_code(kind: Kind, row: int) -> Code:
    """The code of identifiers that follow from the row alone."""
    return (row,) if kind == "atomic" else tuple(map(int, str(row)))


def by_row(kind: Kind, ids: Iterable[str]) -> Identifiers:
    """Atomic or naive identifiers."""
    names = tuple(ids)
    codes = tuple(row_code(kind, row) for row in range(len(names)))
    return Identifiers(kind, 10, names, codes, len(names) if kind == "atomic" else FIRST + 10)


def by_cluster(kind: Kind, ids: Iterable[str], leaf: int, base: int, split: Split) -> Identifiers:
    """Semantic identifiers.  One depth is spare: a new document may join the leaf of a lonely one."""
    names = tuple(ids)
    codes = tuple(semantic_codes(len(names), leaf, base, split))
    depths = max(map(len, codes)) + 1 if kind == "semantic2d" else 1
    return Identifiers(kind, base, names, codes, FIRST + base * depths)


def to_tokens(kind: Kind, code: Code, base: int) -> tuple[int, ...]:
    """A code as a model says it; see the module."""
    if kind == "atomic":
        return code
    step = base if kind == "semantic2d" else 0
    return (*(depth * step + number + FIRST for depth, number in enumerate(code)), END)


def to_code(kind: Kind, tokens: Sequence[int], base: int) -> Code:
    """The inverse of `to_tokens`, for any tokens; what is no identifier gives a code that no document has."""
    if kind == "atomic":
        return tuple(tokens)
    step = base if kind == "semantic2d" else 0
    closed = len(tokens) > 0 and tokens[-1] == END
    return tuple(token - depth * step - FIRST for depth, token in enumerate(tokens[:-1])) if closed else (-1,)
