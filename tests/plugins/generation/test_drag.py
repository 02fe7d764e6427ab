"""drag end to end: prompts that decoders get, calls and tokens, retrieval, demonstrations of a fit, allocation."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from drag_cases import DOCUMENTS, EXAMPLES, PEOPLE, QUESTION, Scripted, documents, drag, one

import pickaxe
from pickaxe import Item, Message, MethodRef, Prompt, Sampling
from pickaxe.errors import InvalidItems, Unmet
from pickaxe.host import default_host
from pickaxe_plugins.generation.drag._prompt import FINAL, FOLLOW_UP, INTERMEDIATE, PREFIXES
from pickaxe_plugins.generation.rag_allocation import configurations

pytestmark = pytest.mark.usefixtures("scripted")


# ---------------------------------------------------------------- prompts


def test_every_block_has_k_documents_best_last(fitted: str, index: MethodRef, scripted: type[Scripted]) -> None:
    decoder = pickaxe.decoder("drag", artifact=fitted, decoder="scripted", k=2)
    _, record = one(decoder.complete(QUESTION))
    (prompt,) = scripted.prompts
    blocks = documents(prompt.text or "")
    assert [len(block) for block in blocks] == [2, 2, 2]
    texts = {item.id: item for item in DOCUMENTS}
    for block, question in zip(blocks, [*(item.text for item in EXAMPLES), QUESTION], strict=True):
        hits = pickaxe.retriever("chronicles", artifact=index.artifact).search([question or ""], 2)[0]
        ranked = [texts[hit.id] for hit in hits]
        shown = [f"{item.fields.get('title', '')}: {item.text}".removeprefix(": ") for item in ranked]
        assert block == shown[::-1]
    assert record["documents"][0] == "born-Ada"
    text = prompt.text or ""
    assert text.index("Question: Where was Cy born?\nAnswer: Oslo\n") < text.index("Question: Where was Di born?")
    assert text.endswith(f"Document: Ada was born in Riga.\nQuestion: {QUESTION}\nAnswer:")


def test_documents_are_cut_off(fitted: str, scripted: type[Scripted]) -> None:
    pickaxe.decoder("drag", artifact=fitted, decoder="scripted", max_doc_tokens=3).complete(QUESTION)
    lines = [line for block in documents(scripted.prompts[0].text or "") for line in block]
    assert len(lines) == 9
    assert all(len(line.split()) == 3 for line in lines)


def test_context_is_used_as_it_is(scripted: type[Scripted]) -> None:
    context = tuple(Item(str(row), f"fact {row}") for row in range(3))
    _, record = one(drag(decoder="scripted").complete(Prompt(QUESTION, context=context)))
    assert documents(scripted.prompts[0].text or "") == [["fact 2", "fact 1", "fact 0"]]
    assert record["k"] == 3


def test_messages_ask_with_their_last_turn(scripted: type[Scripted]) -> None:
    turns = (Message("user", "Hello\nthere"), Message("assistant", "Hi"), Message("user", QUESTION))
    drag(decoder="scripted", k=0, instruction="Be brief.").complete(Prompt(messages=turns))
    text = f"Be brief.\n\nuser: Hello there\nassistant: Hi\nQuestion: {QUESTION}\nAnswer:"
    assert scripted.prompts[0].text == text


# ---------------------------------------------------------------- one call


def test_drag_is_one_call_of_the_engine(index: MethodRef) -> None:
    found, record = one(drag(retriever=index).complete(QUESTION))
    assert record["mode"] == "DRAG"
    assert record["steps"] == []
    assert found.text
    assert found.usage["model_calls"] == 1
    assert found.usage["effective_context_length"] == found.usage["call_1_input_tokens"]
    assert found.usage["prefilled_tokens"] == found.usage["effective_context_length"]


def test_calls_are_counted_by_the_decoders_own_tokens(index: MethodRef) -> None:
    inner = {"name": "repeated-sampling", "params": {"model": "draft"}}
    found, record = one(drag(retriever=index, decoder=inner, n=3).complete(QUESTION))
    lengths = [each["input_tokens"] for each in record["calls"]]
    assert found.usage["effective_context_length"] == sum(lengths) == record["effective_context_length"]
    assert lengths == sorted(lengths)
    one_call, _ = one(drag(retriever=index, decoder=inner).complete(QUESTION))
    assert one_call.usage["model_calls"] == 1


def test_allowed_answers_are_kept_to(index: MethodRef) -> None:
    for n in (1, 2):
        found, _ = one(drag(retriever=index, n=n).complete(Prompt(QUESTION, allowed=("Oslo", "Riga"))))
        assert found.text in ("Oslo", "Riga")


def test_choices_and_seeds(index: MethodRef) -> None:
    decoder = drag(retriever=index, n=2, temperature=1.0)
    prompt = Prompt(QUESTION, sampling=Sampling(n=2, seed=5))
    first, second = decoder.complete(prompt, seed=1), decoder.complete(prompt, seed=2)
    assert [each.choice for each in first] == [0, 1]
    assert first[0].text != first[1].text
    assert [each.text for each in first] == [each.text for each in second]


def test_a_prompt_does_not_depend_on_its_company(fitted: str) -> None:
    decoder = pickaxe.decoder("drag", artifact=fitted, max_tokens=8)
    prompts = [QUESTION, "Where was Bo born?", "Which river does Bern lie on?"]
    together = decoder.complete(prompts)
    for row, prompt in enumerate(prompts):
        alone = decoder.complete(prompt)[0]
        assert (alone.text, alone.logprobs) == (together[row].text, together[row].logprobs)
    assert together[0].usage["prefilled_tokens"] > together[1].usage["prefilled_tokens"]


# ---------------------------------------------------------------- several calls


def test_follow_up_questions_bring_documents(index: MethodRef, scripted: type[Scripted]) -> None:
    answers = {FOLLOW_UP: " Which river does Riga lie on?", INTERMEDIATE: " Daugava", FINAL: " the Daugava"}
    scripted.say = staticmethod(lambda text: next(say for prefix, say in answers.items() if text.endswith(prefix)))
    found, record = one(drag(retriever=index, decoder="scripted", k=1, n=2).complete(QUESTION))
    assert found.text == "the Daugava"
    assert [(step["prefix"], step["text"], step["documents"]) for step in record["steps"]] == [
        (FOLLOW_UP, "Which river does Riga lie on?", ["river-Riga"]),
        (INTERMEDIATE, "Daugava", []),
        (FINAL, "the Daugava", []),
    ]
    last = scripted.prompts[-1].text or ""
    assert last.endswith(
        f"Question: {QUESTION}\nFollow up: Which river does Riga lie on?\n"
        "Document: Riga: Riga lies on the river Daugava.\nIntermediate answer: Daugava\nSo the final answer is:"
    )
    assert scripted.prompts[0].allowed == PREFIXES
    texts = [prompt.text or "" for prompt in scripted.prompts]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))


def test_found_documents_come_once(index: MethodRef, scripted: type[Scripted]) -> None:
    scripted.say = staticmethod(lambda text: f" {QUESTION}")
    _, record = one(drag(retriever=index, decoder="scripted", k=2, n=4).complete(QUESTION))
    assert all(not step["documents"] for step in record["steps"])


def test_questions_go_side_by_side(index: MethodRef, scripted: type[Scripted]) -> None:
    scripted.prefer = (FINAL,)
    decoder = drag(retriever=index, decoder="scripted", n=3)
    together = decoder.complete([QUESTION, "Where was Bo born?"])
    assert [each.prompt for each in together] == [0, 1]
    assert [bool(prompt.allowed) for prompt in scripted.prompts] == [True, True, False, False]


def test_iterations_read_only_what_is_new(index: MethodRef) -> None:
    kept, anew = (one(drag(retriever=index, n=4, reuse=reuse).complete(QUESTION)) for reuse in (True, False))
    assert kept[0].text == anew[0].text
    assert kept[1]["steps"] == anew[1]["steps"]
    assert kept[0].usage["effective_context_length"] == anew[0].usage["effective_context_length"]
    assert kept[0].usage["prefilled_tokens"] < kept[0].usage["effective_context_length"]
    assert anew[0].usage["prefilled_tokens"] >= anew[0].usage["effective_context_length"]


def test_responses_begin_with_a_prefix(index: MethodRef) -> None:
    for each in drag(retriever=index, n=4).complete([QUESTION, "Which river does Bo's birthplace lie on?"]):
        record = each.records[0]
        assert 1 <= len(record["calls"]) <= 4
        assert all(call["response"].startswith(PREFIXES) for call in record["calls"])
        assert record["steps"][-1]["prefix"] == FINAL
        assert each.usage["model_calls"] == each.usage["iterations"]


def test_the_engine_chooses_the_likeliest_prefix() -> None:
    context = (Item("a", "Ada was born in Riga."),)
    decoder = drag(n=2, instruction="Think.")
    _, record = one(decoder.complete(Prompt(QUESTION, context=context)))
    lm = default_host().lm("draft")
    pieces = ("Think.\n\n", "Document: Ada was born in Riga.\n", f"Question: {QUESTION}\n")
    ids = [token for piece in pieces for token in lm.tokenizer.encode(piece)]
    scores = lm.choose(ids, [lm.tokenizer.encode(prefix) for prefix in PREFIXES])
    assert record["steps"][0]["prefix"] == PREFIXES[int(np.argmax(scores))]
    assert record["calls"][0]["input_tokens"] == len(ids)


# ---------------------------------------------------------------- fit


def test_only_right_traces_are_kept(index: MethodRef, scripted: type[Scripted]) -> None:
    scripted.prefer = (FINAL,)
    scripted.say = staticmethod(lambda text: " It is Oslo." if "Cy" in text else " Nowhere")
    handle = drag(retriever=index, decoder="scripted", n=3).fit(EXAMPLES)
    assert handle.artifact is not None
    stored = handle.artifact.read_json("demonstrations.json")
    (kept,) = stored["demonstrations"]
    assert kept["id"] == "Cy"
    assert kept["trace"] == [[FINAL, "It is Oslo."]]
    assert kept["documents"][0]["id"] == "born-Cy"
    scripted.prompts = []
    pickaxe.decoder("drag", artifact=str(handle.artifact.path), m=1).complete(QUESTION)
    assert "Question: Where was Cy born?\nSo the final answer is: It is Oslo.\n\n" in (scripted.prompts[0].text or "")


def test_no_right_trace_is_an_error(index: MethodRef) -> None:
    with pytest.raises(InvalidItems, match="none of 2 traces"):
        drag(retriever=index, decoder="scripted", n=3).fit(EXAMPLES)


def test_exact_answers_can_be_asked_for(index: MethodRef, scripted: type[Scripted]) -> None:
    scripted.say = staticmethod(lambda text: " It is Oslo." if "Cy" in text else " Bern.")
    handle = drag(retriever=index, decoder="scripted", n=2, right="exact").fit(EXAMPLES)
    assert handle.artifact is not None
    (kept,) = handle.artifact.read_json("demonstrations.json")["demonstrations"]
    assert kept["id"] == "Di"


def test_documents_given_to_fit_are_found_by_id(index: MethodRef, tmp_path: Path, scripted: type[Scripted]) -> None:
    other = [Item(item.id, f"In other words: {item.text}") for item in DOCUMENTS]
    handle = drag(retriever=index, decoder="scripted", m=1).fit(EXAMPLES, unlabelled=other, out=tmp_path / "art")
    handle.complete(QUESTION)
    assert "Document: In other words: Ada was born in Riga." in (scripted.prompts[0].text or "")
    lacking = drag(retriever=index, decoder="scripted", m=1)
    with pytest.raises(Unmet, match="whose text is not known"):
        lacking.fit(EXAMPLES, unlabelled=other[:1])


def test_at_most_kept_demonstrations(index: MethodRef) -> None:
    handle = drag(retriever=index, kept=1).fit(EXAMPLES)
    assert handle.artifact is not None
    assert handle.artifact.notes["demonstrations"] == 1
    assert handle.artifact.notes["examples"] == 2


# ---------------------------------------------------------------- allocation


def test_allocation_chooses_for_each_question(fitted: str, tmp_path: Path) -> None:
    runs = [
        Item(f"{task}{each.id}", fields={**each.fields, "metric": float(value)})
        for task, gain in (("towns", 1.0), ("rivers", 0.2))
        for each in configurations((0, 1, 2), (0, 1, 2), (1, 2), task=task)
        for k, m in [(float(each.fields["k"]), float(each.fields["m"]))]  # type: ignore[arg-type]
        for value in [gain * np.log(k + 0.01) + 0.05 * np.log(m + 0.01) + 0.01 * float(each.fields["n"])]  # type: ignore[arg-type]
    ]
    path = tmp_path / "allocation"
    pickaxe.scorer("rag-allocation").fit(runs, out=path)
    allocation = MethodRef(name="rag-allocation", artifact=str(path))
    chosen = []
    for budget in (34, 60, 90, 400):
        decoder = pickaxe.decoder(
            "drag", artifact=fitted, max_tokens=8, auto=True, allocation=allocation, task="towns", budget=budget
        )
        found, record = one(decoder.complete(QUESTION))
        assert found.usage["effective_context_length"] <= budget
        assert record["dropped"]["because"] == ""
        chosen.append((record["k"], record["m"], record["n"]))
    assert chosen[0] == (0, 0, 1)
    assert chosen == sorted(chosen)
    assert chosen[-1] == (2, 2, 1)


# ---------------------------------------------------------------- the claim, small


def test_documents_and_demonstrations_make_the_answer_likelier(index: MethodRef) -> None:
    """With the real model: documents by more than 0.3 nat, demonstrations too, on two-hop questions."""
    lm = default_host().lm("lm")
    context = {item.id: item for item in DOCUMENTS}
    likely: dict[tuple[int, int], list[float]] = {}
    for k, m in ((0, 0), (2, 0), (2, 1)):
        ids_of = {name: (f"born-{name}", f"river-{town}")[:k] for name, town, _ in PEOPLE}
        for place, (name, _, river) in enumerate(PEOPLE):
            shown = [PEOPLE[place - 1]] if m else []
            text = ""
            for person, _, answer in (*shown, (name, "", "")):
                lines = [f"Document: {context[each].text}\n" for each in reversed(ids_of[person])]
                asked = f"Question: Which river does the birthplace of {person} lie on?\nAnswer:"
                text += "".join(lines) + asked + (f" {answer}\n\n" if answer else "")
            scores = lm.choose(lm.tokenizer.encode(text), [lm.tokenizer.encode(f" {river}")])
            likely.setdefault((k, m), []).append(float(scores[0]))
    means = {theta: np.mean(values) for theta, values in likely.items()}
    assert means[2, 0] - means[0, 0] > 0.3
    assert means[2, 1] > means[2, 0]
