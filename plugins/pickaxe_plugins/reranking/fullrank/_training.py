"""From labelled lists to a trained listwise decoder."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from pickaxe import ArtifactWriter, Call, Item, Progress
from pickaxe.errors import InvalidItems
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture, open_checkpoint
from pickaxe_plugins.reranking.fullrank import _tokens as tokens
from pickaxe_plugins.reranking.fullrank._labels import Teacher, build_labels
from pickaxe_plugins.reranking.fullrank._loss import importance_weights
from pickaxe_plugins.reranking.fullrank._permutation import write_permutation
from pickaxe_plugins.reranking.fullrank._prompt import fitted, listwise_messages
from pickaxe_plugins.train.settings import Net, Recipe

if TYPE_CHECKING:
    from pickaxe.tokenizers import Tokenizer
    from pickaxe_plugins.train.loop import Text


@dataclass(frozen=True)
class Lesson:
    """A query, its passages in their incoming order, and their places best first."""

    query: str
    passages: tuple[str, ...]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Start:
    """What training starts from."""

    architecture: Architecture
    weights: dict[str, np.ndarray]
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Labels:
    """Reads examples with their `permutation`, which the teacher makes for those without."""

    out: ArtifactWriter
    teacher: Teacher | None
    window: int
    step: int
    call: Call

    def read(self, examples: Iterable[Item], name: str) -> Generator[Progress, None, list[Lesson]]:
        """The lessons; file `name` keeps their orders, so that a resumed fit does not ask the teacher again."""
        file, found = self.out.file(name), []
        known = json.loads(file.read_text()) if self.out.done("labels") and file.is_file() else None
        for row, example in enumerate(examples):
            self.call.check()
            if known is not None:
                example = replace(example, fields={**example.fields, "permutation": np.array(known[row])})
            elif example.get("permutation") is None:
                example = self._ask(example)
            found.append(_lesson(example))
            if known is None:
                yield Progress("labels", row + 1)
        if known is None and found:
            self.out.write_json(name, [each.order for each in found])
        return found

    def _ask(self, example: Item) -> Item:
        if self.teacher is None:
            raise InvalidItems(
                f"example {example.id!r}", "has no permutation: give one, or a teacher that orders the passages"
            )
        (label,) = build_labels([example], self.teacher, window=self.window, step=self.step, call=self.call)
        return label


def _lesson(example: Item) -> Lesson:
    passages, order = example.fields["passages"], np.asarray(example.fields["permutation"])
    assert isinstance(passages, (list, tuple))
    if not passages or order.ndim != 1 or sorted(order.tolist()) != list(range(len(passages))):
        raise InvalidItems(
            f"example {example.id!r}",
            f"has permutation {order.tolist()}: it must hold the places 0 to {len(passages) - 1} of its passages, "
            "each once, best first",
        )
    return Lesson(example.text or "", tuple(passages), tuple(map(int, order)))


def start_new(net: Net, given: Sequence[Lesson], max_passage_len: int, folder: Path, seed: int) -> Start:
    """A new network, with a vocabulary learned from the lessons."""
    from pickaxe_plugins.train import llama, vocabulary

    texts = (
        text
        for lesson in given
        for turn in listwise_messages(lesson.query, lesson.passages, max_passage_len)
        for text in (turn.content, write_permutation(lesson.order))
    )
    tokenizer = vocabulary.learn(texts, net.vocab, folder)
    architecture = net.architecture(tokenizer.vocab_size)
    return Start(architecture, llama.initial(architecture, seed), tokenizer)


def start_from(path: Path, tokenizer: Tokenizer) -> Start:
    """A model on disk."""
    from pickaxe_plugins.train import llama

    checkpoint = open_checkpoint(path)
    return Start(checkpoint.architecture, llama.load(checkpoint.architecture, checkpoint.tensors), tokenizer)


def learn(
    start: Start,
    given: Sequence[Lesson],
    held_out: Sequence[Lesson],
    recipe: Recipe,
    loss: Literal["importance", "lm"],
    max_passage_len: int,
    out: ArtifactWriter,
    seed: int,
) -> Generator[Progress, None, None]:
    """Train on the lessons and write `model.safetensors`, `config.json` and the tokenizer."""
    from pickaxe_plugins.train import llama, loop

    texts, held = (
        [learnt(each, start.tokenizer, start.architecture.context, loss, max_passage_len) for each in part]
        for part in (given, held_out)
    )
    weights = yield from loop.train(start.architecture, start.weights, texts, recipe, out, seed)
    if held:
        out.notes["validation_loss"] = loop.mean_loss(start.architecture, weights, held, recipe.batch)
    out.notes["training_loss"] = loop.mean_loss(start.architecture, weights, texts[: 8 * recipe.batch], recipe.batch)
    out.notes["parameters"] = sum(array.size for array in weights.values())
    out.notes["versions"] = {name: require(name, extra="train").__version__ for name in ("jax", "optax")}
    llama.save(weights, start.architecture, out.path)
    start.tokenizer.save(out.path)


def learnt(
    lesson: Lesson, tokenizer: Tokenizer, context: int, loss: Literal["importance", "lm"], max_passage_len: int
) -> Text:
    """Prompt and order as ids; the prompt is read, and the order learned with the weights of the loss over T."""
    from pickaxe_plugins.train.loop import Text

    prompt = fitted(
        lesson.query,
        lesson.passages,
        max_passage_len,
        context,
        lambda turns: len(tokens.prompt_ids(tokenizer, turns)),
        lambda n: tokens.answer_length(tokenizer, n),
    )
    asked = tokens.prompt_ids(tokenizer, prompt.messages)
    target = np.array(tokens.order_ids(tokenizer, lesson.order), np.int32)
    weights = np.ones(len(target))
    if loss == "importance":
        weights = importance_weights(target, tokens.separator_id(tokenizer))
    ids = np.concatenate([np.array(asked, np.int32), target])
    shares = np.concatenate([np.zeros(len(asked)), weights / len(target)])
    return Text(ids, shares.astype(np.float32))
