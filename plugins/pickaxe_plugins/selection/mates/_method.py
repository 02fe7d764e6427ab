"""MATES: training data by its predicted influence on the model as it is now (arXiv:2406.06046)."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Artifact, ArtifactWriter, Call, Column, Example, InputField, Item, Items, Method, Progress, Scores
from pickaxe.encoder import Encoder
from pickaxe.errors import ArtifactMismatch, InvalidItems
from pickaxe.hooks import hookimpl
from pickaxe.randomness import generator
from pickaxe_plugins.selection.mates import _draw, _regress, _report
from pickaxe_plugins.selection.mates._base import Base, given_influence
from pickaxe_plugins.selection.mates._probe import Precision, Prober, Step, decoder
from pickaxe_plugins.selection.mates._regress import EVALUATIONS, Head, Tuning
from pickaxe_plugins.train.optimisers import WarmupStableDecay

_ABOUT, _ORACLE, _HEAD, _LOSSES = "about.json", "oracle.json", "head.npy", "losses.bin"
LEAST = 10
"""Fewest probes that an influence model is learned from."""


class Schedule(pickaxe.Params):
    """The learning rate of the probed training, looked up at the checkpoint's step."""

    rate: float = Field(default=1e-3, ge=0, description="Highest learning rate.")
    warmup: int = Field(default=0, ge=0, description="Steps from 0 up to it; the paper: 4 % of the training.")
    stable: int | None = Field(default=None, ge=0, description="Step after which it decays; null: never.")
    half_life: float = Field(default=400.0, gt=0, description="Steps of the decay in which it halves.")

    def at(self, step: int) -> float:
        """The rate of the update after so many steps."""
        stable = step if self.stable is None else self.stable
        return float(WarmupStableDecay(self.rate, self.warmup, stable, self.half_life)(step))


class Params(pickaxe.Params):
    """Parameters of `mates`."""

    model: str = Field("draft", min_length=1, description="Fit: Llama-shaped model that is probed, with its training.")
    schedule: Schedule = Field(Schedule(), description="Fit: learning rate of the probed training.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="Fit: Adam's two rates of the probed training.")
    eps: float = Field(1e-8, gt=0, description="Fit: what Adam adds after the root.")
    weight_decay: float = Field(0.1, ge=0, description="Fit: weight decay of the probed training.")
    clip: float = Field(1.0, gt=0, description="Fit: largest norm of a gradient in the probed training.")
    fresh_optimizer: bool = Field(False, description="Fit: probe with moments of 0, though scores are noise then.")
    probe_max_tokens: int = Field(1024, ge=2, description="Fit: tokens of a probe, at most the model's context.")
    reference_batch: int | None = Field(
        None, ge=1, description="Fit: the reference loss is the mean of the token-means of so many items; null: of all."
    )
    precision: Precision = Field("float32", description="Fit: numbers of the probes; influences are tiny differences.")
    together: int = Field(1, ge=1, description="Fit: probes stepped side by side, each with a copy of the weights.")
    block: int = Field(32, ge=1, description="Fit: probes between the points at which an interrupted fit resumes.")
    encoder: str = Field("encoder", min_length=1, description="Fit: BERT-shaped encoder under the influence model.")
    learn: Literal["head", "all"] = Field("head", description="Fit: a ridge head alone, or encoder and head by Adam.")
    pieces: int = Field(2, ge=1, description="Fit: how often the encoder's length is read of a text.")
    ridge: float | None = Field(
        None, gt=0, description="Fit: penalty of the ridge head, in feature variances; null: by leave-one-out."
    )
    tuning: Tuning = Field(Tuning(), description="Fit: how encoder and head are trained.")
    holdout: float = Field(0.1, gt=0, lt=1, description="Fit: share of the probes that only measures.")
    temperature: float = Field(0.5, ge=0, description="Noise of the draw; 0: none, the best predictions.")
    fraction: float | None = Field(0.2, gt=0, le=1, description="Share of the items that is selected; null: no draw.")
    compat: bool = Field(False, description="The draw with the sign of the noise that the authors' code has.")


class Mates(Method[Params]):
    """Select training data by its predicted influence on the model as it is now.

    `fit` probes: one optimiser step on each example alone, from the checkpoint and its optimiser state, and how much
    the loss on the references (validation) falls.  A small model learns to predict that from the text.
    """

    title = "MATES: Model-Aware Data Selection for Efficient Pretraining with Data Influence Models"
    paper = "arXiv:2406.06046"
    version = 1
    Params = Params
    scope = "pool"
    reads = (InputField("text", "text", "The text."),)
    fit_reads = (
        InputField("text", "text", "Probe: the text; reference: the target, where it has none.", False),
        InputField(
            "influence", "float64", "Probe: fall of the reference loss; all or none have it: not probed.", False
        ),
        InputField("context", "text", "Reference: what is read before the target.", False),
        InputField("target", "text", "Reference: what is predicted; with the space that it begins with.", False),
        InputField("weight", "float64", "Reference: weight of its tokens.", False),
    )
    columns = (
        Column("influence", "predicted fall of the reference loss less that of a mean probe", "float64", "std"),
        Column("influence_nats", "the same in units of the loss", "float64", "nats"),
        Column("key", "of which the highest are the draw, whatever else is in the pool", "float64"),
        Column("select", "1: drawn", "int64"),
    )
    fitted = "required"
    stages = ("probe", "train")
    cost = (
        "Fit: for each probe a backward pass of it and a forward pass of all references; one copy of the model.  "
        "Scoring: one pass of the encoder."
    )
    reproduced = (
        "Golden cases of an own derivation, exactly.  Small model, two topics: a head ranks held-out probes with a "
        "Spearman correlation of 0.46, and 37 of 40 selected texts are of the references' topic."
    )

    @classmethod
    def example(cls) -> Example:
        """Influence is given: texts about cooking have it, others do not."""
        good = [
            "Simmer the {} in butter.",
            "Chop the {} and fry it.",
            "Season the {} with salt.",
            "Bake the {} slowly.",
        ]
        bad = ["The {} fell on the market.", "Shares of {} lost value.", "The {} report was late.", "Sell {} futures."]
        things = ["onion", "leek", "corn", "pork"]
        made = tuple(
            Item(f"{name}-{at}-{thing}", text.format(thing), {"influence": level + 1e-5 * at})
            for name, level, texts in (("good", 4e-4, good), ("bad", -4e-4, bad))
            for at, text in enumerate(texts)
            for thing in things
        )
        items = (Item("soup", "Stir the leek into the soup."), Item("stocks", "Futures and shares fell on the market."))
        return Example({"fraction": 0.5, "temperature": 0.0}, items, True, made)

    def declared_columns(self) -> tuple[Column, ...]:
        return self.columns if self.params.fraction is not None else self.columns[:-1]

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        init_from: Artifact | None,
        out: ArtifactWriter,
        call: Call,
    ) -> Iterator[Progress]:
        """Probe the examples, unless they bring their influence, and learn to predict it."""
        items = list(examples)
        for row, item in enumerate(items):
            if item.text is None:
                raise InvalidItems(f"examples[{row}]", f"has no text (item {item.id!r})")
        if len(items) < LEAST:
            raise InvalidItems("examples", f"are {len(items)}, at least {LEAST} are needed")
        influence, before = given_influence(items), None
        if influence is None:
            influence, before = yield from self._probed(items, validation or (), out, call)
        kept = np.flatnonzero(np.isfinite(influence))
        out.notes |= {"probes": len(items), "dropped": len(items) - len(kept)}
        if len(kept) < LEAST:
            raise InvalidItems("examples", f"leave {len(kept)} probes with a finite loss, at least {LEAST} are needed")
        order = kept[generator(call.seed, "mates", "split").permutation(len(kept))]
        held = max(2, round(self.params.holdout * len(order)))
        learned, held_out = order[held:], order[:held]
        labels, mean, std = standardised(influence, learned)
        about = {"mean": mean, "std": std, "loss_before": before, "pieces": self.params.pieces}
        split = [[items[row].text or "" for row in rows] for rows in (learned, held_out)]
        reached = yield from self._learned(split, [labels[learned], labels[held_out]], about, init_from, out, call)
        out.notes |= {"quality": reached, "influence_mean": mean, "influence_std": std}
        loss_after = None if before is None else [_number(before - each) for each in influence]
        table = {"id": [item.id for item in items], "influence": [_number(each) for each in influence]}
        out.write_json(_ORACLE, table | ({} if loss_after is None else {"loss_after": loss_after}))
        out.file(_LOSSES).unlink(missing_ok=True)

    def _probed(
        self, items: Sequence[Item], validation: Iterable[Item], out: ArtifactWriter, call: Call
    ) -> Generator[Progress, None, tuple[np.ndarray, float]]:
        """(n,) influences, NaN for probes without a finite loss or a second token, and the loss before."""
        params = self.params
        base = Base.open(self.host, params.model, params.fresh_optimizer)
        rate = params.schedule.at(base.step)
        step = Step(rate, params.betas, params.eps, params.weight_decay, params.clip)
        prober = Prober(
            decoder(base.architecture),
            base.state,
            step,
            base.reference(validation),
            reference_batch=params.reference_batch,
            together=params.together,
            precision=params.precision,
        )
        before = prober.before()
        out.notes["checkpoint"] = {"digest": base.digest, "step": base.step, "rate": rate, "loss": before}
        path = out.file(_LOSSES)
        done = int(out.stage_notes("probe")["done"]) if out.done("probe") else 0
        path.touch()
        os.truncate(path, done * 8)
        for start in range(done, len(items), params.block):
            call.check()
            texts = [
                base.probe(item.text or "", params.probe_max_tokens) for item in items[start : start + params.block]
            ]
            losses = np.full(len(texts), np.nan)
            usable = [row for row, text in enumerate(texts) if text is not None]
            if usable:
                losses[usable] = prober.after([text for text in texts if text is not None])[0]
            with path.open("ab") as stream:
                stream.write(losses.tobytes())
            done = start + len(texts)
            out.finish("probe", done=done)
            finite = losses[np.isfinite(losses)]
            told = {"loss_before": before} | ({"loss_after": float(finite.mean())} if len(finite) else {})
            yield Progress("probe", done, len(items), told)
        found = np.fromfile(path, np.float64)
        return np.where(np.isfinite(found), before - found, np.nan), before

    def _learned(
        self,
        texts: Sequence[Sequence[str]],
        labels: Sequence[np.ndarray],
        about: dict[str, Any],
        init_from: Artifact | None,
        out: ArtifactWriter,
        call: Call,
    ) -> Generator[Progress, None, dict[str, Any]]:
        """Learn from the first texts and labels, measure on the second ones, write the model."""
        params = self.params
        source, folder, start = self._start(init_from)
        pieces = params.pieces
        if params.learn == "all":
            head, reached = yield from _regress.tune(
                source, folder, (texts[0], texts[1]), (labels[0], labels[1]), pieces, params.tuning, start, out, call
            )
        else:
            yield Progress("train", 0, 1)
            found = _regress.features(source, texts[0], pieces, call)
            head, penalty = _regress.ridge(found, labels[0], params.ridge, start)
            found = head(_regress.features(source, texts[1], pieces, call))
            reached = _regress.quality(found, labels[1])
            about |= {"encoder": params.encoder, "digest": source.digest, "ridge": penalty}
            out.write_json(EVALUATIONS, [reached])
            yield Progress("train", 1, 1, {name: value for name, value in reached.items() if value is not None})
        out.write_array(_HEAD, np.append(head.weight, head.bias))
        out.write_json(_ABOUT, about | {"spearman": reached["spearman"]})
        return reached

    def _start(self, init_from: Artifact | None) -> tuple[Encoder, Path, Head | None]:
        """The encoder to begin with, where its files lie, and the head, both as an earlier artifact left them."""
        stock = self.host.encoder(self.params.encoder)
        folder = self.host.model_path(self.params.encoder)
        if init_from is None:
            return stock, folder, None
        earlier = _Fitted(init_from)
        if earlier.own_encoder and self.params.learn == "head":
            raise ArtifactMismatch("init_from trained its own encoder: only learn='all' goes on from it")
        if earlier.own_encoder:
            return self.host.encoder_at(init_from.path), init_from.path, earlier.head
        if earlier.about["digest"] != stock.digest:
            raise ArtifactMismatch(f"init_from has another encoder than {self.params.encoder!r}: name the same one")
        return stock, folder, earlier.head

    # ------------------------------------------------------------ score

    @cached_property
    def _fitted(self) -> _Fitted:
        assert self.artifact is not None
        return _Fitted(self.artifact)

    @cached_property
    def _encoder(self) -> Encoder:
        assert self.artifact is not None
        about = self._fitted.about
        if self._fitted.own_encoder:
            return self.host.encoder_at(self.artifact.path)
        encoder = self.host.encoder(about["encoder"])
        if encoder.digest != about["digest"]:
            raise ArtifactMismatch(f"the encoder {about['encoder']!r} is another one than at the fit: fit again")
        return encoder

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        params, fitted = self.params, self._fitted
        if not len(items):
            return Scores({each.name: np.empty(0, each.dtype) for each in self.declared_columns()})
        for row, item in enumerate(items):
            if item.text is None:
                raise InvalidItems(f"items[{row}]", f"has no text (item {item.id!r})")
        rows = _regress.features(self._encoder, [item.text or "" for item in items], fitted.about["pieces"], call)
        labels = fitted.head(rows)
        noise = _draw.gumbel(call.seed, [item.id for item in items])
        keys = _draw.keys(labels, noise, params.temperature, params.compat)
        columns = {"influence": -labels, "influence_nats": -labels * fitted.about["std"], "key": keys}
        if params.fraction is None:
            return Scores(columns)
        select = _draw.chosen(keys, _draw.how_many(params.fraction, len(items)))
        summary = _report.tell(-labels, select, params.temperature, fitted.about["spearman"])
        return Scores(columns | {"select": select.astype(np.int64)}, summary=summary)


def standardised(influence: np.ndarray, learned: np.ndarray) -> tuple[np.ndarray, float, float]:
    """(n,) labels, of which lower is better, and mean and population standard deviation of the rows `learned`."""
    mean, std = float(influence[learned].mean()), float(influence[learned].std())
    if not std > 1e-12 * float(np.abs(influence[learned]).max()):
        raise InvalidItems("examples", "all have the same influence: is the learning rate 0?")
    return (mean - influence) / std, mean, std


class _Fitted:
    """What a fit left."""

    def __init__(self, artifact: Artifact) -> None:
        self.about: dict[str, Any] = artifact.read_json(_ABOUT)
        values = np.array(artifact.read_array(_HEAD))
        self.head = Head(values[:-1], float(values[-1]))
        self.own_encoder = artifact.has("model.safetensors")


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
