"""Looking up concepts in an index: counts of concepts, and the concepts of documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from pickaxe import Item
from pickaxe.errors import InvalidItems
from pickaxe_plugins.selection.concept_frequency._postings import Index, intersection


def words(name: str) -> list[str]:
    """The lower-case words of a concept's name, split at blanks and underscores, each once."""
    return list(dict.fromkeys(name.lower().replace("_", " ").split()))


class Search:
    """An index with the ways of looking concepts up in it."""

    def __init__(
        self, index: Index, tagged: Sequence[str], threshold: float, lemma: Callable[[str], str], skip: bool
    ) -> None:
        self.index, self._threshold, self._lemma, self._skip = index, threshold, lemma, skip
        self._tagged = {" ".join(words(name)): place for place, name in enumerate(tagged)}

    @property
    def has_tags(self) -> bool:
        return bool(self._tagged)

    def known(self, name: str) -> list[str]:
        """Lemmas of the concept that must all occur; none when nothing is found."""
        lemmas = list(dict.fromkeys(self._lemma(word) for word in words(name)))
        known = [lemma for lemma in lemmas if lemma in self.index]
        return known if self._skip or len(known) == len(lemmas) else []

    def texts(self, name: str) -> np.ndarray:
        return self.index.holding(self.known(name))

    def images(self, name: str) -> np.ndarray | None:
        """None for a concept that images were not tagged with."""
        place = self._tagged.get(" ".join(words(name)))
        return None if place is None else self.index.tagged(place, self._threshold)

    def frequency(self, name: str) -> int:
        texts, images = self.texts(name), self.images(name)
        return len(texts) if images is None else len(_both(texts, images))

    def frequent(self, least: int) -> list[str]:
        """Lemmas in at least so many documents."""
        places = np.flatnonzero(self.index.counts() >= least).tolist()
        return [self.index.lemmas[place] for place in places]


class Counts:
    """The counts of concepts, one row each."""

    def __init__(self, n: int) -> None:
        self.text, self.image, self.both = (np.full(n, np.nan) for _ in range(3))
        self.frequency = np.zeros(n)
        self.examples: list[str] = []
        self.untagged: list[int] = []

    def add(self, row: int, item: Item, search: Search | None, examples: int) -> None:
        given = item.get("count")
        if given is not None and not 0 <= float(given) < float("inf"):  # type: ignore[arg-type]  # a number
            raise InvalidItems(f"items[{row}].fields.count", f"is {given}, wanted 0 or more (item {item.id!r})")
        found = None
        if search is not None:
            found = self._look_up(row, item, search)
        elif given is None:
            raise InvalidItems(f"items[{row}].fields.count", f"is missing, and there is no index (item {item.id!r})")
        if given is not None:
            self.frequency[row] = float(given)  # type: ignore[arg-type]  # a number
        if examples:
            names = [] if search is None or found is None else search.index.names(found[:examples])
            self.examples.append(json.dumps(names, ensure_ascii=False))

    def _look_up(self, row: int, item: Item, search: Search) -> np.ndarray:
        if item.text is None:
            raise InvalidItems(f"items[{row}].text", f"is missing: the name of the concept (item {item.id!r})")
        found, images = search.texts(item.text), search.images(item.text)
        self.text[row] = len(found)
        if images is not None:
            found = _both(found, images)
            self.image[row], self.both[row] = len(images), len(found)
        elif search.has_tags:
            self.untagged.append(row)
        self.frequency[row] = len(found)
        return found

    def columns(self) -> dict[str, np.ndarray]:
        return {
            "frequency": self.frequency, "text_count": self.text, "image_count": self.image, "both_count": self.both
        }  # fmt: skip


class Documents:
    """The concepts of documents: a concept is in a text when all of its known words are."""

    def __init__(self, concepts: Sequence[str], search: Search, rarity: str) -> None:
        self._mean = rarity == "mean"
        self._rarity = [-np.log10(max(1, search.frequency(name))) for name in concepts]
        self._needs: dict[str, list[tuple[int, frozenset[str]]]] = {}
        for place, name in enumerate(concepts):
            known = search.known(name)
            if known:
                rarest = min(known, key=search.index.count)
                self._needs.setdefault(rarest, []).append((place, frozenset(known)))
        self._rows: list[tuple[float, float, int]] = []
        self.shown: list[int] = []
        """Documents' numbers of concepts in the image, -1 without tags."""

    def add(self, lemmas: set[str], shown: set[int] | None) -> None:
        found = {place for lemma in lemmas for place, needed in self._needs.get(lemma, ()) if needed <= lemmas}
        rarities = [self._rarity[place] for place in sorted(found)]
        rarity = float("nan")
        if rarities:
            rarity = float(np.mean(rarities)) if self._mean else float(max(rarities))
        misaligned = float(not found & shown) if found and shown else float("nan")
        self._rows.append((rarity, misaligned, len(found)))
        self.shown.append(-1 if shown is None else len(shown))

    def columns(self) -> dict[str, np.ndarray]:
        rarity, misaligned, found = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        return {
            "rarity": np.array(rarity, np.float64),
            "misaligned": np.array(misaligned, np.float64),
            "n_concepts": np.array(found, np.int64),
        }


def tags_of(item: Item, concepts: int, place: str) -> np.ndarray | None:
    """(concepts,) float64 probabilities of the item, if it has any."""
    given = item.get("tag_probabilities")
    if given is None:
        return None
    field = f"{place}.fields.tag_probabilities"
    tags = np.asarray(given)
    if tags.shape != (concepts,) or tags.dtype.kind not in "fiub":
        raise InvalidItems(
            field, f"has shape {tags.shape}, wanted one number for each of {concepts} concepts (item {item.id!r})"
        )
    tags = tags.astype(np.float64)
    if not ((tags >= 0) & (tags <= 1)).all():
        raise InvalidItems(field, f"holds numbers outside 0 to 1 (item {item.id!r})")
    return tags


def _both(texts: np.ndarray, images: np.ndarray) -> np.ndarray:
    return intersection(*sorted((texts, images), key=len))
