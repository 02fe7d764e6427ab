"""span-qa with canned answers: places of references, rejections, filters, budgets, seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Chunk, Completion, Item, Method, Prompt, Sampling, catalog
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe.host import Host
from pickaxe_plugins.evaluation.span_qa._question import Rejected, asked, located, read
from pickaxe_plugins.evaluation.span_qa._tags import tagged

TEXT = "The ferry leaves at nine. It has two decks. Tickets cost four coins. Children pay half of it."


def answer(question: str, *references: tuple[int, int]) -> str:
    parts = [{"content": "", "start_chunk": start, "end_chunk": end} for start, end in references]
    return json.dumps({"question": question, "references": parts})


class Canned(Method[pickaxe.Params]):
    """Says what `says` returns for a prompt; keeps what it was asked."""

    constraints = frozenset({"json_schema"})
    says: Callable[[Prompt, int], str]
    prompts: list[Prompt]

    @hookimpl
    def decode(self, prompts: Sequence[Prompt]) -> Iterator[Chunk]:
        for row, prompt in enumerate(prompts):
            type(self).prompts.append(prompt)
            yield Chunk(row, 0, type(self).says(prompt, len(type(self).prompts) - 1), finish_reason="stop")


def write(says: Sequence[str] | Callable[[Prompt, int], str], n: int = 1, **params: Any) -> list[Completion]:
    """The questions that come of these answers of the model, in turn."""
    Canned.prompts = []
    Canned.says = staticmethod(says if callable(says) else lambda _, at: says[at])
    given = {"encoder": None, "piece": 26, **params}
    budget, seed = given.pop("budget", None), given.pop("seed", 0)
    text, fields = given.pop("text", TEXT), {"corpus": "guide"}
    with catalog.register(Canned, "canned", "decoder"):
        decoder = pickaxe.decoder("span-qa", decoder="canned", **given)
        return decoder.complete(Prompt(text, sampling=Sampling(n=n), fields=fields), budget=budget, seed=seed)


def test_a_reference_covers_its_pieces() -> None:
    (found,) = write([answer("When?", (0, 0), (1, 2))])
    (record,) = found.records
    edges = tagged(TEXT, 26)[1]
    assert (found.text, found.finish_reason) == ("When?", "stop")
    assert record["references"] == [[0, edges[1]], [edges[1], edges[3]]]
    assert record["contents"] == [TEXT[start:end] for start, end in record["references"]]
    assert record["corpus"] == "guide"


def test_every_reference_is_moved_by_the_start_of_the_window() -> None:
    text = " ".join(f"word{number}" for number in range(400))
    (found,) = write([answer("What?", (0, 0), (1, 1), (2, 2))], text=text, window=200, piece=50)
    record = found.records[0]
    shown = Canned.prompts[0].messages[1].content
    assert record["references"][0][0] > 0
    assert [start for start, _ in record["references"][1:]] == [end for _, end in record["references"][:2]]
    assert all(content in shown for content in record["contents"])


def test_the_last_piece_ends_with_the_text() -> None:
    pieces = len(tagged(TEXT, 26)[1]) - 1
    (found,) = write([answer("Half?", (pieces - 1, pieces - 1))])
    assert found.records[0]["references"][0][1] == len(TEXT)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("I do not know.", "no JSON"),
        ('{"question": "A?"}', "no object of question and references"),
        ('{"question": " ", "references": []}', "empty"),
        (answer("A?"), "1 to 5"),
        (answer("A?", *[(0, 0)] * 6), "1 to 5"),
        (answer("A?", (0, 9)), "pieces 0 to 9"),
        (answer("A?", (2, 1)), "pieces 2 to 1"),
        ('{"question": "A?", "references": [{"content": "", "start_chunk": 0}]}', "has not content"),
        ('{"question": "A?", "references": [{"content": "", "start_chunk": true, "end_chunk": 1}]}', "True"),
    ],
)
def test_what_cannot_be_used_is_tried_again(said: str, why: str) -> None:
    (found,) = write([said, answer("When?", (0, 0))])
    assert found.text == "When?"
    assert why in found.records[0]["rejected"][0]
    assert found.usage["model_calls"] == 2


def test_thoughts_fences_and_python_literals_are_understood() -> None:
    good = answer("When?", (0, 0))
    for said in (f"<think>{{no}} hm</think>\n{good}", f"```json\n{good}\n```", str(json.loads(good))):
        assert write([said])[0].text == "When?"


def test_after_all_attempts_it_abstains() -> None:
    (found,) = write(["no"] * 3, attempts=3)
    assert (found.text, found.finish_reason) == ("", "abstain")
    assert found.records[0] == {"corpus": "guide", "stopped": "attempts", "rejected": ["the answer holds no JSON"] * 3}


def test_the_budget_bounds_model_calls() -> None:
    found = write(["no", answer("When?", (0, 0)), "no"], n=3, budget=3)
    assert [each.finish_reason for each in found] == ["stop", "abstain", "abstain"]
    assert [each.records[0].get("stopped") for each in found[1:]] == ["budget", "budget"]
    assert len(Canned.prompts) == 3


def test_earlier_questions_are_shown() -> None:
    found = write(lambda _, at: answer(f"Question {at}?", (0, 0)), n=23)
    assert [each.text for each in found] == [f"Question {at}?" for at in range(23)]
    shown = [prompt.messages[1].content.count("- Question") for prompt in Canned.prompts]
    assert shown == [min(at, 20) for at in range(23)]


def test_equal_seeds_ask_the_same() -> None:
    def prompts(seed: int) -> list[Prompt]:
        write(lambda _, at: answer("A?", (0, 0)), n=2, text=TEXT * 40, window=300, seed=seed)
        return Canned.prompts

    assert prompts(1) == prompts(1)
    assert prompts(1) != prompts(2)


def test_filters_drop_strangers_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines from the words in common: the threshold decides, not the encoder."""

    class Words:
        def similarity(self, left: list[str], right: list[str], call: object) -> np.ndarray:
            sets = [[set(re.findall(r"\w+", text.lower())) for text in texts] for texts in (left, right)]
            return np.array([[len(a & b) / max(len(a | b), 1) for b in sets[1]] for a in sets[0]])

    monkeypatch.setattr(Host, "encoder", lambda self, name: Words())
    first = answer("The ferry leaves at what?", (0, 0))
    said = [first, answer("Who sings?", (0, 0)), first, answer("It has how many decks?", (1, 1))]
    found = write(said, n=2, encoder="encoder")
    assert [each.text for each in found] == ["The ferry leaves at what?", "It has how many decks?"]
    reasons = found[1].records[0]["rejected"]
    assert "far from a reference" in reasons[0]
    assert "near an earlier one" in reasons[1]


# ---------------------------------------------------------------- quotes


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("It has two decks.", "It has two decks."),
        ("It  has\ntwo decks.", "It has two decks."),
        ("two It has decks.", "It has two decks."),
        (" Tickets cost ", "Tickets cost"),
    ],
)
def test_quotes_are_located(quote: str, found: str) -> None:
    start, end = located(quote, TEXT)
    assert TEXT[start:end] == found


def test_a_quote_that_is_nowhere_is_rejected() -> None:
    with pytest.raises(Rejected, match="not in the text"):
        located("It has three decks and a bar.", TEXT)
    with pytest.raises(Rejected, match="no text"):
        located(3, TEXT)
    said = json.dumps({"question": "Decks?", "references": ["It has two decks."]})
    assert read(said, TEXT, 26, "quotes").references == ((26, 43),)
    assert "<start_chunk_0>" not in asked(TEXT, 26, "quotes", ())[1].content


# ---------------------------------------------------------------- errors and constraints


def test_constrained_binds_the_model_to_the_shape() -> None:
    write([answer("When?", (0, 0))], constrained=True)
    schema = Canned.prompts[0].json_schema
    assert schema is not None
    assert schema["required"] == ["question", "references"]


def test_prompts_without_a_text_are_refused() -> None:
    decoder = pickaxe.decoder("span-qa", decoder={"name": "repeated-sampling", "params": {"model": "draft"}})
    with pytest.raises(InvalidItems, match=r"prompts\[0\].text.*is empty"):
        decoder.complete(" \n")
    with pytest.raises(InvalidItems, match=r"prompts\[0\]: has messages or context"):
        decoder.complete(Prompt(TEXT, context=(Item("d", TEXT),)))


def test_a_decoder_that_keeps_no_schema_cannot_be_constrained() -> None:
    class Free(Canned):
        constraints = frozenset()

    with catalog.register(Free, "free", "decoder"), pytest.raises(InvalidParams, match="constrained: 'free'"):
        pickaxe.decoder("span-qa", decoder="free", constrained=True, encoder=None).complete(TEXT)


def test_records_are_questions_for_token_iou() -> None:
    (found,) = write([answer("When does the ferry leave?", (0, 0))])
    record = found.records[0]
    fields = {
        "references": np.array(record["references"]),
        "corpus": record["corpus"],
        "retrieved": {"retrieved": [[0, 26, "guide"]]},
    }
    assert pickaxe.scorer("token-iou").score([Item("q", record["text"], fields)]).primary[0] == 1
