"""Which drafts a decoder uses: parameters, and what they open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pickaxe.lm import LMParams
from pickaxe_plugins.decoding._speculation.drafts import Draft, EitherDraft, ModelDraft, NgramDraft, same_vocabulary
from pickaxe_plugins.decoding._speculation.head import first_tokens

if TYPE_CHECKING:
    from pickaxe import Call
    from pickaxe.host import Host
    from pickaxe.lm import LM

Begin = Callable[[Sequence[int], "Call"], Draft]
"""Gives the draft that has read a prompt (token ids)."""


class DraftParams(LMParams):
    """Where drafts come from."""

    draft: Literal["model", "ngram", "layers", "both"] = Field(
        "model",
        description="Drafts of another model, of an n-gram table of the text so far, of early layers, or of the table "
        "where it knows enough and else of the model.",
    )
    draft_model: str = Field("draft", min_length=1, description="Alias or path of the model for draft=model, both.")
    draft_layers: int = Field(6, ge=1, description="First layers of the target for draft=layers.")
    draft_vocab: int = Field(
        0, ge=0, description="A model drafts the first so many token ids only, which are the frequent ones; 0: all."
    )
    ngram_order: int = Field(4, ge=1, le=16, description="Most tokens of context of draft=ngram.")
    ngram_least: int | None = Field(
        None,
        ge=1,
        le=16,
        description="Least tokens of context that must have been seen before; null: 1, or ngram_order for draft=both.",
    )
    ngram_texts: tuple[str, ...] = Field((), description="Texts whose n-grams count too, e.g. samples of the target.")
    tree_attention: bool = Field(
        True, description="Verify all drafts in one row under a bias; else in rows that share the prompt."
    )


def open_draft(host: Host, params: DraftParams, target: LM) -> Begin:
    """Opens what `params.draft` names.  Raises `Unmet` when its tokens are not the target's."""
    if params.draft == "ngram":
        alone = _table(params, target, 1)
        return lambda prompt, call: alone.begin(prompt)
    if params.draft == "layers":
        name, lm = params.model, host.lm(params.model, params.precision, params.draft_layers)
    else:
        name, lm = params.draft_model, host.lm(params.draft_model, params.precision)
    same_vocabulary(lm, target)
    narrow = first_tokens(host, name, lm, params.draft_vocab) if params.draft_vocab else None
    if params.draft == "both":
        table = _table(params, target, params.ngram_order)
        return lambda prompt, call: EitherDraft(table.begin(prompt), ModelDraft.begin(lm, prompt, call, narrow))
    return lambda prompt, call: ModelDraft.begin(lm, prompt, call, narrow)


def _table(params: DraftParams, target: LM, least: int) -> NgramDraft:
    """`least` tokens of context must be known where the parameters do not say."""
    texts = [target.tokenizer.encode(text) for text in params.ngram_texts]
    return NgramDraft(params.ngram_order, params.ngram_least or least, texts)
