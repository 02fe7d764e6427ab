"""The decoder batchprompt and the scorer batch-label: prompts, wrapped decoders, models, fit, errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import WHOLE_PROMPT, Call, Chunk, Item, Message, Method, Prompt, Sampling, catalog
from pickaxe.errors import DoesNotFit, InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe.lm import Generation
from pickaxe_plugins.decoding.batchprompt.asking import Question
from pickaxe_plugins.decoding.batchprompt.models import ModelLogits, ModelText
from pickaxe_plugins.decoding.batchprompt.task import Task, Template, answer
from pickaxe_plugins.decoding.batchprompt.voting import parse

Answer = Callable[[list[str], Prompt], "str | None"]
LABELS = ["even", "odd"]
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def by_length(texts: list[str], prompt: Prompt) -> str:
    return "\n".join(answer(place, len(text) % 2, True) for place, text in enumerate(texts))


def items_of(prompt: Prompt) -> list[str]:
    """The items of the last turn; fails unless they are numbered from 0."""
    found = re.findall(r"^Input (\d+): (.*)$", prompt.messages[-1].content, re.MULTILINE)
    assert [int(number) for number, _ in found] == list(range(len(found)))
    return [text for _, text in found]


class Oracle(Method):
    """Answer batches by a function of the items; None is a refusal."""

    answer: Answer = staticmethod(by_length)
    asked: list[Prompt] = []

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        for row, prompt in enumerate(prompts):
            type(self).asked.append(prompt)
            text = type(self).answer(items_of(prompt), prompt)
            yield Chunk(row, 0, text or "", finish_reason="abstain" if text is None else "stop")


@pytest.fixture(autouse=True)
def oracle() -> Iterator[None]:
    Oracle.asked, Oracle.answer = [], staticmethod(by_length)
    with catalog.register(Oracle, "oracle", "decoder"):
        yield


def label(items: Sequence[Any], seed: int = 0, **params: Any) -> pickaxe.Scores:
    return pickaxe.scorer("batch-label", **{"decoder": "oracle", "labels": LABELS, **params}).score(items, seed=seed)


# ---------------------------------------------------------------- prompts


def test_one_item_and_one_round_is_single_prompting() -> None:
    scores = label(WORDS, batch_size=1, rounds=1, instruction="Count letters.")
    task = Task("Count letters.", ("even", "odd"))
    assert [prompt.messages for prompt in Oracle.asked] == [task.messages([word]) for word in WORDS]
    assert scores["label_index"].tolist() == [len(word) % 2 for word in WORDS]
    usage = scores.summary["usage"]
    assert usage["input_tokens"] == usage["single_prompt_tokens"]
    assert usage["calls"] == len(WORDS)


def test_the_prompt_states_task_labels_size_and_form() -> None:
    shots = [{"text": "abc", "label": "odd"}, {"text": "abcd", "label": "even", "confident": False}]
    label(WORDS, batch_size=8, rounds=1, instruction="Count letters.", examples=shots)
    first, last = Oracle.asked
    system, user, assistant, items = first.messages
    assert "Count letters." in system.content
    assert "[class 0] is even, [class 1] is odd" in system.content
    assert "a batch of 8 inputs" in system.content
    assert "a batch of 2 inputs" in last.messages[0].content
    assert user == Message("user", "Input 0: abc\n\nInput 1: abcd")
    wanted = "Label for Input 0: [class 1][confident]\nLabel for Input 1: [class 0][not confident]"
    assert assistant == Message("assistant", wanted)
    assert items.content == "\n\n".join(f"Input {place}: {word}" for place, word in enumerate(WORDS[:8]))
    assert first.sampling.temperature == 0


def test_marks_are_asked_for_only_where_they_count() -> None:
    label(WORDS, require_confident=False, weight_unsure=1)
    assert "confident" not in Oracle.asked[0].messages[0].content
    label(WORDS, require_confident=False)
    assert "[not confident]" in Oracle.asked[-1].messages[0].content


def test_rounds_show_open_items_in_fresh_orders() -> None:
    turn = iter(range(100))
    Oracle.answer = staticmethod(
        lambda texts, prompt: "\n".join(answer(place, next(turn) % 2, False) for place in range(len(texts)))
    )
    label(WORDS, batch_size=10, rounds=5)
    orders = [items_of(prompt) for prompt in Oracle.asked]
    assert orders[0] == WORDS
    assert all(sorted(order) == sorted(WORDS) for order in orders)
    assert len({tuple(order) for order in orders}) == 5


def test_templates_name_fields() -> None:
    template = "{text} / {text_pair} ({{{year}}})"
    items = [Item("a", "x", {"text_pair": "y", "year": 1999}), Item("b", "z", {"text_pair": "w", "year": 2001})]
    label(items, template=template, rounds=1)
    assert items_of(Oracle.asked[0]) == ["x / y ({1999})", "z / w ({2001})"]
    with pytest.raises(InvalidItems, match=r"items\[1\]\.fields\.text_pair: is missing.*items\[1\]\.fields\.year"):
        label([items[0], Item("b", "z")], template=template)
    for wrong in ("{0}", "{text.upper}", "{text!r}", "{text:>9}", "{", "no field"):
        with pytest.raises(InvalidParams, match="template"):
            label(items, template=wrong)
    assert Template("{b}{a}{b}").fields == ("b", "a")


# ---------------------------------------------------------------- votes and usage


def test_scores_say_label_share_votes_and_rounds() -> None:
    def answers(texts: list[str], prompt: Prompt) -> str:
        rest = [text for text in texts if text != "two"]
        lines = [answer(texts.index(text), len(text) % 2, text != "one") for text in rest]
        return "Here you are:\n" + "\n".join(reversed(lines))

    Oracle.answer = staticmethod(answers)
    scores = label(WORDS, rounds=3)
    assert scores["label"][:3].tolist() == ["odd", "", "odd"]
    assert scores["label_index"][:3].tolist() == [1, -1, 1]
    assert scores.primary[:3].tolist() == [1, 0, 1]
    assert scores["votes"][:3].tolist() == [3, 0, 2]
    assert scores["rounds"][:3].tolist() == [3, 3, 2]
    assert [(flag.index, flag.reason) for flag in scores.flags] == [(1, "no_vote")]


def test_usage_and_the_papers_way_of_counting() -> None:
    scores = label(WORDS, batch_size=5, rounds=5, report_like_paper=True)
    usage = scores.summary["usage"]
    assert usage["calls"] == 4  # two batches, two rounds each
    assert usage["item_prompts"] == 20
    assert usage["calls_like_paper"] == 10
    bare = sum(-(-len(turn.content) // 3) for turn in Task("Classify every input.", ("even", "odd")).messages([""] * 5))
    assert usage["input_tokens_like_paper"] == usage["input_tokens"] - 2 * bare
    assert usage["input_tokens"] < usage["single_prompt_tokens"]


def test_labelled_items_give_a_report_by_place() -> None:
    items = [Item(word, word, {"label": LABELS[len(word) % 2]}) for word in WORDS[:3]] + [Item("free", "free")]
    report = label(items, rounds=1).summary["by_place"]
    wanted = [{"place": place, "asked": 1, "answered": 1, "right": 1} for place in range(3)]
    assert report == [*wanted, {"place": 3, "asked": 0, "answered": 0, "right": 0}]
    with pytest.raises(InvalidItems, match=r"items\[0\]\.fields\.label: is 'red', none of even, odd"):
        label([Item("a", "a", {"label": "red"})])


def test_refusals_are_split_until_the_rest_is_answered() -> None:
    Oracle.answer = staticmethod(lambda texts, prompt: None if "six" in texts else by_length(texts, prompt))
    scores = label(WORDS)
    assert scores["label_index"].tolist() == [len(word) % 2 if word != "six" else -1 for word in WORDS]
    seeds = [prompt.sampling.seed for prompt in Oracle.asked if items_of(prompt) == WORDS]
    assert len(set(seeds)) == 2  # put once more, with other luck


def test_parallel_prompts_change_nothing() -> None:
    one, many = (label(WORDS, seed=2, batch_size=2, parallel=parallel) for parallel in (1, 16))
    assert all(np.array_equal(one[name], many[name]) for name in one.columns)
    assert one.summary == many.summary


def test_an_even_number_of_rounds_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="rounds is 4"):
        label(WORDS, rounds=4)


# ---------------------------------------------------------------- the decoder


def decoder(**params: Any) -> Any:
    return pickaxe.decoder("batchprompt", **{"decoder": "oracle", "labels": LABELS, **params})


def test_a_completion_is_a_label_and_its_record_the_votes() -> None:
    found = decoder(batch_size=4).complete(WORDS)
    each = [one for one in found if one.choice == 0]
    assert [one.text for one in each] == [LABELS[len(word) % 2] for word in WORDS]
    record = each[1].records[0]
    assert record["votes"] == [[1, True], [1, True]]
    assert (record["label"], record["label_index"], record["confidence"]) == ("odd", 1, 1.0)
    assert record["places"][0] == 1
    reports = [one for one in found if one.choice == WHOLE_PROMPT]
    assert [one.records[0]["prompts"] for one in reports] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert sum(one.usage["calls"] for one in reports) == len(Oracle.asked) == 6


def test_prompts_with_other_labels_or_seeds_are_asked_apart() -> None:
    prompts = [
        Prompt("one"),
        Prompt("two", allowed=("yes", "no")),
        Prompt("three"),
        Prompt("four", sampling=Sampling(seed=5)),
    ]
    found = decoder(rounds=1).complete(prompts)
    assert [one.text for one in found if one.choice == 0] == ["odd", "no", "odd", "even"]
    assert [items_of(prompt) for prompt in Oracle.asked] == [["one", "three"], ["two"], ["four"]]


def test_what_cannot_be_had_is_refused_by_name() -> None:
    sampling = Sampling(max_tokens=3, stop=("x",), n=2)
    with pytest.raises(InvalidItems) as caught:
        decoder().complete([Prompt("a"), Prompt("b", sampling=sampling)])
    assert [each.field for each in caught.value.violations] == [
        f"prompts[1].sampling.{name}" for name in ("max_tokens", "stop", "n")
    ]
    logits = pickaxe.decoder("batchprompt", model="draft", mode="logits", labels=LABELS)
    with pytest.raises(InvalidItems, match=r"prompts\[0\]\.sampling\.temperature"):
        logits.complete(Prompt("a", sampling=Sampling(temperature=1.0)))
    with pytest.raises(InvalidItems, match=r"prompts\[0\]\.messages"):
        decoder().complete(Prompt(messages=(Message("user", "a"),)))
    with pytest.raises(InvalidItems, match=r"prompts\[0\]\.regex: is not kept by batchprompt"):
        decoder().complete(Prompt("a", regex="even|odd"))
    with pytest.raises(InvalidItems, match=r"prompts\[0\]\.allowed: is missing"):
        decoder(labels=[]).complete("a")
    with pytest.raises(InvalidItems, match=r"prompts\[0\]\.allowed: are 1; give at least 2"):
        decoder().complete(Prompt("a", allowed=("yes",)))
    with pytest.raises(InvalidItems, match=r"prompts\[0\]\.allowed: lacks \['odd'\]"):
        decoder(examples=[{"text": "a", "label": "odd"}]).complete(Prompt("a", allowed=("yes", "no")))


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"labels": ["one"]}, "labels"),
        ({"labels": ["one", "one"]}, "labels"),
        ({"labels": ["one", " "]}, "labels"),
        ({"labels": []}, "labels"),
        ({"mode": "logits"}, "all"),
        ({"examples": [{"text": "a", "label": "red"}]}, "all"),
        ({"examples": [{"text": "a", "label": "odd"}], "template": "{text} {other}"}, "all"),
        ({"fit_rounds": [17]}, "fit_rounds"),
        ({"fit_batch_sizes": [300]}, "fit_batch_sizes"),
    ],
)
def test_wrong_parameters(params: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams, match=field):
        label(WORDS, **params)


def test_an_item_too_long_alone_is_an_error_or_cut() -> None:
    items = ["short", "long " * 400]
    with pytest.raises(DoesNotFit, match="item 1 takes"):
        label(items, context_tokens=350)
    scores = label(items, context_tokens=350, too_long="cut", rounds=1)
    assert [(flag.index, flag.reason) for flag in scores.flags] == [(1, "cut")]
    assert [items_of(prompt)[0][:9] for prompt in Oracle.asked] == ["short", "long long"]


def test_the_budget_ends_the_rounds() -> None:
    found = decoder(batch_size=5, early_stop=False).complete(WORDS, budget=3)
    votes = [one.records[0]["votes"] for one in found if one.choice == 0]
    assert sorted(map(len, votes)) == [1] * 5 + [2] * 5


# ---------------------------------------------------------------- models


@pytest.fixture(scope="module")
def draft() -> Any:
    return pickaxe.Host().lm("draft")


TASK = Task("Tell whether a word is long.", ("short", "long"), (("a", 0, True), ("elephant", 1, True)))


def test_a_models_text_is_that_of_the_whole_prompt(draft: Any) -> None:
    sampling = Sampling(max_tokens=40, temperature=0.9)
    asker = ModelText(draft, TASK, sampling, 3, None)
    questions = [Question(("cat", "dog"), (1,)), Question(("hippopotamus",), (2,)), Question(("ox", "bee"), (3,))]
    replies = asker.ask(questions, Call())
    for question, reply in zip(questions, replies, strict=True):
        ids = draft.tokenizer.encode_chat(TASK.messages(question.texts))
        drawn = Sampling(max_tokens=40, temperature=0.9, seed=question.seed(3))
        steps = list(draft.generate(Generation(ids, drawn), Call()))
        assert reply.output_tokens == len(steps)
        assert list(reply.votes) == parse("".join(step.text for step in steps), len(question.texts))
        assert reply.input_tokens == len(ids)
        assert 0 < reply.cached_tokens < len(ids)


def test_logits_take_the_likeliest_label_after_those_before(draft: Any) -> None:
    texts = ("cat", "rhinoceros", "dog")
    (reply,) = ModelLogits(draft, TASK, 0.4, None).ask([Question(texts)], Call())
    ids = draft.tokenizer.encode_chat(TASK.messages(texts))
    zero, one = (draft.tokenizer.encode(digit)[0] for digit in "01")
    before = ""
    for place, vote in enumerate(reply.votes):
        assert vote is not None
        ids += draft.tokenizer.encode(f"{before}Label for Input {place}: [class ")
        logits, _ = draft.prefill(ids)
        lead = float(logits[one] - logits[zero])
        assert vote.label == int(lead > 0)
        assert vote.confident == (abs(lead) >= 0.4)
        ids.append((zero, one)[vote.label])
        before = f"][{'confident' if vote.confident else 'not confident'}]\n"
    assert all(vote is not None for vote in reply.votes)


def test_logits_need_one_token_per_label() -> None:
    with pytest.raises(InvalidParams, match="one token per label"):
        label(WORDS, decoder=None, model="draft", mode="logits", labels=[f"label {row}" for row in range(11)])


def test_a_model_without_votes_ends_after_single_items() -> None:
    scores = label(["a", "b"], decoder=None, model="draft", rounds=1, labels=["x", "y"], max_tokens=16)
    assert scores["label_index"].tolist() == [-1, -1]
    assert scores.summary["usage"]["refused_calls"] >= 2


# ---------------------------------------------------------------- fit


def choice_of(handle: Any) -> dict[str, Any]:
    found: dict[str, Any] = handle.artifact.read_json("choice.json")
    return found


def test_fit_takes_the_largest_saving_at_the_accuracy_of_single_prompts() -> None:
    def worse_at_the_back(texts: list[str], prompt: Prompt) -> str:
        found = [len(text) % 2 if place < 8 else 0 for place, text in enumerate(texts)]
        return "\n".join(answer(place, label, True) for place, label in enumerate(found))

    Oracle.answer = staticmethod(worse_at_the_back)
    examples = [Item(str(row), "x" * (row % 7 + 1), {"label": LABELS[(row % 7 + 1) % 2]}) for row in range(64)]
    handle = pickaxe.scorer("batch-label", decoder="oracle", labels=LABELS, batch_size=2).fit(examples)
    choice = choice_of(handle)
    assert (choice["batch_size"], choice["rounds"], choice["accuracy"]) == (8, 1, 1.0)
    assert choice["saving"] > 0.5
    assert {(point["batch_size"], point["rounds"]) for point in choice["frontier"]} == {
        (1, 1), *((size, rounds) for size in (4, 8, 16, 32) for rounds in (1, 3, 5))
    }  # fmt: skip
    assert handle.score(WORDS).summary["batch_size"] == 8
    worst = pickaxe.scorer("batch-label", decoder="oracle", labels=LABELS, tolerance=1.0).fit(examples)
    assert choice_of(worst)["batch_size"] == 32


def test_a_poll_of_fewer_rounds_is_the_beginning_of_a_longer_one() -> None:
    def wavering(texts: list[str], prompt: Prompt) -> str:
        places = enumerate(texts)
        return "\n".join(answer(place, (len(text) * (place + 3)) % 5 % 2, place % 3 > 0) for place, text in places)

    Oracle.answer = staticmethod(wavering)
    examples = [Item(word, word, {"label": LABELS[len(word) % 2]}) for word in WORDS]
    handle = pickaxe.scorer("batch-label", decoder="oracle", labels=LABELS, fit_batch_sizes=[4]).fit(examples)
    for point in choice_of(handle)["frontier"][1:]:
        scores = label(WORDS, batch_size=4, rounds=point["rounds"])
        right = [name == LABELS[len(word) % 2] for name, word in zip(scores["label"], WORDS, strict=True)]
        assert np.mean(right) == point["accuracy"]
        usage = scores.summary["usage"]
        assert usage["input_tokens"] + usage["output_tokens"] == point["tokens"]


def test_fit_needs_labelled_examples() -> None:
    handle = pickaxe.scorer("batch-label", decoder="oracle", labels=LABELS)
    with pytest.raises(InvalidItems, match="label"):
        handle.fit([Item("a", "a")])
    with pytest.raises(InvalidItems, match="examples"):
        handle.fit([])
