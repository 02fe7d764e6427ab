"""Chunks, question-answer pairs and mixing order of wrap's golden file, exactly."""

from __future__ import annotations

from typing import Any

import pytest
from golden import golden, understood

from pickaxe_plugins.generation.wrap import mixed, parse_qa, passages

FILE = understood(golden("04-wrap"), "how", "rules", "tolerance", "chunk", "parse_qa", "mix")


def test_the_tolerance_is_the_one_that_is_checked() -> None:
    assert FILE["tolerance"] == "exact"


@pytest.mark.parametrize("case", FILE["chunk"])
def test_chunks(case: dict[str, Any]) -> None:
    understood(case, "inputs", "expected")
    inputs = understood(case["inputs"], "text", "max_tokens")
    found = list(passages(inputs["text"], inputs["max_tokens"]))
    assert [each.text for each in found] == case["expected"]
    assert all(inputs["text"][each.start : each.end].split() == each.text.split() for each in found)


@pytest.mark.parametrize("case", FILE["parse_qa"])
def test_pairs(case: dict[str, Any]) -> None:
    understood(case, "inputs", "expected")
    assert [list(pair) for pair in parse_qa(case["inputs"])] == case["expected"]


@pytest.mark.parametrize("case", FILE["mix"])
def test_mixing_order(case: dict[str, Any]) -> None:
    understood(case, "inputs", "expected")
    inputs = understood(case["inputs"], "real_tokens", "synthetic_tokens", "ratio")
    found = mixed(inputs["real_tokens"], inputs["synthetic_tokens"], tuple(inputs["ratio"]))
    assert [list(each) for each in found] == case["expected"]
