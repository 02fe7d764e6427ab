"""preselect: strength and its invariances, labels, thresholds, the classifier, losses by language models."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import pickaxe
from pickaxe import Call, Host, Item
from pickaxe.artifact import Artifact
from pickaxe.errors import ArtifactCorrupt, InvalidItems, InvalidParams, UnknownArtifact, Unmet
from pickaxe_plugins.selection.preselect.corpus import training_line
from pickaxe_plugins.selection.preselect.losses import document_losses, windows
from pickaxe_plugins.selection.preselect.strength import Cut, bits_per_character, extremes, strength

SMALL: dict[str, Any] = {"dim": 16, "bucket": 10_000}
BENCHMARK = (40.0, 45.0, 47.0, 52.0, 60.0, 61.0)

TOPICS = {
    "maths": "lemma theorem proof integer vector matrix kernel polynomial bounded continuous metric norm",
    "shop": "offer cheap click order price delivery sale discount cart brand review shipping",
    "cook": "rice tomato garlic butter simmer oil cheese sauce pepper stir dough whisk",
    "news": "minister election market police court report government strike budget union talks vote",
}
COMMON = ["the", "a", "of", "and", "to", "in", "is", "was", "for", "that", "with", "on", "as", "it", "be", "by"]


def document(topic: str, draw: random.Random) -> str:
    words = TOPICS[topic].split()
    return " ".join(draw.choice(words if draw.random() < 0.3 else COMMON) for _ in range(draw.randint(30, 90)))


def corpus(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """(topic, text); mathematics is one of four topics."""
    draw = random.Random(seed)
    for _ in range(count):
        topic = draw.choice(list(TOPICS))
        yield topic, document(topic, draw)


def examples(count: int = 600, seed: int = 0) -> list[Item]:
    """Better models lose clearly less on mathematics and hardly less on the rest."""
    noise = np.random.default_rng(seed)
    items = []
    for row, (topic, text) in enumerate(corpus(count, seed)):
        gap = 0.012 if topic == "maths" else 0.003
        bits = 1.0 - gap * np.arange(len(BENCHMARK)) + noise.normal(0, 0.012, len(BENCHMARK))
        items.append(Item(f"{topic}-{row}", text, {"losses": bits * len(text) * math.log(2)}))
    return items


def scorer(**params: Any) -> Any:
    return pickaxe.scorer("preselect", **{**SMALL, "benchmark_scores": BENCHMARK, **params})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("preselect") / "artifact"
    return scorer(positive=0.2, epoch=5, lr=0.5).fit(examples(), validation=examples(200, 9), out=out)


# ---------------------------------------------------------------- strength

loss_rows = arrays(np.float64, st.tuples(st.integers(1, 20), st.just(6)), elements=st.integers(0, 30).map(float))


@given(loss_rows, st.floats(0.5, 3), st.floats(0, 100))
def test_strength_depends_on_order_alone(losses: np.ndarray, slope: float, shift: float) -> None:
    plain = strength(losses, BENCHMARK)
    np.testing.assert_array_equal(strength(losses * slope + shift, BENCHMARK), plain)
    np.testing.assert_array_equal(strength(np.exp(losses / 10), BENCHMARK), plain)
    np.testing.assert_array_equal(strength(losses, np.log(BENCHMARK).tolist()), plain)


@given(st.lists(st.permutations(range(6)), min_size=1, max_size=10))
def test_reversing_the_benchmark_mirrors_strength_without_ties(orders: list[list[int]]) -> None:
    losses = np.array(orders, float)
    np.testing.assert_allclose(strength(losses, BENCHMARK[::-1]), 1 - strength(losses, BENCHMARK), atol=1e-12)


@given(loss_rows)
def test_strength_is_1_exactly_where_losses_fall_with_the_benchmark(losses: np.ndarray) -> None:
    np.testing.assert_array_equal(strength(losses, BENCHMARK) == 1, (np.diff(losses, axis=1) < 0).all(axis=1))


@given(loss_rows)
def test_two_models_give_0_or_1(losses: np.ndarray) -> None:
    assert set(strength(losses[:, :2], (1, 2))) <= {0.0, 1.0}


def test_equal_benchmark_scores_are_no_pair_and_equal_losses_no_match() -> None:
    assert strength(np.array([[3.0, 2.0, 1.0]]), (1, 1, 2))[0] == 1
    assert strength(np.array([[2.0, 2.0, 1.0]]), (1, 2, 3))[0] == pytest.approx(2 / 3)
    assert np.isnan(strength(np.array([[2.0, np.nan, 1.0]]), (1, 2, 3))[0])


def test_bits_per_character() -> None:
    losses, characters = np.array([[70.0, 60.0]]), np.array([100])
    bits = bits_per_character(losses, characters)
    assert bits[0, 0] == pytest.approx(70 / (100 * math.log(2)))
    np.testing.assert_allclose(bits_per_character(2 * losses, 2 * characters), bits)


# ---------------------------------------------------------------- labels and thresholds


@given(
    arrays(np.float64, st.integers(1, 60), elements=st.integers(0, 15).map(lambda pairs: pairs / 15)),
    st.one_of(st.just("all_pairs"), st.floats(0.05, 0.5)),
    st.integers(2, 30),
)
def test_classes_are_disjoint_equal_and_apart(strengths: np.ndarray, positive: Any, limit: int) -> None:
    best, worst = extremes(strengths, positive, limit)
    assert len(best) == len(worst) <= limit
    assert not set(best) & set(worst)
    if len(best):
        assert strengths[worst].max() <= strengths[best].min()
    if positive == "all_pairs":
        assert (strengths[best] == 1).all()
        assert len(best) == min((strengths == 1).sum(), (strengths < 1).sum(), limit)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 500)), min_size=1, max_size=60), st.floats(0.01, 1))
def test_the_kept_share_exceeds_the_wish_by_the_last_document_at_most(
    rows: list[tuple[int, int]], fraction: float
) -> None:
    scores, characters = np.array(rows).T
    cut = Cut.of(scores / 20, characters)
    threshold = cut.threshold(fraction)
    above, at = characters[scores / 20 > threshold].sum(), characters[scores / 20 == threshold]
    assert above <= fraction * characters.sum() + 1e-9
    assert cut.characters[: cut.before(fraction) + 1].sum() <= fraction * characters.sum() + at.max() + 1e-9


def test_everything_is_kept_at_share_1() -> None:
    assert Cut.of(np.array([0.2, 0.9, 0.5]), np.array([5, 5, 5])).threshold(1) == 0.2


def test_training_lines_are_one_line_each() -> None:
    assert training_line("A\nb\n", True) == "__label__1 A b "


# ---------------------------------------------------------------- the classifier


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_best_tenth_is_of_the_predictive_topic(seed: int) -> None:
    fitted = scorer(dim=100).fit(examples(3000, seed), seed=seed)
    assert fitted.artifact.notes["per_class"] > 100
    fresh = list(corpus(1000, seed + 100))
    best = np.argsort(-fitted.score([text for _, text in fresh])["quality"], kind="stable")[:100]
    assert np.mean([fresh[row][0] == "maths" for row in best]) >= 0.9


def test_scores_do_not_depend_on_company_or_a_trailing_newline(fitted: Any) -> None:
    texts = [text for _, text in corpus(40, 5)]
    together = fitted.score(texts)["quality"]
    alone = [fitted.score([text])["quality"][0] for text in texts]
    lines = fitted.score([text + "\n" for text in texts])["quality"]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, lines)
    assert fitted.score(["lemma\nproof"])["quality"] == fitted.score(["lemma proof"])["quality"]


def test_an_empty_text_is_not_kept(fitted: Any) -> None:
    scores = fitted.score(["", "lemma theorem proof"])
    assert np.isnan(scores["quality"][0])
    assert not scores["keep"][0]
    assert [(flag.index, flag.reason) for flag in scores.flags] == [(0, "empty")]


@pytest.mark.parametrize("share", [0.05, 0.37, 1.0])
def test_keep_follows_the_share_of_characters(fitted: Any, share: float) -> None:
    items = examples()
    scores = fitted.with_artifact(fitted.artifact.path).score(items)
    other = pickaxe.scorer("preselect", artifact=fitted.artifact.path, keep_fraction=share).score(items)
    np.testing.assert_array_equal(other["quality"], scores["quality"])
    lengths = np.array([len(item.text or "") for item in items])
    kept = lengths[other["keep"]].sum() / lengths.sum()
    assert share - 0.01 <= kept <= share + 0.01 or (share == 1 and kept == 1)


def test_the_table_of_thresholds(fitted: Any) -> None:
    table = fitted.artifact.read_json("thresholds.json")
    assert [float(share) for share in table] == sorted([0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5], key=str)
    tenth = pickaxe.scorer("preselect", artifact=fitted.artifact.path, keep_fraction=0.1).score(examples())
    np.testing.assert_array_equal(tenth["keep"], tenth["quality"].astype(float) >= table["0.1"])


def test_strength_and_bits_beside_quality(fitted: Any) -> None:
    items = [*examples(5), Item("bare", "no losses here")]
    scores = fitted.score(items)
    expected = strength(np.array([item.fields["losses"] for item in items[:5]]), BENCHMARK)
    np.testing.assert_array_equal(scores["strength"][:5], expected)
    assert np.isnan(scores["strength"][5])
    assert np.isnan(scores["bpc_mean"][5])


def test_without_a_fit_strength_is_the_score() -> None:
    items = examples(20)
    scores = scorer().score(items)
    assert list(scores.columns) == ["strength", "bpc_mean"]
    np.testing.assert_array_equal(
        scores.primary, strength(np.array([item.fields["losses"] for item in items]), BENCHMARK)
    )


def test_words_that_the_classifier_likes(fitted: Any) -> None:
    words = fitted.artifact.read_json("words.json")
    assert {word for word, _ in words["for"][:8]} <= set(TOPICS["maths"].split())
    assert words["for"][0][1] > 0 > words["against"][0][1]


def test_the_manifest_tells_the_fit(fitted: Any) -> None:
    notes = fitted.artifact.notes
    assert (notes["models"], notes["pairs"], notes["documents"], notes["sample"]) == (6, 15, 600, 600)
    assert notes["per_class"] == 120
    assert notes["validation"]["accuracy"] > 0.7
    assert notes["validation"]["auc"] > 0.7
    assert len(fitted.artifact.read_array("strength.npy")) == len(fitted.artifact.read_json("documents.json")) == 600


def test_labelled_validation_and_unlabelled_sample() -> None:
    labelled = [
        Item(str(row), text, {"label": int(topic == "maths")}) for row, (topic, text) in enumerate(corpus(50, 3))
    ]
    fit = scorer(positive=0.2).fit(examples(), validation=labelled, unlabelled=[text for _, text in corpus(70, 4)])
    assert fit.artifact.notes["validation"]["documents"] == 50
    assert fit.artifact.notes["sample"] == 70


def test_incomplete_and_empty_documents_are_left_out() -> None:
    items = examples(60)
    partial = Item("partial", "text", {"losses": np.array([1.0, np.nan, 1, 1, 1, 1])})
    fit = scorer(positive=0.2).fit([*items, partial, Item("none", "text"), Item("empty", "")])
    notes = fit.artifact.notes
    assert (notes["documents"], notes["dropped_without_loss"], notes["dropped_empty"]) == (62, 2, 1)
    assert fit.artifact.read_json("documents.json") == [item.id for item in items]


def test_quantising_makes_it_smaller(fitted: Any) -> None:
    small = scorer(positive=0.2, epoch=5, lr=0.5, quantise=True).fit(examples())
    sizes = [handle.artifact.file("model.bin").stat().st_size for handle in (small, fitted)]
    assert sizes[0] < sizes[1] / 3
    texts = [text for _, text in corpus(100, 5)]
    found, expected = (handle.score(texts)["quality"] for handle in (small, fitted))
    assert np.corrcoef(found, expected)[0, 1] > 0.9
    assert small.artifact.has("words.json")


# ---------------------------------------------------------------- ready models


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A fastText model with labels of its own."""
    from pickaxe.fasttext_model import FastText

    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"__label__{topic} {text}\n" for topic, text in corpus(400, 1)))
    FastText.train(lines, tmp_path / "foreign.bin", dim=8, epoch=10, lr=0.5)
    return tmp_path / "foreign.bin"


def test_a_ready_model_is_adopted(foreign: Path) -> None:
    handle: Any = pickaxe.scorer("preselect", adopt=str(foreign), label="cook", threshold=0.5).fit([])
    assert sorted(handle.artifact.notes["adopted"]["labels"]) == sorted(f"__label__{topic}" for topic in TOPICS)
    scores = handle.score(["rice garlic butter sauce", "election court vote budget"])
    assert scores["keep"].tolist() == [True, False]
    assert np.isnan(scores["strength"]).all()
    assert handle.artifact.read_json("words.json")["for"][0][0] in TOPICS["cook"].split()
    foreign.unlink()
    np.testing.assert_array_equal(handle.score(["rice"])["quality"], handle.score(["rice"])["quality"])


def test_a_ready_model_cuts_by_share_of_a_sample(foreign: Path) -> None:
    texts = [text for _, text in corpus(200, 2)]
    handle: Any = pickaxe.scorer("preselect", adopt=str(foreign), label="cook", keep_fraction=0.2).fit(texts)
    assert 0.15 < handle.score(texts)["keep"].mean() < 0.25


def test_a_label_may_be_given_as_a_number() -> None:
    assert pickaxe.scorer("preselect", label=1).params.label == "1"


def test_a_ready_model_without_a_sample_needs_a_threshold(foreign: Path) -> None:
    handle = pickaxe.scorer("preselect", adopt=str(foreign), label="cook").fit([])
    with pytest.raises(InvalidParams, match="threshold"):
        handle.score(["text"])


def test_a_quantised_ready_model_has_no_words(foreign: Path) -> None:
    from pickaxe.fasttext_model import FastText

    model = FastText.train(foreign.with_name("lines.txt"), dim=8, word_ngrams=2, bucket=1000)
    model.quantise()
    model.save(foreign.with_name("small.bin"))
    handle: Any = pickaxe.scorer("preselect", adopt=str(foreign.with_name("small.bin")), label="shop").fit(["a text"])
    assert not handle.artifact.has("words.json")
    assert "quantised" in handle.artifact.notes["no_words"]


def test_what_cannot_be_adopted(foreign: Path) -> None:
    with pytest.raises(InvalidParams, match="'1' is not one"):
        pickaxe.scorer("preselect", adopt=str(foreign)).fit([])
    with pytest.raises(UnknownArtifact):
        pickaxe.scorer("preselect", adopt=str(foreign) + "x").fit([])
    foreign.write_bytes(b"nothing like it")
    with pytest.raises(ArtifactCorrupt):
        pickaxe.scorer("preselect", adopt=str(foreign), label="cook").fit([])


def test_a_server_adopts_resources_only(foreign: Path, tmp_path: Path) -> None:
    host = Host(artifacts=tmp_path, resources={"topics": foreign})
    with pytest.raises(Unmet, match="topics"):
        list(pickaxe.scorer("preselect", host=host, adopt=str(foreign), label="cook").fitting([], tmp_path / "a"))
    list(pickaxe.scorer("preselect", host=host, adopt="topics", label="cook").fitting([], tmp_path / "a"))
    assert Artifact.open(tmp_path / "a").has("model.bin")


# ---------------------------------------------------------------- losses by language models


@given(st.integers(0, 300), st.integers(1, 60), st.integers(1, 60))
def test_windows_score_every_position_once(positions: int, block: int, stride: int) -> None:
    stride = min(stride, block)
    found = list(windows(positions, block, stride))
    scored = [place for window in found for place in range(window.first, window.end)]
    assert scored == list(range(1, positions))
    assert all(window.begin < window.first and window.end - window.begin <= block + 1 for window in found)


class LetterModel:
    """Stands for a language model: a token is a character, and only the context's length helps to guess it."""

    context_length = 40
    calls = 0

    def __init__(self, gain: float, bos: int | None = 0, eos: tuple[int, ...] = ()) -> None:
        self.gain, self.bos_id, self.eos_ids = gain, bos, eos

    @property
    def tokenizer(self) -> Any:
        return self

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(letter) for letter in text] for text in texts]

    def token_logprobs(self, lists: Sequence[Sequence[int]], call: Call) -> list[np.ndarray]:
        type(self).calls += 1
        assert max(map(len, lists)) <= self.context_length
        return [
            np.array([-2 + self.gain * (token in tokens[:place]) for place, token in enumerate(tokens)][1:], np.float32)
            for tokens in lists
        ]


@pytest.mark.parametrize(("bos", "eos", "tokens"), [(0, (), 5), (None, (7, 8), 5), (None, (), 4)])
def test_the_first_token_is_scored_where_something_can_stand_before_it(bos: Any, eos: Any, tokens: int) -> None:
    model: Any = LetterModel(0.0, bos, eos)
    np.testing.assert_allclose(document_losses(model, ["abcde", ""], 10, 5, Call()), [2 * tokens, 0])


def test_windows_reach_back_but_not_into_other_documents() -> None:
    model: Any = LetterModel(1.0)
    texts = ["abcabc", "abc"]
    np.testing.assert_allclose(document_losses(model, texts, 10, 5, Call()), [9, 6])
    # Windows of 3 positions, 1 apart: [BOS a b] [a b c] [b c a]: no letter is repeated in any.
    np.testing.assert_allclose(document_losses(model, texts, 2, 1, Call()), [12, 6])


def lettered(count: int = 40) -> list[Item]:
    """Half the texts repeat themselves, where gain helps."""
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = ["".join(draw.sample(letters, 20)) if row % 2 else draw.choice(letters) * 20 for row in range(count)]
    return [Item(str(row), text) for row, text in enumerate(texts)]


GAINS = {"weak": 0.1, "middle": 0.5, "strong": 1.0}


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "lm", lambda self, name, precision: LetterModel(GAINS[name]))


@pytest.mark.usefixtures("letters")
def test_models_score_documents_that_come_without_losses() -> None:
    known = Item("known", "zz", {"losses": np.array([9.0, 8.0, 7.0])})
    fit = scorer(benchmark_scores=(1, 2, 3), models=("weak", "middle", "strong")).fit([known, *lettered()[1:]])
    labels = fit.artifact.read_json("labels.json")
    assert labels["1"] == ["known", *(item.id for item in lettered()[2::2])]
    assert fit.artifact.notes["windows"]["block"] == 39  # what the context leaves of 1900
    assert fit.artifact.notes["windows"]["first_token_scored"] == dict.fromkeys(GAINS, True)


@pytest.mark.usefixtures("letters")
def test_a_resumed_fit_does_not_ask_a_finished_model_again(tmp_path: Path) -> None:
    handle = scorer(benchmark_scores=(1, 2, 3), models=("weak", "middle", "strong"))
    running = handle.fitting(lettered(), tmp_path / "out")
    for step in running:
        if step.stage == "losses" and step.step >= 2 * 40:  # the third model's turn
            break
    running.close()
    before = LetterModel.calls
    list(handle.fitting(lettered(), tmp_path / "out"))
    assert LetterModel.calls - before == 1


def test_losses_by_the_shipped_draft_model() -> None:
    lm = pickaxe.Host().lm("draft")
    text = "The quick brown fox jumps over the lazy dog, and the dog does not mind."
    tokens = lm.tokenizer.encode(text)
    before = [lm.tokenizer.bos_id] if lm.tokenizer.bos_id is not None else list(lm.tokenizer.eos_ids[:1])
    whole = -lm.token_logprobs([[*before, *tokens]])[0].sum()
    assert document_losses(lm, [text], 100, 50, Call())[0] == pytest.approx(whole, rel=1e-5)
    windowed = document_losses(lm, [text], 6, 2, Call())[0]
    assert windowed == pytest.approx(whole, rel=0.3)
    assert windowed != pytest.approx(whole, rel=1e-5)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"benchmark_scores": (1.0,)}, "benchmark_scores"),
        ({"benchmark_scores": (1.0, 1.0)}, "benchmark_scores"),
        ({"benchmark_scores": (1.0, math.nan)}, "benchmark_scores[1]"),
        ({"models": ("lm",)}, "(all)"),
        ({"stride": 20, "block": 10}, "(all)"),
        ({"keep_fraction": 0}, "keep_fraction"),
        ({"max_per_class": 1}, "max_per_class"),
    ],
)
def test_wrong_parameters(params: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        scorer(**params)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize("positive", [0.0, 0.6, "most"])
def test_wrong_share_of_positives(positive: Any) -> None:
    with pytest.raises(InvalidParams, match="positive"):
        scorer(positive=positive)


@pytest.mark.parametrize(
    "losses", [np.ones(5), np.ones((6, 1)), np.array([1, 1, 1, 1, 1, -0.1]), np.array([1, 1, 1, 1, 1, np.inf])]
)
def test_wrong_losses_name_the_item(losses: np.ndarray) -> None:
    bad = [*examples(3), Item("bad", "text", {"losses": losses})]
    with pytest.raises(InvalidItems, match=r"\[3\]\.fields\.losses.*'bad'"):
        scorer().score(bad)
    with pytest.raises(InvalidItems, match=r"\[3\]\.fields\.losses.*'bad'"):
        scorer().fit(bad)


@pytest.mark.parametrize(("losses", "missing"), [((1.0,) * 6, "positive"), ((6.0, 5, 4, 3, 2, 1), "negative")])
def test_no_class_left(losses: tuple[float, ...], missing: str) -> None:
    with pytest.raises(InvalidItems, match=f"leave no {missing}"):
        scorer().fit([Item(str(row), "text", {"losses": np.array(losses)}) for row in range(9)])


def test_nothing_to_fit_on() -> None:
    with pytest.raises(InvalidParams, match="benchmark_scores"):
        pickaxe.scorer("preselect").fit(examples(5))
    with pytest.raises(InvalidItems, match="no document with a loss of every model"):
        scorer().fit(["text without losses"])


def test_scoring_without_fit_needs_losses_and_benchmark() -> None:
    with pytest.raises(InvalidItems, match="without a fit it is needed"):
        scorer().score(["text"])
    with pytest.raises(InvalidParams, match="benchmark_scores"):
        pickaxe.scorer("preselect").score(examples(1))
    with pytest.raises(InvalidItems, match="text"):
        scorer().score([Item("textless", fields={"losses": np.ones(6)})])


def test_the_docs_page_names_every_parameter() -> None:
    page = (Path(__file__).parents[3] / "docs/methods/preselect.md").read_text("utf-8")
    for name in type(scorer().params).model_fields:
        assert f"`{name}`" in page
