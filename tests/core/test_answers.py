from __future__ import annotations

import pytest

from pickaxe.answers import answer_words, contains_answer, exact_match, token_f1


def test_words_are_compared_without_case_marks_and_forms():
    assert answer_words("The R\u00edo, (Paran\u00e1) \uff11\uff10!") == ["the", "r\u00edo", "paran\u00e1", "10"]
    assert exact_match("Rhine!", "rhine") == 1
    assert exact_match("It is the Rhine.", "Rhine") == 0


def test_an_answer_among_other_words():
    assert contains_answer("It is the Rhine.", "rhine") == 1
    assert contains_answer("The Rhinegold", "Rhine") == 0
    assert contains_answer("New old York", "New York") == 0


def test_words_in_common():
    assert token_f1("the blue Danube", "blue Danube waltz") == pytest.approx(2 / 3)
    assert token_f1("red", "blue") == 0
    assert token_f1("", "!") == 1
