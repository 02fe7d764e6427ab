import pytest

import pickaxe
from pickaxe.testing import conforms

test_conformance = conforms("lexical-diversity", wire=True)


def test_repeating_lowers_the_score() -> None:
    scores = pickaxe.scorer("lexical-diversity", window=3).score(["a b c", "a a a", "a b a"])
    assert scores["diversity"] == pytest.approx([1, 1 / 3, 2 / 3])


def test_fit_says_what_is_usual() -> None:
    usual = pickaxe.scorer("lexical-diversity").fit(["a b", "a a"])
    assert usual.score(["a b"])["unusual"] == pytest.approx([1])
