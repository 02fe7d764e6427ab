"""How the shipped cross-encoder was made, in three steps.

    python -m benchmarks.recipe_cross_encoder examples DATA examples.jsonl
    pickaxe fit cross-encoder --examples examples.jsonl --out fitted --set epochs=3 --set batch=32 --set rate=1e-4
    python -m benchmarks.recipe_cross_encoder ship fitted core/pickaxe/assets/minilm-cross-encoder

DATA holds collections, one folder each, of `docs.jsonl` (id, text) and `queries.jsonl` (id, query, relevant).  Half
of each collection's passages, and the questions about them, are learned from; the others are for the benchmark.
Further questions are sentences taken out of those passages (arXiv:1906.00300).  Wrong passages that look right come
from BM25 and from the sentence encoder, among those that are learned from.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pickaxe

NEGATIVES = 16
SENTENCES = 3
"""Questions made of a passage's own sentences."""


def main() -> None:
    step, source, target = sys.argv[1:]
    if step == "examples":
        with open(target, "w", encoding="utf-8") as stream:
            for folder in sorted(Path(source).iterdir()):
                stream.writelines(json.dumps(example) + "\n" for example in learned(folder))
    elif step == "ship":
        ship(Path(source), Path(target))
    else:
        sys.exit(__doc__)


def ship(fitted: Path, target: Path) -> None:
    """The fitted model with matrices of 8 bits, without the word embeddings, which it shares with the encoder."""
    from pickaxe.models.quantise import read_tensors, write_quantised

    target.mkdir(parents=True, exist_ok=True)
    tensors = read_tensors(fitted / "model.safetensors")
    own = {name: array for name, array in tensors.items() if "word_embeddings" not in name}
    write_quantised(own, target / "model.safetensors")
    config = json.loads((fitted / "config.json").read_text()) | {"words_from": "encoder"}
    (target / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (target / "sentence_bert_config.json").write_bytes((fitted / "sentence_bert_config.json").read_bytes())


def read(folder: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Passages by id, and questions of one passage."""
    passages = {row["id"]: row["text"] for row in map(json.loads, (folder / "docs.jsonl").open(encoding="utf-8"))}
    rows = [json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8")]
    return passages, [row for row in rows if len(row["relevant"]) == 1]


def halves(passages: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """Ids to learn from and ids to measure on."""
    order = pickaxe.generator(0, "halves").permutation(len(passages))
    ids = list(passages)
    return {ids[row] for row in order[::2]}, {ids[row] for row in order[1::2]}


def learned(folder: Path) -> Iterator[dict[str, Any]]:
    every, questions = read(folder)
    ours, _ = halves(every)
    passages = {name: text for name, text in every.items() if name in ours}
    asked = [(row["id"], row["query"], row["relevant"][0], every[row["relevant"][0]]) for row in questions
             if row["relevant"][0] in ours]  # fmt: skip
    asked += [each for name, text in passages.items() for each in removed(name, text)]
    hard = look_alikes(passages, [query for _, query, _, _ in asked])
    for (name, query, right, text), wrong in zip(asked, hard, strict=True):
        negatives = [passages[other] for other in wrong if other != right and passages[other] != passages[right]]
        yield {"id": f"{folder.name}-{name}", "text": query, "positive": text, "negatives": negatives[:NEGATIVES]}


def removed(name: str, text: str) -> Iterator[tuple[str, str, str, str]]:
    """Sentences as questions, with what is left of their passage."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    if len(sentences) < 4:
        return
    random = pickaxe.generator(0, "sentences", name)
    for place in random.permutation(len(sentences))[:SENTENCES]:
        rest = " ".join(sentences[:place] + sentences[place + 1 :])
        yield f"{name}-{place}", sentences[place], name, rest


def look_alikes(passages: Mapping[str, str], queries: list[str]) -> list[list[str]]:
    """Passages that two first stages find, in turn."""
    documents = [pickaxe.Item(name, text) for name, text in passages.items()]
    found = []
    for name in ("bm25", "dense"):
        index = pickaxe.retriever(name).index(documents)
        hits = index.search([pickaxe.Item(str(row), query) for row, query in enumerate(queries)], k=NEGATIVES)
        found.append([[hit.id for hit in row] for row in hits])
    return [list(dict.fromkeys(chain.from_iterable(zip(*pair, strict=False)))) for pair in zip(*found, strict=True)]


if __name__ == "__main__":
    main()
