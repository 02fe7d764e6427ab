"""Learners whose curve `learning-curve` measures: texts with labels in, accuracy out."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pickaxe import Call, Item, MethodRef
from pickaxe.host import Host
from pickaxe.randomness import generator

Learner = Callable[[Sequence[Item], Sequence[Item], int], float]
"""(examples to learn from, examples to judge by, seed) -> how good it is, higher is better."""

_WORD = re.compile(r"\w+|[^\w\s]")


def perceptron(passes: int, call: Call) -> Learner:
    """An averaged perceptron over the words of a text and their suffixes: accuracy of its labels."""

    def learn(train: Sequence[Item], test: Sequence[Item], seed: int) -> float:
        vocabulary: dict[str, int] = {}
        labels = {label: place for place, label in enumerate(sorted({_label(item) for item in train}))}
        rows = [_features(item.text or "", vocabulary, grow=True) for item in train]
        wanted = [labels[_label(item)] for item in train]
        weights = np.zeros((len(vocabulary) + 1, len(labels)))
        summed = np.zeros_like(weights)
        step = 0
        for turn in range(passes):
            call.check()
            for row in generator(seed, "perceptron", turn).permutation(len(rows)):
                step += 1
                said = int(weights[rows[row]].sum(0).argmax())
                if said != wanted[row]:
                    for label, change in ((wanted[row], 1.0), (said, -1.0)):
                        np.add.at(weights[:, label], rows[row], change)
                        np.add.at(summed[:, label], rows[row], change * step)
        average = weights - summed / (step + 1)
        hits = [
            labels.get(_label(item)) == int(average[_features(item.text or "", vocabulary)].sum(0).argmax())
            for item in test
        ]
        return float(np.mean(hits))

    return learn


def _features(text: str, vocabulary: dict[str, int], grow: bool = False) -> np.ndarray:
    """Numbers of the text's words and of their last three letters; 0 stands for every text."""
    found = [0]
    for word in _WORD.findall(text.lower()):
        for feature in (word, "-" + word[-3:]):
            if grow:
                vocabulary.setdefault(feature, len(vocabulary) + 1)
            if feature in vocabulary:
                found.append(vocabulary[feature])
    return np.array(found)


def fasttext(passes: int, call: Call) -> Learner:
    """A fastText classifier: accuracy of its first label."""
    from pickaxe.fasttext_model import PREFIX, FastText

    def learn(train: Sequence[Item], test: Sequence[Item], seed: int) -> float:
        call.check()
        names = {label: f"{PREFIX}{place}" for place, label in enumerate(sorted({_label(item) for item in train}))}
        lines = [f"{names[_label(item)]} {' '.join((item.text or '').split())}\n" for item in train]
        with tempfile.TemporaryDirectory(prefix="pickaxe-") as folder:
            path = Path(folder) / "train.txt"
            path.write_text("".join(lines), encoding="utf-8")
            model = FastText.train(path, epoch=passes, dim=16, bucket=1, lr=0.5, seed=seed)
        said, _ = model.predict([item.text or "" for item in test], k=1)
        return float(np.mean([answer[0] == names.get(_label(item)) for answer, item in zip(said, test, strict=True)]))

    return learn


def scorer(reference: MethodRef, host: Host, call: Call) -> Learner:
    """A scorer that can be fitted: the mean of its primary column over what it is judged by."""

    def learn(train: Sequence[Item], test: Sequence[Item], seed: int) -> float:
        call.check()
        fitted = host.scorer(reference).fit(train, seed=seed)
        return float(np.nanmean(fitted.score(test, call=call).primary))

    return learn


def _label(item: Item) -> str:
    return str(item.get("label"))
