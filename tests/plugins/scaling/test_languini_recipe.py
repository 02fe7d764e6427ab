"""The recipe of Languini: throughput, stateful training, evaluation, resume, what the artifact holds, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pickaxe
from pickaxe import Host, Item, Items, Progress
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.randomness import generator
from pickaxe.report import explained
from pickaxe_plugins.scaling.languini import _train as training
from pickaxe_plugins.scaling.languini._nets import Net, network
from pickaxe_plugins.scaling.languini._stream import scored_targets, windows
from pickaxe_plugins.train.settings import Shape

SHAPE = Shape(layers=1, width=32, heads=1, kv_heads=1)
SPEEDS = {"gpt": 4000, "qlstm": 4000}
TINY: dict[str, Any] = {
    "minutes": [0.01, 0.02, 0.04], "net": SHAPE.model_dump(), "vocab": 270, "seq_len": 16, "batch": 4, "last_n": 4,
    "tokens_per_second": SPEEDS, "device": "a slow one", "checkpoint": 30,
}  # fmt: skip
WORDS = ["tide", "came", "in", "and", "took", "the", "boats", "out", "before", "wind", "turned", "over", "salt", "sea"]
MODELS = pytest.mark.parametrize("model", ["gpt", "qlstm"])


def texts(count: int, seed: int) -> list[Item]:
    """Sentences of few words."""
    draw = generator(seed, "words")
    return [Item(f"{seed}-{row}", " ".join(draw.choice(WORDS, 40))) for row in range(count)]


def held() -> list[Item]:
    plain = [Item(each.id, each.text, {"split": "iid"}) for each in texts(4, 1)]
    return [*plain, Item("odd", " ".join(reversed(WORDS * 6)), {"split": "reversed"})]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def fit(out: Path, documents: list[Item], validation: list[Item] | None = None, **options: Any) -> Any:
    recipe = {**TINY, **options.pop("recipe", {})}
    return pickaxe.scorer("languini", recipe=recipe).fit(documents, validation=validation, out=out, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of two models in three classes, on two splits."""
    out = tmp_path_factory.mktemp("languini") / "art"
    fit(out, texts(40, 0), held())
    return out


# ---------------------------------------------------------------- the whole


def test_runs_are_those_of_the_plan(made: Path) -> None:
    runs = lines(made / "runs.jsonl")
    assert [each["id"] for each in runs[:3]] == ["gpt-0.01min-iid", "gpt-0.01min-reversed", "gpt-0.02min-iid"]
    steps = {(each["model"], each["steps"]) for each in runs}
    assert steps == {(model, count) for model in SPEEDS for count in (38, 75, 150)}  # round(4000 * 60 * min / 4 / 16)
    assert {each["device"] for each in runs} == {"a slow one"}
    for slow, fast in zip(runs, lines(made / "fast.jsonl"), strict=True):
        assert slow["id"] == fast["id"]
        assert slow["token_count"] % 4 == 0
        assert fast["token_count"] % 16 == 0
        assert 0 < slow["string_length"] == slow["string_bytes"]


def test_perplexity_falls_with_the_minutes_on_a_line(made: Path) -> None:
    """The directional claim at the smallest size; the bench has larger ones."""
    trends = json.loads((made / "trends.json").read_text())["trends"]
    for each in trends:
        if each["split"] == "iid":
            assert each["ppl"] == sorted(each["ppl"], reverse=True)
            assert each["slope"] < 0
            assert each["r2"] > 0.95
    assert len(trends) == 4


def test_runs_of_the_artifact_can_be_scored(made: Path) -> None:
    handle = pickaxe.scorer("languini", artifact=made)
    found = handle.score(Items.from_table(lines(made / "runs.jsonl")))
    assert found["class"] == pytest.approx(np.repeat([0.01, 0.02, 0.04] * 2, 2) / 60)
    assert found["trend_ppl"] == pytest.approx(found["normalised_ppl"], rel=0.5)
    assert "accelerator hours" in explained(found.summary)[0][0]
    assert [flag.reason for flag in found.flags] == []


def test_the_gpt_of_the_largest_class_is_a_model_like_any_other(made: Path) -> None:
    lm = Host().lm_at(made, "fp32")
    assert 256 < lm.tokenizer.vocab_size <= 270


def test_the_artifact_tells_how_it_was_made(made: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    notes = manifest["notes"]
    assert notes["tokens_per_second"] == SPEEDS
    assert notes["device"] == training.device()
    assert notes["steps"]["qlstm-0.04min"] == 150
    assert {"gpt-0.01min.safetensors", "curves.json", "throughput.jsonl"} <= set(manifest["files"])
    assert not [name for name in manifest["files"] if "checkpoint" in name]
    steps, losses = json.loads((made / "curves.json").read_text())["gpt-0.04min"]
    assert steps[-1] == 150
    assert losses[-1] < losses[0]


def test_an_interrupted_fit_ends_with_the_same_bits(tmp_path: Path) -> None:
    only = {"models": ["qlstm"], "minutes": [0.02], "checkpoint": 20}
    documents = texts(20, 0)

    def stop(progress: Progress) -> None:
        if progress.stage == "train" and progress.step == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "broken", documents, recipe=only, progress=stop)
    seen: list[int] = []
    fit(tmp_path / "broken", documents, recipe=only,
        progress=lambda each: seen.append(each.step) if each.stage == "train" else None)  # fmt: skip
    assert seen[0] == 41
    fit(tmp_path / "whole", documents, recipe=only)
    for name in ("qlstm-0.02min.safetensors", "runs.jsonl", "curves.json"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert json.loads((tmp_path / "whole" / "trends.json").read_text())["trends"] == []  # one class only


def test_throughput_is_measured_where_none_is_given(tmp_path: Path) -> None:
    one = {"models": ["qlstm"], "minutes": [1e-4], "tokens_per_second": {}, "device": "", "largest_batch": 2}
    fit(tmp_path / "art", texts(10, 0), recipe={**one, "batch": 1})
    table = lines(tmp_path / "art" / "throughput.jsonl")
    assert [each["batch_size"] for each in table] == [1, 2]
    planned = pickaxe.scorer("languini", mode="plan", reference_device="", hours=1).score(Items.from_table(table))
    best = max(each["tokens_per_second"] for each in table)
    assert planned["best_tokens_per_second"].tolist() == [best, best]
    assert lines(tmp_path / "art" / "runs.jsonl")[0]["tokens_per_second"] == best


# ---------------------------------------------------------------- the parts


@given(st.integers(0, 40), st.integers(1, 40))
def test_a_sweep_finds_the_largest_batch_that_fits(fits: int, largest: int) -> None:
    asked: list[int] = []

    def measure(batch: int) -> int:
        asked.append(batch)
        return batch if batch <= fits else 0

    found = training.sweep(measure, largest)
    assert len(set(asked)) == len(asked)
    assert max(asked) <= max(1, largest)
    assert max(found.values()) == min(fits, largest)


def test_a_batch_that_exceeds_the_memory_has_no_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "RESOURCE_EXHAUSTED: out of memory"

    def update(*_: Any) -> Any:
        raise jax.errors.JaxRuntimeError(said)

    monkeypatch.setattr(training, "_update", lambda *_: update)
    net, _ = small("qlstm")
    assert training.throughput(net, 50, 2, 8, 0) == 0
    said = "INTERNAL: something else"
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        training.throughput(net, 50, 2, 8, 0)


def small(model: str, seed: int = 0) -> tuple[Net, dict[str, np.ndarray]]:
    net = network(model, SHAPE, 50, 8)
    return net, net.initial(seed)


def test_streams_are_read_on_and_repeated() -> None:
    streams = [np.arange(10), np.arange(100, 103)]
    assert training.rows(streams, 0, 4).tolist() == [[0, 1, 2, 3, 4], [100, 101, 102, 100, 101]]
    assert training.rows(streams, 2, 4).tolist() == [[8, 9, 0, 1, 2], [102, 100, 101, 102, 100]]


def test_a_carried_state_reads_on_as_if_never_stopped() -> None:
    net, weights = small("qlstm")
    ids = generator(0, "ids").integers(50, size=(2, 12))
    whole, behind = net.read(weights, ids, net.start(2))
    first, state = net.read(weights, ids[:, :5], net.start(2))
    second, state = net.read(weights, ids[:, 5:], state)
    assert np.concatenate([first, second], 1) == pytest.approx(np.asarray(whole), abs=1e-5)
    assert np.asarray(state) == pytest.approx(np.asarray(behind), abs=1e-5)


@MODELS
def test_no_network_sees_what_comes(model: str) -> None:
    net, weights = small(model)
    ids = generator(0, "ids").integers(50, size=(1, 8))
    other = ids.copy()
    other[0, 5:] = 7
    (one, _), (two, _) = (net.read(weights, each, net.start(1)) for each in (ids, other))
    assert np.asarray(one)[:, :5] == pytest.approx(np.asarray(two)[:, :5], abs=1e-5)
    assert np.abs(np.asarray(one)[:, 5:] - np.asarray(two)[:, 5:]).max() > 1e-3


@MODELS
def test_accumulation_changes_no_step(model: str) -> None:
    net, _ = small(model)
    ids = generator(0, "ids").integers(50, size=(6, 9)).astype(np.int32)
    states, losses = [], []
    for parts in (1, 2):
        state = training._fresh(net, 6, 0)
        state, loss = training._update(net, parts)(state, ids, np.float32(1e-3))
        states.append(state)
        losses.append(float(loss))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for name, value in states[0]["weights"].items():
        assert np.asarray(value) == pytest.approx(np.asarray(states[1]["weights"][name]), abs=1e-4), name


@MODELS
def test_slow_evaluation_against_a_plain_one(model: str) -> None:
    net, weights = small(model)
    tokens = generator(0, "tokens").integers(50, size=45).astype(np.int32)
    found = training.target_logprobs(net, weights, tokens, 8, 4)
    plain = []
    for begin in windows(45, 8, 4):
        # With a state the whole stream was read; what follows a target does not matter.
        start, end = (0, 44) if model == "qlstm" else (begin, begin + 8)
        logits, _ = net.read(weights, tokens[None, start:end], net.start(1))
        scores = np.asarray(logits, np.float64)[0, begin + 4 - start : begin + 8 - start]
        scores -= np.log(np.exp(scores).sum(1, keepdims=True))
        plain.append(scores[np.arange(4), tokens[begin + 5 : begin + 9]])
    assert found == pytest.approx(np.array(plain), abs=1e-4)


def test_with_state_slow_and_fast_evaluation_agree_on_common_targets() -> None:
    net, weights = small("qlstm")
    tokens = generator(0, "tokens").integers(50, size=45).astype(np.int32)
    found: dict[int, dict[int, float]] = {}
    for last_n in (4, 8):
        places = scored_targets(45, 8, last_n).ravel().tolist()
        logprobs = training.target_logprobs(net, weights, tokens, 8, last_n).ravel().tolist()
        found[last_n] = dict(zip(places, logprobs, strict=True))
    common = found[4].keys() & found[8].keys()
    assert len(common) >= 30
    assert all(found[4][place] == pytest.approx(found[8][place], abs=1e-6) for place in common)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"last_n": 3}, "last_n 3 must divide seq_len 16"),
        ({"accumulation": 5}, "accumulation 5 is more than the sequences of a step, 4"),
        ({"minutes": [0.0, 1.0]}, "must be above 0"),
        ({"minutes": [1.0, 1.0]}, "must all be different"),
        ({"tokens_per_second": {"gpt": 5}}, "give the throughput of every model"),
        ({"models": ["lstm"]}, "gpt"),
        ({"minutes": [1e-9]}, "make no step of gpt"),
    ],
)
def test_recipes_that_cannot_be(recipe: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidParams, match=said):
        fit(tmp_path / "art", texts(10, 0), recipe=recipe)


def test_documents_that_are_too_few_or_too_short(tmp_path: Path) -> None:
    with pytest.raises(InvalidItems, match=r"are 1 different documents to train on, for batch=4 streams"):
        fit(tmp_path / "art", texts(2, 0))
    with pytest.raises(InvalidItems, match="give at least two"):
        fit(tmp_path / "art", [])
    with pytest.raises(InvalidItems, match=r"validation: of split 'x' hold \d tokens to evaluate on, fewer than a"):
        fit(tmp_path / "art", texts(10, 0), [Item("v", "tide", {"split": "x"})])
    with pytest.raises(InvalidItems, match="validation: has no text"):
        fit(tmp_path / "art", texts(10, 0), [Item("v", " ")])
    assert not (tmp_path / "art").exists()
