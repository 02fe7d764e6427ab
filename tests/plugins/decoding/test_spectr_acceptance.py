"""spectr-acceptance: columns of one position and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems, InvalidParams


def position(target: object, draft: object, **fields: object) -> Item:
    return Item("p", fields={"target": np.array(target), "draft": np.array(draft), **fields})


def test_columns_of_a_closed_form():
    found = pickaxe.scorer("spectr-acceptance", num_drafts=2).score([position([1.0, 0.0], [0.5, 0.5])])
    assert list(found.columns) == ["acceptance", "rho", "upper_bound", "optimal", "single_draft"]
    assert {name: values[0] for name, values in found.columns.items()} == pytest.approx(
        {"acceptance": 0.75, "rho": 1.5, "upper_bound": 0.75, "optimal": 0.75, "single_draft": 0.5}
    )


def test_an_items_own_k_wins_and_sizes_may_differ():
    items = [position([1.0, 0.0], [0.5, 0.5], k=1), position([0.2, 0.3, 0.5], [0.5, 0.3, 0.2])]
    found = pickaxe.scorer("spectr-acceptance", num_drafts=64).score(items)
    assert found["rho"][0] == 1
    assert found["acceptance"][0] == found["single_draft"][0]
    assert found["acceptance"][1] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (Item("p", fields={"target": np.array([1.0])}), r"items\[0\].fields.draft: is missing \(item 'p'\)"),
        (position([0.5, 0.6], [0.5, 0.5]), r"fields.target: sums to 1.1"),
        (position([0.5, 0.5], [1.5, -0.5]), r"fields.draft: holds a negative"),
        (position([0.5, 0.5], [np.nan, 0.5]), r"fields.draft: .*NaN"),
        (position([0.5, 0.5], [0.5, 0.25, 0.25]), r"fields.draft: has 3 tokens, target has 2"),
        (position([0.5, 0.5], [0.5, 0.5], k=0), r"fields.k: is 0"),
        (position([0.5, 0.5], [0.5, 0.5], k=65), r"fields.k: is 65"),
    ],
)
def test_refusals_name_the_item(item, said):
    with pytest.raises(InvalidItems, match=said):
        pickaxe.scorer("spectr-acceptance").score([item])


def test_parameters_out_of_range():
    with pytest.raises(InvalidParams, match="num_drafts"):
        pickaxe.scorer("spectr-acceptance", num_drafts=65)
