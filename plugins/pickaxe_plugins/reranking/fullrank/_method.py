"""The reranker `fullrank`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import (
    Artifact,
    ArtifactWriter,
    Call,
    Example,
    InputField,
    Item,
    Items,
    Method,
    MethodRef,
    Progress,
    Ranked,
    Ranking,
    catalog,
)
from pickaxe.errors import DoesNotFit, InvalidItems, InvalidParams, Violation
from pickaxe.extras import require
from pickaxe.hooks import hookimpl
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.reranking.fullrank import _rankers as rankers
from pickaxe_plugins.reranking.fullrank import _training as training
from pickaxe_plugins.reranking.fullrank._windows import complete_order, one_pass, schedule
from pickaxe_plugins.train.settings import Net, Recipe

if TYPE_CHECKING:
    from pickaxe.lm import LM


class Params(pickaxe.Params):
    strategy: Literal["full", "sliding", "complete"] = Field(
        "full",
        description="full: all candidates in one window; sliding: a window moved from the back to the front, which "
        "settles the first window - step places; complete: passes repeated until every place is settled.",
    )
    window: int = Field(20, ge=1, description="Candidates in a window of sliding and complete.")
    step: int = Field(10, ge=1, description="Places that the window moves; at most window, below it for complete.")
    passes: int = Field(1, ge=1, description="How often full or sliding is done, each on the order of the one before.")
    ranker: MethodRef | None = Field(
        None,
        description='A scorer or reranker that orders each window, or "encoder": cosines of query and passage; '
        "null: a listwise prompt to `decoder` or `model`.",
    )
    decoder: MethodRef | None = Field(None, description="The decoder that answers listwise prompts; null: `model`.")
    model: str = Field("lm", min_length=1, description="Language model: alias, name or path.")
    precision: Literal["auto", "fp32", "fp16", "int8", "int4"] = Field("auto", description="Weights of the model.")
    encoder: str = Field("encoder", min_length=1, description='Sentence encoder of the ranker "encoder".')
    max_passage_len: int = Field(100, ge=1, description="Words of a passage in the prompt; lowered until all fits.")
    context_tokens: int | None = Field(
        None, ge=1, description="Tokens of prompt and answer; null: the model's context, or no limit for a decoder."
    )
    constrained: bool = Field(
        True, description="`model` may write unused identifiers only, which makes every answer a permutation."
    )
    score_mode: Literal["rank", "inherit"] = Field(
        "rank", description="Scores: 1 / rank, or the incoming scores (field `score`), place by place."
    )
    shuffle_seed: int | None = Field(
        None, description="Shuffle the candidates first, by this seed and the query's id; null: keep their order."
    )
    base: str | None = Field(
        None, min_length=1, description="Fit: the language model to train further; null: a new one, as `net` says."
    )
    net: Net = Field(Net(), description="Fit: the new network's size; its vocabulary is learned from the examples.")
    recipe: Recipe = Field(Recipe(), description="Fit: how it is trained.")
    loss: Literal["importance", "lm"] = Field(
        "importance", description="Fit: importance counts the first identifiers more; lm counts all tokens alike."
    )
    teacher: MethodRef | None = Field(
        None, description="Fit: the reranker that labels examples without permutation, by complete passes."
    )

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Params:
        if self.step > self.window:
            raise ValueError(f"step {self.step} is larger than window {self.window}: candidates would be left out")
        if self.strategy == "complete" and self.step == self.window:
            raise ValueError(f"strategy complete needs step below window {self.window}: a pass would settle nothing")
        if self.strategy == "complete" and self.passes != 1:
            raise ValueError("strategy complete counts its passes itself: leave passes at 1")
        if self.ranker is not None and self.decoder is not None:
            raise ValueError("ranker and decoder both order a window: give one of them")
        if self.teacher is not None and self.step == self.window:
            raise ValueError(f"teacher needs step below window {self.window}: a pass would settle nothing")
        return self

    def prompts(self, n: int) -> int:
        """How many windows are ranked for n candidates."""
        if self.strategy == "full":
            return self.passes
        if self.strategy == "sliding":
            return self.passes * len(schedule(n, self.window, self.step))
        count = 0
        while n > 0:
            count += len(schedule(n, self.window, self.step))
            n = 0 if n <= self.window else n - (self.window - self.step)
        return count


class FullRank(Method[Params]):
    """Order all candidates in one listwise window, or in sliding windows, with any model that orders a window.

    One sliding pass settles only the first `window - step` places; `complete` repeats it until all are settled.  The
    result is a permutation of the candidates whatever the model writes.
    """

    title = "Sliding Windows Are Not the End: Exploring Full Ranking with Long-Context Large Language Models"
    paper = "arXiv:2412.14574"
    version = 1
    Params = Params
    reads = (
        InputField("text", "text", "The query, or the candidate's text."),
        InputField("title", "text", "The candidate's title, put before its text.", required=False),
        InputField("score", "float64", "The candidate's incoming score; wanted by score_mode inherit.", required=False),
    )
    fit_reads = (
        InputField("text", "text", "The query."),
        InputField("passages", "texts", "The passages in their incoming order."),
        InputField("permutation", "tensor", "Places of the passages, from 0, best first.", required=False),
    )
    fitted = "optional"
    stages = ("labels", "train")
    cost = "full: 1 prompt; sliding: about n / step prompts of window passages; complete: as many for each pass."
    reproduced = (
        "Window schedules, parsing, labels and losses of the authors' code; nDCG@10 0.7255 and 0.5058 of their "
        "published runs.  The 7B model was not trained; fit trains small ones."
    )

    @classmethod
    def example(cls) -> Example:
        return Example(
            params={
                "model": "draft",
                "net": {"layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "vocab": 300},
                "recipe": {"epochs": 2, "batch": 2, "warmup": 1, "checkpoint": 1},
            },
            examples=(
                Item("long", "the longest", {"passages": ["aa", "a", "aaa"], "permutation": np.array([2, 0, 1])}),
                Item("short", "the shortest", {"passages": ["bbb", "b", "bb"], "permutation": np.array([1, 2, 0])}),
            ),
            query=Item("q", "How is green tea brewed?"),
            candidates=(
                Item("rain", "The rain in Spain stays mainly in the plain.", {"score": 3.0}),
                Item("tea", "Green tea is brewed at about 80 degrees for two minutes.", {"score": 2.0}),
                Item("moon", "The Moon turns once on its axis for every orbit around the Earth.", {"score": 1.0}),
            ),
        )

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        init_from: Artifact | None,
        out: ArtifactWriter,
        call: Call,
    ) -> Iterator[Progress]:
        params = self.params
        if params.ranker is not None or params.decoder is not None:
            raise InvalidParams("ranker", "or decoder orders the windows itself: leave both out to fit a model")
        require("jax", extra="train")
        teacher = None if params.teacher is None else self.host.reranker(params.teacher)
        labelled = training.Labels(out, teacher, params.window, params.step, call)
        given = yield from labelled.read(examples, "labels.json")
        held_out = yield from labelled.read(validation or (), "validation_labels.json")
        if not given:
            raise InvalidItems("examples", "are none: fit needs at least one list of passages")
        out.finish("labels")
        if init_from is not None:
            start = training.start_from(init_from.path, Tokenizer.open(init_from.path))
        elif params.base is not None:
            tokenizer = self.host.lm(params.base).tokenizer
            start = training.start_from(self.host.model_path(params.base), tokenizer)
        else:
            start = training.start_new(params.net, given, params.max_passage_len, out.path, call.seed)
        yield from training.learn(
            start, given, held_out, params.recipe, params.loss, params.max_passage_len, out, call.seed
        )

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int, call: Call) -> Ranking:
        params, n = self.params, len(candidates)
        incoming = self._scores(candidates)
        if call.budget is not None and params.prompts(n) > call.budget:
            raise DoesNotFit(
                f"{params.strategy} ranking of {n} candidates takes {params.prompts(n)} prompts, the budget is "
                f"{call.budget}: use strategy='full' or a larger step",
                metadata={"prompts": params.prompts(n), "budget": call.budget},
            )
        start = list(range(n))
        if params.shuffle_seed is not None:
            start = pickaxe.generator(params.shuffle_seed, "fullrank", query.id).permutation(n).tolist()
        run = _Run(self._ranker(query, candidates, call), candidates, start, call)
        order = [start[place] for place in self._order(run, n)]
        scores = np.empty(n, np.float32)
        scores[order] = 1 / np.arange(1, n + 1) if incoming is None else incoming
        ranked = tuple(Ranked(row, candidates[row].id, float(scores[row])) for row in order[:top_n])
        return Ranking(ranked, scores, usage=run.usage, record=run.record(params.strategy))

    def _order(self, run: _Run, n: int) -> list[int]:
        params = self.params
        if params.strategy == "complete":
            order, run.passes = complete_order(run, n, params.window, params.step)
            return order
        window = n if params.strategy == "full" else params.window
        order = list(range(n))
        for _ in range(params.passes):
            order = one_pass(order, run, window, min(params.step, window))
        run.passes = params.passes
        return order

    def _scores(self, candidates: Items) -> np.ndarray | None:
        """Incoming scores for `inherit`, in the candidates' order, which must not rise."""
        if self.params.score_mode == "rank":
            return None
        scores = candidates.column("score").astype(np.float32)
        wrong = np.flatnonzero(~(scores[1:] <= scores[:-1])) + 1
        if np.isnan(scores).any() or len(wrong):
            place = int(wrong[0]) if len(wrong) else 0
            raise InvalidItems(
                [Violation(f"candidates[{place}].fields.score", "rises or is NaN: pass the candidates best first")]
            )
        return scores

    def _ranker(self, query: Item, candidates: Items, call: Call) -> rankers.Rank:
        params, host = self.params, self.host
        if params.ranker is None:
            length, context = params.max_passage_len, params.context_tokens
            if params.decoder is not None:
                return rankers.by_decoder(host.decoder(params.decoder), query, length, context, call)
            lm = self._lm()
            return rankers.by_model(lm, query, length, context, params.constrained, call)
        if params.ranker.name == "encoder":
            return rankers.by_cosine(host.encoder(params.encoder), query, candidates, call)
        if "reranker" in catalog.roles(params.ranker.name):
            return rankers.by_reranker(host.reranker(params.ranker), query, call)
        return rankers.by_scorer(host.scorer(params.ranker), query, call)

    def _lm(self) -> LM:
        """The model that `fit` trained, else the one that the parameters name."""
        if self.artifact is not None:
            return self.host.lm_at(self.artifact.path, self.params.precision)
        return self.host.lm(self.params.model, self.params.precision)


@dataclass
class _Run:
    """Ranks windows and keeps the books.  Items of windows are places in the incoming order."""

    rank: rankers.Rank
    candidates: Items
    start: Sequence[int]
    call: Call
    passes: int = 0
    usage: dict[str, float] = field(default_factory=lambda: {"prompts": 0.0, "passage_reads": 0.0})
    windows: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __call__(self, places: Sequence[int]) -> list[int]:
        self.call.check()
        ruling = self.rank(Items(self.candidates[self.start[place]] for place in places))
        self._note(ruling, len(places))
        return [places[row] for row in ruling.parsed.order]

    def _note(self, ruling: rankers.Ruling, n: int) -> None:
        for name, value in {"prompts": 1, "passage_reads": n, **ruling.usage}.items():
            self.usage[name] = self.usage.get(name, 0.0) + value
        parsed = ruling.parsed
        report = {"passages": n, "missing": parsed.missing, "repeated": parsed.repeated}
        report["out_of_range"] = parsed.out_of_range
        if ruling.max_passage_len is not None:
            report["max_passage_len"] = ruling.max_passage_len
        if parsed.missing:
            self.warnings.append(
                f"window {len(self.windows)}: {parsed.missing} of {n} candidates were not named and keep their "
                "incoming order behind the named ones"
            )
        self.windows.append(report)

    def record(self, strategy: str) -> dict[str, Any]:
        return {"strategy": strategy, "passes": self.passes, "windows": self.windows, "warnings": self.warnings}
