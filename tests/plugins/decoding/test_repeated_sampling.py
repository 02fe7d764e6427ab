"""Repeated sampling on the shipped draft model: keyed samples, verdicts, selection, stopping."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

import pickaxe
from pickaxe import (
    WHOLE_PROMPT,
    Column,
    Completion,
    InputField,
    Item,
    Items,
    Method,
    MethodRef,
    Prompt,
    Sampling,
    Scores,
    catalog,
)
from pickaxe.errors import Cancelled, InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe_plugins.decoding._answers import INVALID, canonical, extract, normalise_math, same

SHORT = {"model": "draft", "max_tokens": 6}
PROMPT = "The capital of France is"


class Length(Method):
    """Score a sample by whether its text has an even number of characters."""

    scope = "item"
    reads = (InputField("text", "text", "A sample."), InputField("prompt", "text", "What was asked."))
    columns = (Column("even", "1 when the length is even."),)
    seen: list[Item] = []

    @hookimpl
    def score(self, items: Items) -> Scores:
        type(self).seen += list(items)
        return Scores({"even": np.array([1.0 - len(item.text or "") % 2 for item in items])})


class Pool(Length):
    """The same, as if it needed the whole pool."""

    scope = "pool"


class Silent(Length):
    """Give no score at all."""

    columns = (Column("even", "Nothing.", nullable=True),)

    @hookimpl
    def score(self, items: Items) -> Scores:
        return Scores({"even": np.full(len(items), np.nan)})


@pytest.fixture(autouse=True)
def methods() -> Iterator[None]:
    Length.seen.clear()
    with (
        catalog.register(Length, "even", "scorer"),
        catalog.register(Pool, "pooled", "scorer"),
        catalog.register(Silent, "silent", "scorer"),
    ):
        yield


def samples(found: Sequence[Completion]) -> list[Completion]:
    return [each for each in found if each.choice != WHOLE_PROMPT]


def record(found: Sequence[Completion], prompt: int = 0) -> dict[str, object]:
    (whole,) = [each for each in found if each.choice == WHOLE_PROMPT and each.prompt == prompt]
    return dict(whole.records[0])


def usage(found: Sequence[Completion]) -> dict[str, float]:
    (whole,) = [each for each in found if each.choice == WHOLE_PROMPT]
    return dict(whole.usage)


# ---------------------------------------------------------------- samples


def test_a_sample_depends_on_its_number_only() -> None:
    few = pickaxe.decoder("repeated-sampling", n=8, **SHORT).complete(PROMPT, seed=3)
    many = pickaxe.decoder("repeated-sampling", n=64, batch=24, **SHORT).complete(PROMPT, seed=3)
    one_by_one = pickaxe.decoder("repeated-sampling", n=8, batch=1, **SHORT).complete(PROMPT, seed=3)
    texts = [each.token_ids for each in samples(few)]
    assert texts == [each.token_ids for each in samples(many)[:8]]
    assert texts == [each.token_ids for each in samples(one_by_one)]
    assert len(set(texts)) > 1


def test_greedy_single_sample_is_the_models_best_path() -> None:
    lm = pickaxe.Host().lm("draft")
    found = samples(pickaxe.decoder("repeated-sampling", temperature=0, **SHORT).complete(PROMPT))
    ids = lm.tokenizer.encode(PROMPT)
    expected: list[int] = []
    while len(expected) < 6 and not (expected and expected[-1] in lm.tokenizer.eos_ids):
        logits, _ = lm.prefill([*ids, *expected])
        expected.append(int(np.argmax(logits)))
    assert found[0].token_ids == tuple(expected)


def test_prompts_do_not_disturb_each_other_nor_share_their_luck() -> None:
    decoder = pickaxe.decoder("repeated-sampling", n=4, temperature=1.0, **SHORT)
    alone = samples(decoder.complete(PROMPT, seed=1))
    among = [each for each in samples(decoder.complete(["A", PROMPT], seed=1)) if each.prompt == 1]
    assert [each.text for each in alone] == [each.text for each in among]
    other = samples(decoder.complete(PROMPT, seed=2))
    assert [each.text for each in alone] != [each.text for each in other]


def test_the_request_wins_over_the_parameters() -> None:
    decoder = pickaxe.decoder("repeated-sampling", n=5, **SHORT)
    asked = Prompt(PROMPT, sampling=Sampling(n=2, max_tokens=3, temperature=0.0, seed=9))
    found = samples(decoder.complete(asked))
    assert len(found) == 2
    assert found[0].token_ids == found[1].token_ids
    assert all(len(each.token_ids) <= 3 for each in found)


def test_messages_empty_prompts_and_allowed_answers() -> None:
    decoder = pickaxe.decoder("repeated-sampling", n=3, **SHORT)
    assert len(samples(decoder.complete(""))) == 3
    found = samples(decoder.complete(Prompt("Yes or no?", allowed=(" yes", " no"))))
    assert {each.text for each in found} <= {" yes", " no"}
    with pytest.raises(InvalidItems, match="neither text nor messages"):
        decoder.complete(Prompt())


# ---------------------------------------------------------------- verdicts and selection


def test_records_are_complete() -> None:
    found = pickaxe.decoder("repeated-sampling", n=4, **SHORT).complete(PROMPT)
    whole = record(found)
    assert whole["stopped"] == "n"
    assert (whole["n"], whole["asked"]) == (4, 4)
    for name in ("answers", "scores", "passed", "output_tokens"):
        assert len(whole[name]) == 4  # type: ignore[arg-type]
    for each in samples(found):
        assert each.records[0]["answer"] == each.text.strip() == whole["answers"][each.choice]  # type: ignore[index]
        likelihood = np.exp(np.mean(each.logprobs))
        assert each.records[0]["score"] == pytest.approx(likelihood, abs=1e-6)
    chosen = samples(found)[whole["selected"]]  # type: ignore[call-overload]
    assert whole["text"] == chosen.text


def test_the_record_can_be_scored_by_coverage() -> None:
    decoder = pickaxe.decoder("repeated-sampling", n=6, verifier="even", **SHORT)
    whole = record(decoder.complete(PROMPT))
    passed = np.array(whole["passed"])
    item = Item("p", fields={"correct": passed, "answers": whole["answers"], "scores": np.array(whole["scores"])})  # type: ignore[dict-item]
    found = pickaxe.scorer("coverage", k=(1, 6)).score([item])
    assert found["pass_at_1"][0] == pytest.approx(passed.mean())
    assert found["pass_at_6"][0] == passed.any()


def test_a_verifier_sees_prompt_fields_and_answer_and_its_first_pass_is_selected() -> None:
    asked = Prompt(PROMPT, fields={"difficulty": "easy"})
    found = pickaxe.decoder("repeated-sampling", n=6, verifier={"name": "even"}, **SHORT).complete(asked)
    whole = record(found)
    passed = [len(each.text) % 2 == 0 for each in samples(found)]
    assert whole["passed"] == passed
    assert any(passed)
    assert (whole["rule"], whole["selected"]) == ("verifier", passed.index(True))
    first = Length.seen[0]
    assert first.id == "0/0"
    assert first.fields["prompt"] == PROMPT
    assert first.fields["difficulty"] == "easy"
    assert first.fields["answer"] == samples(found)[0].text.strip()


def test_threshold_decides_and_voting_steps_in() -> None:
    found = pickaxe.decoder("repeated-sampling", n=6, verifier=MethodRef(name="even"), threshold=2, **SHORT)
    whole = record(found.complete(PROMPT))
    assert not any(whole["passed"])  # type: ignore[call-overload]
    assert whole["rule"] == "majority"


def test_stopping_at_the_first_pass_does_not_depend_on_the_batch() -> None:
    full = pickaxe.decoder("repeated-sampling", n=20, verifier="even", temperature=1.0, **SHORT).complete(PROMPT)
    first = record(full)["selected"]
    for batch in (1, 7, 20):
        params = {**SHORT, "n": 20, "verifier": "even", "temperature": 1.0, "batch": batch}
        found = pickaxe.decoder("repeated-sampling", **params, stop_at_first=True).complete(PROMPT)
        whole = record(found)
        assert whole["stopped"] == "first"
        assert whole["selected"] == first == whole["n"] - 1  # type: ignore[operator]
        assert [each.text for each in samples(found)] == [each.text for each in samples(full)[: len(samples(found))]]
        assert usage(found)["verifier_calls"] == len(samples(found))


def test_answers_are_checked_against_the_reference() -> None:
    decoder = pickaxe.decoder(
        "repeated-sampling", n=8, extract="regex", pattern=r"(\w)", verifier="reference", temperature=1.0, **SHORT
    )
    letters = record(decoder.complete(Prompt(PROMPT, fields={"reference": "?"})))["answers"]
    wanted = letters[2]  # type: ignore[index]
    whole = record(decoder.complete(Prompt(PROMPT, fields={"reference": wanted})))
    assert whole["passed"] == [letter == wanted for letter in letters]  # type: ignore[attr-defined]
    with pytest.raises(InvalidItems, match="reference"):
        decoder.complete(PROMPT)


def test_best_of_n_and_weighted_votes_use_the_rater() -> None:
    params = {**SHORT, "n": 6, "temperature": 1.0, "rater": "even"}
    best = record(pickaxe.decoder("repeated-sampling", select="best_of_n", **params).complete(PROMPT))
    assert best["selected"] == int(np.argmax(best["scores"]))  # type: ignore[arg-type]
    assert set(best["scores"]) <= {0.0, 1.0}  # type: ignore[call-overload]
    weighted = record(pickaxe.decoder("repeated-sampling", select="weighted", **params).complete(PROMPT))
    assert weighted["scores"][weighted["selected"]] == 1.0  # type: ignore[index]


def test_a_rater_without_scores_selects_the_first() -> None:
    for select in ("best_of_n", "weighted"):
        decoder = pickaxe.decoder("repeated-sampling", n=3, select=select, rater="silent", **SHORT)
        whole = record(decoder.complete(PROMPT))
        assert whole["selected"] == 0
        assert whole["scores"] == [None] * 3


def test_judges_must_score_items_one_by_one() -> None:
    for name in ("verifier", "rater"):
        with pytest.raises(InvalidParams, match=name):
            pickaxe.decoder("repeated-sampling", **{name: "pooled"}, **SHORT).complete(PROMPT)


# ---------------------------------------------------------------- limits


def test_no_sample_is_taken_up_once_the_cost_is_reached() -> None:
    params = {**SHORT, "n": 20, "usd_per_m_input": 10.0, "usd_per_m_output": 1000.0}
    full = record(pickaxe.decoder("repeated-sampling", **params).complete(PROMPT))
    tokens, prompt = np.array(full["output_tokens"]), full["prompt_tokens"]
    spent = (np.cumsum(tokens) * 1000.0 + prompt * 10.0) / 1e6  # type: ignore[operator]
    assert full["usd"] == pytest.approx(spent[-1])
    limit = float(spent[4])
    for batch in (1, 20):
        found = pickaxe.decoder("repeated-sampling", **params, batch=batch, max_cost=limit - 1e-9).complete(PROMPT)
        whole = record(found)
        assert (whole["n"], whole["stopped"]) == (5, "cost")
        assert whole["usd"] == pytest.approx(limit)
    billed = record(pickaxe.decoder("repeated-sampling", **params, shared_prompt=False).complete(PROMPT))
    assert billed["usd"] == pytest.approx(spent[-1] + 19 * prompt * 10.0 / 1e6)  # type: ignore[operator]


def test_the_calls_budget_counts_samples_over_all_prompts() -> None:
    found = pickaxe.decoder("repeated-sampling", n=4, **SHORT).complete([PROMPT, "A", "B"], budget=6)
    assert [record(found, row)["n"] for row in range(3)] == [4, 2, 0]
    assert [record(found, row)["stopped"] for row in range(3)] == ["n", "budget", "budget"]
    last = [each for each in samples(found) if each.prompt == 2]
    assert [each.finish_reason for each in last] == ["abstain"]
    assert record(found, 2)["selected"] is None


def test_usage_counts_tokens_and_the_shared_prompt() -> None:
    lm = pickaxe.Host().lm("draft")
    found = pickaxe.decoder("repeated-sampling", n=5, **SHORT).complete(PROMPT)
    prompt = len(lm.tokenizer.encode(PROMPT))
    tokens = sum(len(each.token_ids) for each in samples(found))
    assert usage(found) == {
        "samples": 5,
        "prompt_tokens": prompt,
        "completion_tokens": tokens,
        "discarded_tokens": 0,
        "target_calls": 1 + tokens - 5,
        "prefix_tokens_shared": 4 * prompt,
        "verifier_calls": 0,
    }


def test_cancelling_ends_the_work() -> None:
    call = pickaxe.Call()
    running = pickaxe.decoder("repeated-sampling", n=50, **SHORT).decode(PROMPT, call=call)
    next(running)
    call.cancel()
    with pytest.raises(Cancelled):
        list(running)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n": 0}, "n"),
        ({"n": 10_001}, "n"),
        ({"top_p": 0}, "top_p"),
        ({"extract": "regex"}, "go together"),
        ({"pattern": "x"}, "go together"),
        ({"extract": "regex", "pattern": "("}, "no regular expression"),
        ({"stop_at_first": True}, "needs a verifier"),
        ({"max_cost": 1.0}, "usd_per_m"),
        ({"select": "worst"}, "select"),
    ],
)
def test_bad_parameters(params: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        pickaxe.decoder("repeated-sampling", **params)


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so 5 + 7 = 12.\n#### 12", "12"),
        ("#### $1,234.50.", "1234.50"),
        ("#### 3\nno, wait\n#### -4", "-4"),
        ("the answer is 12", INVALID),
        ("#### none", INVALID),
        ("#### ,", INVALID),
    ],
)
def test_grade_school_answers(text: str, expected: str) -> None:
    assert extract(text, "gsm8k") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"Final Answer: The final answer is $\frac12$. I hope it is correct.", r"\frac{1}{2}"),
        (r"thus \boxed{x = \dfrac{3}{4}} and so on", r"\frac{3}{4}"),
        ("The final answer is 3.14.", "3.14"),
        (r"the final answer is $10\text{ cm}$", "10"),
        (r"\boxed{12,345 \text{ dollars}}", "12345"),
        (r"\boxed{1{,}000}", "1000"),
        (r"\boxed{90^\circ}", "90"),
        (r"\boxed{\text{east}}", "east"),
        (r"\boxed{\sqrt2}", r"\sqrt{2}"),
        (r"\boxed{25\%}", "25"),
        (r"\boxed{unbalanced", INVALID),
        ("no box", INVALID),
    ],
)
def test_competition_answers(text: str, expected: str) -> None:
    assert extract(text, "math") == expected


def test_normalising_twice_changes_nothing() -> None:
    for answer in (r"\frac12", r"$x=\dfrac{3}{4}$", "1,000 units", r"\text{a, b}", r"\left(1, 2\right)"):
        assert normalise_math(normalise_math(answer)) == normalise_math(answer)


def test_code_is_the_first_fenced_block() -> None:
    assert extract("Sure:\n```python\nx = 1\nprint(x)\n```\nor\n```\nno\n```", "code") == "x = 1\nprint(x)"
    assert extract("x = 1", "code") == INVALID


def test_patterns_take_the_last_match_and_its_first_group() -> None:
    assert extract("a=1 b=2", "regex", r"(\w)=(\d)") == "b"
    assert extract("a=1 b=2", "regex", r"\d") == "2"
    assert extract("none", "regex", r"\d") == INVALID


def test_a_pattern_that_searches_for_ages_is_refused_in_time() -> None:
    with pytest.raises(InvalidParams, match=r"pattern: searched one answer for more than"):
        extract("a" * 60 + "b", "regex", r"^(a|aa|aaa)+$")


def test_equal_values_are_one_answer() -> None:
    assert same("1/2", "0.50")
    assert same(r"\frac{1}{2}", "0.5")
    assert same("$1,000.", "1000")
    assert same("-.5", r"-\frac{1}{2}")
    assert not same("1/0", "0")
    assert not same("x", "y")
    assert not same(INVALID, INVALID)
    assert canonical("3.0") == canonical("3")
    assert canonical(" east ") == "east"
    assert canonical("9" * 5000) == "9" * 5000
