"""Domain specificity: how much better a domain's model predicts a text than a general one (arXiv:2104.08671)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Literal

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import Call, Column, Example, Flag, InputField, Item, Items, Method, Progress, Scores, hookimpl
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams, Unmet
from pickaxe_plugins.selection.domain_specificity import _losses as losses
from pickaxe_plugins.selection.domain_specificity._losses import GIVEN, Losses
from pickaxe_plugins.selection.domain_specificity._masked_lm import MaskedLM
from pickaxe_plugins.selection.domain_specificity._report import groups, summary
from pickaxe_plugins.selection.domain_specificity._word_ngrams import RUN, NgramModel, Vocabulary, joined, names

SIDES = ("general", "domain")
_TEXTS = 256
"""Texts whose words are looked up together."""
_COUNTED = ("order", "weight", "equal")
"""Parameters that an n-gram pair was fitted with."""


class Params(pickaxe.Params):
    loss: Literal["ngram", "causal", "mlm", "task_head"] = Field(
        "ngram",
        description="ngram: a pair of word n-gram models that `fit` counts; causal, mlm: the loss of two language "
        "models; task_head: as the authors' script, cross-entropy of a fresh head with the labels.",
    )
    general: str = Field("lm", min_length=1, description="The general model: alias, name or path.  Not for ngram.")
    domain: str = Field("", description="The domain's model: alias, name or path.  Not for ngram.")
    normalise: Literal["auto", "token", "char"] = Field(
        "auto", description="Per token or per character; auto: per character when the models cut texts differently."
    )
    mask_prob: float = Field(0.15, gt=0, lt=1, description="mlm: share of the tokens that are masked together.")
    repeats: int = Field(4, ge=1, le=1000, description="mlm: draws of masks per text.")
    exact: bool = Field(False, description="mlm: mask each token once, by itself, instead of drawing.")
    max_tokens: int | None = Field(None, ge=3, description="causal, mlm: longer texts are cut; null: the context.")
    labels: int = Field(2, ge=2, description="task_head: labels of items without choices.")
    order: int = Field(2, ge=1, le=4, description="ngram: longest n-gram.")
    weight: float = Field(0.6, ge=0, lt=1, description="ngram: share of the longer n-gram in each interpolation.")
    equal: bool = Field(True, description="ngram: both models learn from equally many words, from the first on.")

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Params:
        if self.loss != "ngram" and not self.domain:
            raise ValueError(f"loss={self.loss} needs `domain`, the model of the domain")
        if self.loss == "task_head" and self.normalise == "char":
            raise ValueError("loss=task_head is one loss per item: normalise=char has no meaning")
        return self


class DomainSpecificity(Method[Params]):
    """Score texts by the loss of a general model less that of a domain's model.

    DS(x) = loss_general(x) - loss_domain(x), before any fine-tuning; above 0 the text is nearer to the domain, and
    training on the domain is likely to pay.  A task's DS is the mean over its texts.
    """

    title = "When Does Pretraining Help? Assessing Self-Supervised Learning for Law and the CaseHOLD Dataset"
    paper = "arXiv:2104.08671"
    version = 1
    Params = Params
    scope = "group"
    reads = (
        InputField("text", "text", "The text.", required=False),
        InputField("group", "text", "The task it belongs to.", required=False),
        InputField(GIVEN[0], "tensor", "(n,) log-probabilities by the general model, no model needed.", required=False),
        InputField(GIVEN[1], "tensor", "(m,) the same by the domain's model.", required=False),
        InputField("label", "int64", "task_head: the right label or choice, from 0.", required=False),
        InputField("choices", "texts", "task_head: what to choose from.", required=False),
    )
    fit_reads = (
        InputField("text", "text", "A text of the domain; general texts are the unlabelled ones."),
        InputField("general", "bool", "True: this example is a general text.", required=False),
    )
    columns = (
        Column("ds", "Loss of the general model less that of the domain's.", "float64", "nats", nullable=True),
        Column("loss_general", "By the general model.", "float64", "nats", "none", True),
        Column("loss_domain", "By the domain's model.", "float64", "nats", "lower", True),
        Column("n_units", "Tokens (or characters) that the losses are means over.", "int64", "", "none"),
    )
    fitted = "optional"
    stages = ("words", "count")
    cost = "ngram: two look-ups a word and order, some 0.5 million words a second; else two passes of a model."
    reproduced = (
        "Golden losses and DS exactly.  n-gram pair, 60-word chunks: mean DS of held-out finance texts above 0, of "
        "speeches below; see the page."
    )

    @classmethod
    def example(cls) -> Example:
        domain = ("The court held that the contract was void.", "The court affirmed; the appeal is dismissed.")
        general = ("We walked along the river in the rain.", "She made soup and bread for all of us.")
        pairs = zip(domain, general, strict=True)
        return Example(
            items=(
                Item("law", "The appeal is void, the court held.", {"group": "law"}),
                Item("walk", "We walked in the rain along the river for bread.", {"group": "prose"}),
            ),
            ordered=True,
            examples=tuple(
                Item(f"e{row}-{name}", text, {"general": name == "general"})
                for row, pair in enumerate(pairs)
                for name, text in zip(("domain", "general"), pair, strict=True)
            ),
        )

    # ------------------------------------------------------------ fitting

    @hookimpl
    def fit(
        self, examples: Iterable[Item], unlabelled: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        """Count both n-gram models: examples are the domain's texts, `unlabelled` (or field `general`) the others."""
        params = self.params
        if params.loss != "ngram":
            raise InvalidParams("loss", f"is {params.loss}; only ngram models are fitted, others are named")
        vocabulary = Vocabulary()
        read: dict[str, list[np.ndarray]] = {side: [] for side in SIDES}
        for number, item in enumerate(_both(examples, unlabelled), 1):
            call.check()
            side = "general" if item.get("general") else "domain"
            read[side].append(vocabulary.add(_text(item, side)))
            if number % _TEXTS == 0:
                yield Progress("words", number)
        sizes = {side: sum(map(len, texts)) for side, texts in read.items()}
        for side, name in zip(SIDES, ("unlabelled", "examples"), strict=True):
            if not sizes[side]:
                raise InvalidItems(name, f"hold no words: give texts of the {side} side")
        most = min(sizes.values()) if params.equal else max(sizes.values())
        for number, side in enumerate(SIDES):
            call.check()
            yield Progress("count", number, 2)
            model = NgramModel.counted(_first(read[side], most), len(vocabulary), params.order, params.weight)
            for name, array in model.arrays():
                out.write_array(f"{side}-{name}.npy", array)
        out.write_json("vocabulary.json", vocabulary.words)
        out.notes.update(
            {f"words_{side}": min(size, most) for side, size in sizes.items()},
            counted=params.model_dump(mode="json", include=set(_COUNTED)),
        )
        yield Progress("count", 2, 2, {"words": len(vocabulary)})

    @cached_property
    def _pair(self) -> tuple[Vocabulary, NgramModel, NgramModel]:
        artifact, params = self.artifact, self.params
        if artifact is None:
            raise Unmet(
                "the n-gram pair is not there: fit with texts of the domain and, as unlabelled, general ones, or name "
                f"two models (loss=causal), or give {GIVEN[0]} and {GIVEN[1]} with each item"
            )
        counted, wanted = artifact.notes["counted"], params.model_dump(mode="json", include=set(_COUNTED))
        if counted != wanted:
            raise ArtifactMismatch(f"artifact was counted with {counted}, wanted {wanted}: use its own, or fit again")
        models = [
            NgramModel.from_arrays(
                {name: artifact.read_array(f"{side}-{name}.npy") for name in names(params.order)},
                params.order,
                params.weight,
            )
            for side in SIDES
        ]
        return Vocabulary(artifact.read_json("vocabulary.json")), models[0], models[1]

    # ------------------------------------------------------------ scoring

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        own = [losses.given(item, row) for row, item in enumerate(items)]
        rows = [row for row, pair in enumerate(own) if pair is None]
        found = [Losses.empty(len(items)) for _ in SIDES]
        same = True
        if rows:
            chosen = Items(items[row] for row in rows)
            chosen.texts()
            measured, same = self._measure(chosen, call)
            for whole, part in zip(found, measured, strict=True):
                for name in vars(whole):
                    getattr(whole, name)[rows] = getattr(part, name)
        for row, pair in enumerate(own):
            if pair is not None:
                for side, logs in zip(found, pair, strict=True):
                    side.nats[row], side.tokens[row] = -logs.sum(), len(logs)
                    side.characters[row] = len(items[row].text or "") or np.nan
        unit = self._unit(items, own, same)
        general, domain = (side.per(unit) for side in found)
        units = found[0].tokens if unit == "token" else np.nan_to_num(found[0].characters)
        columns = {
            "ds": general - domain,
            "loss_general": general,
            "loss_domain": domain,
            "n_units": units.astype(np.int64),
        }
        table = groups(items, columns)
        flags = tuple(_flags(items, columns["ds"], found))
        return Scores(columns, table, summary(columns, table, unit), flags)

    def _measure(self, items: Items, call: Call) -> tuple[list[Losses], bool]:
        """Losses under both models, and whether they read the same tokens."""
        params, texts = self.params, items.texts()
        chosen = (params.general, params.domain)
        match params.loss:
            case "ngram":
                return self._counted(texts, call), True
            case "task_head":
                encoders = [self.host.encoder(name) for name in chosen]
                return [losses.task_head(each, items, params.labels, call.seed, call) for each in encoders], True
            case "causal":
                lms = [self.host.lm(name) for name in chosen]
                same = lms[0].tokenizer.digest == lms[1].tokenizer.digest
                return [losses.causal(lm, texts, params.max_tokens, call) for lm in lms], same
            case "mlm":
                models = [self._masked(name) for name in chosen]
                same = models[0].tokenizer.digest == models[1].tokenizer.digest
                masks = losses.Masks(params.mask_prob, params.repeats, params.exact, call.seed)
                return [losses.masked(each, items.ids, texts, masks, params.max_tokens, call) for each in models], same

    def _masked(self, name: str) -> MaskedLM:
        if name not in self._opened:
            self._opened[name] = MaskedLM(self.host, name)
        return self._opened[name]

    @cached_property
    def _opened(self) -> dict[str, MaskedLM]:
        return {}

    def _counted(self, texts: list[str], call: Call) -> list[Losses]:
        vocabulary, *models = self._pair
        found = [Losses.empty(len(texts)) for _ in SIDES]
        stream = iter(range(len(texts)))
        while rows := list(islice(stream, _TEXTS)):
            call.check()
            read = [vocabulary.read(texts[row]) for row in rows]
            lengths = np.array([len(each) for each in read])
            together = np.flatnonzero(lengths <= RUN)
            ids, places = joined([read[place] for place in together])
            owners = np.repeat(together, lengths[together])
            for side, model in zip(found, models, strict=True):
                nats = np.bincount(owners, -model.log_probs(ids, places), len(rows))
                for place in np.flatnonzero(lengths > RUN):
                    nats[place] = model.nats(read[place])
                side.nats[rows], side.tokens[rows] = np.where(lengths > 0, nats, np.nan), lengths
                side.characters[rows] = [len(texts[row]) for row in rows]
        return found

    def _unit(self, items: Items, own: list[tuple[np.ndarray, np.ndarray] | None], same: bool) -> str:
        """What losses are taken per; raises when tokens were asked for and the models' tokens differ."""
        wanted = self.params.normalise
        if not same:
            if wanted == "token":
                raise InvalidParams(
                    "normalise", "is token, but the two models cut texts into different tokens: use char or auto"
                )
            wanted = "char"
        differing = next((row for row, pair in enumerate(own) if pair and len(pair[0]) != len(pair[1])), None)
        if differing is not None and wanted == "token":
            lengths = [len(each) for each in own[differing] or ()]
            raise InvalidItems(
                f"items[{differing}].fields.{GIVEN[1]}",
                f"holds {lengths[1]} numbers, the general model's {lengths[0]}: tokens differ, use normalise=char",
            )
        unit = "char" if wanted == "char" or (wanted == "auto" and differing is not None) else "token"
        for row, pair in enumerate(own):
            if unit == "char" and pair and items[row].text is None:
                raise InvalidItems(f"items[{row}].text", "is missing: losses per character need the text")
        return unit


def _both(examples: Iterable[Item], unlabelled: Iterable[Item] | None) -> Iterator[Item]:
    yield from examples
    for item in unlabelled or ():
        yield Item(item.id, item.text, {"general": True})


def _text(item: Item, side: str) -> str:
    if not isinstance(item.text, str):
        raise InvalidItems("unlabelled" if side == "general" else "examples", f"item {item.id!r} has no text")
    return item.text


def _first(texts: list[np.ndarray], most: int) -> list[np.ndarray]:
    """The texts up to that many words together."""
    kept, left = [], most
    for text in texts:
        if left <= 0:
            break
        kept.append(text[:left])
        left -= len(text)
    return kept


def _flags(items: Items, ds: np.ndarray, found: list[Losses]) -> Iterator[Flag]:
    for row, item in enumerate(items):
        if np.isnan(ds[row]):
            yield Flag(row, "too_short", f"item {item.id!r} has nothing that can be predicted: no score")
        elif any(side.cut[row] for side in found):
            yield Flag(row, "truncated", f"item {item.id!r} is longer than the tokens read; its end was left out")
