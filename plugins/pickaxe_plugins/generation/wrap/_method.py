"""The decoder `wrap`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from pickaxe import (
    WHOLE_PROMPT,
    ArtifactWriter,
    Call,
    Chunk,
    Example,
    InputField,
    Item,
    Method,
    MethodRef,
    Progress,
    Prompt,
    Sampling,
)
from pickaxe.errors import InvalidItems, Violation
from pickaxe.extras import require
from pickaxe.hooks import hookimpl
from pickaxe.io.items import item_to_json
from pickaxe.lm import LMParams
from pickaxe_plugins.generation.wrap import _compare as compare
from pickaxe_plugins.generation.wrap import _recipe as recipe
from pickaxe_plugins.generation.wrap._chunks import Count, count_words, passages
from pickaxe_plugins.generation.wrap._cleaning import Cleaned, Cleaning, cleaned
from pickaxe_plugins.generation.wrap._rephrase import (
    Request,
    Written,
    guessed_tokens,
    output_limit,
    requests,
    summed,
    write_by_decoder,
    write_by_model,
)
from pickaxe_plugins.generation.wrap._styles import SYSTEM, Styles, styles
from pickaxe_plugins.train.settings import Net, Recipe

Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Params(LMParams):
    """Parameters of `wrap`."""

    styles: Styles = Field(
        styles("medium", "qa"), description="Ways to rephrase: easy, medium, hard, qa, or an object with a prompt."
    )
    draw: bool = Field(False, description="Each passage in one style, drawn by weight; else in every style.")
    max_passage_tokens: int = Field(300, ge=32, le=2048, description="Most tokens of a passage.")
    counter: Literal["tokens", "words"] = Field(
        "tokens", description="What is counted: tokens of `model`, or words between white space."
    )
    system: str = Field(SYSTEM, description="The system message; empty: none.")
    decoder: MethodRef | None = Field(None, description="The decoder that rephrases; null: `model`.")
    temperature: float = Field(0.8, ge=0, allow_inf_nan=False, description="Where the request has none; 0 is greedy.")
    top_p: float = Field(0.95, gt=0, le=1, description="Share of probability drawn from, where the request has none.")
    max_tokens: int = Field(
        4096, ge=1, description="Most tokens of a rephrase; mostly 1.5 times its passage's, and at least 64, decide."
    )
    clean: bool = Field(True, description="Clean up rephrases and reject bad ones; false: as they were written.")
    cleaning: Cleaning = Field(Cleaning(), description="When a rephrase is rejected.")
    ratio: tuple[Share, Share] = Field((1, 1), description="Fit: tokens real to synthetic.")
    epochs: int = Field(1, ge=1, le=1000, description="Fit: how often the mix may go over either side.")
    shuffle: bool = Field(False, description="Fit: shuffle either side, anew each epoch; else the order given.")
    shard_tokens: int = Field(1_000_000, ge=1, description="Fit: tokens after which a new shard begins.")
    mix_tokens: int | None = Field(None, ge=1, description="Fit: tokens after which the mix ends; null: all there are.")
    train: bool = Field(False, description="Fit: train small models on real, synthetic and mixed text to compare.")
    train_tokens: int | None = Field(
        None, ge=1, description="Fit: tokens that each model reads in an epoch; null: as many as the mix has."
    )
    net: Net = Field(Net(context=256), description="Fit: the small models.")
    recipe: Recipe = Field(Recipe(epochs=1, batch=8), description="Fit: how they are trained.")

    @pydantic.field_validator("ratio", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Wrap(Method[Params]):
    """Rephrase documents in several styles, and mix the rephrases with the originals for training.

    Documents are cut into passages; each is rephrased by a language model in every style, cleaned up, and kept or
    rejected with a reason.  `fit` writes the mix of real and synthetic text, and can train small models on it.
    """

    title = "Rephrasing the Web: A Recipe for Compute and Data-Efficient Language Modeling"
    paper = "arXiv:2401.16380"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "The document."),)
    fit_reads = (
        InputField("text", "text", "A document or a rephrase."),
        InputField("origin", "text", "real or synthetic; what validation does without.", False),
        InputField("style", "text", "The rephrase's style; styles are mixed by their weights.", False),
        InputField("keep", "bool", "false: left out of the mix.", False),
        InputField("domain", "text", "Of validation: documents whose perplexity is told apart.", False),
    )
    stages = ("read", "mix", *compare.KINDS)
    cost = "One decode of up to 1.5 times its tokens for every passage, style and sample."
    reproduced = "The recipe; its directional claim on 2.5M models and made-up text: see the page."

    @classmethod
    def example(cls) -> Example:
        tea = "Green tea is brewed at about 80 degrees. Black tea wants boiling water."
        moon = "The Moon turns once on its axis for every orbit, so we see one side of it."
        asked = "Question: How hot is the water for green tea?\nAnswer: About 80 degrees."
        return Example(
            params={
                "model": "draft",
                "max_tokens": 6,
                "clean": False,
                "counter": "words",
                "train": True,
                "net": {"layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "vocab": 280, "context": 16},
                "recipe": {"epochs": 1, "batch": 2, "warmup": 1, "checkpoint": 2},
            },
            prompts=(Prompt(tea), Prompt(moon, sampling=Sampling(temperature=0.0))),
            examples=(
                Item("tea", tea, {"origin": "real"}),
                Item("moon", moon, {"origin": "real"}),
                Item("tea-qa", asked, {"origin": "synthetic", "style": "qa"}),
                Item("moon-hard", "Its rotation being synchronous, Luna hides a face.", {"origin": "synthetic"}),
            ),
            validation=(Item("v", "Question: Which side of the Moon do we see?\nAnswer: One.", {"domain": "qa"}),),
        )

    # ------------------------------------------------------------ rephrasing

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        _check(prompts)
        if not prompts:
            return
        count = self._counter()
        runs = [self._run(row, prompt, count, call) for row, prompt in enumerate(prompts)]
        asked = [
            request.prompt(self.params.system, self._sampling(run.base, request), run.seed)
            for run in runs
            for request in run.requests
        ]
        with closing(self._answers(asked, call)) as answers:
            for run in runs:
                for request in run.requests:
                    yield run.chunk(request, next(answers), self._judged)
                yield run.whole()

    def _run(self, row: int, prompt: Prompt, count: Count, call: Call) -> _Run:
        call.check()
        seed = call.seed if prompt.sampling.seed is None else prompt.sampling.seed
        document = list(passages(prompt.text or "", self.params.max_passage_tokens, count))
        asked = requests(row, document, self.params.styles, self.params.draw, seed)
        return _Run(row, prompt, seed, len(document), asked)

    def _sampling(self, document: Prompt, request: Request) -> Sampling:
        """That of the document, with what it leaves open filled in."""
        params, given = self.params, document.sampling
        passage = request.passage
        tokens = passage.tokens if params.counter == "tokens" else guessed_tokens(passage.text)
        return replace(
            given,
            max_tokens=output_limit(tokens, params.max_tokens) if given.max_tokens is None else given.max_tokens,
            temperature=params.temperature if given.temperature is None else given.temperature,
            top_p=params.top_p if given.top_p is None else given.top_p,
            top_k=params.top_k if given.top_k is None else given.top_k,
        )

    def _counter(self) -> Count:
        if self.params.counter == "words":
            return count_words
        tokenizer = self.host.lm(self.params.model, self.params.precision).tokenizer
        return lambda text: len(tokenizer.encode(text))

    def _answers(self, asked: Sequence[Prompt], call: Call) -> Generator[Written, None, None]:
        if self.params.decoder is not None:
            return write_by_decoder(self.host.decoder(self.params.decoder), asked, call)
        return write_by_model(self.host.lm(self.params.model, self.params.precision), asked, self.params, call)

    def _judged(self, request: Request, written: Written) -> Cleaned:
        if written.finish_reason == "abstain":
            return Cleaned("", (), "abstained")
        if not self.params.clean:
            return Cleaned(written.text)
        return cleaned(written.text, request.passage.text, request.style, self.params.cleaning)

    # ------------------------------------------------------------ mixing

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        params = self.params
        if params.train:
            require("jax", extra="train")
            if validation is None:
                raise InvalidItems("validation", "is missing: train=true measures the models on it")
        plan = recipe.Plan(
            params.ratio,
            params.epochs,
            call.seed if params.shuffle else None,
            {style.name: style.weight for style in params.styles},
            params.shard_tokens,
            params.mix_tokens,
        )
        with recipe.Pools(out.path, self._counter()) as pools:
            for row, item in enumerate(examples):
                call.check()
                pools.add(item, row)
                yield Progress("read", row + 1)
            order = pools.order(plan)
            yield from recipe.write_shards(pools, order, plan, out, call)
            if params.train and validation is not None:
                contest = compare.Contest(params.net, params.recipe, params.train_tokens, out, call.seed)
                yield from contest.run(pools, order, list(validation))


@dataclass
class _Run:
    """One document on its way."""

    row: int
    base: Prompt
    seed: int
    passages: int
    requests: Sequence[Request]
    usages: list[Mapping[str, float]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def chunk(self, request: Request, written: Written, judge: Callable[[Request, Written], Cleaned]) -> Chunk:
        """A rephrase with where it comes from, or why it was rejected."""
        result = judge(request, written)
        self.usages.append(written.usage)
        if result.reason is not None:
            self.reasons[result.reason] += 1
        record = {
            "passage": request.place,
            "start": request.passage.start,
            "end": request.passage.end,
            "source": request.passage.text,
            "style": request.style.name,
            "sample": request.sample,
            "rejected": result.reason,
            "fields": _metadata(self.base),
        }
        if request.style.pairs:
            record["pairs"] = [list(pair) for pair in result.pairs]
        if result.reason is not None:
            record["written"] = written.text
        return Chunk(
            self.row,
            request.choice,
            result.text,
            record=record,
            finish_reason=written.finish_reason,
            usage=written.usage,
        )

    def whole(self) -> Chunk:
        """What became of the document."""
        record = {
            "passages": self.passages,
            "rephrases": len(self.requests),
            "kept": len(self.requests) - self.reasons.total(),
            "rejected": dict(sorted(self.reasons.items())),
        }
        return Chunk(self.row, WHOLE_PROMPT, record=record, usage=summed(self.usages))


def _check(prompts: Sequence[Prompt]) -> None:
    """Raise unless every prompt is a document that asks for nothing which rephrasing cannot give."""
    found = []
    for row, prompt in enumerate(prompts):
        place = f"prompts[{row}]"
        if prompt.messages:
            found.append(Violation(f"{place}.messages", "are not rephrased: give the document as text"))
        elif not (prompt.text or "").split():
            found.append(Violation(f"{place}.text", "is empty: give a document to rephrase"))
        if prompt.sampling.n != 1:
            found.append(Violation(f"{place}.sampling.n", "must be 1: raise n of a style for more rephrases"))
    if found:
        raise InvalidItems(found)


def _metadata(prompt: Prompt) -> Mapping[str, Any]:
    """The document's fields as JSON."""
    fields: Mapping[str, Any] = item_to_json(Item("", None, prompt.fields)).get("fields", {})
    return fields
