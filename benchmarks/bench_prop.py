"""prop: drawing pairs of word sets against drawing them word by word; reranking with and without sorting by length.

`PICKAXE_BENCH_QUALITY=1` adds a study on 100 Wikipedia articles with a tiny network (some minutes a seed).
`PICKAXE_BENCH_TIMES` says how often the 100 articles are repeated (10 by default).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np

import pickaxe
from benchmarks._pairs import alternate, rate
from pickaxe import Item
from pickaxe_plugins.reranking.prop import _training
from pickaxe_plugins.reranking.prop._pairs import Sampler
from pickaxe_plugins.reranking.prop._statistics import Collector, Counts, words
from pickaxe_plugins.train import bert, bert_files, vocabulary

DATA = Path(__file__).parents[1] / "tests/golden/files/29-prop/wiki_toy_trimmed.jsonl"
TIMES = int(os.environ.get("PICKAXE_BENCH_TIMES", "10"))
SEEDS = tuple(int(each) for each in os.environ.get("PICKAXE_BENCH_SEEDS", "0,1,2").split(","))
PAIRS, CANDIDATES = 10, 20


def run() -> Iterator[dict[str, Any]]:
    articles = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    collector = Collector()
    cut = [collector.add(each["text"]) for each in articles]
    found = collector.finish()
    sampler = Sampler(found, found.background("df", 10), found.keep(1e-4), found.mean_length)
    counts = [found.counts(each) for each in cut] * TIMES

    def ours() -> int:
        return sum(len(sampler.pairs(each, PAIRS, 0, str(row))) for row, each in enumerate(counts))

    def theirs() -> int:
        return sum(len(by_word(sampler, each, np.random.default_rng(row))) for row, each in enumerate(counts[:20]))

    seconds, other = alternate(ours, theirs, 3)
    made = len(counts) * PAIRS
    note = "peer: a draw over a dictionary for every word, as the official script does"
    yield rate(f"pairs of {len(counts):,} articles", made, (seconds, (other or 0) * len(counts) / 20), "pairs/s", note)
    yield from bucketed([each["text"] for each in articles])
    if os.environ.get("PICKAXE_BENCH_QUALITY") == "1":
        yield from quality(articles)


def by_word(sampler: Sampler, document: Counts, random: np.random.Generator) -> list[tuple[list[int], list[int]]]:
    """The same pairs, one word at a time."""
    support = sampler._support(document, random)
    tf = dict(zip(document.numbers.tolist(), document.counts.tolist(), strict=True))
    chances = {
        word: (tf.get(word, 0) + sampler.mu * sampler.background[word]) / (document.length + sampler.mu)
        for word in support.tolist()
    }
    total = sum(chances.values())
    shares = {word: each / total for word, each in chances.items()}
    found = []
    for _ in range(PAIRS):
        length = 0
        while not length:
            length = int(random.poisson(sampler.poisson_lambda))
        sets: list[list[int]] = [[], []]
        for each in sets:
            while len(each) < length:
                word = int(random.choice(list(shares), p=list(shares.values())))
                if random.random() < sampler.keep[word]:
                    each.append(word)
        found.append((sets[0], sets[1]))
    return found


def bucketed(texts: list[str]) -> Iterator[dict[str, Any]]:
    """The shipped cross-encoder over candidates of 5 to 200 words, in batches of 16 as they come or by length."""
    cross = pickaxe.Host().cross_encoder()
    random = np.random.default_rng(0)
    pairs = [("who was the hero", " ".join(text.split()[: int(size)])) for text, size in
             zip(texts[:64], np.exp(random.uniform(np.log(5), np.log(200), 64)), strict=True)]  # fmt: skip

    def plainly() -> None:
        rows = cross._rows(pairs)
        for start in range(0, len(rows), 16):
            part = rows[start : start + 16]
            cross._run(part, np.array([len(row.ids) for row in part], np.int32), None)

    yield rate("rerank candidates of mixed length", len(pairs), alternate(lambda: cross.score(pairs), plainly, 3),
               "pairs/s", "peer: batches of 16 in the order given")  # fmt: skip


def quality(articles: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
    """Held-out pair accuracy of a tiny network, and how it ranks articles for titles, against masked words alone."""
    with TemporaryDirectory() as folder:
        base = tiny(Path(folder) / "base", [each["text"] for each in articles])
        for seed in SEEDS:
            order = np.random.default_rng(seed).permutation(len(articles))
            learned, held = ([Item(articles[row]["id"], articles[row]["text"]) for row in part.tolist()]
                             for part in (order[:80], order[80:]))  # fmt: skip
            options = {"base": str(base), "max_len": 128, "epochs": 12, "rate": 1e-3, "warmup": 0.1, "dropout": 0.0}
            both = pickaxe.reranker("prop", **options).fit(learned, validation=held, seed=seed)
            with mock.patch.object(_training, "rop_loss", return_value=0.0):
                _training._loss.cache_clear()
                words_only = pickaxe.reranker("prop", **options).fit(learned, seed=seed)
            _training._loss.cache_clear()
            values = {
                "held-out pair accuracy": (both.artifact.notes["validation_accuracy"], 0.5, "share", "peer: chance"),
                "MRR of title to article": (
                    titled(both, articles, order[80:].tolist()), titled(words_only, articles, order[80:].tolist()),
                    "MRR", f"{CANDIDATES} candidates; peer: masked words alone",
                ),
            }  # fmt: skip
            for name, (value, other, unit, note) in values.items():
                yield {
                    "name": f"{name}, seed {seed}", "ours": value, "peer": other, "ratio": value / other,
                    "unit": unit, "n": len(held), "note": note,
                }  # fmt: skip


def tiny(folder: Path, texts: list[str]) -> Path:
    """A new BERT of two small layers over 4,000 word pieces."""
    folder.mkdir()
    tokenizer = vocabulary.learn_words(texts, 4000, folder)
    config = bert.Config(layers=2, width=64, heads=4, mlp=256, vocab=tokenizer.vocab_size, positions=128)
    bert_files.save(folder, config, bert.initial(config, 0))
    return folder


def titled(reranker: Any, articles: list[dict[str, str]], rows: list[int]) -> float:
    """MRR of an article for its title, which is taken out of its text."""
    values = []
    for row in rows[:CANDIDATES]:
        title = articles[row]["title"]
        dropped = set(words(title))
        texts = [" ".join(each for each in articles[other]["text"].split() if not dropped & set(words(each)))
                 for other in rows[:CANDIDATES]]  # fmt: skip
        ranking = reranker.rerank(title, [Item(str(n), text) for n, text in zip(rows, texts, strict=False)])
        values.append(1 / (1 + ranking.ids.index(str(row))))
    return float(np.mean(values))
