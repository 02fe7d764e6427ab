"""Fitting T and S: every value of a grid for T, then for S, on questions whose answers are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pickaxe import Call, Item, Progress, Prompt, Sampling
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import InvalidItems, Violation
from pickaxe.lm import LM, Contexts, logsumexp
from pickaxe_plugins.decoding.ape._answer import assembled, over_contexts
from pickaxe_plugins.decoding.ape._contexts import Held, Shelf
from pickaxe_plugins.decoding.ape._request import Asked, read_asked

if TYPE_CHECKING:
    from pickaxe_plugins.decoding.ape._method import Params

SETTINGS = "settings.json"
BEYOND = 16
"""Tokens that a greedy answer may have beyond those of the right one."""

Settings = tuple[float, float]
"""T and S."""


@dataclass(frozen=True)
class Question:
    """An example; `answer` are the right answer's tokens, `text` is what it says."""

    asked: Asked
    answer: list[int]
    text: str


def search(
    lm: LM,
    params: Params,
    examples: Iterable[Item],
    validation: Iterable[Item] | None,
    out: ArtifactWriter,
    call: Call,
) -> Iterator[Progress]:
    """T with S = 1, then S with the best T; of equal values the one nearest to 1.  Writes `settings.json`."""
    questions = _questions(examples, "examples", lm, params)
    if not questions:
        raise InvalidItems("examples", "are empty: fit tries settings on questions with contexts and answers")
    held_out = _questions(validation or (), "validation", lm, params)
    grid = sorted(params.grid, key=lambda value: abs(value - 1))
    best, report = {"temperature": 1.0, "scale": 1.0}, {}
    for stage in best:
        if not out.done(stage):
            tried = [{**best, stage: value} for value in grid]
            pairs = [(each["temperature"], each["scale"]) for each in tried]
            totals = np.zeros(len(grid))
            for step, question in enumerate(questions, start=1):
                totals += objectives(lm, params, question, pairs, call)
                yield Progress(stage, step, len(questions), {params.objective: float(totals.max() / step)})
            means = totals / len(questions)
            out.finish(
                stage,
                best=grid[int(means.argmax())],
                tried={str(value): mean for value, mean in zip(grid, means.tolist(), strict=True)},
            )
        best[stage] = out.stage_notes(stage)["best"]
        report[stage] = out.stage_notes(stage)["tried"]
    out.write_json(SETTINGS, {"temperature_context": best["temperature"], "scale": best["scale"]})
    chosen = best["temperature"], best["scale"]
    checked = [objectives(lm, params, question, [chosen, (1.0, 1.0)], call) for question in held_out]
    if checked:
        fitted, plain = np.mean(checked, axis=0).tolist()
        out.notes["validation"] = {"fitted": fitted, "at_1_and_1": plain, "n": len(checked)}
    out.notes.update(objective=params.objective, examples=len(questions), tried=report)


def objectives(lm: LM, params: Params, question: Question, settings: Sequence[Settings], call: Call) -> np.ndarray:
    """What is maximised, for each pair of T and S; the contexts are read once for all."""
    asked = question.asked
    held = Shelf(lm, None).read(asked.prefix, asked.contexts, params.context_batch, call)
    measure = answer_logprob if params.objective == "likelihood" else _matches
    return np.array([measure(lm, question, held, pair, call) for pair in settings])


def answer_logprob(lm: LM, question: Question, held: Held, settings: Settings, call: Call) -> float:
    """Mean natural log-probability of the right answer's tokens after the query."""
    asked, answer = question.asked, question.answer
    ids = [*asked.query, *answer[:-1]]
    cache, mask = assembled(held, len(ids))
    logits, _ = lm.forward(
        [ids],
        past=cache,
        positions=asked.start + np.arange(len(ids))[None],
        contexts=Contexts(mask, *settings),
        logits_at=np.arange(len(asked.query) - 1, len(ids)),
        call=call,
    )
    assert logits is not None
    chosen = logits[0, np.arange(len(answer)), answer]
    return float((chosen - logsumexp(logits[0])).mean())


def _matches(lm: LM, question: Question, held: Held, settings: Settings, call: Call) -> float:
    """1 where the greedy answer's first line is the right one, but for case and white space."""
    said = "".join(step.text for step in over_contexts(lm, question.asked, held, settings, 1, call))
    return float(_plain(said) == _plain(question.text))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _questions(items: Iterable[Item], name: str, lm: LM, params: Params) -> list[Question]:
    """Raises `InvalidItems` naming everything that is empty."""
    wrong, found = [], []
    for row, item in enumerate(items):
        contexts, answer = item.fields["contexts"], lm.tokenizer.encode(str(item.fields["answer"]))
        assert isinstance(contexts, (tuple, list))
        if not any(text.strip() for text in contexts):
            wrong.append(Violation(f"{name}[{row}].fields.contexts", "are empty: nothing is attended to"))
        if not answer:
            wrong.append(Violation(f"{name}[{row}].fields.answer", "is empty: it is what settings are judged by"))
        if not wrong:
            found.append(_question(item, contexts, answer, lm, params))
    if wrong:
        raise InvalidItems(wrong)
    return found


def _question(item: Item, contexts: Sequence[str], answer: list[int], lm: LM, params: Params) -> Question:
    prompt = Prompt(
        item.text,
        context=tuple(Item(str(place), text) for place, text in enumerate(contexts)),
        sampling=Sampling(max_tokens=len(answer) + BEYOND, temperature=0, stop=("\n",)),
        fields={"prefix": item.fields["prefix"]} if "prefix" in item.fields else {},
    )
    return Question(read_asked([prompt], lm, params, 0)[0], answer, str(item.fields["answer"]))
