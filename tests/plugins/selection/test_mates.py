"""mates: the draw, the influence model and its pooling, fits on given influence, bad input."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Call, Host, Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe.report import explained
from pickaxe_plugins.selection.mates import Mates, _draw, _regress, standardised
from pickaxe_plugins.train import bert, bert_files, vocabulary

EXAMPLE = Mates.example()
TUNING = {"epochs": 2, "batch": 8, "every": 2, "rate": 1e-2, "dropout": 0.1}


def fitted(examples: Any = EXAMPLE.examples, init_from: Any = None, out: Any = None, **params: Any) -> Any:
    return pickaxe.scorer("mates", **{**EXAMPLE.params, **params}).fit(examples, init_from=init_from, out=out)


@pytest.fixture(scope="module")
def usual() -> Any:
    return fitted()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT that reads 16 tokens at a time."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = vocabulary.learn_words([str(item.text) for item in EXAMPLE.examples], 120, folder)
    config = bert.Config(layers=1, width=16, heads=2, mlp=32, vocab=tokenizer.vocab_size, positions=16)
    bert_files.save(folder, config, bert.initial(config, 0, 0.2))
    return folder


# ---------------------------------------------------------------- the draw


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.floats(0.01, 1), st.integers(0, 99), st.randoms())
@settings(max_examples=60, deadline=None)
def test_draws_belong_to_ids_and_cold_ones_are_the_top(
    labels: list[float], fraction: float, seed: int, draw: Any
) -> None:
    ids = [f"i{row}" for row in range(len(labels))]
    order = list(range(len(labels)))
    draw.shuffle(order)
    values = np.array(labels)
    found = _draw.keys(values, _draw.gumbel(seed, ids), 0.5)
    shuffled = _draw.keys(values[order], _draw.gumbel(seed, [ids[row] for row in order]), 0.5)
    assert (found[order] == shuffled).all()
    count = _draw.how_many(fraction, len(labels))
    assert 1 <= count <= len(labels)
    picked = _draw.chosen(_draw.keys(values, np.zeros(len(values)), 0.0), count)
    assert picked.sum() == count
    assert values[picked].max() <= min(values[~picked], default=np.inf)


def draws(labels: np.ndarray, count: int, runs: int, **options: Any) -> np.ndarray:
    """How often each item was drawn."""
    ids = [f"{run} {row}" for run in range(runs) for row in range(len(labels))]
    noise = _draw.gumbel(0, ids).reshape(runs, -1)
    return np.sum([_draw.chosen(_draw.keys(labels, each, 0.5, **options), count) for each in noise], axis=0)


def test_inclusion_is_that_of_sequential_sampling_without_replacement() -> None:
    labels, runs = np.array([-1.0, -0.5, 0.0, 0.3, 1.0]), 6000
    weight = np.exp(-labels / 0.5)
    expected = np.zeros(5)
    for first, second in itertools.permutations(range(5), 2):
        chance = weight[first] / weight.sum() * weight[second] / (weight.sum() - weight[first])
        expected[[first, second]] += chance
    found = draws(labels, 2, runs) / runs
    error = np.sqrt(expected * (1 - expected) / runs)
    assert (np.square((found - expected) / error).sum()) < 20.5  # the 0.1 % of chi-square with 5 degrees
    other = draws(labels, 2, runs, compat=True) / runs
    assert np.square((other - expected) / error).sum() > 20.5


def test_equal_labels_are_drawn_alike() -> None:
    found = draws(np.zeros(8), 2, 4000)
    assert np.square(found - 1000).sum() / 750 < 26.1  # the 0.1 % of chi-square with 8 degrees


@given(st.floats(0.01, 100), st.floats(-10, 10))
def test_labels_do_not_know_the_scale_of_the_loss(scale: float, shift: float) -> None:
    influence = np.array([3.0, 1.0, -2.0, 0.5, 7.0])
    rows = np.arange(4)
    np.testing.assert_allclose(
        standardised(scale * influence + shift, rows)[0], standardised(influence, rows)[0], atol=1e-8
    )
    labels, _, _ = standardised(influence, rows)
    assert abs(labels[rows].mean()) < 1e-12
    assert labels[rows].std() == pytest.approx(1)
    assert labels.argmin() == influence.argmax()


# ---------------------------------------------------------------- features


def test_a_mean_is_over_the_tokens_of_all_pieces(encoder: Path) -> None:
    opened, call = Host().encoder(str(encoder)), Call()
    long = " ".join(str(item.text) for item in EXAMPLE.examples[:8])
    texts = ["chop", "simmer the leek in butter", long, ""]
    (one, two), ends = _regress.framed(opened, [long], 2)[0], opened.tokenizer.encode("", add_special=True)
    assert (len(one), len(two), one[0], two[-1]) == (16, 16, ends[0], ends[1])
    assert ends[1] not in one
    assert ends[0] not in two
    found = _regress.features(opened, texts, 2, call)
    np.testing.assert_allclose(found[2], opened.pooled([one, two]).mean(0), atol=1e-6)
    for row, text in enumerate(texts):  # alone, that is without padding
        np.testing.assert_allclose(_regress.features(opened, [text], 2, call)[0], found[row], atol=1e-5)
    np.testing.assert_allclose(_regress.features(opened, texts[:2], 1, call), found[:2], atol=1e-5)


def test_of_a_huge_text_only_the_beginning_is_cut(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Host().encoder(str(encoder))
    texts = ["simmer the leek in butter " * 20, "chop", "leek" * 90 + " in butter", ""]
    whole = _regress.framed(opened, texts, 2)
    asked = []
    monkeypatch.setattr(_regress, "CHARACTERS", 4)
    monkeypatch.setattr(
        type(opened.tokenizer), "encode_batch", lambda self, some, **options: asked.extend(some) or
        [self.encode(text, **options) for text in some],
    )  # fmt: skip
    assert _regress.framed(opened, texts, 2) == whole
    assert len(asked[0]) < 150


def test_the_network_that_learns_is_the_one_that_scores(encoder: Path) -> None:
    opened = Host().encoder(str(encoder))
    config, weights = bert_files.load(encoder)
    texts = [str(item.text) for item in EXAMPLE.examples[:3]] + [" ".join(["simmer the leek"] * 9)]
    head = _regress.Head(np.random.default_rng(0).normal(size=16), 0.3)
    weights |= {"head.weight": head.weight.astype(np.float32)[None], "head.bias": np.array([0.3], np.float32)}
    ours = head(_regress.features(opened, texts, 2, Call()))
    for size in (4, 7):
        given = _regress.batch(_regress.framed(opened, texts, 2), size)
        np.testing.assert_allclose(_regress.predicted(weights, config, given)[:4], ours, atol=1e-4)


def test_the_ridge_penalty_has_the_least_error_on_what_is_left_out() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20, 6))
    labels = rows @ rng.normal(size=6) + rng.normal(0, 2, 20)

    def left_out(penalty: float) -> float:
        missed = []
        whole = np.square(rows - rows.mean(0)).sum() / 6
        for out in range(20):
            kept = np.delete(np.arange(20), out)
            own = np.square(rows[kept] - rows[kept].mean(0)).sum() / 6
            head, _ = _regress.ridge(rows[kept], labels[kept], penalty * whole / own)
            missed.append(float(head(rows[out : out + 1])[0]) - labels[out])
        return float(np.square(missed).mean())

    _, best = _regress.ridge(rows, labels, None)
    assert best == min(10.0 ** np.arange(-4, 7), key=left_out)
    start = _regress.Head(np.arange(6.0), 0.0)
    np.testing.assert_allclose(_regress.ridge(rows, labels, 1e9, start)[0].weight, start.weight, atol=1e-5)


# ---------------------------------------------------------------- fits on given influence


def test_scores_rank_and_say_so(usual: Any) -> None:
    scores = usual.score(EXAMPLE.items)
    assert scores["influence"][0] > 0 > scores["influence"][1]
    assert scores["select"].tolist() == [1, 0]
    np.testing.assert_allclose(scores["influence_nats"], scores["influence"] * usual.artifact.notes["influence_std"])
    answer, figures = explained(scores.summary)
    assert "1 selected of 2" in answer[0]
    assert [each.name for each in figures[0].series] == ["pool", "selected"]


def test_keys_do_not_know_the_pool_and_the_seed_moves_them(usual: Any) -> None:
    path = usual.artifact.path
    warm = pickaxe.scorer("mates", artifact=path, temperature=0.5, fraction=None)
    pool = EXAMPLE.examples
    whole = warm.score(pool)
    assert set(whole.columns) == {"influence", "influence_nats", "key"}
    parts = np.concatenate([warm.score(pool[:7])["key"], warm.score(pool[7:])["key"]])
    np.testing.assert_allclose(parts, whole["key"], atol=1e-5)
    assert (warm.score(pool, seed=1)["key"] != whole["key"]).all()
    assert len(warm.score([])["key"]) == 0


def test_a_tuned_encoder_is_kept_and_gone_on_from(encoder: Path, tmp_path: Path) -> None:
    params = {"learn": "all", "encoder": str(encoder), "tuning": TUNING}
    first = fitted(out=tmp_path / "first", **params)
    told = first.artifact.read_json("evaluations.json")
    assert [each["step"] for each in told] == [2, 4, 6, 8]
    assert first.artifact.notes["quality"] in told
    assert first.artifact.notes["quality"]["spearman"] == max(each["spearman"] for each in told)
    assert len(first.score(EXAMPLE.items)) == 2
    again = fitted(init_from=tmp_path / "first", **params)
    assert (again.score(EXAMPLE.items)["influence"] != first.score(EXAMPLE.items)["influence"]).all()
    run = pickaxe.scorer("mates", **EXAMPLE.params, **params).fitting(EXAMPLE.examples, tmp_path / "parts")
    assert next(step for step in run if step.step == 5)
    run.close()
    resumed = fitted(out=tmp_path / "parts", **params)
    for name in ("evaluations.json", "head.npy", "model.safetensors"):
        assert (resumed.artifact.path / name).read_bytes() == (first.artifact.path / name).read_bytes()
    with pytest.raises(ArtifactMismatch, match="learn"):
        fitted(init_from=tmp_path / "first")


def test_a_head_goes_on_from_an_earlier_one(usual: Any, encoder: Path) -> None:
    stiff = fitted(init_from=usual.artifact.path, ridge=1e9)
    found, before = (each.score(EXAMPLE.examples)["influence"] for each in (stiff, usual))
    assert np.corrcoef(found, before)[0, 1] > 0.999
    with pytest.raises(ArtifactMismatch, match="another encoder"):
        fitted(init_from=usual.artifact.path, encoder=str(encoder))


# ---------------------------------------------------------------- bad input


def labelled(values: list[Any]) -> list[Item]:
    return [
        Item(f"{row}", f"text {row}", {} if each is None else {"influence": each}) for row, each in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("examples", "wrong"),
    [
        ([], "at least 10"),
        (labelled([1.0] * 9), "at least 10"),
        (labelled([0.5] * 12), "same influence"),
        (labelled([1.0, None] * 6), "all examples or none"),
        (labelled([1.0, float("nan")] * 6), "finite"),
        ([*labelled([1.0, 2.0] * 6), Item("x", fields={"influence": 1.0})], "no text"),
    ],
)
def test_bad_examples_are_named(examples: Any, wrong: str) -> None:
    with pytest.raises(InvalidItems, match=wrong):
        fitted(examples)


@pytest.mark.parametrize("params", [{"temperature": -1}, {"fraction": 0}, {"fraction": 1.5}, {"eps": 0}, {"pieces": 0}])
def test_bad_parameters_are_refused(params: Any) -> None:
    with pytest.raises(InvalidParams):
        pickaxe.scorer("mates", **params)


def test_odd_texts_are_scored_and_missing_ones_named(usual: Any) -> None:
    scores = usual.score(
        [Item("empty", ""), Item("huge", "leek " * 20_000), Item("odd", "\x00\ufffd"), Item("odd", "a")]
    )
    assert np.isfinite(scores["influence"]).all()
    assert scores["select"].sum() == 2
    with pytest.raises(InvalidItems, match="'none'"):
        usual.score([Item("none")])
