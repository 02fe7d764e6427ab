"""QTA: queries rewritten in the words of tools, by a model that learns from retrieval ranks (arXiv:2410.03212)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

import pickaxe
from pickaxe import Artifact, Call, Example, Hit, InputField, Item, Items, Method, MethodRef, Progress, SearchResults
from pickaxe.artifact import ArtifactWriter
from pickaxe.data import Sampling
from pickaxe.errors import ArtifactMismatch, InvalidItems, Unmet, Violation
from pickaxe.hooks import hookimpl
from pickaxe.index import Documents
from pickaxe.index.documents import TABLE
from pickaxe.lm import prompt_ids
from pickaxe_plugins.retrieval._fusion import reciprocal_rank_fusion
from pickaxe_plugins.retrieval.qta._pairs import Ranking, preference
from pickaxe_plugins.retrieval.qta._rewrite import Desk, rewritten
from pickaxe_plugins.train.settings import Recipe

if TYPE_CHECKING:
    from pickaxe.handle import DecoderHandle, RetrieverHandle
    from pickaxe.lm import LM
    from pickaxe_plugins.retrieval.qta._train import Pair

PAIRS = "pairs.jsonl"
LORA_SCALE = 2.0
"""What low-rank changes are multiplied by."""


class Params(pickaxe.Params):
    """Parameters of `qta`."""

    retriever: MethodRef = Field(
        MethodRef(name="dense", params={}, artifact=""), description="Who finds tools: any retriever; never trained."
    )
    model: str = Field("lm", min_length=1, description="Causal language model that rewrites: alias, name or path.")
    precision: Literal["auto", "fp32", "fp16", "int8", "int4"] = Field("auto", description="Of its weights.")
    rewriter: MethodRef | None = Field(None, description="Another decoder that rewrites, in place of the model.")
    few_tools: int = Field(5, ge=0, le=50, description="Tools shown as examples of style, drawn by the seed.")
    max_new_tokens: int = Field(96, ge=1, description="Most tokens of a rewrite.")
    chat: bool = Field(True, description="Ask through the model's chat template; else as plain text.")
    fuse: bool = Field(False, description="Search with query and rewrite, and fuse both by reciprocal ranks.")
    rrf_k: float = Field(60, gt=0, allow_inf_nan=False, description="Constant of that fusion.")
    depth: int = Field(50, ge=1, description="Tools that each search hands on to the fusion.")
    m: int = Field(2, ge=1, le=16, description="fit: rewrites sampled of each query.")
    temperature: float = Field(0.9, gt=0, allow_inf_nan=False, description="fit: of these samples.")
    ranking: Ranking = Field("worst", description="fit: rewrites compare by the worst or the mean rank of the tools.")
    dpo_prompt: Literal["original", "middle"] = Field(
        "original", description="fit: what the pair rewrites: the query, or the candidate of middle rank."
    )
    beta: float = Field(0.1, gt=0, allow_inf_nan=False, description="fit: DPO's weight of the reference model.")
    rounds: int = Field(1, ge=1, le=16, description="fit: how often new rewrites are sampled and learned from.")
    rank: int = Field(8, ge=1, description="fit: rank of the changes to each matrix (LoRA).")
    recipe: Recipe = Field(Recipe(epochs=3, batch=2, rate=2e-4, warmup=2), description="fit: how it is trained.")


class Qta(Method[Params]):
    """Any retriever of tools, asked with queries that a language model rewrote.

    `fit` samples rewrites of a few annotated queries, compares them by where the frozen retriever ranks the needed
    tools, and trains the model to prefer the better one (DPO).  Retriever and index stay as they are.
    """

    title = "Data-Efficient Massive Tool Retrieval: Query-Tool Alignment"
    paper = "arXiv:2410.03212"
    version = 1
    Params = Params
    reads = (
        InputField("text", "text", "The tool's name and description, or the query."),
        InputField("title", "text", "Handed to the retriever.", required=False),
    )
    fit_reads = (
        InputField("text", "text", "The query; or a tool, where there is no `relevant`."),
        InputField("relevant", "texts", "Ids of all tools that the query needs.", required=False),
    )
    fitted = "optional"
    stages = ("pairs", "train")
    cost = (
        "A rewrite of up to `max_new_tokens` tokens per query, then the retriever; fit: m rewrites per query, then DPO."
    )
    reproduced = "Baselines of TMDB and Spotify with all-MiniLM-L6-v2 to the digit; see the page for what DPO brings."

    @classmethod
    def example(cls) -> Example:
        tools = (
            Item("weather", "weather: the forecast of rain, wind and temperature for a town."),
            Item("mail", "mail: send a letter to one of your contacts."),
            Item("trains", "trains: departures between two stations."),
        )
        return Example(
            params={
                "model": "draft", "precision": "fp32", "retriever": "bm25", "chat": False, "few_tools": 2,
                "max_new_tokens": 8, "rank": 2, "recipe": {"epochs": 1, "batch": 1, "warmup": 1},
            },
            documents=tools,
            examples=(*tools, Item("q", "Will it rain where my train goes?", {"relevant": ("weather", "trains")})),
            queries=(Item("q1", "Tell Ada by mail that it rains."), Item("q2", "When is the next departure?")),
        )  # fmt: skip

    # ------------------------------------------------------------ index

    @hookimpl
    def index(self, documents: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        inner = self.host.retriever(self.params.retriever)
        options = {"base": None, "remove": frozenset[str]()}
        yield from inner.opened.pull("index", documents=documents, out=out, call=call, **options)
        made = {
            "name": inner.name,
            "version": inner.opened.method.version,
            "params": inner.params.model_dump(mode="json"),
        }
        out.notes |= {"retriever": made, "rewriter": False}
        if self.artifact is not None:
            _copy_model(self.artifact, out)
            out.notes["rewriter"] = True

    @cached_property
    def _base(self) -> RetrieverHandle:
        """The retriever on the part of this index that is its own: the same files under its own name."""
        assert self.artifact is not None  # the handle sees to it
        made, ref = self.artifact.notes["retriever"], self.params.retriever
        if made["name"] != ref.name:
            raise ArtifactMismatch(
                f"this index was made with retriever={made['name']!r}, not {ref.name!r}: search with the same",
                metadata={"found": made["name"], "wanted": ref.name},
            )
        own = {"method": made["name"], "method_version": made["version"], "params": made["params"]}
        view = Artifact(self.artifact.path, {**self.artifact.manifest, **own}, self.artifact.digest)
        return self.host.retriever(ref.name, **ref.params).with_artifact(view)

    # ------------------------------------------------------------ search

    @cached_property
    def _writer(self) -> LM | DecoderHandle:
        if self.params.rewriter is not None:
            return self.host.decoder(self.params.rewriter)
        if self.artifact is not None and self.artifact.notes.get("rewriter"):
            return self.host.lm_at(self.artifact.path, self.params.precision)
        return self.host.lm(self.params.model, self.params.precision)

    @cached_property
    def _desk(self) -> Desk:
        assert self.artifact is not None
        tools: list[Item] = []
        if self.params.few_tools:
            if not self.artifact.has(TABLE):
                raise Unmet(f"the index of {self.params.retriever.name!r} keeps no texts to show: set few_tools=0")
            table = Documents(self.artifact)
            tools = [table.item(row) for row in range(len(table))]
        return self._desk_of(tools)

    def _desk_of(self, tools: Sequence[Item]) -> Desk:
        return Desk(tools, self.params.few_tools, self.params.chat, self.params.max_new_tokens)

    @hookimpl
    def search(self, queries: Items, k: int, call: Call) -> SearchResults:
        params, base, texts = self.params, self._base, queries.texts()
        asked = [row for row, text in enumerate(texts) if text.strip()][: call.budget]
        prompts = [self._desk.prompt(texts[row], call.seed) for row in asked]
        rewrites = dict(zip(asked, (found[0] for found in rewritten(prompts, self._writer, call)), strict=True))
        new = Items(replace(item, text=rewrites.get(row) or item.text) for row, item in enumerate(queries))
        call.check()
        inner = call.with_budget(None)
        depth = max(k, params.depth) if params.fuse else k
        found = base.search(new, depth, call=inner)
        results = found.results
        if params.fuse:
            plain = base.search(queries, depth, call=inner)
            results = tuple(self._fused(*pair, k) for pair in zip(plain, found, strict=True))
        kept = len(queries) - sum(bool(text) for text in rewrites.values())
        usage = {**found.usage, "model_calls": float(len(asked)), "queries_not_rewritten": float(kept)}
        return SearchResults(results, usage)

    def _fused(self, one: Sequence[Hit], other: Sequence[Hit], k: int) -> tuple[Hit, ...]:
        columns: dict[str, dict[str, float]] = {}
        for name, hits in (("query", one), ("rewrite", other)):
            for hit in hits:
                columns.setdefault(hit.id, {})[name] = hit.score
        lists = [[hit.id for hit in hits] for hits in (one, other)]
        fused = reciprocal_rank_fusion(lists, self.params.rrf_k)[:k]
        return tuple(Hit(name, score, columns[name]) for name, score in fused)

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], unlabelled: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        from pickaxe.lm.weights import open_checkpoint
        from pickaxe_plugins.retrieval.qta import _train as training
        from pickaxe_plugins.train import adapters, llama

        params = self.params
        if params.rewriter is not None:
            raise Unmet("another decoder cannot be trained: leave out rewriter, and fit trains the model")
        queries, tools = _read(examples, unlabelled)
        base = self.host.retriever(params.retriever).index(tools, call=call)
        start = self.host.lm(params.model, params.precision)
        found = open_checkpoint(self.host.model_path(params.model))
        frozen = llama.load(found.architecture, found.tensors)
        changes: Any = adapters.initial(frozen, training.LAYERS, params.rank, call.seed)
        told: list[dict[str, Any]] = []
        steps = 0
        writer, desk = start, self._desk_of(tools)
        with TemporaryDirectory() as scratch:
            for number in range(params.rounds):
                made = self._sampled(queries, len(tools), base, writer, desk, number, call)
                told += made
                if number == 0:
                    yield Progress("pairs", len(made), len(queries))
                if not made:
                    break
                pairs = [self._tokens(each, desk, start, call.seed) for each in made]
                run = training.train(
                    found.architecture, frozen, changes, pairs, params.beta, LORA_SCALE, params.recipe, out,
                    call.seed + number,
                )  # fmt: skip
                changes = yield from _later(run, steps)
                steps += params.recipe.steps(len(pairs))
                if number + 1 < params.rounds:
                    folder = Path(scratch) / str(number)
                    folder.mkdir()
                    llama.save(adapters.merged(frozen, changes, LORA_SCALE), found.architecture, folder)
                    start.tokenizer.save(folder)
                    writer = self.host.lm_at(folder, params.precision)
        llama.save(adapters.merged(frozen, changes, LORA_SCALE), found.architecture, out.path)
        start.tokenizer.save(out.path)
        lines = [json.dumps(each, ensure_ascii=False) + "\n" for each in told]
        out.file(PAIRS).write_text("".join(lines), encoding="utf-8")
        out.notes |= {
            "queries": len(queries), "tools": len(tools), "pairs": len(told), "steps": steps, "rewriter": True,
            "base": start.digest, "seed": call.seed,
        }  # fmt: skip

    def _sampled(
        self,
        queries: Sequence[Item],
        tools: int,
        base: RetrieverHandle,
        writer: LM,
        desk: Desk,
        number: int,
        call: Call,
    ) -> list[dict[str, Any]]:
        """Pairs of one round: which of query and rewrites is to be preferred to which, by the ranks of the tools."""
        params = self.params
        sampling = Sampling(max_tokens=params.max_new_tokens, temperature=params.temperature, n=params.m)
        prompts = []
        for item in queries:
            own = pickaxe.generator(call.seed, "qta", "rewrites", number, item.text or "")
            drawn = replace(sampling, seed=int(own.integers(2**63)))
            prompts.append(desk.prompt(item.text or "", call.seed, drawn))
        made = []
        for item, rewrites in zip(queries, rewritten(prompts, writer, call), strict=True):
            call.check()
            candidates = list(dict.fromkeys([item.text or "", *(each for each in rewrites if each)]))
            ranks = _ranks(base, candidates, _relevant(item), tools, call)
            found = preference(ranks, params.ranking)
            if found.chosen is None or found.rejected is None or found.middle is None:
                continue
            source = candidates[0 if params.dpo_prompt == "original" else found.middle]
            made.append(
                {
                    "id": item.id, "round": number, "prompt": source, "chosen": candidates[found.chosen],
                    "rejected": candidates[found.rejected], "chosen_ranks": ranks[found.chosen],
                    "rejected_ranks": ranks[found.rejected],
                }
            )  # fmt: skip
        return made

    @staticmethod
    def _tokens(made: dict[str, Any], desk: Desk, lm: LM, seed: int) -> Pair:
        from pickaxe_plugins.retrieval.qta._train import Pair

        prompt = prompt_ids(desk.prompt(made["prompt"], seed), 0, lm)
        lead, end = "" if desk.chat else " ", list(lm.tokenizer.eos_ids[:1])
        sides = (tuple(lm.tokenizer.encode(f"{lead}{made[side]}") + end) for side in ("chosen", "rejected"))
        return Pair(tuple(prompt), *sides)


def _later(run: Generator[Progress, None, Any], done: int) -> Generator[Progress, None, Any]:
    """A training whose steps are counted from `done` on."""
    while True:
        try:
            step = next(run)
        except StopIteration as end:
            return end.value
        yield replace(step, step=step.step + done, total=step.total + done)


def _ranks(
    base: RetrieverHandle, texts: Sequence[str], golden: Sequence[str], tools: int, call: Call
) -> list[list[int]]:
    """Ranks of the golden tools (1 = first) under each text; what is not found stands last."""
    found = base.search([Item(str(row), text) for row, text in enumerate(texts)], tools, call=call)
    places = [{hit.id: place for place, hit in enumerate(hits, 1)} for hits in found]
    return [[each.get(name, tools) for name in golden] for each in places]


def _relevant(item: Item) -> list[str]:
    value = item.get("relevant")
    assert isinstance(value, (list, tuple))  # `_read` saw to it
    return list(value)


def _read(examples: Iterable[Item], unlabelled: Iterable[Item] | None) -> tuple[list[Item], list[Item]]:
    """Queries and tools; raises `InvalidItems` for golden ids that are no tools."""
    given = list(examples)
    queries = [(row, item) for row, item in enumerate(given) if item.get("relevant") is not None]
    tools = [item for item in given if item.get("relevant") is None] + list(unlabelled or ())
    if not queries or not tools:
        raise InvalidItems("examples", "need a query with `relevant`, and tools: as unlabelled, or without `relevant`")
    known = {tool.id for tool in tools}
    wrong = []
    for row, item in queries:
        place, golden = f"examples[{row}].fields.relevant", _relevant(item)
        if not golden:
            wrong.append(Violation(place, f"is empty (item {item.id!r})"))
        if missing := [name for name in golden if name not in known]:
            wrong.append(Violation(place, f"names {missing[0]!r}, which is no tool (item {item.id!r})"))
    if wrong:
        raise InvalidItems(wrong)
    return [item for _, item in queries], tools


def _copy_model(artifact: Artifact, out: ArtifactWriter) -> None:
    """The fitted rewriter goes into the index, beside the retriever's files."""
    for name in sorted(artifact.manifest["files"]):
        target = out.file(name)
        if target.exists():
            raise Unmet(f"the retriever's index has a file {name!r} too: it cannot hold a fitted rewriter")
        shutil.copyfile(artifact.file(name), target)
