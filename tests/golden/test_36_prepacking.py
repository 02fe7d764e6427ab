"""Golden cases of prepacking: rows, positions, segments, what is unpacked, and slots computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe.lm import KV
from pickaxe_plugins.decoding.prepack import plan

CASE = understood(golden("36-prepacking"), "how", "note", "tolerance", "cases")


@pytest.mark.parametrize("case", CASE["cases"])
def test_plan(case: dict[str, Any]) -> None:
    assert CASE["tolerance"] == "exact"
    understood(case, "inputs", "expected")
    inputs = understood(case["inputs"], "mode", "lengths", "token_ids", "pad_id")
    expected = understood(
        case["expected"],
        "bins_in_order_of_row", "n_rows", "row_width", "packed_tokens", "position_ids", "segment_of_each_slot",
        "unpacked_left_padded_tokens", "last_tokens", "decode_attention_mask", "prompt_tokens_sent",
        "slots_computed_packed", "slots_computed_padded", "minimum_number_of_rows_capacity_max_length",
    )  # fmt: skip
    lengths, ends = inputs["lengths"], np.cumsum(inputs["lengths"])
    assert inputs["token_ids"] == "prompt i holds consecutive integers; first prompt starts at 1"
    prompts = [np.arange(end - length, end) + 1 for length, end in zip(lengths, ends, strict=True)]

    made = plan(lengths, inputs["mode"])
    assert list(map(list, made.rows)) == expected["bins_in_order_of_row"]
    assert (len(made.rows), made.width) == (expected["n_rows"], expected["row_width"])
    layout = made.lay_out(prompts, inputs["pad_id"])
    assert layout.ids.tolist() == expected["packed_tokens"]
    assert layout.positions.tolist() == expected["position_ids"]
    assert layout.segments.tolist() == expected["segment_of_each_slot"]
    assert sum(made.loads) == expected["prompt_tokens_sent"]
    assert made.computed == expected["slots_computed_packed"]
    assert len(lengths) * max(lengths) == expected["slots_computed_padded"]
    if "minimum_number_of_rows_capacity_max_length" in expected:
        fewest = plan(lengths, "official", packer="exact")
        assert len(fewest.rows) == expected["minimum_number_of_rows_capacity_max_length"]

    assert unpacked(made, layout.ids).tolist() == expected["unpacked_left_padded_tokens"]
    assert [prompt[-1] for prompt in prompts] == expected["last_tokens"]
    mask = np.arange(max(lengths)) >= max(lengths) - np.array(lengths)[:, None]
    assert mask.astype(int).tolist() == expected["decode_attention_mask"]

    items = [Item(str(row), fields={"n_tokens": length}) for row, length in enumerate(lengths)]
    found = pickaxe.scorer("prepack-plan", mode=inputs["mode"]).score(items)
    assert np.stack([found["row"], found["start"]], axis=1).tolist() == made.places.tolist()
    sent, packed, padded = (
        expected[name] for name in ("prompt_tokens_sent", "slots_computed_packed", "slots_computed_padded")
    )
    np.testing.assert_allclose(found["packed_fraction"], sent / packed, rtol=1e-6)
    np.testing.assert_allclose(found["waste_saved"], 1 - packed / padded, rtol=1e-6)


def unpacked(made: Any, ids: np.ndarray) -> np.ndarray:
    """Each prompt cut out of its row and moved to the right, as a cache of keys that are token ids."""
    parts = []
    for (row, start), count in zip(made.places, made.slots, strict=True):
        tokens = ids[row, start : start + count].reshape(1, 1, count, 1)
        parts.append(KV([tokens, tokens], [count]))
    return KV.concatenate(parts).left_pad().keys(0)[:, 0, :, 0]
