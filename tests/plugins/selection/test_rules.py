"""The rule scorers: what each rule drops, the statistics, odd texts; repeated n-grams against a plain count."""

import math
import random
import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe_plugins.selection import _numbered_words, _rules_grams, _text_units
from pickaxe_plugins.selection._numbered_words import BLOCK, Lexicon, Words, blocks, cut
from pickaxe_plugins.selection._rules_grams import repeated_gram_chars, top_gram_chars
from pickaxe_plugins.selection._rules_terminals import TERMINALS
from pickaxe_plugins.selection._text_units import WORD, Remembered, sentences, split

RULES = ("rules-c4", "rules-gopher-quality", "rules-gopher-repetition", "rules-fineweb")
PROSE = (
    "The river rose in the night, and the people of the lower town went up to the church with all that they have.\n"
    "Nobody could say whether the old bridge would hold until morning, or who had been sent to look at it.\n"
    "By noon of the next day the water fell again. It left mud in every kitchen and a boat in the baker's yard.\n"
    "They spoke of that week for years: some said it was a warning, others that rain is rain and will be so.\n"
)
LETTERS = st.text("ab ,.!_\n-#é日\u0301\x00", max_size=80)


def reason(name: str, text: str, **params: Any) -> str:
    return str(pickaxe.scorer(name, **params).score([text])["reason"][0])


# ---------------------------------------------------------------- words and sentences


def read(words: Words) -> list[list[str]]:
    """The words of each text."""
    parts = np.split(words.ids, words.bounds[1:-1])
    return [[words.lexicon.words[number] for number in part] for part in parts]


@given(st.lists(LETTERS, min_size=1, max_size=4), st.sampled_from([WORD, "[a-z]+", "(?<=a)b", r"\w+ ?"]))
def test_words_are_what_the_pattern_finds(texts: list[str], pattern: str) -> None:
    found = [re.findall(pattern, text) for text in texts]
    assert [split(text, pattern) for text in texts] == found
    words = cut(texts, pattern)
    assert read(words) == found
    assert words.counts.tolist() == list(map(len, found))
    assert words.joined == "".join(map("".join, found))
    assert words.sums(words.fact("length")).tolist() == [len("".join(each)) for each in found]
    assert words.starts("bytes")[-1] == len(words.joined.encode("utf-8"))


def test_a_huge_text_is_cut_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "one two, three\n" * 50 + "x" * 500 + " end"
    whole = split(text)
    monkeypatch.setattr(_text_units, "PIECE", 64)
    assert "".join(_text_units.pieces(text)) == text
    assert read(Lexicon(WORD).read([text, "end"])) == [whole, ["end"]]


def test_recent_texts_are_remembered_up_to_a_number_of_characters() -> None:
    lexicon = Lexicon(WORD, remembered=10)
    lexicon.read(["one two", "one two"])
    assert list(lexicon._recent) == ["one two"]
    lexicon.read(["three four", "longer than all of that"])
    assert list(lexicon._recent) == ["three four"]
    lexicon.forget()
    assert not lexicon._recent
    assert lexicon.words[:2] == ["one", "two"]


def test_a_lexicon_that_is_full_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_numbered_words, "_MOST", 3)
    first, second = cut(["a b c d a"], "[a-d]"), cut(["d c b a"], "[a-d]")
    assert first.lexicon is not second.lexicon
    assert read(first), read(second) == ([list("abcda")], [list("dcba")])


def test_blocks_hold_all_texts_in_order() -> None:
    texts = ["a" * (BLOCK // 2), "b" * (BLOCK // 2), "c", "", "d" * 2 * BLOCK, "e"]
    assert [len(block) for block in blocks(texts)] == [2, 2, 1, 1]
    assert [text for block in blocks(texts) for text in block] == texts
    assert list(blocks([])) == []


def test_remembered_values_stay_while_they_are_in_use() -> None:
    made: list[int] = []
    known: Remembered[int, int] = Remembered(lambda key: made.append(key) or key, 8)
    for key in range(100):
        assert known[0] == 0
        assert known[key] == key
    assert made.count(0) == 1
    assert len(known) + len(known._old) <= 8


def test_sentences() -> None:
    assert sentences('One. Two! "Three?" And a rest') == 4
    assert sentences("3.14 is no end") == 1
    assert sentences("") == 0


# ---------------------------------------------------------------- n-grams


def plainly_repeated(words: list[str], n: int) -> int:
    seen, characters, at = set(), 0, 0
    while at + n <= len(words):
        gram = "".join(words[at : at + n])
        characters += len(gram) if gram in seen else 0
        at += n if gram in seen else 1
        seen.add(gram)
    return characters


def plainly_top(words: list[str], n: int) -> int:
    grams = [" ".join(words[at : at + n]) for at in range(len(words) - n + 1)]
    if not grams:
        return 0
    gram, count = Counter(grams).most_common(1)[0]
    return len(gram) * count


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 120), st.sampled_from(["a b aa bb ab . ,", "alpha beta gamma é 日本 !!"]))
def test_repeated_and_top_ngrams_are_those_of_a_plain_count(seed: int, length: int, alphabet: str) -> None:
    draw = random.Random(seed)
    texts = [[draw.choice(alphabet.split()) for _ in range(size)] for size in (length, 0, length // 2, 9)]
    found = cut([" ".join(words) for words in texts])
    expected = {n: [plainly_repeated(words, n) for words in texts] for n in range(2, 11)}
    assert lists(repeated_gram_chars(found, range(2, 11))) == expected
    assert lists(top_gram_chars(found, (2, 3, 4, 9))) == {n: [plainly_top(w, n) for w in texts] for n in (2, 3, 4, 9)}


def lists(found: dict[int, np.ndarray]) -> dict[int, list[int]]:
    return {n: values.tolist() for n, values in found.items()}


def test_ngrams_of_a_huge_text_meet_in_small_tables_and_are_scanned_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    texts = [" ".join(draw.choice("abcdef") for _ in range(size)) for size in (300, 40)]
    words = cut(texts)
    whole = lists(repeated_gram_chars(words, (2, 5))), lists(top_gram_chars(words, (2, 3)))
    monkeypatch.setattr(_rules_grams, "_LARGEST", 2)
    monkeypatch.setattr(_rules_grams, "_SOME", 7)
    assert (lists(repeated_gram_chars(words, (2, 5))), lists(top_gram_chars(words, (2, 3)))) == whole


def test_ngrams_count_as_equal_by_their_characters() -> None:
    words = ["ab", "c", "d", "e", "f", "a", "bc", "d", "e", "f"]
    found = repeated_gram_chars(cut([" ".join(words)]), (5,))
    assert lists(found) == {5: [plainly_repeated(words, 5)]} == {5: [6]}


def test_ngrams_of_many_different_words_still_fit_into_integers() -> None:
    words = cut(["0 1 2 3 0 1 2 3", "", "0 1 0 1"])
    many: Any = SimpleNamespace(words=range(1 << 31))
    found = top_gram_chars(replace(words, lexicon=many), (2, 4))
    assert lists(found) == lists(top_gram_chars(words, (2, 4))) == {2: [6, 0, 6], 4: [14, 0, 7]}


# ---------------------------------------------------------------- decisions


def test_prose_passes_every_rule() -> None:
    for name in RULES:
        scores = pickaxe.scorer(name).score([PROSE])
        assert scores.primary.tolist() == [1.0], (name, scores["reason"])
        assert not scores.flags


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("rules-gopher-quality", "too short", "gopher_short_doc"),
        ("rules-gopher-quality", PROSE * 1500, "gopher_long_doc"),
        ("rules-gopher-quality", "a b to of " * 50, "gopher_below_avg_threshold"),
        ("rules-gopher-quality", "incomprehensibilities " * 60, "gopher_above_avg_threshold"),
        ("rules-gopher-quality", PROSE + "#" * 30, "gopher_too_many_hashes"),
        ("rules-gopher-quality", PROSE + "\u2026 " * 30, "gopher_too_many_ellipsis"),
        ("rules-gopher-quality", re.sub("^", " - ", PROSE.strip(), flags=re.M), "gopher_too_many_bullets"),
        ("rules-gopher-quality", PROSE.replace(".\n", " ...\n"), "gopher_too_many_end_ellipsis"),
        ("rules-gopher-quality", PROSE + "1234 " * 60, "gopher_below_alpha_threshold"),
        ("rules-gopher-quality", "stone harbour candle ladder " * 20, "gopher_enough_stop_words"),
        ("rules-gopher-repetition", "a\n\na\n\nb", "dup_para_frac"),
        (
            "rules-gopher-repetition",
            PROSE + "\n\n" + "\n\n".join([PROSE[:300]] * 2 + list("abcde")),
            "dup_para_char_frac",
        ),
        ("rules-gopher-repetition", "Home\nAbout\nHome\nAbout", "dup_line_frac"),
        ("rules-gopher-repetition", "\n".join([PROSE[:100]] * 2 + list("abcdefgh")), "dup_line_char_frac"),
        ("rules-gopher-repetition", "over and " * 20 + "out", "top_2_gram"),
        ("rules-gopher-repetition", (PROSE + PROSE[:109]).replace("\n", " "), "duplicated_5_n_grams"),
        ("rules-fineweb", "\n \n", "empty"),
        ("rules-fineweb", "no mark at the end of this rather long line\n" * 2, "line_punct_ratio"),
        ("rules-fineweb", "Short.\nLines.\nOnly.", "short_line_ratio"),
        ("rules-fineweb", PROSE * 2, "char_dup_ratio"),
        ("rules-fineweb", "\n".join(f"Long{'o' * 40}{row}." for row in range(9)), "list_ratio"),
        ("rules-c4", "One. Two. Three. Four.", "too_few_sentences"),
        ("rules-c4", PROSE + "This is lorem ipsum and so on.", "lorem_ipsum"),
        ("rules-c4", PROSE + "This is { a brace.", "curly_bracket"),
        ("rules-c4", PROSE + "This is { a brace without an end", ""),
        ("rules-c4", "Enable javascript and the { will show. " + "One. " * 9, "too_few_sentences"),
    ],
)
def test_reasons(name: str, text: str, expected: str) -> None:
    assert reason(name, text) == expected


def test_c4_edits_lines() -> None:
    page = (
        PROSE
        + "Menu | Login\nWe wrote it[12] down[edit] for all.\nThis site uses cookies, as you see.\nStop there...\n"
    )
    scores = pickaxe.scorer("rules-c4").score([page, "Nothing here"])
    assert scores["text"].tolist() == [PROSE + "We wrote it down for all.", ""]
    assert scores["n_lines"].tolist() == [8, 1]
    assert scores["n_kept_lines"].tolist() == [5, 0]
    assert "uses cookies" in pickaxe.scorer("rules-c4", policy=False).score([page])["text"][0]


def test_bad_words_stand_alone_in_any_case() -> None:
    assert reason("rules-c4", PROSE, bad_words=["MUD"]) == "bad_words"
    assert reason("rules-c4", PROSE, bad_words=["itch", "mu"]) == ""
    assert reason("rules-c4", PROSE + "I write C++ for all that.", bad_words=["c++"]) == "bad_words"


def test_rules_of_another_language() -> None:
    danish = "Floden steg om natten, og folk fra den nederste by gik op til kirken med alt hvad de ejede. " * 3
    assert reason("rules-gopher-quality", danish) == "gopher_enough_stop_words"
    assert reason("rules-gopher-quality", danish, stop_words=["og", "den", "til"]) == ""


def test_a_limit_of_none_is_no_rule() -> None:
    assert (
        reason("rules-gopher-quality", "To be.", min_words=None, min_mean_word_length=None)
        == "gopher_below_alpha_threshold"
    )
    assert (
        reason("rules-gopher-repetition", "a\n\na", max_dup_paragraphs=None, top_grams={}, dup_grams={})
        == "dup_para_char_frac"
    )


def test_blank_lines_repeat_unless_they_are_left_out() -> None:
    text = "\nFirst line of this text\n \nand the second one here\n \n"
    assert pickaxe.scorer("rules-gopher-repetition").score([text])["dup_lines"][0] == pytest.approx(2 / 6)
    ignoring = pickaxe.scorer("rules-gopher-repetition", ignore_blank_lines=True)
    assert ignoring.score([text, " \n\n "])["dup_lines"].tolist() == [0, 0]


def test_sizes_of_ngrams_decide_the_columns() -> None:
    scores = pickaxe.scorer("rules-gopher-repetition", top_grams={3: 0.1}, dup_grams={7: 0.2}).score([PROSE])
    assert list(scores.columns)[6:] == ["top_3_gram_chars", "dup_7_gram_chars"]


def test_terminals_are_those_of_unicode() -> None:
    theirs = {mark for mark in TERMINALS if regex.fullmatch(r"\p{Sentence_Terminal}", mark)}
    assert set(TERMINALS) - theirs <= {"\u2026"}
    assert set(".?!。？！") <= set(TERMINALS)


# ---------------------------------------------------------------- bad input, batches


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("text", ["", " \n\t", "...", "_", "\ud800", "\x00", "x" * 2_000_000, "a " * 100_000])
def test_any_text_has_a_row(name: str, text: str) -> None:
    scores = pickaxe.scorer(name).score([text, PROSE])
    assert scores["keep"][1] == 1
    assert np.isin(scores["keep"], (0, 1)).all()


@pytest.mark.parametrize("name", RULES[1:])
def test_shares_of_nothing_are_nan_and_flagged(name: str) -> None:
    scores = pickaxe.scorer(name).score([PROSE, ""])
    missing = [key for key, values in scores.columns.items() if values.dtype.kind == "f" and math.isnan(values[1])]
    assert missing
    assert [flag.index for flag in scores.flags] == [1]
    assert all(key in scores.flags[0].message for key in missing)


@pytest.mark.parametrize("name", RULES)
def test_rows_do_not_depend_on_their_batch(name: str) -> None:
    texts = [PROSE, "", PROSE * 2, "Home\n" * 9, PROSE.upper()]
    scorer = pickaxe.scorer(name)
    whole = scorer.score(texts)
    for row, text in enumerate(texts):
        alone = scorer.score([text])
        for key, values in whole.columns.items():
            np.testing.assert_array_equal(alone[key][0], values[row])


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("rules-gopher-quality", {"word_pattern": "("}),
        ("rules-gopher-quality", {"word_pattern": "(a)"}),
        ("rules-gopher-quality", {"word_pattern": "a*"}),
        ("rules-gopher-repetition", {"top_grams": {1: 0.2}}),
        ("rules-gopher-repetition", {"dup_grams": {5: -0.2}}),
        ("rules-fineweb", {"max_short_lines": 1.5}),
        ("rules-c4", {"min_sentences": -1}),
    ],
)
def test_params_that_make_no_sense_are_refused(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams, match=next(iter(params))):
        pickaxe.scorer(name, **params)


def test_items_without_text_are_named() -> None:
    with pytest.raises(InvalidItems, match=r"items\[1\]"):
        pickaxe.scorer("rules-c4").score([PROSE, pickaxe.Item("b", fields={"title": "x"})])
