"""DSIR: importance weights of texts from hashed n-grams of a target and of the raw pool (arXiv:2302.03169)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Call, Column, Example, InputField, Item, Items, Method, Progress, Scores, hookimpl
from pickaxe.artifact import Artifact, ArtifactWriter
from pickaxe.errors import ArtifactMismatch, InvalidItems, Unmet
from pickaxe.handle import ScorerHandle
from pickaxe_plugins.selection._ngrams import Hasher, divergence, log_ratio
from pickaxe_plugins.selection._text_units import WORD, Pattern

WHOLE = "target"
"""Name of the target that examples without one belong to."""
REPORT_EVERY = 1024


class Params(pickaxe.Params):
    ngrams: int = Field(2, ge=1, le=8, description="n-grams of 1 up to this many words count.")
    buckets: int = Field(10_000, ge=2, le=1 << 24, description="Buckets that n-grams are hashed into.")
    word_pattern: Pattern = Field(WORD, description="Regular expression of a word, on the lower-cased text.")
    pseudo_count: float = Field(0.0, ge=0, description="Added to the target's count of every bucket (Laplace).")
    min_words: int = Field(100, ge=0, description="Texts of fewer words get a weight but priority -inf.")
    noise: float = Field(
        0.0,
        ge=0,
        description="Gumbel noise times this is added to the priority; 1 makes the top k a sample without replacement "
        "in proportion to the weights, 0 the k largest weights.",
    )


class Dsir(Method[Params]):
    """Weigh texts by how much likelier their n-grams are in the target than in the raw pool.

    log w(x) = sum over the n-grams g of x of ln p_target(h(g)) - ln p_raw(h(g)) with a hash h into buckets.
    `fit` counts the n-grams of the examples (the target) and of `unlabelled` (the raw pool); counts of shards add up.
    """

    title = "Data Selection for Language Models via Importance Resampling"
    paper = "arXiv:2302.03169"
    version = 1
    Params = Params
    scope = "item"
    reads = (InputField("text", "text", "The text to weigh; may be empty."),)
    fit_reads = (
        InputField("text", "text", "A text of the target."),
        InputField("target", "text", "Which of several targets it belongs to.", required=False),
        InputField("raw", "bool", "True: it is a text of the raw pool, not of a target.", required=False),
    )
    columns = (
        Column("priority", "log_weight with noise; -inf for texts of fewer than min_words words", "float64"),
        Column("log_weight", "log importance weight: a sum over the text's n-grams", "float64", unit="nats"),
        Column("n_words", "words of the text", "int64", direction="none"),
    )
    fitted = "required"
    stages = ("target", "raw")
    cost = (
        "One look-up a word and n-gram, SHA-256 for those not met lately: some 0.3 ms for 3 kB on one core.  Memory: "
        "80 kB of counts a target, at most 100 MB of remembered n-grams."
    )
    reproduced = "Log weights of the authors' code on 34 texts within 1e-6, its selections exactly (golden cases)."

    def declared_columns(self) -> tuple[Column, ...]:
        names = () if self.artifact is None else self.artifact.notes["targets"]
        if len(names) < 2:
            return self.columns
        more = (Column(f"log_weight_{name}", f"the same for target {name} alone", "float64", "nats") for name in names)
        return (*self.columns, *more)

    @classmethod
    def example(cls) -> Example:
        wanted = ("def area(w, h):\n    return w * h\n", "def mean(xs):\n    return sum(xs) / len(xs)\n")
        other = ("The committee adjourned at noon.", "Nobody could say when it would convene.")
        pairs = [(Item(f"t{row}", text), Item(f"r{row}", raw, {"raw": True}))
                 for row, (text, raw) in enumerate(zip(wanted, other, strict=True))]  # fmt: skip
        return Example(
            params={"min_words": 1},
            items=(
                Item("code", "def total(xs):\n    return sum(xs)\n"),
                Item("prose", "Nobody could say when the committee would convene again."),
            ),
            ordered=True,
            examples=tuple(item for pair in pairs for item in pair),
        )

    # ------------------------------------------------------------ fitting

    @hookimpl
    def fit(
        self, examples: Iterable[Item], unlabelled: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        hasher = self._hasher()
        raw = np.zeros(self.params.buckets, np.int64)
        targets: dict[str, np.ndarray] = {}
        words: dict[str, int] = {}
        raw_words = 0
        yield Progress("target", 0)
        for number, item in enumerate(examples, 1):
            call.check()
            if item.get("raw"):
                raw_words += hasher.count(_text(item, "examples"), raw)
            else:
                name = str(item.get("target") or WHOLE)
                counts = targets.setdefault(name, np.zeros(self.params.buckets, np.int64))
                words[name] = words.get(name, 0) + hasher.count(_text(item, "examples"), counts)
            if number % REPORT_EVERY == 0:
                yield Progress("target", number)
        yield Progress("raw", 0)
        for number, item in enumerate(unlabelled or (), 1):
            call.check()
            raw_words += hasher.count(_text(item, "unlabelled"), raw)
            if number % REPORT_EVERY == 0:
                yield Progress("raw", number, metrics={"words": raw_words})
        if not (raw_words or any(words.values())):
            raise InvalidItems("examples", "hold no words, nor does `unlabelled`: give target texts and the raw pool")
        self._write(out, raw, targets, {**words, "": raw_words})

    @hookimpl
    def merge(self, artifacts: Sequence[Artifact], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        raw = np.zeros(self.params.buckets, np.int64)
        targets: dict[str, np.ndarray] = {}
        words: dict[str, int] = {"": 0}
        for number, part in enumerate(artifacts, 1):
            call.check()
            self._check(part)
            raw += part.read_array("raw.npy")
            words[""] += part.notes["raw_words"]
            for row, name in enumerate(part.notes["targets"]):
                counts = part.read_array("targets.npy")[row]
                targets[name] = targets[name] + counts if name in targets else np.array(counts)
                words[name] = words.get(name, 0) + part.notes["target_words"][row]
            yield Progress("raw", number, len(artifacts))
        self._write(out, raw, targets, words)

    def _write(
        self, out: ArtifactWriter, raw: np.ndarray, targets: dict[str, np.ndarray], words: dict[str, int]
    ) -> None:
        names = sorted(targets)
        out.write_array("raw.npy", raw)
        out.write_array("targets.npy", np.array([targets[name] for name in names], np.int64).reshape(-1, len(raw)))
        out.notes.update(
            targets=names,
            target_words=[words[name] for name in names],
            raw_words=words[""],
            counted=self._counted(),
        )

    def _counted(self) -> dict[str, Any]:
        """What the counts depend on."""
        return self.params.model_dump(mode="json", include={"ngrams", "buckets", "word_pattern"})

    def _check(self, artifact: Artifact) -> None:
        counted = artifact.notes["counted"]
        if counted != self._counted():
            raise ArtifactMismatch(
                f"artifact {str(artifact.path)!r} was counted with {counted}, wanted {self._counted()}: "
                "open it with its own parameters, or fit again"
            )

    # ------------------------------------------------------------ scoring

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        texts, ratios = items.texts(), self._ratios
        weights = np.zeros((len(texts), len(ratios)))
        words = np.zeros(len(texts), np.int64)
        with self._lock:  # the remembered n-grams belong to one thread at a time
            for row, text in enumerate(texts):
                call.check()
                for number, found in self._shared_hasher.parts(text):
                    words[row] += number
                    weights[row] += ratios[:, found].sum(1)
        priority = np.where(words >= self.params.min_words, weights[:, 0] + self._noise(items, call), -np.inf)
        names = [column.name for column in self.declared_columns()[3:]]
        several = {name: weights[:, at] for at, name in enumerate(names, 1)}
        return Scores({"priority": priority, "log_weight": weights[:, 0], "n_words": words, **several})

    def _noise(self, items: Items, call: Call) -> np.ndarray | float:
        if not self.params.noise:
            return 0.0
        draws = [pickaxe.generator(call.seed, "dsir", item.id).gumbel() for item in items]
        return self.params.noise * np.array(draws)

    @cached_property
    def _ratios(self) -> np.ndarray:
        """Log ratios per bucket, of all targets together and then, when there are several, of each."""
        target, raw, each = self.counts()
        whole = target[None] if len(each) < 2 else np.vstack([target[None], each])
        return log_ratio(whole, raw, self.params.pseudo_count)

    def counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counts per bucket: of all targets, of the raw pool, and of each target.

        Raises `Unmet` when the fit saw no text of one of them.
        """
        assert self.artifact is not None  # the handle sees to it: `fitted` is "required"
        self._check(self.artifact)
        raw, each = (np.asarray(self.artifact.read_array(name)) for name in ("raw.npy", "targets.npy"))
        for name, counts, source in (("target", each, "examples"), ("raw pool", raw, "unlabelled")):
            if not counts.sum():
                raise Unmet(
                    f"dsir has counted no words of the {name}: fit with `{source}`, or merge with a fit that has"
                )
        return each.sum(0), raw, each

    def count(self, texts: Iterable[str]) -> np.ndarray:
        """Counts per bucket of these texts."""
        counts, hasher = np.zeros(self.params.buckets, np.int64), self._hasher()
        for text in texts:
            hasher.count(text, counts)
        return counts

    def _hasher(self) -> Hasher:
        return Hasher(self.params.word_pattern, self.params.ngrams, self.params.buckets)

    @cached_property
    def _shared_hasher(self) -> Hasher:
        return self._hasher()

    @cached_property
    def _lock(self) -> threading.Lock:
        return threading.Lock()


def _text(item: Item, label: str) -> str:
    if not isinstance(item.text, str):
        raise InvalidItems(f"{label}.text", f"is missing (item {item.id!r})")
    return item.text


def kl_reduction(scorer: ScorerHandle, selected: Iterable[Item | str]) -> float:
    """How much nearer to the target a selection is than the raw pool: KL(target || raw) - KL(target || selected), nats.

    On the hashed n-grams of a fitted `dsir`; positive means nearer.  The selection is read once, as a stream.
    Raises `InvalidItems` for a selection without words.
    """
    method = scorer.opened.method
    assert isinstance(method, Dsir)
    target, raw, _ = method.counts()
    counts = method.count(item if isinstance(item, str) else _text(item, "selected") for item in selected)
    if not counts.any():
        raise InvalidItems("selected", "holds no words: there is nothing to compare")
    return divergence(target, raw) - divergence(target, counts)
