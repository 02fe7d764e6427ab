"""The main job, step by step, through the gRPC client: score and pick, index, search, rerank, decode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from demo.corpus import Corpus
from pickaxe import Item, Message, Prompt, Sampling
from pickaxe.metrics import mean, ndcg, recall

KEEP = 0.45
DEPTH = 20
ANSWERED = 10
OFFERED = 3

Run = dict[str, list[str]]


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
    step, found = timed(lambda: search(index, corpus))
    yield step
    step, better = timed(lambda: rerank(server, corpus, found, by_id))
    yield step
    step, _ = timed(lambda: decode(server, corpus, better, by_id))
    yield step


def pick(server: Any, corpus: Corpus) -> tuple[Step, list[Item]]:
    """Score the mixed corpus by its likeness to thirty descriptions of tools and keep the best part."""
    scorer = server.scorer("zip-fit").fit(corpus.targets)
    alignment = scorer.score(corpus.documents).primary
    order = np.argsort(-alignment, kind="stable")
    kept = [corpus.documents[row] for row in order[: round(KEEP * len(order))]]
    is_wanted = np.array([item.id in corpus.tools for item in corpus.documents])
    wanted = sum(item.id in corpus.tools for item in kept)
    share, before = wanted / len(kept), len(corpus.tools) / len(corpus.documents)
    step = Step(
        "score and pick",
        "zip-fit",
        "",
        f"{len(corpus.documents)} scored, {len(kept)} kept",
        f"tools {before:.0%} → {share:.0%} (recall {wanted / len(corpus.tools):.0%})",
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


def search(index: Any, corpus: Corpus) -> tuple[Step, Run]:
    results = index.search(corpus.requests, k=DEPTH)
    found = {item.id: [hit.id for hit in hits] for item, hits in zip(corpus.requests, results, strict=True)}
    step = Step(
        "search",
        "chronicles",
        "",
        f"{len(found)} requests, top {DEPTH}",
        f"nDCG@10 {mean(ndcg(found, corpus.qrels)):.3f}, recall@{DEPTH} {mean(recall(found, corpus.qrels, DEPTH)):.0%}",
    )
    return step, found


def rerank(server: Any, corpus: Corpus, found: Run, by_id: dict[str, Item]) -> tuple[Step, Run]:
    """Full ranking of the hits; the window ranker orders by encoder similarity of request and description."""
    reranker = server.reranker("fullrank", ranker="encoder")
    better = {
        request.id: reranker.rerank(request, [by_id[doc] for doc in found[request.id]]).ids
        for request in corpus.requests
    }
    before, after = ndcg(found, corpus.qrels), ndcg(better, corpus.qrels)
    step = Step(
        "rerank",
        "fullrank",
        "",
        f"{len(found)} requests x {DEPTH} descriptions",
        f"nDCG@10 {mean(before):.3f} → {mean(after):.3f} (ranker: encoder similarities)",
        details={"before": before, "after": after},
    )
    return step, better


def decode(server: Any, corpus: Corpus, found: Run, by_id: dict[str, Item]) -> tuple[Step, None]:
    """Greedy answers to the first requests, each from the three best descriptions."""
    asked = corpus.requests[:ANSWERED]
    best = [[by_id[doc] for doc in found[item.id][:OFFERED]] for item in asked]
    greedy = Sampling(max_tokens=40, temperature=0.0)
    prompts = [
        Prompt(messages=(Message("user", _instruction(item, tools)),), sampling=greedy)
        for item, tools in zip(asked, best, strict=True)
    ]
    completions = [each for each in server.decoder("repeated-sampling").complete(prompts) if each.choice == 0]
    answers = [
        {
            "request": item.text,
            "offered": [tool.id for tool in tools],
            "answer": each.text.strip(),
            "reference": list(corpus.qrels[item.id]),
            "right": any(tool.lower() in each.text.lower() for tool in corpus.qrels[item.id]),
        }
        for item, tools, each in zip(asked, best, completions, strict=True)
    ]
    right = sum(bool(answer["right"]) for answer in answers)
    tokens = sum(len(each.token_ids) for each in completions)
    step = Step(
        "decode",
        "repeated-sampling",
        "",
        f"{len(answers)} answers, {tokens} tokens",
        f"{right} of {len(answers)} name the right tool",
        details={"answers": answers},
    )
    return step, None


def _instruction(request: Item, tools: list[Item]) -> str:
    offered = "\n".join(f"- {tool.id}: {tool.text}" for tool in tools)
    return f"Tools:\n{offered}\n\nRequest: {request.text}\n\nWhich of the tools fits the request? Answer with its name."
