"""Fitting `tildev2`: a projection, a whole encoder, an expander; resuming, and bad examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Artifact, Call, Host, Item
from pickaxe.encoder.states import StateEncoder
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe_plugins.reranking.tildev2._expander import Expander, framed, survivors
from pickaxe_plugins.reranking.tildev2._params import Params
from pickaxe_plugins.reranking.tildev2._passages import Framing
from pickaxe_plugins.reranking.tildev2._training import Batches, Query
from pickaxe_plugins.train import bert, bert_files, vocabulary
from pickaxe_plugins.train.pairs import Framing as Frame
from pickaxe_plugins.train.pairs import batch

ANIMALS = {"fox": "den", "bee": "hive", "bird": "nest", "bear": "cave", "mole": "burrow", "dog": "kennel"}
NOISE = "that was seen by many people over the years"
PASSAGES = {name: f"a {name} sleeps in its {home} {NOISE}" for name, home in ANIMALS.items()}
EXAMPLES = [
    Item(name, f"where does a {name} sleep", {"positives": [text], "negatives": [f"{name} {name} {NOISE} sleep"]})
    for name, text in PASSAGES.items()
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new masked language model of two small layers."""
    folder = tmp_path_factory.mktemp("tiny")
    texts = [*PASSAGES.values(), *(item.text or "" for item in EXAMPLES)]
    tokenizer = vocabulary.learn_words(texts, 300, folder)
    config = bert.Config(layers=2, width=32, heads=4, mlp=64, vocab=tokenizer.vocab_size, positions=64, mlm=True)
    bert_files.save(folder, config, bert.initial(config, 0, scale=0.3))
    return folder


def fit(tiny: Path, out: Path, **params: Any) -> Any:
    given = {"base": str(tiny), "p_max_len": 32, "batch": 4, "group": 3, "epochs": 8, **params}
    return pickaxe.reranker("tildev2", **given).fit(EXAMPLES, out=out)


@pytest.mark.parametrize("head_only", [True, False])
def test_the_loss_falls_and_the_right_passage_comes_first(tiny: Path, tmp_path: Path, head_only: bool) -> None:
    losses: list[float] = []
    made = pickaxe.reranker(
        "tildev2", base=str(tiny), p_max_len=32, batch=6, group=3, epochs=30, rate=2e-2 if head_only else 2e-3,
        head_only=head_only, dropout=0.0,
    ).fit(EXAMPLES, out=tmp_path / "fit", progress=lambda step: losses.append(step.metrics["loss"]))  # fmt: skip
    assert np.mean(losses[-5:]) < losses[0] - 0.05
    assert made.artifact.has("model.safetensors") != head_only
    index = pickaxe.retriever("tildev2", artifact=tmp_path / "fit").index(
        [Item(name, text) for name, text in PASSAGES.items()], out=tmp_path / "index"
    )
    assert [hits[0].id for hits in index.search([item.text or "" for item in EXAMPLES], 1)] == list(PASSAGES)


def test_fitting_again_gives_the_same_bits_and_goes_on_where_it_stopped(tiny: Path, tmp_path: Path) -> None:
    whole = fit(tiny, tmp_path / "whole", checkpoint=3).artifact.read_array("projection.npy")
    given = {"base": str(tiny), "p_max_len": 32, "batch": 4, "group": 3, "epochs": 8, "checkpoint": 3}
    run = pickaxe.reranker("tildev2", **given).fitting(EXAMPLES, tmp_path / "part", call=Call(seed=0))
    for _ in range(8):
        next(run)
    run.close()
    assert not (tmp_path / "part").exists()
    resumed = fit(tiny, tmp_path / "part", checkpoint=3).artifact.read_array("projection.npy")
    assert (np.asarray(whole) == np.asarray(resumed)).all()
    further = pickaxe.reranker("tildev2", **given).fit(EXAMPLES, init_from=tmp_path / "whole", out=tmp_path / "more")
    assert not np.allclose(further.artifact.read_array("projection.npy"), whole)


def test_a_whole_encoder_is_trained_further(tiny: Path, tmp_path: Path) -> None:
    fit(tiny, tmp_path / "whole", head_only=False, epochs=1)
    more = pickaxe.reranker("tildev2", base=str(tiny), p_max_len=32, batch=4, group=3, epochs=1)
    made = more.fit(EXAMPLES, init_from=tmp_path / "whole", out=tmp_path / "head")
    own, before = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("head", "whole")
    )  # the encoder stays, its projection does not
    assert own == before
    assert len(made.rerank("where does a bee sleep", list(PASSAGES.values()))) == 6


def test_an_expander_learns_the_words_of_the_other_side(tiny: Path, tmp_path: Path) -> None:
    def expanded(epochs: int) -> int:
        """How many passages, which say nothing of sleep, are found by the word that the queries had."""
        out = tmp_path / str(epochs)
        fit(tiny, out, expander="tilde", m=60, expander_epochs=epochs, expander_rate=1e-2)
        silent = [Item(name, text.replace("sleeps", "")) for name, text in PASSAGES.items()]
        index = pickaxe.retriever("tildev2", artifact=out).index(silent)
        ranking = pickaxe.reranker("tildev2", artifact=index.artifact.path).rerank("sleep", [*map(Item, PASSAGES)])
        return sum("sleep" in found for found in ranking.record["matched"].values())

    assert expanded(100) >= 3 > expanded(1)
    made = Artifact.open(tmp_path / "100")
    assert made.has("expander.safetensors")
    with pytest.raises(InvalidParams, match="expander"):
        pickaxe.retriever("tildev2", base=str(tiny), p_max_len=32, expander="tilde").index(["a"])


def test_the_expander_is_the_masked_language_model(tiny: Path) -> None:
    host = Host()
    states = StateEncoder.open(host.models, host.runtime, tiny)
    expander = Expander.of_model(states, tiny)
    framing = Framing(states.tokenizer, 32, expander=expander, m=10)
    tokens = states.tokenizer.encode_batch(list(PASSAGES.values()))
    rows = [framed(each, framing.ends) for each in tokens]
    ours = expander.logits(rows)
    config, weights = bert_files.load(tiny)
    frame = Frame(states.tokenizer, 32)
    given = batch([frame.single(each) for each in tokens])
    given["ids"][:, 0] = 1
    theirs = bert.mlm_logits(weights, config, bert.hidden_states(weights, config, given["ids"], given["lengths"])[:, 0])
    assert ours == pytest.approx(np.asarray(theirs), abs=1e-4)
    made = framing.rows([Item("0", PASSAGES["fox"])])[0]
    own = len(tokens[0]) + 2
    unlikely = framing._unlikely
    assert made[own:-1] == survivors(ours[0], tokens[0], unlikely, 10)
    assert sorted(made[own:-1]) == survivors(ours[0], tokens[0], unlikely, 10, official_order=True)
    pickaxe.retriever("tildev2", base=str(tiny), p_max_len=32, expander="tilde", expander_model=str(tiny)).index(
        ["a fox"]
    )
    with pytest.raises(Unmet, match="no masked language model"):
        Expander.of_model(states, host.models.path("encoder"))


def test_an_expansion_is_cut_before_its_passage(tiny: Path) -> None:
    tokenizer = Host().encoder(str(tiny)).tokenizer
    framing = Framing(tokenizer, 12, provided=True)
    words = ["hive", "cave", "den", "nest"]
    short, long = (Item("0", text, {"expansion_terms": words}) for text in ("a fox sleeps", "a fox sleeps " * 9))
    rows = framing.rows([short, long])
    assert len(rows[0]) <= len(rows[1]) == 12
    assert rows[1] == framing.rows([Item("0", long.text)])[0]
    assert rows[0][0], rows[0][-1] == framing.ends
    assert rows[0][: len(tokenizer.encode(short.text or "")) + 2] == framing.rows([Item("0", short.text)])[0]


def test_states_are_those_of_training(tiny: Path) -> None:
    host = Host()
    states = StateEncoder.open(host.models, host.runtime, tiny)
    config, weights = bert_files.load(tiny)
    rows = Frame(states.tokenizer, 32).texts(["a fox", *PASSAGES.values()])
    given = batch(rows)
    theirs = np.asarray(bert.hidden_states(weights, config, given["ids"], given["lengths"]))
    seen = {}
    for row, found in states.states([each.ids.tolist() for each in rows]):
        assert found == pytest.approx(theirs[row, : len(rows[row])], abs=1e-4)
        seen[row] = True
    assert len(seen) == len(rows)
    assert states.digest == StateEncoder.open(host.models, host.runtime, tiny).digest


def test_groups_hold_a_positive_and_negatives(tiny: Path) -> None:
    tokenizer = Host().encoder(str(tiny)).tokenizer
    texts = [f"passage {row}" for row in range(9)]
    queries = [
        Query("few", "a", ("right", "good"), ("wrong", "bad")),
        Query("many", "b", ("fine",), tuple(texts)),
        Query("none", "c", ("well",)),
    ]
    batches = Batches(queries, Framing(tokenizer, 16), Params(group=5, batch=2), 0, Call())
    for epoch in range(5):
        few, many, none = (batches.passages(row, epoch) for row in range(3))
        assert few[0] in ("right", "good")
        assert len(few) == 5
        assert set(few[1:]) <= {"wrong", "bad"}
        assert len(set(many)) == 5
        assert set(none[1:]) <= {"right", "good", "fine"}
    assert len({tuple(batches.passages(1, epoch)) for epoch in range(5)}) > 1
    last = batches.given(1)
    assert last["known"].tolist() == [1, 0]
    assert (last["lengths"][5:] == 0).all()


def test_bad_examples(tiny: Path) -> None:
    method = pickaxe.reranker("tildev2", base=str(tiny), p_max_len=32)
    for examples, match in (
        ([], "give negatives"),
        ([Item("a", "x", {"positives": ["y", "z"]})], "give negatives"),
        ([Item("a", "x", {"positives": []})], "are none"),
        ([Item("a", "x")], "positives"),
    ):
        with pytest.raises(InvalidItems, match=match):
            method.fit(examples)
    with pytest.raises(InvalidParams, match="p_max_len"):
        pickaxe.reranker("tildev2", base=str(tiny)).fit(EXAMPLES)
