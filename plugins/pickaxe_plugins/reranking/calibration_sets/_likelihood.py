"""Likelihoods of candidates under a language model, and how source and candidate become tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pickaxe import Call
from pickaxe_plugins.reranking.calibration_sets._losses import log_softmax

if TYPE_CHECKING:
    from pickaxe.lm import LM
    from pickaxe.tokenizers import Tokenizer
    from pickaxe_plugins.reranking.calibration_sets._method import Params


def tokens(tokenizer: Tokenizer, source: str, candidate: str, params: Params, context: int) -> tuple[list[int], int]:
    """Ids of <end> source <end> candidate <end>, and where the candidate begins.

    Both are cut from their start to what the parameters and the model's context allow; the candidate goes first.
    """
    end = tokenizer.eos_ids[0]
    target = [*tokenizer.encode(candidate), end][: min(params.max_target, context - 2)]
    begun = [end, *tokenizer.encode(source)[: max(0, min(params.max_source, context - len(target) - 2))], end]
    return begun + target, len(begun)


def likelihoods(lm: LM, pairs: Sequence[tuple[str, str]], params: Params, call: Call) -> np.ndarray:
    """Minus the label-smoothed loss of a candidate's tokens after its source, (n,): the mean over its tokens."""
    found = np.empty(len(pairs))
    for row, (source, candidate) in enumerate(pairs):
        call.check()
        ids, begin = tokens(lm.tokenizer, source, candidate, params, lm.context_length)
        logits, _ = lm.forward([ids], logits_at=np.arange(begin - 1, len(ids) - 1), call=call)
        assert logits is not None
        logprobs = log_softmax(logits[0])
        at = logprobs[np.arange(len(ids) - begin), ids[begin:]]
        found[row] = ((1 - params.smoothing) * at + params.smoothing * logprobs.mean(1)).mean()
    return found
