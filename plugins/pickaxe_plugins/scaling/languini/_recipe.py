"""The recipe of `languini`: small networks trained for the same measured compute, and evaluated."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import ArtifactWriter, Call, Item, Progress
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.scaling import _pretraining
from pickaxe_plugins.scaling.languini import _train as training
from pickaxe_plugins.scaling.languini._nets import Gpt, Net, network
from pickaxe_plugins.scaling.languini._stream import distribute, scored_targets, steps_for, stream
from pickaxe_plugins.train import llama, trained, vocabulary
from pickaxe_plugins.train.settings import Shape
from pickaxe_plugins.train.trained import Trained

RUNS, FAST, SPEEDS, CURVES = "runs.jsonl", "fast.jsonl", "throughput.jsonl", "curves.json"
STAGES = ("vocabulary", "throughput", "train")

Model = Literal["gpt", "qlstm"]


class Recipe(pickaxe.Params):
    """What the recipe of `languini` trains: every model for every number of minutes."""

    models: tuple[Model, ...] = Field(("gpt", "qlstm"), min_length=1, description="Networks to compare.")
    minutes: tuple[float, ...] = Field((0.25, 0.5, 1), min_length=1, description="Compute classes, in minutes.")
    net: Shape = Field(Shape(layers=2, width=64, heads=2, kv_heads=2), description="Size of the networks.")
    vocab: int = Field(512, ge=257, description="Most tokens of the vocabulary learned from the documents.")
    seq_len: int = Field(64, ge=2, description="Tokens of a sequence.")
    batch: int = Field(16, ge=1, description="Sequences of a step: so many streams of documents.")
    accumulation: int = Field(1, ge=1, description="Parts of a step whose gradients are added up.")
    last_n: int = Field(16, ge=1, description="Targets of a window that the slow evaluation scores.")
    rate: float = Field(3e-3, gt=0, description="Highest learning rate.")
    lowest: float = Field(3e-5, ge=0, description="Learning rate at the end.")
    warmup: int = Field(50, ge=0, description="Steps of the warm-up, which multiplies the cosine.")
    tokens_per_second: dict[Model, int] = Field(
        {}, description="Throughputs that were measured before; the others are measured on this machine."
    )
    device: str = Field("", description="Device of those throughputs; empty: this machine.")
    largest_batch: int = Field(16, ge=1, description="Largest batch whose throughput is measured.")
    checkpoint: int = Field(200, ge=1, description="Steps between the points at which an interrupted fit resumes.")

    @property
    def hours(self) -> tuple[float, ...]:
        return tuple(minutes / 60 for minutes in self.minutes)

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        if self.last_n > self.seq_len or self.seq_len % self.last_n:
            raise ValueError(f"last_n {self.last_n} must divide seq_len {self.seq_len}")
        if self.accumulation > self.batch:
            raise ValueError(f"accumulation {self.accumulation} is more than the sequences of a step, {self.batch}")
        if min(self.minutes) <= 0 or min(self.tokens_per_second.values(), default=1) < 1:
            raise ValueError("minutes and tokens_per_second must be above 0")
        if len(set(self.minutes)) < len(self.minutes) or len(set(self.models)) < len(self.models):
            raise ValueError("minutes and models must all be different")
        if self.device and set(self.models) - set(self.tokens_per_second):
            raise ValueError("device is that of tokens_per_second: give the throughput of every model on it")
        return self


@dataclass(frozen=True)
class _Planned:
    """One training: a model for some minutes."""

    model: Model
    minutes: float
    settings: training.Settings
    tokens_per_second: int

    @property
    def name(self) -> str:
        return f"{self.model}-{self.minutes:g}min"


@dataclass(frozen=True)
class Kitchen:
    """What a fit has read; `run` trains and writes the artifact, and returns the rows of its runs."""

    recipe: Recipe
    tokenizer: Tokenizer
    documents: int
    streams: Sequence[np.ndarray]
    splits: Mapping[str, np.ndarray]
    """Name of a split -> its documents as one stream."""
    out: ArtifactWriter
    call: Call

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        out: ArtifactWriter,
        call: Call,
    ) -> Kitchen:
        """Raises `InvalidItems` when there are fewer documents than rows of a step, or a split is too short."""
        held = None if validation is None else list(validation)
        data = _pretraining.corpus(examples, held)
        if len(data.train) < recipe.batch:
            raise InvalidItems(
                "examples",
                f"are {len(data.train)} different documents to train on, for batch={recipe.batch} streams: give more "
                "documents, or set a smaller batch",
            )
        tokenizer = vocabulary.learn(data.train, recipe.vocab, out.path)
        end = tokenizer.eos_ids[0]
        books = [np.array(ids, np.int32) for ids in tokenizer.encode_batch(list(data.train))]
        queues = distribute([len(book) + 1 for book in books], recipe.batch)
        streams = [stream([books[place] for place in queue], end) for queue in queues]
        texts: dict[str, list[str]] = {}
        for split, text in _split_texts(held) if held is not None else (("", text) for text in data.test):
            texts.setdefault(split, []).append(text)
        splits = {
            name: stream([np.array(ids, np.int32) for ids in tokenizer.encode_batch(some)], end)
            for name, some in texts.items()
        }
        for name, tokens in splits.items():
            if len(tokens) <= recipe.seq_len:
                raise InvalidItems(
                    "examples" if held is None else "validation",
                    f"{f'of split {name!r} ' if name else ''}hold {len(tokens)} tokens to evaluate on, fewer than a "
                    f"window of {recipe.seq_len} and its target: give more text",
                )
        return cls(recipe, tokenizer, len(data.train), streams, splits, out, call)

    # ------------------------------------------------------------ run

    def run(self) -> Generator[Progress, None, list[Item]]:
        yield Progress("vocabulary", 1, 1, {"documents": self.documents, "tokens": self.tokenizer.vocab_size})
        speeds = yield from self._throughputs()
        planned = self._planned(speeds)
        total, done, rows = sum(each.settings.steps for each in planned), 0, []
        for each in planned:
            stage = f"run-{each.name}"
            if not self.out.done(stage):
                yield from self._train(each, stage, done, total)
            done += each.settings.steps
            rows.append(self.out.stage_notes(stage))
        training.forget(self.out)
        self._write(rows, planned)
        return [Item(row["id"], fields={key: row[key] for key in row if key != "id"}) for row in self._rows(rows, RUNS)]

    def _throughputs(self) -> Generator[Progress, None, Mapping[str, int]]:
        """Tokens per second of each model, the best over batch sizes."""
        recipe = self.recipe
        if not self.out.done("throughput"):
            table, speeds = [], dict(recipe.tokens_per_second)
            for model in recipe.models:
                if model in speeds:
                    continue
                self.call.check()
                measured = training.sweep(partial(self._speed, model), recipe.largest_batch)
                where = {"model": model, "config": "", "device": training.device()}
                table += [{**where, "batch_size": size, "tokens_per_second": each} for size, each in measured.items()]
                speeds[model] = max(measured.values())
                if not speeds[model]:
                    raise InvalidParams("recipe.net", f"{model} exceeds the memory with a single sequence")
            self._lines(SPEEDS, table)
            self.out.finish("throughput", speeds=speeds)
        found: Mapping[str, int] = self.out.stage_notes("throughput")["speeds"]
        yield Progress("throughput", 1, 1, {f"tokens_per_second_{model}": found[model] for model in recipe.models})
        return found

    def _speed(self, model: Model, batch: int) -> int:
        net, vocab = self._net(model), self.tokenizer.vocab_size
        return training.throughput(net, vocab, batch, self.recipe.seq_len, self.call.seed)

    def _net(self, model: Model) -> Net:
        return network(model, self.recipe.net, self.tokenizer.vocab_size, self.recipe.seq_len)

    def _planned(self, speeds: Mapping[str, int]) -> list[_Planned]:
        recipe, found = self.recipe, []
        for model in recipe.models:
            for minutes in recipe.minutes:
                _, steps = steps_for(speeds[model], minutes / 60, recipe.batch, recipe.seq_len, "round")
                if not steps:
                    raise InvalidParams(
                        "recipe.minutes",
                        f"{minutes:g} make no step of {model}: set more, or a smaller batch",
                    )
                settings = training.Settings(
                    self._net(model), recipe.batch, recipe.seq_len, steps, recipe.rate, recipe.lowest, recipe.warmup,
                    recipe.accumulation, recipe.checkpoint,
                )  # fmt: skip
                found.append(_Planned(model, minutes, settings, speeds[model]))
        return found

    def _train(self, planned: _Planned, stage: str, before: int, total: int) -> Iterator[Progress]:
        """Train, evaluate on every split, and keep what was found as notes of the stage."""
        steps = training.train(planned.settings, self.streams, planned.name, self.out, self.call.seed)
        while True:
            try:
                step, loss = next(steps)
            except StopIteration as ended:
                learned: training.Learned = ended.value
                break
            self.call.check()
            yield Progress("train", before + step, total, {"loss": loss})
        evaluated = {
            split: {str(last_n): self._evaluated(planned, learned, tokens, last_n) for last_n in self._last_ns}
            for split, tokens in self.splits.items()
        }
        trained.write(self.out.file(f"{planned.name}.safetensors"), Trained(learned.weights))
        if isinstance(planned.settings.net, Gpt) and planned.minutes == max(self.recipe.minutes):
            llama.save(learned.weights, planned.settings.net.architecture, self.out.path)
        run = {
            "model": planned.model, "minutes": planned.minutes, "steps": planned.settings.steps,
            "tokens_per_second": planned.tokens_per_second,
            "parameters": sum(each.size for each in learned.weights.values()),
        }  # fmt: skip
        self.out.finish(stage, run=run, evaluated=evaluated, curve=learned.curve.tolist())

    @property
    def _last_ns(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys((self.recipe.last_n, self.recipe.seq_len)))

    def _evaluated(
        self, planned: _Planned, learned: training.Learned, tokens: np.ndarray, last_n: int
    ) -> dict[str, float]:
        """Likelihood and length of the scored targets, which are one piece of text; end tokens have no characters."""
        seq_len = self.recipe.seq_len
        logprobs = training.target_logprobs(planned.settings.net, learned.weights, tokens, seq_len, last_n)
        text = self.tokenizer.decode(tokens[scored_targets(len(tokens), seq_len, last_n).ravel()].tolist())
        return {
            "total_nll": -float(logprobs.sum()),
            "token_count": logprobs.size,
            "string_length": len(text),
            "string_bytes": len(text.encode()),
        }

    # ------------------------------------------------------------ artifact

    def _rows(self, runs: Sequence[Mapping[str, Any]], file: str) -> Iterator[dict[str, Any]]:
        """A row for each run and split, as `score` reads them."""
        last_n = self.recipe.last_n if file == RUNS else self.recipe.seq_len
        measured = {"batch": self.recipe.batch, "seq_len": self.recipe.seq_len}
        where = self.recipe.device or training.device()
        for each in runs:
            run = each["run"]
            name = f"{run['model']}-{run['minutes']:g}min"
            for split, found in each["evaluated"].items():
                yield {
                    "id": f"{name}-{split}" if split else name, "model": run["model"], "split": split,
                    "device": where, "steps": run["steps"], "tokens_per_second": run["tokens_per_second"],
                    **measured, **found[str(last_n)],
                }  # fmt: skip

    def _write(self, runs: Sequence[Mapping[str, Any]], planned: Sequence[_Planned]) -> None:
        for file in (RUNS, FAST):
            self._lines(file, self._rows(runs, file))
        self.out.write_json(CURVES, {each.name: run["curve"] for each, run in zip(planned, runs, strict=True)})
        self.out.notes |= {
            "documents": self.documents,
            "device": training.device(),
            "tokens_per_second": {each.model: each.tokens_per_second for each in planned},
            "steps": {each.name: each.settings.steps for each in planned},
            "parameters": {each.model: run["run"]["parameters"] for each, run in zip(planned, runs, strict=True)},
            "versions": _pretraining.versions(),
        }

    def _lines(self, file: str, rows: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self.out.file(file).write_text(text, encoding="utf-8")


def _split_texts(items: Iterable[Item]) -> Iterator[tuple[str, str]]:
    for item in items:
        if text := (item.text or "").strip():
            yield str(item.get("split") or ""), text
