"""The decoder wrap: what it asks the rephraser, and what becomes of the answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import pickaxe
from pickaxe import WHOLE_PROMPT, Call, Chunk, Completion, Message, Method, Prompt, Sampling, catalog
from pickaxe.errors import Cancelled, InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe_plugins.generation.wrap import parse_qa, styles
from pickaxe_plugins.generation.wrap._rephrase import output_limit

DANUBE = (
    "The Danube rises in the Black Forest of Germany. It flows through ten countries, more than any other river. "
    "Ships sail from Kelheim to the Black Sea. The delta is a home of pelicans and sturgeons."
)
VOLGA = "The Volga is the longest river of Europe. It ends in the Caspian Sea, which has no outlet at all."
TEXTS = Path(__file__).parents[3] / "benchmarks" / "membership_texts.json"
"""Famous sentences, each retold in other words."""
WORDS = {"counter": "words", "max_passage_tokens": 32, "decoder": "scripted"}


class Scripted(Method):
    """A rephraser that answers what a test says, and remembers what it was asked."""

    answer: Callable[[Prompt], str]
    asked: list[list[Prompt]] = []

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        type(self).asked.append(list(prompts))
        for row, prompt in enumerate(prompts):
            text = type(self).answer(prompt)
            tokens = len(text.split())
            yield Chunk(row, 0, text, finish_reason="stop", usage={"completion_tokens": tokens})


class Interleaved(Scripted):
    """The same, last prompt first, in pieces, with a record that selects the second of two samples."""

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        rows = list(reversed(list(enumerate(prompts))))
        for row, prompt in rows:
            yield Chunk(row, 1, f"{type(self).answer(prompt)} At last.", finish_reason="length")
        for row, _ in rows:
            yield Chunk(row, 0, "in")
            yield Chunk(row, 0, " pieces", finish_reason="stop", usage={"completion_tokens": 2})
        for row, prompt in rows:
            record = {"text": f"{type(self).answer(prompt)} At last.", "selected": 1}
            yield Chunk(row, WHOLE_PROMPT, record=record, usage={"completion_tokens": 7, "prompt_tokens": 1})


class Unwilling(Scripted):
    """A decoder that writes nothing."""

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        for row in range(len(prompts)):
            yield Chunk(row, 0, finish_reason="abstain")


def passage(prompt: Prompt) -> str:
    return prompt.messages[-1].content.split("\n\n", 1)[1]


def backwards(prompt: Prompt) -> str:
    """A rephrase that is no copy: the words in the other order."""
    return "Sure! " + " ".join(reversed(passage(prompt).split()))


def random_looking(prompt: Prompt) -> str:
    return hashlib.sha256(repr((prompt.messages, prompt.sampling.seed)).encode()).hexdigest()


@pytest.fixture(autouse=True)
def rephrasers() -> Iterator[None]:
    Scripted.answer = staticmethod(backwards)
    Scripted.asked = []
    with (
        catalog.register(Scripted, "scripted", "decoder"),
        catalog.register(Interleaved, "interleaved", "decoder"),
        catalog.register(Unwilling, "unwilling", "decoder"),
    ):
        yield


def rephrases(found: Sequence[Completion], prompt: int | None = None) -> list[Completion]:
    return [each for each in found if each.choice != WHOLE_PROMPT and prompt in (None, each.prompt)]


def whole(found: Sequence[Completion], prompt: int = 0) -> Completion:
    (record,) = [each for each in found if each.choice == WHOLE_PROMPT and each.prompt == prompt]
    return record


def opened(**params: Any) -> Any:
    return pickaxe.decoder("wrap", **{**WORDS, **params})


# ---------------------------------------------------------------- what comes out


def test_every_passage_in_every_style_with_its_place() -> None:
    document = f"{DANUBE} {VOLGA}"
    found = opened(styles=["medium", {"name": "hard", "n": 2}]).complete([document, VOLGA])
    first = rephrases(found, 0)
    records = [each.records[0] for each in first]
    assert [each.choice for each in first] == list(range(len(first)))
    assert [(each["passage"], each["style"], each["sample"]) for each in records] == [
        (place, style, sample)
        for place in range(records[-1]["passage"] + 1)
        for style, sample in (("medium", 0), ("hard", 0), ("hard", 1))
    ]
    sources = [each["source"] for each in records[::3]]
    assert " ".join(sources) == document
    assert all(document[each["start"] : each["end"]] == each["source"] for each in records)
    assert all(each["rejected"] is None for each in records)
    assert [each.text for each in first[::3]] == [" ".join(reversed(source.split())) for source in sources]
    assert len(rephrases(found, 1)) == 3


def test_all_passages_of_a_call_are_decoded_in_one() -> None:
    opened().complete([f"{DANUBE} {VOLGA}", VOLGA])
    assert [len(prompts) for prompts in Scripted.asked] == [6]


def test_chunks_come_while_the_rephraser_works() -> None:
    call = Call()
    running = pickaxe.decoder("wrap", model="draft", max_tokens=2).decode([DANUBE] * 30, call=call)
    assert next(running).prompt == 0
    call.cancel()
    with pytest.raises(Cancelled):
        list(running)


def test_prompts_of_a_style_are_equal_up_to_the_passage() -> None:
    opened(styles=["easy", "qa"]).complete([DANUBE, VOLGA])
    (asked,) = Scripted.asked
    for name, mine in (("easy", asked[0::2]), ("qa", asked[1::2])):
        (style,) = styles(name)
        assert {turn.role for turn in mine[0].messages} == {"system", "user"}
        assert len({prompt.messages[0] for prompt in mine}) == 1
        assert all(prompt.messages[1].content == f"{style.prompt}\n\n{passage(prompt)}" for prompt in mine)
    opened(system="").complete(DANUBE)
    assert len(Scripted.asked[-1][0].messages) == 1


def test_pairs_of_a_conversation() -> None:
    Scripted.answer = staticmethod(
        lambda prompt: (
            "Here are the questions and answers:\nQuestion: Which sea?\nAnswer: The Caspian, it has no "
            "outlet.\nQuestion: How long?\nAnswer:"
        )
    )
    (found,) = rephrases(opened(styles=["qa"]).complete(VOLGA))
    assert found.records[0]["pairs"] == [["Which sea?", "The Caspian, it has no outlet."]]
    assert found.text == "Question: Which sea?\nAnswer: The Caspian, it has no outlet."
    assert parse_qa(found.text) == [("Which sea?", "The Caspian, it has no outlet.")]


def test_a_refusal_is_a_rejected_chunk() -> None:
    def answer(prompt: Prompt) -> str:
        return "I'm sorry, but I cannot rewrite texts about rivers." if "Volga" in passage(prompt) else passage(prompt)

    Scripted.answer = staticmethod(answer)
    found = opened(styles=["medium"]).complete([VOLGA, DANUBE])
    refused = rephrases(found, 0)[0]
    assert (refused.text, refused.finish_reason) == ("", "stop")
    assert refused.records[0]["rejected"] == "refusal"
    assert refused.records[0]["written"].startswith("I'm sorry")
    assert whole(found).records[0] == {"passages": 1, "rephrases": 1, "kept": 0, "rejected": {"refusal": 1}}
    assert {each.records[0]["rejected"] for each in rephrases(found, 1)} == {"copy"}


def test_without_clean_up_everything_stays_as_written() -> None:
    found = opened(clean=False, styles=["qa"]).complete(VOLGA)
    assert rephrases(found)[0].text == "Sure! " + " ".join(reversed(VOLGA.split()))
    assert whole(found).records[0]["kept"] == 1


def test_a_decoder_that_abstains() -> None:
    found = opened(decoder="unwilling", styles=["easy"]).complete(VOLGA)
    assert [(each.records[0]["rejected"], each.finish_reason) for each in rephrases(found)] == [
        ("abstained", "abstain")
    ]


def test_the_sample_that_a_decoder_selects_and_any_order_of_chunks() -> None:
    plain = opened(styles=["easy"]).complete([DANUBE, VOLGA])
    found = opened(styles=["easy"], decoder="interleaved").complete([DANUBE, VOLGA])
    assert [each.text for each in rephrases(found)] == [f"{each.text} At last." for each in rephrases(plain)]
    assert {each.finish_reason for each in rephrases(found)} == {"length"}
    assert rephrases(found)[0].usage == {"completion_tokens": 7, "prompt_tokens": 1}


@pytest.mark.parametrize("decoder", [None, "scripted", {"name": "repeated-sampling", "params": {"model": "draft"}}])
def test_usage_adds_up(decoder: Any) -> None:
    found = opened(decoder=decoder, model="draft", max_tokens=3).complete([f"{DANUBE} {VOLGA}", VOLGA])
    for row in range(2):
        parts = [each.usage for each in rephrases(found, row)]
        total = whole(found, row).usage
        assert total["completion_tokens"] > 0
        assert total == {name: sum(each[name] for each in parts) for name in parts[0]}


def test_fields_travel_with_the_rephrases() -> None:
    fields = {"url": "rivers/volga", "year": 2020, "tags": ["river"], "meta": {"a": [1]}}
    (found,) = rephrases(opened(styles=["easy"]).complete(Prompt(VOLGA, fields=fields)))
    assert found.records[0]["fields"] == fields


# ---------------------------------------------------------------- sampling


def test_sampling_of_the_request_wins() -> None:
    asked = Sampling(max_tokens=9, temperature=0.0, top_p=0.5, top_k=3, stop=("\n\n",), seed=4)
    opened().complete([Prompt(VOLGA, sampling=asked), VOLGA])
    mine, other = Scripted.asked[0][0].sampling, Scripted.asked[0][2].sampling
    assert (mine.max_tokens, mine.temperature, mine.top_p, mine.top_k, mine.stop) == (9, 0.0, 0.5, 3, ("\n\n",))
    assert (other.max_tokens, other.temperature, other.top_p, other.top_k) == (64, 0.8, 0.95, 0)


def test_the_output_limit_goes_by_the_passage() -> None:
    assert [output_limit(tokens, 4096) for tokens in (1, 42, 43, 300)] == [64, 64, 65, 450]
    assert output_limit(300, 100) == 100


def test_a_rephrase_depends_on_seed_text_style_and_number_alone() -> None:
    Scripted.answer = staticmethod(random_looking)
    decoder = opened(clean=False, styles=["easy", {"name": "hard", "n": 3}])
    together = rephrases(decoder.complete([DANUBE, VOLGA], seed=3), 1)
    alone = rephrases(decoder.complete(VOLGA, seed=3))
    assert [each.text for each in together] == [each.text for each in alone]
    assert len({each.text for each in alone}) == 4
    assert {each.text for each in alone}.isdisjoint(each.text for each in rephrases(decoder.complete(VOLGA, seed=4)))
    fewer = opened(clean=False, styles=[{"name": "hard", "n": 2}])
    assert [each.text for each in rephrases(fewer.complete(VOLGA, seed=3))] == [each.text for each in alone[1:3]]


def test_the_same_whatever_is_decoded_beside_it() -> None:
    decoder = pickaxe.decoder("wrap", model="draft", clean=False, max_tokens=12)
    documents = [f"{VOLGA} {number}" for number in range(24)]
    together = rephrases(decoder.complete(documents, seed=1))
    alone = [each for text in documents for each in rephrases(decoder.complete(text, seed=1))]
    assert [each.text for each in together] == [each.text for each in alone]
    assert len({each.text for each in together}) > len(documents)


def test_a_budget_bounds_the_rephrases() -> None:
    decoder = pickaxe.decoder("wrap", model="draft", clean=False, max_tokens=4)
    found = rephrases(decoder.complete([VOLGA, VOLGA], budget=3))
    assert [each.finish_reason for each in found][3] == "abstain"
    assert [each.records[0]["rejected"] for each in found] == [None, None, None, "abstained"]


def test_greedy_styles_differ() -> None:
    passages = [each["retold"] for each in json.loads(TEXTS.read_text(encoding="utf-8"))][:12]
    decoder = pickaxe.decoder("wrap", temperature=0, clean=False, max_tokens=16)
    found = rephrases(decoder.complete(passages))
    differ = [one.text != other.text for one, other in zip(found[0::2], found[1::2], strict=True)]
    assert len(differ) == 12
    assert sum(differ) > 0.9 * len(differ)


def test_draw_gives_each_passage_one_style_by_weight() -> None:
    decoder = opened(draw=True, styles=[{"name": "easy", "weight": 3}, "hard"])
    documents = [f"{VOLGA} Edition {number}." for number in range(400)]
    found = rephrases(decoder.complete(documents))
    drawn = [each.records[0]["style"] for each in found]
    assert len(drawn) == 400
    assert 0.7 < drawn.count("easy") / 400 < 0.8
    again = rephrases(decoder.complete(documents[200:]))
    assert [each.records[0]["style"] for each in again] == drawn[200:]


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (" \n", r"prompts\[1\].text: is empty"),
        (Prompt(), r"prompts\[1\].text: is empty"),
        (Prompt(messages=(Message("user", "hello"),)), r"prompts\[1\].messages"),
        (Prompt(VOLGA, allowed=("yes",)), r"prompts\[1\].allowed"),
        (Prompt(VOLGA, sampling=Sampling(n=2)), r"prompts\[1\].sampling.n.*raise n of a style"),
    ],
)
def test_documents_that_cannot_be_rephrased_are_named(prompt: Prompt | str, message: str) -> None:
    with pytest.raises(InvalidItems, match=message):
        opened().complete([VOLGA, prompt])
    assert not Scripted.asked


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"styles": ["sonnet"]}, r"styles\[0\].*unknown style 'sonnet'"),
        ({"styles": []}, "styles"),
        ({"styles": ["qa", "qa"]}, "names a style twice"),
        ({"max_passage_tokens": 31}, "max_passage_tokens"),
        ({"max_passage_tokens": 2049}, "max_passage_tokens"),
        ({"ratio": [1, 0]}, r"ratio\[1\]"),
        ({"ratio": [1]}, "ratio"),
    ],
)
def test_parameters_out_of_range_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        opened(**params)
