"""A model's first layers as a model of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pickaxe.errors import InvalidParams
from pickaxe.lm import same_tokenizer

IDS = [10, 200, 33, 7]


def test_first_layers_with_norm_and_head(tiny, reference, open_tiny):
    first = open_tiny(reference, layers=1)
    logits, cache = first.forward([IDS], logits_at="all")
    np.testing.assert_allclose(logits[0], replace(reference, layers=reference.layers[:1]).logits(IDS), atol=1e-4)
    assert cache.layers == 1
    assert first.digest != tiny.digest
    same_tokenizer(first.tokenizer, tiny.tokenizer)


@pytest.mark.parametrize("layers", [0, 3])
def test_layers_that_there_are_not(layers, reference, open_tiny):
    with pytest.raises(InvalidParams, match=f"layers: is {layers}; .* has 2"):
        open_tiny(reference, layers=layers)
