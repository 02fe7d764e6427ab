"""What the decoder `batchprompt` and the scorer `batch-label` have in common: pools of items, and fit."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pickaxe import ArtifactWriter, Call, InputField, Item, Method, Progress, Sampling
from pickaxe.errors import InvalidItems, InvalidParams, Violation
from pickaxe.hooks import hookimpl
from pickaxe_plugins.decoding.batchprompt import polling
from pickaxe_plugins.decoding.batchprompt.asking import Asker, OtherDecoder
from pickaxe_plugins.decoding.batchprompt.fitting import choose, frontier
from pickaxe_plugins.decoding.batchprompt.models import ModelLogits, ModelText
from pickaxe_plugins.decoding.batchprompt.params import Params, labels_problem
from pickaxe_plugins.decoding.batchprompt.polling import Batch, Poll, Window
from pickaxe_plugins.decoding.batchprompt.task import Task, Template

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHOICE = "choice.json"


@dataclass
class Pool:
    """Items of one task on their way through a poll.

    `single_tokens` are those of each item's prompt on its own, `cut` the rows whose text lost its end.
    """

    poll: Poll
    batches: list[list[int]]
    single_tokens: list[int]
    cut: list[int]
    asker: Asker

    def usage(self, done: Sequence[Batch], like_paper: int | None) -> dict[str, float]:
        """Calls and tokens of finished batches; with a number of rounds, also as the published evaluation counts."""
        single = sum(self.single_tokens[row] for batch in done for row in batch.rows)
        usage = {**polling.totals(done), "single_prompt_tokens": single}
        if like_paper is not None:
            usage |= polling.paper_totals(done, like_paper, lambda n: self.asker.tokens([""] * n))
        return usage


class BatchMethod(Method[Params]):
    title = "BatchPrompt: Accomplish more with less"
    paper = "arXiv:2309.00384"
    version = 1
    Params = Params
    fitted = "optional"
    fit_reads = (
        InputField("text", "text", "An item's text.", False),
        InputField("text_pair", "text", "Its second text, where the template names it.", False),
        InputField("label", "text", "Its label, one of labels."),
    )
    stages = ("single", "batches")
    cost = "One prompt per batch and round, shorter with every closed item; instruction and examples are read once."
    reproduced = (
        "The state machine on six vote tables, and both simulations: accuracy falling from .9 to .6 in a prompt costs "
        "one round .15, five rounds win it back.  Not tried: GPT-4.  SmolLM2-135M is at chance, alone or in batches."
    )

    def pool(
        self, texts: Sequence[str], labels: tuple[str, ...], sampling: Sampling, call: Call, size: int, rounds: int
    ) -> Pool:
        params = self.params
        seed = call.seed if sampling.seed is None else sampling.seed
        asker = self._asker(labels, self._drawn(sampling), seed)
        answer_limit = None if params.mode == "logits" else params.max_tokens
        kept, batches, single = polling.plan(texts, asker, Window(size, answer_limit, params.too_long == "cut"))
        poll = Poll(
            kept, asker, params.rules(rounds), polling.permutation(seed), labels=len(labels), retry=params.retry,
            parallel=params.parallel, budget=call.budget,
        )  # fmt: skip
        cut = [row for row, (text, whole) in enumerate(zip(kept, texts, strict=True)) if text != whole]
        return Pool(poll, batches, single, cut, asker)

    def _asker(self, labels: tuple[str, ...], sampling: Sampling, seed: int) -> Asker:
        params, template = self.params, Template(self.params.template)
        shots = tuple(
            (template.fill(shot.get)[0], labels.index(shot.label), shot.confident) for shot in params.examples
        )
        task = Task(params.instruction, labels, shots, params.marks)
        if params.decoder is not None:
            return OtherDecoder(self.host.decoder(params.decoder), task, sampling, seed, params.context_tokens)
        lm = self.host.lm(params.model, params.precision)
        if params.mode == "logits":
            return ModelLogits(lm, task, params.margin, params.context_tokens)
        return ModelText(lm, task, sampling, seed, params.context_tokens)

    def _drawn(self, given: Sampling) -> Sampling:
        params = self.params
        return Sampling(
            max_tokens=params.max_tokens,
            temperature=params.temperature if given.temperature is None else given.temperature,
            top_p=params.top_p if given.top_p is None else given.top_p,
            top_k=params.top_k if given.top_k is None else given.top_k,
        )

    def size_and_rounds(self) -> tuple[int, int]:
        """Those that a fit chose, else the parameters'."""
        size, rounds = self.params.batch_size, self.params.rounds
        if self.artifact is not None:
            choice: Mapping[str, int] = self.artifact.read_json(_CHOICE)
            size, rounds = choice["batch_size"], choice["rounds"]
        if rounds % 2 == 0:
            warnings.warn(f"rounds is {rounds}: an even number of votes can tie", stacklevel=2)
        return size, rounds

    def labels(self) -> tuple[str, ...]:
        if not self.params.labels:
            raise InvalidParams("labels", labels_problem(()))
        return self.params.labels

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        """Choose batch size and rounds: the fewest tokens at the accuracy of single prompts, less a tolerance."""
        params, items, labels = self.params, list(examples), self.labels()
        texts = shown(items, params.template, "examples")
        truth = [known for known in label_numbers(items, labels, "examples") if known is not None]
        if len(truth) < len(items) or not items:
            raise InvalidItems("examples", "are needed to choose by, each with a label")
        points: list[dict[str, float]] = []
        steps = {"single": 0, "batches": 0}
        for size in (1, *(size for size in params.fit_batch_sizes if size > 1)):
            stage, tried = ("single", (1,)) if size == 1 else ("batches", params.fit_rounds)
            pool = self.pool(texts, labels, Sampling(), call, size, max(tried))
            done: list[Batch] = []
            for batch in pool.poll.run(pool.batches, call):
                done.append(batch)
                steps[stage] += 1
                yield Progress(stage, steps[stage])
            points += frontier(size, tried, pool.poll.standings, done, truth, params.rules(max(tried)))
        choice = choose(points, params.tolerance)
        out.write_json(_CHOICE, {**choice, "frontier": points, "examples": len(items)})
        out.notes.update(choice, examples=len(items))
        yield Progress("batches", steps["batches"] + 1, metrics={key: choice[key] for key in ("accuracy", "saving")})


def shown(items: Sequence[Item], template: str, where: str) -> list[str]:
    """The items as the template shows them; raises `InvalidItems` naming every field that is missing."""
    form = Template(template)
    texts: list[str] = []
    found: list[Violation] = []
    for row, item in enumerate(items):
        text, wrong = form.fill(item.get)
        texts.append(text)
        for name in wrong:
            place = name if name == "text" else f"fields.{name}"
            why = f"is missing or neither text nor number (item {item.id!r}): the template names it"
            found.append(Violation(f"{where}[{row}].{place}", why))
    if found:
        raise InvalidItems(found)
    return texts


def label_numbers(items: Sequence[Item], labels: tuple[str, ...], where: str) -> list[int | None]:
    """The numbers of the items' labels, None for those without; raises `InvalidItems` for one that there is not."""
    numbers = {label: number for number, label in enumerate(labels)}
    given = [item.fields.get("label") for item in items]
    if wrong := [row for row, label in enumerate(given) if label is not None and label not in numbers]:
        raise InvalidItems(
            Violation(f"{where}[{row}].fields.label", f"is {given[row]!r}, none of {', '.join(labels)}")
            for row in wrong
        )
    return [None if label is None else numbers[str(label)] for label in given]
