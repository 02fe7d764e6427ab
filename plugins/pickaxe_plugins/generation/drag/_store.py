"""What lies on disk: demonstrations in the artifact, and the texts of documents that a retriever names by id.

demonstrations.json   {"k", "steps", "demonstrations": [{"id", "question", "answer", "documents", "trace"}, …]}
documents.jsonl       one {"id", "text"} a line, with "title" where there is one: the documents, if fit was given them
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pickaxe import Artifact, ArtifactWriter, Call, Item, Items
from pickaxe.errors import Unmet
from pickaxe_plugins.generation.drag._prompt import Demonstration, Passage, passage

if TYPE_CHECKING:
    from pickaxe.handle import RetrieverHandle

DOCUMENTS = "documents.jsonl"
"""In a retriever's index as well as in an artifact of `drag`."""
STORE = "demonstrations.json"


def write_documents(documents: Iterable[Item], out: ArtifactWriter, call: Call) -> int:
    """Keep the documents' texts; returns how many."""
    count = 0
    with out.file(DOCUMENTS).open("w", encoding="utf-8") as stream:
        for count, document in enumerate(documents, 1):  # noqa: B007  # the last number is the answer
            call.check()
            title = document.get("title")
            record = {"id": document.id, "text": document.text or "", "title": title if isinstance(title, str) else ""}
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
    return count


class Documents:
    """Texts by id, read from the disk when asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _offsets(self) -> dict[str, int]:
        found, offset = {}, 0
        with self._path.open("rb") as stream:
            for line in stream:
                found[str(json.loads(line)["id"])] = offset
                offset += len(line)
        return found

    def items(self, ids: Sequence[str]) -> list[Item]:
        """The documents of these ids; raises `Unmet` for one that is not there."""
        items = []
        with self._path.open("rb") as stream:
            for name in ids:
                if name not in self._offsets:
                    raise Unmet(
                        f"the retriever found document {name!r}, whose text is not known: fit with the documents that "
                        "the retriever indexed (unlabelled=documents)",
                        metadata={"document": name},
                    )
                stream.seek(self._offsets[name])
                record = json.loads(stream.readline())
                items.append(Item(name, record["text"], {"title": record.get("title", "")}))
        return items


@dataclass(frozen=True)
class Library:
    """A retriever and the texts of what it finds, cut to `most` whitespace tokens."""

    retriever: RetrieverHandle
    documents: Documents
    most: int

    @classmethod
    def of(cls, retriever: RetrieverHandle, kept: Path | None, most: int) -> Library:
        """With texts from `kept`, or from the retriever's index where that has them."""
        index = retriever.artifact
        if kept is None and index is not None and index.has(DOCUMENTS):
            kept = index.file(DOCUMENTS)
        if kept is None:
            raise Unmet(
                f"the index of {retriever.name!r} holds no texts ({DOCUMENTS}): fit with the documents it was made of "
                "(unlabelled=documents)",
                metadata={"retriever": retriever.name},
            )
        return cls(retriever, Documents(kept), most)

    def find(self, queries: Sequence[Item], k: int, call: Call) -> list[tuple[Passage, ...]]:
        """The best k passages for each query, best first."""
        if not queries:
            return []
        results = self.retriever.search(Items(queries), k, call=call)
        return [
            tuple(passage(item, self.most) for item in self.documents.items([hit.id for hit in hits]))
            for hits in results
        ]


@dataclass(frozen=True)
class Store:
    """Demonstrations of a fit: `k` passages each, and steps if it was made for IterDRAG."""

    k: int
    steps: bool
    demonstrations: tuple[Demonstration, ...]

    def write(self, out: ArtifactWriter) -> None:
        stored: dict[str, Any] = {"k": self.k, "steps": self.steps}
        out.write_json(STORE, stored | {"demonstrations": [each.to_json() for each in self.demonstrations]})

    @classmethod
    def read(cls, artifact: Artifact, most: int) -> Store:
        stored = artifact.read_json(STORE)
        demonstrations = tuple(Demonstration.from_json(each, most) for each in stored["demonstrations"])
        return cls(stored["k"], stored["steps"], demonstrations)
