"""drag: budgets, caps and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drag_cases import DOCUMENTS, EXAMPLES, QUESTION, Scripted, drag, one

import pickaxe
from pickaxe import Call, Item, Method, MethodRef, Prompt, catalog
from pickaxe.errors import ArtifactMismatch, Cancelled, DoesNotFit, InvalidItems, InvalidParams, Unmet
from pickaxe.hooks import hookimpl
from pickaxe_plugins.generation.drag._prompt import FOLLOW_UP, INTERMEDIATE

pytestmark = pytest.mark.usefixtures("scripted")


# ---------------------------------------------------------------- limits


def test_a_budget_binds_all_calls_together(index: MethodRef) -> None:
    free, _ = one(drag(retriever=index, k=4, n=4).complete(QUESTION))
    total = free.usage["effective_context_length"]
    for budget in (int(total) - 1, int(total) // 2, int(total) // 4):
        found, record = one(drag(retriever=index, k=4, n=4, budget=budget).complete(QUESTION))
        assert found.usage["effective_context_length"] <= budget
        assert record["k"] < 4 or record["dropped"]["later_documents"] or len(record["calls"]) < 4
    with pytest.raises(DoesNotFit, match="budget is 9"):
        drag(retriever=index, budget=9).complete(QUESTION)


def test_what_was_dropped_is_said(fitted: str) -> None:
    decoder = pickaxe.decoder("drag", artifact=fitted, max_tokens=8)
    _, whole = one(decoder.complete(QUESTION))
    assert whole["dropped"] == {"documents": 0, "demonstrations": 0, "later_documents": 0, "because": ""}
    small = pickaxe.decoder("drag", artifact=fitted, max_tokens=8, budget=75)
    _, record = one(small.complete(QUESTION))
    assert record["k"] == 0
    assert record["dropped"]["documents"] == 3
    assert record["m"] + record["dropped"]["demonstrations"] == 2
    assert record["dropped"]["because"] == "budget"
    many = pickaxe.decoder("drag", artifact=fitted, max_tokens=8, m=5)
    assert one(many.complete(QUESTION))[1]["missing_demonstrations"] == 3


def test_model_calls_have_a_hard_cap(index: MethodRef, scripted: type[Scripted]) -> None:
    decoder = drag(retriever=index, n=3)
    found = decoder.complete([QUESTION] * 3, budget=4)
    calls = [each.usage.get("model_calls", 0) for each in found]
    assert sum(calls) <= 4
    assert calls[2] == 0
    assert found[2].finish_reason == "abstain"
    scripted.prefer = (INTERMEDIATE, FOLLOW_UP)
    drag(retriever=index, n=3, decoder="scripted").complete([QUESTION] * 3, budget=10)
    assert len(scripted.prompts) <= 10


def test_a_cancelled_call_ends(index: MethodRef) -> None:
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        drag(retriever=index).complete(QUESTION, call=call)


# ---------------------------------------------------------------- refused


def test_refused_parameters() -> None:
    with pytest.raises(InvalidParams, match="auto needs allocation and budget"):
        drag(auto=True)


@pytest.mark.parametrize(
    ("params", "prompt", "error", "message"),
    [
        ({"m": 2}, Prompt(QUESTION), Unmet, "fit first, or set m=0"),
        ({}, Prompt(QUESTION), Unmet, "no context and there is no retriever"),
        ({"k": 0}, Prompt(), InvalidItems, "neither text nor messages"),
    ],
)
def test_missing_things_are_named(params: dict[str, Any], prompt: Prompt, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        drag(**params).complete(prompt)


@pytest.mark.parametrize(
    ("params", "message"),
    [({"k": 4}, "made with k=3"), ({"max_doc_tokens": 2000}, "made with max_doc_tokens"), ({"n": 2}, "no steps")],
)
def test_demonstrations_that_do_not_suit_are_refused(fitted: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactMismatch, match=message):
        pickaxe.decoder("drag", artifact=fitted, **params).complete(QUESTION)


def test_more_context_than_demonstrations_have_is_refused(fitted: str) -> None:
    context = tuple(Item(str(row), "fact") for row in range(4))
    with pytest.raises(InvalidItems, match=r"prompts\[0\]\.context: holds 4 documents, demonstrations have 3"):
        pickaxe.decoder("drag", artifact=fitted).complete(Prompt(QUESTION, context=context))


def test_a_decoder_that_ignores_allowed_is_refused(index: MethodRef, scripted: type[Scripted]) -> None:
    scripted.obedient = False
    with pytest.raises(Unmet, match="'scripted' answered ' Riga'"):
        drag(retriever=index, decoder="scripted", n=2).complete(QUESTION)


@pytest.mark.parametrize(("examples", "message"), [([], "are none"), (EXAMPLES, "no retriever")])
def test_examples_that_cannot_be_used(examples: list[Item], message: str) -> None:
    with pytest.raises(InvalidItems, match=message):
        drag().fit(examples)


def test_an_index_without_texts_needs_the_documents(tmp_path: Path) -> None:
    class Bare(Method):
        """Keeps ids only."""

        reads = (pickaxe.InputField("text", "text", "Any."),)

        @hookimpl
        def index(self, documents: Any, out: Any) -> Iterator[pickaxe.Progress]:
            out.write_json("ids.json", [item.id for item in documents])
            yield pickaxe.Progress("index", 1, 1)

        @hookimpl
        def search(self, queries: Any, k: int) -> pickaxe.SearchResults:
            assert self.artifact is not None
            ids = self.artifact.read_json("ids.json")[:k]
            hits = tuple(pickaxe.Hit(name, -float(row)) for row, name in enumerate(ids))
            return pickaxe.SearchResults(tuple(hits for _ in queries))

    with catalog.register(Bare, "bare", "retriever"):
        pickaxe.retriever("bare").index(DOCUMENTS, out=tmp_path / "index")
        ref = MethodRef(name="bare", artifact=str(tmp_path / "index"))
        with pytest.raises(Unmet, match="holds no texts"):
            drag(retriever=ref).complete(QUESTION)
        handle = drag(retriever=ref, decoder="scripted", m=1).fit(EXAMPLES, unlabelled=DOCUMENTS)
        assert one(handle.complete(QUESTION))[1]["documents"] == ["born-Ada", "born-Bo"]
