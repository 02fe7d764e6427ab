"""wrap's pure parts: passages, styles, clean-up, measures, mixing order."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe.errors import InvalidParams
from pickaxe.params import parse
from pickaxe_plugins.generation.wrap import (
    Cleaning,
    Style,
    cleaned,
    count_words,
    interleaved,
    mixed,
    parse_qa,
    passages,
    projected,
    styles,
    write_qa,
)
from pickaxe_plugins.generation.wrap._cleaning import refuses, strip_talk
from pickaxe_plugins.generation.wrap._measures import distinct, length_ratio, overlap, repetition

MEDIUM, QA = styles("medium", "qa")
RULES = Cleaning()
SOURCE = "The Danube rises in the Black Forest and flows through ten countries before it reaches the Black Sea."
REPHRASE = "Ten countries are crossed by the river Danube, which starts in Germany's Black Forest and ends in the sea."


# ---------------------------------------------------------------- passages

WORD = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=12)
DOCUMENT = st.lists(st.tuples(WORD, st.sampled_from([" ", "\n", ". ", "? ", "!\t", ".", "  "]))).map(
    lambda parts: "".join(word + gap for word, gap in parts)
)


def by_letters(text: str) -> int:
    """Four characters of a word make a token."""
    return sum(-(-len(word) // 4) for word in text.split())


@given(DOCUMENT, st.integers(1, 40))
def test_passages_keep_all_words_in_order_within_the_cap(document: str, cap: int) -> None:
    found = list(passages(document, cap))
    assert [word for each in found for word in each.text.split()] == document.split()
    assert all(0 < each.tokens == count_words(each.text) <= cap for each in found)
    assert all(document[each.start : each.end].split() == each.text.split() for each in found)


@given(DOCUMENT, st.integers(1, 40))
def test_any_counter_keeps_the_cap_and_cuts_only_words_beyond_it(document: str, cap: int) -> None:
    found = list(passages(document, cap, by_letters))
    assert all(0 < each.tokens == by_letters(each.text) <= cap for each in found)
    assert "".join(each.text.replace(" ", "") for each in found) == "".join(document.split())
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))
    whole = {match for match in document.split() if by_letters(match) <= cap}
    assert whole <= {word for each in found for word in each.text.split()}


def test_a_word_longer_than_the_cap_is_cut_at_characters() -> None:
    found = list(passages("go abcdefghij on.", 2, by_letters))
    assert [each.text for each in found] == ["go", "abcdefgh", "ij", "on."]
    assert [(each.start, each.end) for each in found] == [(0, 2), (3, 11), (11, 13), (14, 17)]


def test_a_character_beyond_the_cap_stays() -> None:
    assert [each.text for each in passages("ab", 1, lambda text: 3 * len(text))] == ["a", "b"]


@pytest.mark.parametrize("text", ["", " \n\t", "\u2028"])
def test_nothing_has_no_passages(text: str) -> None:
    assert list(passages(text, 5)) == []


# ---------------------------------------------------------------- styles


def test_a_bare_name_is_a_built_in_style() -> None:
    (hard,) = styles("hard")
    assert hard.prompt
    assert (hard.pairs, hard.n, hard.weight) == (None, 1, 1)
    assert QA.pairs == ("Question:", "Answer:")
    assert parse(Style, {"name": "qa", "n": 3}).prompt == QA.prompt


def test_own_styles_and_labels() -> None:
    french = parse(Style, {"name": "fr", "prompt": "Fais-en un dialogue.", "pairs": ["Question :", "Réponse :"]})
    written = "Question : Où ? Réponse : Ici.\nQuestion : Quand ?"
    assert cleaned(written, "Ici.", french, Cleaning(max_ratio=20)).pairs == (("Où ?", "Ici."),)


def test_mistakes_in_styles_are_refused() -> None:
    with pytest.raises(InvalidParams, match=r"unknown style 'poem'.*easy, medium, hard, qa"):
        parse(Style, {"name": "poem"})
    with pytest.raises(InvalidParams, match="two different labels"):
        parse(Style, {"name": "qa", "pairs": ["Q:", "Q:"]})
    with pytest.raises(InvalidParams, match="weight"):
        parse(Style, {"name": "qa", "weight": 0})
    with pytest.raises(InvalidParams, match=r"min_ratio 3\.0 must be below"):
        parse(Cleaning, {"min_ratio": 3})
    with pytest.raises(InvalidParams, match="blank"):
        parse(Cleaning, {"openers": [" "]})


# ---------------------------------------------------------------- clean-up


@pytest.mark.parametrize(
    "talk",
    [
        "Sure! ",
        "Sure. Here is a paraphrase of the passage:\n\n",
        "Certainly, here's the passage in high-quality English:\n",
        "Here is a rewritten version. ",
        "Of course! Below is the conversation:\n",
        "Okay, I have rewritten the passage:\n",
        "The paraphrased passage:\n\n",
        "<|im_start|>assistant: ",
        "Assistant: Sure: ",
    ],
)
def test_talk_about_the_task_is_dropped(talk: str) -> None:
    assert strip_talk(talk + REPHRASE) == REPHRASE


@pytest.mark.parametrize(
    "text",
    [
        REPHRASE,
        "Of course the river floods. It does so in spring.",
        "Sure, rivers flood in spring.",
        "Here is where the river rises: a small spring.",
        "The river passes three towns: Ulm, Passau and Linz.",
        "A rewritten constitution was adopted. Nobody minded.",
    ],
)
def test_text_that_only_looks_like_talk_stays(text: str) -> None:
    assert strip_talk(text) == text


def test_openers_and_refusals_of_another_language() -> None:
    rules = Cleaning(openers=("Bien sûr",), refusals=("Je ne peux pas",))
    assert cleaned(f"BIEN SÛR, voici le texte : {REPHRASE}", SOURCE, MEDIUM, rules).text == REPHRASE
    assert cleaned("Je ne peux pas réécrire ce texte.", SOURCE, MEDIUM, rules).reason == "refusal"


def test_template_tokens_are_stripped() -> None:
    assert strip_talk(f"<s>[INST]{REPHRASE}[/INST]<|im_end|></s>") == REPHRASE


def test_a_good_rephrase_is_kept() -> None:
    assert cleaned(f"Sure!\n{REPHRASE}", SOURCE, MEDIUM, RULES).text == REPHRASE


@pytest.mark.parametrize(
    ("written", "style", "reason"),
    [
        ("", MEDIUM, "empty"),
        ("Sure!", MEDIUM, "empty"),
        ("<|im_end|>\n", QA, "empty"),
        ("I'm sorry, but I cannot rephrase this passage for you.", MEDIUM, "refusal"),
        ("As an AI language model, I have no opinion on rivers at all.", MEDIUM, "refusal"),
        ("Unfortunately, I can't help with rewriting this text for you.", QA, "refusal"),
        (REPHRASE, QA, "no pairs"),
        ("Question: Where does the Danube rise, and where does it end? Answer:", QA, "no pairs"),
        ("A river.", MEDIUM, "length"),
        (" ".join(f"word{number}" for number in range(70)), MEDIUM, "length"),
        (SOURCE, MEDIUM, "copy"),
        (SOURCE.upper().replace(",", ""), MEDIUM, "copy"),
        ("It is a river. " * 5, MEDIUM, "repetition"),
        ("a long river\nruns east\n" * 3, MEDIUM, "repetition"),
    ],
)
def test_reasons_to_reject(written: str, style: Style, reason: str) -> None:
    found = cleaned(written, SOURCE, style, RULES)
    assert (found.text, found.pairs, found.reason) == ("", (), reason)


def test_a_source_that_declines_may_be_rephrased() -> None:
    source = "I am sorry to say that the bridge over the river was closed in March after the flood."
    written = "I'm sorry to report the closing of that river crossing once the waters of spring had risen."
    assert refuses(source)
    assert refuses(written)
    assert cleaned(written, source, MEDIUM, RULES).reason is None


def test_only_complete_pairs_stay() -> None:
    written = "Here you go.\nQuestion: Where does it rise?\nAnswer: In the Black Forest.\nQuestion: And then?"
    found = cleaned(written, SOURCE, QA, RULES)
    assert found.pairs == (("Where does it rise?", "In the Black Forest."),)
    assert found.text == "Question: Where does it rise?\nAnswer: In the Black Forest."


@given(st.lists(st.tuples(*[st.text(st.characters(categories=("L", "Z")), min_size=1).map(str.strip)] * 2), max_size=5))
def test_pairs_can_be_written_and_parsed(pairs: list[tuple[str, str]]) -> None:
    whole = [pair for pair in pairs if all(pair)]
    assert parse_qa(write_qa(whole)) == whole


# ---------------------------------------------------------------- measures


@given(st.text(min_size=1))
def test_a_copy_overlaps_wholly(text: str) -> None:
    assert overlap(text, text) == 1


@given(st.text(), st.text())
def test_measures_are_shares(source: str, text: str) -> None:
    assert all(0 <= value <= 1 for value in (overlap(source, text), distinct(text), repetition(text)))
    assert length_ratio(source, text) >= 0


def test_overlap_is_of_eight_words() -> None:
    source = " ".join(f"w{number}" for number in range(20))
    half = " ".join([f"w{number}" for number in range(10)] + [f"x{number}" for number in range(9)])
    assert overlap(source, half) == pytest.approx(3 / 12)
    assert overlap("the cat sat on the mat", "A cat sat") == 0
    assert overlap("the cat sat on the mat", "Cat, sat!") == 1


def test_repetition_and_variety() -> None:
    assert repetition("one line\nother line\none line") == pytest.approx(1 / 3)
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert distinct("a b a b") == pytest.approx(2 / 3)
    assert distinct("alone") == 0


# ---------------------------------------------------------------- mixing

TOKENS = st.lists(st.integers(1, 100), max_size=40)


@given(TOKENS, TOKENS)
def test_at_one_to_one_no_prefix_is_off_by_more_than_a_document(real: list[int], synthetic: list[int]) -> None:
    balance = 0
    for origin, place in mixed(real, synthetic):
        balance += real[place] if origin == "real" else -synthetic[place]
        assert abs(balance) <= max(real + synthetic)


@given(TOKENS, TOKENS, st.sampled_from([(1, 1), (3, 1), (1, 2), (0.5, 0.25)]))
def test_the_mix_takes_each_side_in_order_until_one_is_used_up(
    real: list[int], synthetic: list[int], ratio: tuple[float, float]
) -> None:
    order = list(mixed(real, synthetic, ratio))
    taken = {side: [place for origin, place in order if origin == side] for side in ("real", "synthetic")}
    assert all(places == list(range(len(places))) for places in taken.values())
    full = len(taken["real"]) == len(real), len(taken["synthetic"]) == len(synthetic)
    assert any(full)


@given(st.lists(st.tuples(st.integers(1, 50), st.sampled_from("abc")), min_size=1))
def test_styles_share_the_tokens_by_weight_while_all_last(documents: list[tuple[int, str]]) -> None:
    tokens, kinds = [each[0] for each in documents], [each[1] for each in documents]
    weights = {"a": 2.0, "b": 1.0}
    order = interleaved(tokens, kinds, weights)
    assert sorted(order) == list(range(len(documents)))
    used = dict.fromkeys(set(kinds), 0.0)
    left = {kind: kinds.count(kind) for kind in used}
    for place in order:
        if all(left.values()):
            assert max(used.values()) - min(used.values()) <= max(tokens)
        used[kinds[place]] += tokens[place] / weights.get(kinds[place], 1.0)
        left[kinds[place]] -= 1


def test_documents_of_a_style_keep_their_order() -> None:
    assert interleaved([5, 1, 1, 1], ["a", "a", "b", "b"], {}) == [0, 2, 3, 1]


def test_a_counter_is_any_function() -> None:
    counter: Callable[[str], int] = len
    assert [each.tokens for each in passages("aa bb. cc", 6, counter)] == [6, 2]


# ---------------------------------------------------------------- what a run will cost


def test_a_run_is_projected() -> None:
    documents = ["one two three four. " * 30, "five six. seven"]
    found = projected(documents, styles("medium", "qa"), 10.0, cap=40)
    assert (found.documents, found.passages, found.rephrases) == (2, 4, 8)
    assert found.output_tokens == 2 * 123
    assert found.most_tokens == 2 * 4 * 64
    assert found.hours == pytest.approx(246 / 10 / 3600)
    heavy = (parse(Style, {"name": "medium", "n": 3, "weight": 3}), *styles("qa"))
    assert projected(documents, heavy, 10.0, cap=40, draw=True).rephrases == 4 * (0.75 * 3 + 0.25)
