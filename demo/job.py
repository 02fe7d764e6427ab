"""The main job, step by step, through the gRPC client: score and pick, index, search, rerank, decode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from demo.corpus import Corpus
from pickaxe import Item, Message, Prompt, Sampling
from pickaxe.metrics import ndcg

KEEP = 0.75
DEPTH = 20
ANSWERED = 10


@dataclass
class Step:
    """What one step did, for the table and the report."""

    title: str
    method: str
    paper: str
    items: str
    quality: str
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)


def run(server: Any, corpus: Corpus) -> Iterator[Step]:
    """Each step as it is done; every later step works on what the earlier ones made."""
    papers = {name: server.show(name).paper for name in ("zip-fit", "chronicles", "fullrank", "repeated-sampling")}
    by_id = {item.id: item for item in corpus.documents}

    def timed(work: Callable[[], tuple[Step, Any]]) -> tuple[Step, Any]:
        begin = time.perf_counter()
        step, result = work()
        step.seconds, step.paper = time.perf_counter() - begin, papers[step.method]
        return step, result

    step, picked = timed(lambda: pick(server, corpus))
    yield step
    step, index = timed(lambda: build_index(server, picked))
    yield step
    step, runs = timed(lambda: search(index, corpus))
    yield step
    step, better = timed(lambda: rerank(server, corpus, runs, by_id))
    yield step
    step, _ = timed(lambda: decode(server, corpus, better, by_id))
    yield step


def pick(server: Any, corpus: Corpus) -> tuple[Step, list[Item]]:
    """Score the mixed corpus by its likeness to twenty passages and keep the best three quarters."""
    scorer = server.scorer("zip-fit").fit(corpus.targets)
    alignment = scorer.score(corpus.documents).primary
    order = np.argsort(-alignment, kind="stable")
    kept = [corpus.documents[row] for row in order[: round(KEEP * len(order))]]
    is_wanted = np.array([item.id in corpus.encyclopaedic for item in corpus.documents])
    wanted = sum(item.id in corpus.encyclopaedic for item in kept)
    share, before = wanted / len(kept), len(corpus.encyclopaedic) / len(corpus.documents)
    step = Step(
        "score and pick",
        "zip-fit",
        "",
        f"{len(corpus.documents)} scored, {len(kept)} kept",
        f"encyclopaedic {before:.0%} → {share:.0%} (recall {wanted / len(corpus.encyclopaedic):.0%})",
        details={
            "wanted": alignment[is_wanted].tolist(),
            "other": alignment[~is_wanted].tolist(),
            "cut": float(alignment[order[len(kept) - 1]]),
        },
    )
    return step, kept


def build_index(server: Any, documents: list[Item]) -> tuple[Step, Any]:
    index = server.retriever("chronicles", mode="bm25").index(documents)
    return Step("index", "chronicles", "", f"{len(documents)} documents", "BM25"), index


def search(index: Any, corpus: Corpus) -> tuple[Step, dict[str, dict[str, float]]]:
    results = index.search(corpus.questions, k=DEPTH)
    runs = {
        question.id: {hit.id: hit.score for hit in hits}
        for question, hits in zip(corpus.questions, results, strict=True)
    }
    per_query = ndcg(corpus.qrels, runs, 10)
    found = np.mean([any(doc in runs[query] for doc in relevant) for query, relevant in corpus.qrels.items()])
    step = Step(
        "search",
        "chronicles",
        "",
        f"{len(runs)} questions, top {DEPTH}",
        f"nDCG@10 {_mean(per_query):.3f} (answer in the top {DEPTH}: {found:.0%})",
        details={"ndcg": per_query},
    )
    return step, runs


def rerank(
    server: Any, corpus: Corpus, runs: dict[str, dict[str, float]], by_id: dict[str, Item]
) -> tuple[Step, dict[str, dict[str, float]]]:
    """Full ranking of the hits; the window ranker orders by encoder similarity of question and passage."""
    reranker = server.reranker("fullrank", ranker="encoder")
    better = {}
    for question in corpus.questions:
        ranking = reranker.rerank(question, [by_id[doc] for doc in runs[question.id]])
        better[question.id] = {entry.id: 1.0 / (place + 1) for place, entry in enumerate(ranking)}
    before, after = ndcg(corpus.qrels, runs, 10), ndcg(corpus.qrels, better, 10)
    step = Step(
        "rerank",
        "fullrank",
        "",
        f"{len(runs)} questions x {DEPTH} passages",
        f"nDCG@10 {_mean(before):.3f} → {_mean(after):.3f} (ranker: encoder similarities)",
        details={"before": before, "after": after},
    )
    return step, better


def decode(server: Any, corpus: Corpus, runs: dict[str, dict[str, float]], by_id: dict[str, Item]) -> tuple[Step, None]:
    """Greedy answers to the first questions, each from its best passage."""
    asked = corpus.questions[:ANSWERED]
    best = [by_id[next(iter(runs[item.id]))] for item in asked]
    greedy = Sampling(max_tokens=40, temperature=0.0)
    prompts = [
        Prompt(messages=(Message("user", _question(item, passage)),), sampling=greedy)
        for item, passage in zip(asked, best, strict=True)
    ]
    completions = [each for each in server.decoder("repeated-sampling").complete(prompts) if each.choice == 0]
    answers = [
        {
            "question": item.text,
            "passage": passage.id,
            "answer": each.text.strip(),
            "reference": corpus.answers[item.id],
            "right": any(reference.lower() in each.text.lower() for reference in corpus.answers[item.id]),
        }
        for item, passage, each in zip(asked, best, completions, strict=True)
    ]
    right = sum(bool(answer["right"]) for answer in answers)
    tokens = sum(len(each.token_ids) for each in completions)
    step = Step(
        "decode",
        "repeated-sampling",
        "",
        f"{len(answers)} answers, {tokens} tokens",
        f"{right} of {len(answers)} contain the reference answer",
        details={"answers": answers},
    )
    return step, None


def _question(question: Item, passage: Item) -> str:
    return f"{passage.text}\n\nAnswer briefly, with words of the text above: {question.text}"


def _mean(per_query: dict[str, float]) -> float:
    return float(np.mean(list(per_query.values())))
