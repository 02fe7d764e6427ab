"""An inverted index on disk: for each lemma the sorted numbers of the documents that hold it, memory-mapped."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from pickaxe import Artifact, ArtifactWriter
from pickaxe.errors import DoesNotFit

_LEMMAS, _ENDS, _POSTINGS = "lemmas.json", "lemma_ends.npy", "postings.npy"
_TAG_ENDS, _TAGGED, _PROBABILITIES = "tag_ends.npy", "tagged.npy", "tag_probabilities.npy"
_IDS, _ID_ENDS = "ids.npy", "id_ends.npy"
_MOST = 2**32
_NONE = np.empty(0, np.uint32)


class Builder:
    """Gathers documents in memory, 4 bytes for each of their lemmas, and writes them."""

    def __init__(self, concepts: int) -> None:
        self.documents = 0
        self._postings: dict[str, array[int]] = {}
        self._tagged = [array("I") for _ in range(concepts)]
        self._probabilities = [array("d") for _ in range(concepts)]
        self._ids, self._id_ends = bytearray(), array("Q")

    def add(self, name: str, lemmas: Iterable[str], tags: np.ndarray | None, threshold: float) -> None:
        """One document; `tags` (concepts,) float64 in [0, 1], of which those above the threshold are kept."""
        if self.documents == _MOST:
            raise DoesNotFit(f"an index holds at most {_MOST} documents: fit shards", metadata={"limit": _MOST})
        for lemma in set(lemmas):
            postings = self._postings.get(lemma)
            if postings is None:
                postings = self._postings[lemma] = array("I")
            postings.append(self.documents)
        if tags is not None:
            for concept in np.flatnonzero(tags > threshold).tolist():
                self._tagged[concept].append(self.documents)
                self._probabilities[concept].append(tags[concept])
        self._ids += name.encode("utf-8", "surrogatepass")
        self._id_ends.append(len(self._ids))
        self.documents += 1

    def write(self, out: ArtifactWriter) -> None:
        lemmas = sorted(self._postings)
        out.write_json(_LEMMAS, lemmas)
        _write_lists(out, _POSTINGS, _ENDS, [[self._postings[lemma]] for lemma in lemmas], np.uint32)
        _write_lists(out, _TAGGED, _TAG_ENDS, [[each] for each in self._tagged], np.uint32)
        _write_lists(out, _PROBABILITIES, "", [[each] for each in self._probabilities], np.float64)
        out.write_array(_IDS, np.frombuffer(self._ids, np.uint8))
        out.write_array(_ID_ENDS, np.array(self._id_ends, np.uint64))


class Index:
    """An opened index.  Results are (n,) uint32, sorted."""

    def __init__(self, artifact: Artifact) -> None:
        self.lemmas: list[str] = artifact.read_json(_LEMMAS)
        self._places = {lemma: place for place, lemma in enumerate(self.lemmas)}
        # Plain views of the mapped files: slices of a memmap are memmaps, which take several times as long to make.
        self._ends, self._postings, self._tag_ends, self._tagged, self._probabilities, self._ids, self._id_ends = (
            artifact.read_array(name).view(np.ndarray)
            for name in (_ENDS, _POSTINGS, _TAG_ENDS, _TAGGED, _PROBABILITIES, _IDS, _ID_ENDS)
        )

        self._bounds = [0, *self._ends.tolist()]  # looked up for every word: Python's integers are read faster

    def __len__(self) -> int:
        return len(self._id_ends)

    def __contains__(self, lemma: str) -> bool:
        return lemma in self._places

    def counts(self) -> np.ndarray:
        """(lemmas,): how many documents hold each."""
        return np.diff(self._ends, prepend=np.int64(0))

    def count(self, lemma: str) -> int:
        place = self._places.get(lemma)
        return 0 if place is None else self._bounds[place + 1] - self._bounds[place]

    def documents(self, lemma: str) -> np.ndarray:
        place = self._places.get(lemma)
        return _NONE if place is None else self._postings[self._bounds[place] : self._bounds[place + 1]]

    def holding(self, lemmas: Iterable[str]) -> np.ndarray:
        """Documents with all of the lemmas; none of none."""
        lists = [self.documents(lemma) for lemma in lemmas]
        lists.sort(key=len)
        found = lists[0] if lists else _NONE
        for other in lists[1:]:
            found = intersection(found, other)
        return found

    def tagged(self, concept: int, threshold: float) -> np.ndarray:
        """Documents whose image shows the concept."""
        found = _part(self._tagged, self._tag_ends, concept)
        return found[_part(self._probabilities, self._tag_ends, concept) > threshold]

    def names(self, documents: np.ndarray) -> list[str]:
        """Ids that the documents came with."""
        return [
            bytes(_part(self._ids, self._id_ends, int(each))).decode("utf-8", "surrogatepass") for each in documents
        ]


def intersection(short: np.ndarray, long: np.ndarray) -> np.ndarray:
    """What is in both of two sorted arrays, by binary search for each of the shorter one."""
    if not len(short) or not len(long):
        return _NONE
    at = np.searchsorted(long, short)
    at[at == len(long)] = 0
    common: np.ndarray = short[long[at] == short]
    return common


def merge(parts: Sequence[Artifact], out: ArtifactWriter) -> None:
    """One index of all documents, those of the first part first."""
    indexes = [Index(part) for part in parts]
    starts = np.cumsum([0, *map(len, indexes)])
    if starts[-1] > _MOST:
        raise DoesNotFit(
            f"an index holds at most {_MOST} documents", metadata={"limit": _MOST, "documents": starts[-1]}
        )
    pairs = list(zip(indexes, starts.astype(np.uint32).tolist(), strict=False))
    lemmas = sorted({lemma for index in indexes for lemma in index.lemmas})
    out.write_json(_LEMMAS, lemmas)
    lists = [[index.documents(lemma) + np.uint32(start) for index, start in pairs] for lemma in lemmas]
    _write_lists(out, _POSTINGS, _ENDS, lists, np.uint32)
    concepts = range(len(indexes[0]._tag_ends))
    tagged = [
        [_part(index._tagged, index._tag_ends, concept) + np.uint32(start) for index, start in pairs]
        for concept in concepts
    ]
    _write_lists(out, _TAGGED, _TAG_ENDS, tagged, np.uint32)
    kept = [[_part(index._probabilities, index._tag_ends, concept) for index in indexes] for concept in concepts]
    _write_lists(out, _PROBABILITIES, "", kept, np.float64)
    bytes_before = np.cumsum([0, *(len(index._ids) for index in indexes)])
    out.write_array(_IDS, np.concatenate([index._ids for index in indexes]))
    ends = [index._id_ends + np.uint64(before) for index, before in zip(indexes, bytes_before, strict=False)]
    out.write_array(_ID_ENDS, np.concatenate(ends))


def _part(values: np.ndarray, ends: np.ndarray, place: int) -> np.ndarray:
    return values[int(ends[place - 1]) if place else 0 : int(ends[place])]


def _write_lists(out: ArtifactWriter, name: str, ends: str, lists: Sequence[Sequence[Any]], kind: type) -> None:
    """Lists, each in several parts, one after the other in one file, and (unless "") where each ends in another."""
    sizes = [sum(len(part) for part in parts) for parts in lists]
    total = sum(sizes)
    if ends:
        out.write_array(ends, np.cumsum(sizes, dtype=np.int64))
    if not total:  # nothing can be mapped then
        out.write_array(name, np.empty(0, kind))
        return
    mapped = open_memmap(out.file(name), "w+", kind, (total,))
    at = 0
    for parts in lists:
        for part in parts:
            values: np.ndarray = np.asarray(part, kind)
            mapped[at : at + len(values)] = values
            at += len(values)
    mapped.flush()
