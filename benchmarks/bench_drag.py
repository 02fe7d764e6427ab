"""drag and rag-allocation: allocation over the paper's grid, kept keys and values, and two-hop questions.

The questions are the card's experiment: 60 of them over 500 passages, the model `lm`, and as metric the mean
log-likelihood of the gold answer after the prompt that `drag` makes.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Call, Item, MethodRef, Prompt, Sampling
from pickaxe.host import default_host
from pickaxe.lm import LM, logsumexp
from pickaxe_plugins.generation import _rag_law
from pickaxe_plugins.generation.drag._desk import Desk
from pickaxe_plugins.generation.drag._dialogue import Question
from pickaxe_plugins.generation.drag._prompt import Demonstration, Tokens
from pickaxe_plugins.generation.drag._store import Library, Store
from pickaxe_plugins.generation.drag._writers import Engine
from pickaxe_plugins.generation.rag_allocation import DEMONSTRATIONS, DOCUMENTS, ITERATIONS, configurations

QUESTIONS = 60
TOWNS = 250
K, M = (0, 1, 5, 10), (0, 2, 4)
BUDGETS = (256, 512, 1024, 2048)
CRAFTS = (
    "glass", "cheese", "clocks", "lace", "boats", "violins", "honey", "bricks", "paper", "candles", "wine", "shoes",
    "knives", "bells", "tiles", "carpets", "hats", "bread", "salt", "silver", "rope", "barrels", "pottery", "ink",
    "mirrors", "toys", "kites", "drums", "masks", "sails", "soap", "tea", "umbrellas", "lamps", "gloves", "maps",
)  # fmt: skip


def run() -> Iterator[dict[str, Any]]:
    yield from allocation()
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        yield from prefix_reuse(world)
        yield from two_hops(world)


# ---------------------------------------------------------------- allocation


def allocation(runs: int = 30) -> Iterator[dict[str, Any]]:
    """The whole grid (11 x 10 x 5): prediction, cost and choice; on arrays and through the scorer."""
    theta = np.array(list(itertools.product(DOCUMENTS, DEMONSTRATIONS, ITERATIONS)), float)
    i = np.tile([0.5, 0.2], (len(theta), 1))
    lengths: dict[str, Any] = {"instruction_tokens": 60, "doc_tokens": 900, "qa_tokens": 30}
    grid = configurations(i_doc=0.5, i_shot=0.2, **lengths)
    scorer = pickaxe.scorer("rag-allocation", budget=128_000)

    def arrays() -> int | None:
        linear = _rag_law.PUBLISHED.linear(theta, i)
        return _rag_law.allocate(linear, _rag_law.effective_length(theta, 900, 30, 60), 128_000)

    for name, work in (("on arrays", arrays), ("through the scorer", lambda: scorer.score(grid))):
        seconds = []
        for _ in range(runs):
            begin = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - begin)
        yield row(
            f"allocation over the whole grid, {name}", 1e3 * statistics.median(seconds), "ms", len(theta), "aim: 5"
        )


# ---------------------------------------------------------------- a world of two hops


class World:
    """People born in towns, towns on rivers; questions need both, and name a craft that several towns have."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.people, self.towns, self.rivers = (self._names(rng, TOWNS, ends) for ends in ("ra", "ton", "ven"))
        crafts = [CRAFTS[place] for place in rng.integers(0, len(CRAFTS), TOWNS)]
        born = [Item(f"p{row}", f"{self.people[row]} was born in {self.towns[row]}.") for row in range(TOWNS)]
        lies = [
            Item(
                f"t{row}",
                f"{self.towns[row]} is a town known for its {crafts[row]}. It lies on the {self.rivers[row]}.",
            )
            for row in range(TOWNS)
        ]
        self.asked = [
            f"{self.people[row]} was born in a town known for its {crafts[row]}. On which river does the town lie?"
            for row in range(TOWNS)
        ]
        pickaxe.retriever("chronicles").index([*born, *lies], out=folder / "index")
        self.retriever = MethodRef(name="chronicles", artifact=str(folder / "index"))

    @staticmethod
    def _names(rng: np.random.Generator, count: int, ending: str) -> list[str]:
        starts, middles = ("Ba", "Co", "Du", "Fe", "Gi", "Ha", "Ko", "Lu", "Mi", "No", "Pe", "Ri"), "bdfgklmnprstvz"
        found: dict[str, None] = {}
        while len(found) < count:
            first, second, vowel = rng.choice(starts), rng.choice(list(middles)), rng.choice(list("aeiou"))
            found[f"{first}{second}{vowel}{rng.choice(list(middles))}{ending}"] = None
        return list(found)

    @cached_property
    def library(self) -> Library:
        return Library.of(default_host().retriever(self.retriever), None, 1024)

    def demonstrations(self, rows: Sequence[int], k: int) -> tuple[Demonstration, ...]:
        found = self.library.find([Item(str(row), self.asked[row]) for row in rows], k, Call())
        return tuple(
            Demonstration(str(row), self.asked[row], self.rivers[row], passages)
            for row, passages in zip(rows, found, strict=True)
        )


# ---------------------------------------------------------------- keys and values


def prefix_reuse(world: World, questions: int = 6, n: int = 5) -> Iterator[dict[str, Any]]:
    """IterDRAG with n iterations: tokens that the model reads and seconds, with and without what was read before."""
    prompts = world.asked[:questions]
    tokens, seconds, iterations = {}, {}, 0.0
    for reuse in (True, False):
        decoder = pickaxe.decoder("drag", retriever=world.retriever, k=5, m=0, n=n, max_tokens=24, reuse=reuse)
        decoder.complete(prompts[0])
        begin = time.perf_counter()
        found = decoder.complete(prompts)
        seconds[reuse] = time.perf_counter() - begin
        tokens[reuse] = sum(each.usage["prefilled_tokens"] for each in found) / questions
        iterations = sum(each.usage["iterations"] for each in found) / questions
    note = f"n={n}, {iterations:.1f} iterations on average; peer: each call reads its whole prompt"
    for name, ours, unit in (
        ("tokens read per question", tokens, "tokens"),
        ("time per question", {key: value / questions for key, value in seconds.items()}, "s"),
    ):
        yield {
            "name": f"IterDRAG, {name}",
            "ours": ours[True],
            "peer": ours[False],
            "ratio": ours[False] / ours[True],
            "unit": unit,
            "n": questions,
            "note": note + ("; aim: 2" if unit == "tokens" else ""),
        }


# ---------------------------------------------------------------- the claims


@dataclass(frozen=True)
class Measured:
    """Gold log-likelihood and effective context length of every configuration and question."""

    theta: list[tuple[int, int]]
    metric: np.ndarray
    lengths: np.ndarray

    def mean(self, k: int, m: int) -> float:
        return float(self.metric[self.theta.index((k, m))].mean())

    def best(self, rows: Sequence[int]) -> np.ndarray:
        return _rag_law.budgeted_optimum(self.metric[list(rows)], self.lengths[list(rows)], BUDGETS)


def two_hops(world: World) -> Iterator[dict[str, Any]]:
    found = measured(world)
    n = QUESTIONS
    documents = found.mean(5, 0) - found.mean(0, 0)
    yield row("gold log-likelihood, k=5 over k=0 (m=0)", documents, "nat", n, "aim: above 0.3")
    shots = found.mean(5, 2) - found.mean(5, 0)
    yield row("gold log-likelihood, m=2 over m=0 (k=5)", shots, "nat", n, "aim: above 0")
    best = found.best(range(len(found.theta)))
    rag = found.best([place for place, (_, m) in enumerate(found.theta) if m == 0])
    for budget, ours, peer in zip(BUDGETS, best.tolist(), rag.tolist(), strict=True):
        yield {
            "name": f"best gold log-likelihood within {budget} tokens",
            "ours": ours,
            "peer": peer,
            "ratio": None,
            "unit": "nat",
            "n": n,
            "note": "peer: documents without demonstrations (plain RAG)",
        }
    yield row("rise of that curve, Spearman", spearman(np.arange(len(BUDGETS)), best), "", len(BUDGETS), "aim: 0.8")
    slope, _, pearson = _rag_law.per_decade(BUDGETS, best.tolist())
    yield row("rise per tenfold budget", slope, "nat", len(BUDGETS), f"Pearson {pearson:.2f}")


def measured(world: World) -> Measured:
    lm = default_host().lm("lm")
    theta = list(itertools.product(K, M))
    metric, lengths = np.zeros((len(theta), QUESTIONS)), np.zeros((len(theta), QUESTIONS))
    store = Store(max(K), False, world.demonstrations(range(TOWNS - max(M), TOWNS), max(K)))
    passages = world.library.find(
        [Item(str(place), text) for place, text in enumerate(world.asked[:QUESTIONS])], max(K), Call()
    )
    tokens = Tokens(lm.tokenizer)
    for place, (k, m) in enumerate(theta):
        params: Any = pickaxe.decoder("drag", k=k, m=m).params
        desk = Desk(params, lm, tokens, Engine(lm, True), world.library, store.demonstrations, False, None)
        past = None
        for row_, text in enumerate(world.asked[:QUESTIONS]):
            question = Question(row_, 0, Prompt(text), text, (), Sampling(max_tokens=16), passages[row_])
            dialogue = desk.prepared(question, Call())
            ids, shared = dialogue.context.ids, dialogue.shared
            if past is None:
                _, past = lm.forward([ids[:shared]], logits_at="none")
            metric[place, row_] = likelihood(lm, ids[shared:], past, lm.tokenizer.encode(f" {world.rivers[row_]}"))
            lengths[place, row_] = len(ids)
    return Measured(theta, metric, lengths)


def likelihood(lm: LM, ids: list[int], past: Any, answer: list[int]) -> float:
    """Log-probability of the answer after what was read and these ids."""
    places = np.arange(len(ids) - 1, len(ids) + len(answer) - 1)
    logits, _ = lm.forward([[*ids, *answer[:-1]]], past=past, logits_at=places)
    assert logits is not None
    rows = logits[0].astype(np.float64)
    return float((rows[np.arange(len(answer)), answer] - logsumexp(rows)).sum())


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of ranks, ties sharing theirs."""
    ranks = [np.array([(values < each).sum() + (values == each).sum() / 2 for each in values]) for values in (x, y)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def row(name: str, value: float, unit: str, n: int, note: str) -> dict[str, Any]:
    return {"name": name, "ours": value, "peer": None, "ratio": None, "unit": unit, "n": n, "note": note}
