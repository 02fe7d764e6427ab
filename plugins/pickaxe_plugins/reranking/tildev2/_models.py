"""Which models read passages and queries: named by parameters, or lying in an artifact."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pickaxe import Artifact
from pickaxe.artifact import ArtifactWriter
from pickaxe.encoder.states import StateEncoder
from pickaxe.errors import InvalidParams
from pickaxe.index import check_model
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.reranking.tildev2 import _terms
from pickaxe_plugins.reranking.tildev2._expander import FILE, Expander
from pickaxe_plugins.reranking.tildev2._passages import Framing, Weigher

if TYPE_CHECKING:
    from pickaxe.host import Host
    from pickaxe_plugins.reranking.tildev2._params import Params

PROJECTION = "projection.npy"
OWN_MODEL = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""What an artifact holds besides when the encoder was trained too."""


@dataclass(frozen=True)
class Models:
    """Opens what parameters and artifacts name."""

    params: Params
    host: Host

    @property
    def original(self) -> Path:
        """Where the base is, as it was before any training."""
        return self.host.model_path(self.params.base)

    def place(self, source: Artifact | None) -> Path:
        """Where the encoder is: in the artifact, when it was trained whole."""
        return source.path if source is not None and source.has("model.safetensors") else self.original

    def states(self, place: Path) -> StateEncoder:
        found = StateEncoder.open(self.host.models, self.host.runtime, place)
        if self.params.p_max_len > found.max_tokens:
            raise InvalidParams("p_max_len", f"is {self.params.p_max_len}; the encoder reads {found.max_tokens}")
        return found

    def expander(self, folder: Path | None) -> Expander | None:
        """That of the parameters, or the one whose head lies in this folder; None when there is to be none."""
        if self.params.expander != "tilde":
            return None
        if self.params.expander_model is not None:
            model = self.host.model_path(self.params.expander_model)
            return Expander.of_model(self.states(model), model)
        if folder is None or not (folder / FILE).is_file():
            raise InvalidParams("expander", "is 'tilde': name a model as expander_model, or let fit train one")
        return Expander.of_head(self.states(self.original), self.original, folder / FILE)

    def weigher(self, source: Artifact | None) -> Weigher:
        """The passage side by an artifact of fit or an index, or without any."""
        params, place = self.params, self.place(source)
        tokenizer = Tokenizer.open(place)
        expander = self.expander(None if source is None else source.path)
        if source is not None and expander is not None and params.expander_model is None:
            check_model(source, expander.states, params.base, "expander")
        given = params.expander == "provided"
        framing = Framing(tokenizer, params.p_max_len, given, expander, params.m, params.official_order)
        if source is None or not source.has(PROJECTION):
            return Weigher(framing, self.stopped(tokenizer))
        states = self.states(place)
        if place != source.path:
            check_model(source, states, params.base)
        return Weigher(framing, self.stopped(tokenizer), states, np.array(source.read_array(PROJECTION)))

    def stopped(self, tokenizer: Tokenizer) -> np.ndarray:
        """Mask of the ids that are no terms."""
        size, words = tokenizer.vocab_size, self.params.stop_words
        special = _terms.mask(np.array(sorted(tokenizer.special_ids), np.int64), size)
        if words == "none":
            return special
        chosen = _terms.STOP_WORDS - _terms.QUESTION_WORDS if words == "official" else frozenset(words)
        return special | _terms.mask(_terms.stop_ids(tokenizer.vocabulary, chosen), size)


def copy(source: Artifact, out: ArtifactWriter, names: Sequence[str] = (PROJECTION, FILE, *OWN_MODEL)) -> None:
    """What the passage side needs, from one artifact into another, and what its models are."""
    for name in names:
        if source.has(name):
            shutil.copyfile(source.file(name), out.file(name))
    models = source.notes.get("models", {})
    noted = out.notes.setdefault("models", {})
    noted |= {role: models[role] for role in ("encoder", "expander") if role in models}
