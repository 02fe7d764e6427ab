"""The stages of PreSelect's fit: reading, losses, labels, a classifier, thresholds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import pickaxe
from pickaxe import Call, Host, Item, Progress
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe_plugins.selection.preselect import _classifier
from pickaxe_plugins.selection.preselect._corpus import BATCH, Corpus, training_line
from pickaxe_plugins.selection.preselect._losses import document_losses, losses_of, start_of_text
from pickaxe_plugins.selection.preselect._params import Params
from pickaxe_plugins.selection.preselect._strength import Cut, extremes, ordered_pairs, strength

if TYPE_CHECKING:
    from pickaxe.fasttext_model import FastText
    from pickaxe.lm import LM

STAGES = ("reading", "losses", "labels", "training", "thresholds")
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
MODEL, CUT_SCORES, CUT_CHARACTERS = "model.bin", "sample-scores.npy", "sample-characters.npy"
_LM_BATCH = 64


@dataclass
class Fit:
    """One fit: what it was asked for and where it writes."""

    params: Params
    host: Host
    out: ArtifactWriter
    call: Call

    def run(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, unlabelled: Iterable[Item] | None
    ) -> Iterator[Progress]:
        self.out.notes["seed"] = self.call.seed
        with Corpus(len(self.params.benchmark_scores)) as corpus:
            yield from self._read(examples, corpus)
            if self.params.adopt is None:
                losses = yield from self._losses(corpus)
                yield Progress("labels", 0, 1)
                positives, negatives = self._label(corpus, losses)
                yield Progress("training", 0, self.params.epoch)
                model = self._trained(corpus, positives, negatives)
                yield Progress("training", self.params.epoch, self.params.epoch)
            else:
                model = self._adopt(self.params.adopt)
            sample = (
                corpus.texts(range(len(corpus))) if unlabelled is None else (each.text or "" for each in unlabelled)
            )
            yield from self._thresholds(model, sample)
            if validation is not None:
                self._validate(model, validation)

    # ------------------------------------------------------------ documents and their losses

    def _read(self, examples: Iterable[Item], corpus: Corpus) -> Iterator[Progress]:
        models, empty = len(self.params.benchmark_scores), 0
        if not models and self.params.adopt is None:
            raise InvalidParams("benchmark_scores", "is needed to fit: one score for each model")
        for row, item in enumerate(examples):
            if row % BATCH == 0:
                self.call.check()
                yield Progress("reading", row)
            losses = losses_of(item, models, f"examples[{row}]")
            if item.text:
                corpus.add(item.id, item.text, losses if models else None)
            else:
                empty += 1
        self.out.notes.update(documents=len(corpus), dropped_empty=empty)

    def _losses(self, corpus: Corpus) -> Generator[Progress, None, np.ndarray]:
        """Returns (documents, models); what documents came without is filled in model by model."""
        losses, rows = corpus.losses(), corpus.without_losses()
        names = self.params.models if len(rows) else ()
        if names:
            block, stride = self._window()
            starts = {name: bool(start_of_text(self._lm(name))) for name in names}
            self.out.notes["windows"] = {
                "block": block, "stride": stride, "stream": "one per document", "first_token_scored": starts,
            }  # fmt: skip
        for column, name in enumerate(names):
            file = f"losses-{column}.npy"
            if not self.out.done(file):
                found: list[float] = []
                for texts in corpus.batches(rows, _LM_BATCH):
                    yield Progress("losses", column * len(rows) + len(found), len(names) * len(rows))
                    found += document_losses(self._lm(name), texts, block, stride, self.call).tolist()
                self.out.write_array(file, np.array(found))
                self.out.finish(file)
            losses[rows, column] = np.load(self.out.file(file))
        return losses

    def _window(self) -> tuple[int, int]:
        """Block and stride that fit every model, so that all read the same windows."""
        context = min(self._lm(name).context_length for name in self.params.models)
        block = min(self.params.block, context - 1)
        return block, min(self.params.stride, block)

    def _lm(self, name: str) -> LM:
        return self.host.lm(name, self.params.precision)

    # ------------------------------------------------------------ labels

    def _label(self, corpus: Corpus, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the positives and of the negatives."""
        benchmark = self.params.benchmark_scores
        complete = np.flatnonzero(~np.isnan(losses).any(axis=1))
        if not len(complete):
            raise InvalidItems(
                "examples", "hold no document with a loss of every model: give `losses`, or name `models`"
            )
        strengths = strength(losses[complete], benchmark)
        best, worst = extremes(strengths, self.params.positive, self.params.max_per_class)
        if not len(best):
            which = "positive" if not (strengths == 1).any() else "negative"
            raise InvalidItems(
                "examples",
                f"leave no {which} among {len(complete)} documents with losses: give more, or set `positive` to the "
                "share of highest strength to take, such as 0.1",
            )
        ids = [corpus.ids[row] for row in complete]
        self.out.write_array("strength.npy", strengths)
        self.out.write_json("documents.json", ids)
        self.out.write_json("labels.json", {"1": [ids[row] for row in best], "0": [ids[row] for row in worst]})
        self.out.notes.update(
            models=len(benchmark),
            pairs=len(ordered_pairs(benchmark)),
            dropped_without_loss=len(corpus) - len(complete),
            per_class=len(best),
            lowest_positive=float(strengths[best].min()),
            highest_negative=float(strengths[worst].max()),
        )
        return complete[best], complete[worst]

    # ------------------------------------------------------------ the classifier

    def _trained(self, corpus: Corpus, positives: np.ndarray, negatives: np.ndarray) -> FastText:
        from pickaxe.fasttext_model import FastText

        if not self.out.done("training"):
            self._train(corpus, positives, negatives)
            self.out.finish("training")
        return FastText.load(self.out.file(MODEL))

    def _train(self, corpus: Corpus, positives: np.ndarray, negatives: np.ndarray) -> None:
        from pickaxe.fasttext_model import FastText

        rows = np.concatenate([positives, negatives])
        order = pickaxe.generator(self.call.seed, "training order").permutation(len(rows))
        params = self.params
        with tempfile.TemporaryDirectory() as folder:
            lines = Path(folder) / "lines.txt"
            with lines.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
                for place, text in zip(order, corpus.texts(rows[order]), strict=True):
                    file.write(training_line(text, place < len(positives)) + "\n")
            self.call.check()
            model = FastText.train(
                lines, epoch=params.epoch, lr=params.lr, dim=params.dim, word_ngrams=params.word_ngrams,
                bucket=params.bucket, thread=params.thread, seed=self.call.seed % 2**31,
            )  # fmt: skip
        self._explain(model)
        if params.quantise:
            model.quantise()
        model.save(self.out.file(MODEL))

    def _adopt(self, name: str) -> FastText:
        """Take over a ready model: by path, or on a server by a resource's name."""
        from pickaxe.fasttext_model import FastText

        source = self.host.resource(name) if self.host.serving else Path(name)
        model = FastText.load(source)
        model.label(self.params.label)
        shutil.copyfile(source, self.out.file(MODEL))
        self.out.notes["adopted"] = {"labels": list(model.labels)}
        self._explain(model)
        return model

    def _explain(self, model: FastText) -> None:
        """List the words that the model likes and dislikes, where it has vectors to tell by."""
        try:
            words = _classifier.liked_and_disliked(model, self.params.label, self.call)
        except Unmet as error:  # an adopted model may be quantised or know one label only
            self.out.notes["no_words"] = error.message
        else:
            self.out.write_json("words.json", words)

    # ------------------------------------------------------------ what it says

    def _thresholds(self, model: FastText, texts: Iterator[str]) -> Iterator[Progress]:
        """Score the sample and keep what cuts by share of characters need of it."""
        scores, lengths = [np.empty(0, np.float32)], []
        kept = (text for text in texts if text)
        while batch := list(islice(kept, BATCH)):
            scores.append(model.probability(batch, self.params.label, self.call))
            lengths += [len(text) for text in batch]
            yield Progress("thresholds", len(lengths))
        if lengths:
            cut = Cut.of(np.concatenate(scores), np.array(lengths, np.int64))
            self.out.write_array(CUT_SCORES, cut.scores)
            self.out.write_array(CUT_CHARACTERS, cut.characters)
            self.out.write_json("thresholds.json", {str(share): cut.threshold(share) for share in FRACTIONS})
        self.out.notes["sample"] = len(lengths)

    def _validate(self, model: FastText, validation: Iterable[Item]) -> None:
        """Note how well the classifier tells apart what the validation documents' `label` or `losses` say."""
        texts, labels = [], []
        for row, item in enumerate(validation):
            label = self._label_of(item, f"validation[{row}]")
            if item.text and label is not None:
                texts.append(item.text)
                labels.append(label)
        if texts:
            quality = model.probability(texts, self.params.label, self.call)
            self.out.notes["validation"] = _classifier.agreement(quality, np.array(labels))

    def _label_of(self, item: Item, place: str) -> bool | None:
        """True, False, or None for a document between the classes."""
        if (given := item.fields.get("label")) is not None:
            return bool(given)
        benchmark = self.params.benchmark_scores
        losses = losses_of(item, len(benchmark), place)
        if losses is None or not benchmark or self.params.adopt is not None:
            return None
        share = float(strength(losses[None], benchmark)[0])
        if share >= self.out.notes["lowest_positive"]:
            return True
        return False if share <= self.out.notes["highest_negative"] else None
