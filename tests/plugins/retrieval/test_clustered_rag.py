"""`clustered-rag`: its clusters, contexts that do not grow, answers from them, and bad input."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import WHOLE_PROMPT, Completion, Item, Prompt, Sampling
from pickaxe.errors import ArtifactMismatch, DoesNotFit, InvalidItems, InvalidParams
from pickaxe.handle import RetrieverHandle
from pickaxe.lm import LM

RANDOM = np.random.default_rng(5)
TOPICS = np.eye(4)[np.arange(24) % 4] * 5 + RANDOM.normal(0, 0.3, (24, 4))
DOCUMENTS = [
    Item(f"d{row}", f"text number {row} about topic {row % 4}", {"embedding": vector})
    for row, vector in enumerate(TOPICS)
]
QUERY = Item("q", "", {"embedding": TOPICS[1]})
XQUAD = Path(__file__).parents[2] / "golden" / "files" / "71-xquad-en"


def made(documents: list[Item] | None = None, **params: Any) -> RetrieverHandle:
    return pickaxe.retriever("clustered-rag", **params).index(DOCUMENTS if documents is None else documents)


def told(index: RetrieverHandle) -> Any:
    assert index.artifact is not None
    return index.artifact.read_json("groups.json")


def context(index: RetrieverHandle, query: Item = QUERY) -> list[Item]:
    """All clusters in their order."""
    found = pickaxe.pipeline(index).items(index.search([query], 1000)[0])
    return sorted(found, key=lambda item: (str(item.get("group")), int(item.id.rpartition("/")[2])))


def members(index: RetrieverHandle) -> list[list[str]]:
    return [list(item.get("members")) for item in context(index)]  # type: ignore[arg-type]  # texts


# ---------------------------------------------------------------- clusters


def test_every_document_is_in_one_cluster() -> None:
    found = members(made())
    assert Counter(name for each in found for name in each) == Counter(item.id for item in DOCUMENTS)
    assert {frozenset(int(name[1:]) % 4 for name in each) for each in found} == {
        frozenset({topic}) for topic in range(4)
    }


def test_clusters_do_not_hang_on_the_order_of_documents() -> None:
    backwards = DOCUMENTS[::-1]
    one = made(starts=(0, 1, 2, 3))
    other = made(backwards, starts=(23, 22, 21, 20))
    assert {frozenset(each) for each in members(one)} == {frozenset(each) for each in members(other)}
    assert members(one) == members(made(starts=(3, 2, 1, 0)))


def test_order_of_clusters() -> None:
    uneven = [*DOCUMENTS[:3], *(DOCUMENTS[row] for row in range(3, 24, 4))]
    sizes = [len(each) for each in members(made(uneven))]
    assert sizes == sorted(sizes, reverse=True)
    firsts = [min(int(name[1:]) for name in each) for each in members(made(uneven, order="index"))]
    assert firsts == sorted(firsts)


def test_the_number_of_clusters_is_found() -> None:
    assert len(members(made(k="auto"))) == 4
    assert len(members(made(DOCUMENTS[:2], k="auto"))) == 2


def test_as_many_clusters_as_documents_say_everything() -> None:
    index = made(DOCUMENTS[:5], k=9)
    assert sorted(item.text or "" for item in context(index)) == sorted(item.text or "" for item in DOCUMENTS[:5])
    assert told(index)["all"]["reduction"] == 0


def test_equal_texts_are_one_cluster() -> None:
    index = made([Item(str(row), "the same text") for row in range(10)])
    assert [item.text for item in context(index, Item("q", "same"))] == ["the same text"]


def test_groups_are_apart() -> None:
    documents = [
        Item(item.id, item.text, {**item.fields, "group": "ab"[row >= 12]}) for row, item in enumerate(DOCUMENTS)
    ]
    index = made(documents, k=2)
    assert [item.id for item in context(index)] == ["a/0", "a/1", "b/0", "b/1"]
    (hits,) = index.search([Item("q", "", {"embedding": TOPICS[1], "group": "b"})], 10)
    assert {hit.id for hit in hits} == {"b/0", "b/1"}
    assert index.search([Item("q", "", {"embedding": TOPICS[1], "group": "none"})], 10)[0] == ()


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("extract", ["medoid", "sentences"])
def test_the_context_does_not_grow_with_the_documents(extract: str) -> None:
    texts = [f"Text {row} is about the {word}. It has more to say: {row * 7}." for row in range(6)
             for word in ("battery", "screen", "sound", "delivery")]  # fmt: skip
    twice = [*texts, *(text.replace("It has", "There is") for text in texts)]
    query = Item("q", "battery")
    small, large = (made([Item(str(row), text) for row, text in enumerate(each)], extract=extract, summary_tokens=12)
                    for each in (texts, twice))  # fmt: skip
    one, other = told(small)["all"], told(large)["all"]
    assert other["tokens_documents"] == 2 * one["tokens_documents"]
    assert one["tokens_context"] <= 4 * 12
    assert other["tokens_context"] <= 4 * 12
    assert abs(other["tokens_context"] - one["tokens_context"]) <= 0.1 * one["tokens_context"]
    words = sum(len((item.text or "").split()) for item in context(large, query))
    assert words == other["tokens_context"]
    assert other["reduction"] == pytest.approx(1 - words / sum(len(text.split()) for text in twice))
    usage = large.search([query, query], 100).usage
    assert usage["tokens_context"] == 2 * words
    assert usage["tokens_documents"] == 2 * other["tokens_documents"]


def test_tokens_of_the_model() -> None:
    index = made(
        [Item("a", "unbelievable antidisestablishmentarianism " * 20)], count="model", model="draft", summary_tokens=10
    )
    assert told(index)["all"]["tokens_context"] <= 10 < told(index)["all"]["tokens_documents"]


def test_groups_of_questions_lose_half_of_their_tokens() -> None:
    """The questions of XQuAD's articles, about 25 each."""
    articles = [json.loads(line) for line in (XQUAD / "docs.jsonl").read_text(encoding="utf-8").splitlines()]
    titles = {each["id"]: each.get("title") or each["id"].rpartition("-")[0] for each in articles}
    asked = [json.loads(line) for line in (XQUAD / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    groups: dict[str, list[Item]] = {}
    for each in asked:
        name = titles[each["relevant"][0] if isinstance(each["relevant"], list) else each["relevant"]]
        groups.setdefault(name, []).append(Item(each["id"], each["query"], {"group": name}))
    large = [items for items in groups.values() if len(items) >= 20][:3]
    assert large
    index = made([item for items in large for item in items])
    assert all(each["reduction"] >= 0.46 for each in told(index).values())


# ---------------------------------------------------------------- retriever


def test_hits_are_the_nearest_clusters_with_their_summaries() -> None:
    index = made()
    (hits,) = index.search([QUERY], 2)
    assert len(hits) == 2
    assert hits[0].score == hits[0].columns["cosine"] > 0.9 > hits[1].score
    best = pickaxe.pipeline(index).items(hits)[0]
    assert hits[0].columns["members"] == len(best.get("members")) == 6  # type: ignore[arg-type]  # texts
    assert "topic 1" in (best.text or "")


def test_an_index_of_texts_refuses_another_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    index = pickaxe.retriever("clustered-rag", k=2).index(
        ["A cat sat.", "Stocks fell.", "A dog ran."], out=tmp_path / "i"
    )
    assert "Stocks" in (pickaxe.pipeline(index).items(index.search(["shares"], 1)[0])[0].text or "")

    class Other:
        digest, width = "other", 384

    monkeypatch.setattr(pickaxe.Host, "encoder", lambda self, name="encoder": Other())
    with pytest.raises(ArtifactMismatch, match="built with the encoder"):
        pickaxe.retriever("clustered-rag", artifact=tmp_path / "i").search(["shares"], 1)


# ---------------------------------------------------------------- the model


def answered(**params: Any) -> tuple[Completion, Completion]:
    """The record about the whole prompt, and the answer."""
    prompt = Prompt("What is it about?", context=tuple(DOCUMENTS), sampling=Sampling(max_tokens=4))
    about, answer = pickaxe.decoder("clustered-rag", model="draft", **params).complete([prompt])
    return about, answer


def test_answers_come_from_a_shorter_prompt() -> None:
    about, answer = answered()
    assert about.choice == WHOLE_PROMPT
    (record,) = about.records
    assert record["tokens_after"] == answer.usage["prompt_tokens"] < answer.usage["prompt_tokens_before"]
    assert record["reduction"] == pytest.approx(1 - record["tokens_after"] / record["tokens_before"])
    assert sorted(name for each in record["clusters"] for name in each) == sorted(item.id for item in DOCUMENTS)
    assert record["index_tokens"] == answer.usage["index_tokens"] == 0
    assert len(answer.token_ids) == answer.usage["completion_tokens"] <= 4


def test_summaries_by_a_model_are_counted() -> None:
    about, _ = answered(summariser="lm", summary_tokens=5)
    (record,) = about.records
    assert record["index_tokens"] > 4 * 5
    assert record["break_even"] is None or record["break_even"] >= 1
    with pytest.raises(DoesNotFit, match="the budget is 3"):
        pickaxe.decoder("clustered-rag", model="draft", summariser="lm").complete(
            [Prompt("What?", context=tuple(DOCUMENTS))], budget=3
        )


def test_clusters_beyond_the_context_are_summarised_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LM, "context_length", 128)
    long = [Item(str(row), f"Text {row}. " + "word " * 20, {"embedding": np.ones(2)}) for row in range(12)]
    with pytest.raises(DoesNotFit, match=r"cluster 'all/0' of 12 texts"):
        made(long, summariser="lm", model="draft", summary_tokens=2, hierarchical=False)
    index = made(long, summariser="lm", model="draft", summary_tokens=2)
    assert told(index)["all"]["model_calls"] >= 4
    assert told(index)["all"]["index_tokens"] > 12 * 20
    with pytest.raises(InvalidParams, match="no room for texts in a context of 128"):
        made(long, summariser="lm", model="draft", summary_tokens=100)


def test_prompts_of_the_same_context_are_summarised_once() -> None:
    prompts = [Prompt(text, context=tuple(DOCUMENTS[:4]), sampling=Sampling(max_tokens=1)) for text in ("A?", "B?")]
    found = pickaxe.decoder("clustered-rag", model="draft", summariser="lm", summary_tokens=2, k=2).complete(
        prompts, budget=2
    )
    assert {each.prompt for each in found} == {0, 1}


# ---------------------------------------------------------------- bad input


def test_bad_documents() -> None:
    with pytest.raises(InvalidItems, match="are none"):
        made([])
    with pytest.raises(InvalidItems, match="not finite"):
        made([Item("a", "x", {"embedding": np.array([np.nan, 1.0])})])
    with pytest.raises(InvalidItems, match="is missing, others have one"):
        made([DOCUMENTS[0], Item("b", "no vector")])
    with pytest.raises(InvalidItems, match="have shapes"):
        made([DOCUMENTS[0], Item("b", "x", {"embedding": np.ones(3)})])
    with pytest.raises(InvalidItems, match="used before"):
        made([DOCUMENTS[0], DOCUMENTS[0]])
    with pytest.raises(InvalidItems, match="has width 3, the index has 4"):
        made().search([Item("q", "", {"embedding": np.ones(3)})], 1)
    with pytest.raises(InvalidParams, match="starts"):
        made(starts=(99,))
    with pytest.raises(InvalidParams, match="of width 384"):
        made(extract="sentences")


def test_bad_parameters_and_prompts() -> None:
    for params, said in (
        ({"k": 0}, "k"),
        ({"k": 65}, "k"),
        ({"starts": (1, 1)}, "twice"),
        ({"summary_prompt": "no place"}, "{texts}"),
        ({"answer_prompt": "{context}"}, "{question}"),
    ):
        with pytest.raises(InvalidParams, match=said):
            pickaxe.retriever("clustered-rag", **params)
    with pytest.raises(InvalidItems, match=r"prompts\[0\].context"):
        pickaxe.decoder("clustered-rag", model="draft").complete("What?")
    with pytest.raises(InvalidItems, match="neither text nor messages"):
        pickaxe.decoder("clustered-rag", model="draft").complete([Prompt(context=tuple(DOCUMENTS))])
