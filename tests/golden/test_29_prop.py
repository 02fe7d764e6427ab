"""PROP against language models, draws, pairs, losses and the input's layout in float64."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

from pickaxe_plugins.reranking.prop._pairs import right_one
from pickaxe_plugins.reranking.prop._statistics import Collector, Statistics, loglik, smoothed
from pickaxe_plugins.reranking.prop._training import masked_words, mlm_loss, rop_loss, whole_words
from pickaxe_plugins.train.pairs import Framing

FILE = understood(golden("29-prop"), "paper", "how", "tolerance", "inputs", "expected")
CLOSE = {"abs": understood(FILE["tolerance"], "float")["float"], "rel": 0}
INPUTS = understood(
    FILE["inputs"], "documents_after_stopword_removal", "pairs", "subsample_t", "pair_logits_pos_neg", "mlm_logits",
    "mlm_labels_ignore_-1", "layout",
)  # fmt: skip
EXPECTED = understood(
    FILE["expected"], "avg_doc_len", "total_words", "corpus_tf", "corpus_df", "p_w_d_cf", "p_w_d_df", "vocab",
    "keep_prob", "draw_distribution_after_rejection_df", "pair_scores", "rop_loss_softmax_margin1",
    "rop_loss_raw_margin1", "mlm_loss", "total_loss", "layout",
)  # fmt: skip
DOCUMENTS = INPUTS["documents_after_stopword_removal"]
VOCABULARY = EXPECTED["vocab"]


@pytest.fixture(scope="module")
def statistics() -> Statistics:
    collector = Collector()
    for document in DOCUMENTS:
        collector.count(document)
    return collector.finish()


def test_counts(statistics: Statistics) -> None:
    assert statistics.vocabulary == tuple(VOCABULARY)
    assert dict(zip(VOCABULARY, statistics.cf.tolist(), strict=True)) == EXPECTED["corpus_tf"]
    assert dict(zip(VOCABULARY, statistics.df.tolist(), strict=True)) == EXPECTED["corpus_df"]
    assert statistics.total == EXPECTED["total_words"]
    assert statistics.mean_length == pytest.approx(EXPECTED["avg_doc_len"], **CLOSE)


@pytest.mark.parametrize("kind", ["cf", "df"])
@pytest.mark.parametrize("row", range(len(DOCUMENTS)))
def test_language_models(statistics: Statistics, kind: Any, row: int) -> None:
    found = smoothed(statistics.counts(DOCUMENTS[row]), statistics.background(kind), statistics.mean_length)
    assert found == pytest.approx(np.array(EXPECTED[f"p_w_d_{kind}"][row]), **CLOSE)


def test_keep_probabilities_and_draws(statistics: Statistics) -> None:
    keep = statistics.keep(INPUTS["subsample_t"], rare=0)
    assert dict(zip(VOCABULARY, keep.tolist(), strict=True)) == {
        word: pytest.approx(each, **CLOSE) for word, each in EXPECTED["keep_prob"].items()
    }
    for document, wanted in zip(DOCUMENTS, EXPECTED["draw_distribution_after_rejection_df"], strict=True):
        chances = smoothed(statistics.counts(document), statistics.background("df"), statistics.mean_length) * keep
        assert chances / chances.sum() == pytest.approx(np.array(wanted), **CLOSE)


@pytest.mark.parametrize("row", range(len(INPUTS["pairs"])))
def test_pairs(statistics: Statistics, row: int) -> None:
    case = understood(INPUTS["pairs"][row], "doc", "set1", "set2")
    wanted = understood(EXPECTED["pair_scores"][row], "ll1", "ll2", "positive")
    document = statistics.counts(DOCUMENTS[case["doc"]])
    background = statistics.background("df")
    found = []
    for name in ("set1", "set2"):
        chances = smoothed(document, background, statistics.mean_length, statistics.numbers(case[name]))
        total, lacking = loglik(chances)
        assert lacking == 0
        found.append(total)
    assert found == [pytest.approx(wanted["ll1"], **CLOSE), pytest.approx(wanted["ll2"], **CLOSE)]
    assert right_one(*found) == wanted["positive"]


def test_losses() -> None:
    logits = np.array(INPUTS["pair_logits_pos_neg"])
    rop = float(rop_loss(logits[:, 0], logits[:, 1], "softmax_margin"))
    mlm = float(mlm_loss(np.array(INPUTS["mlm_logits"]), np.array(INPUTS["mlm_labels_ignore_-1"])))
    assert rop == pytest.approx(EXPECTED["rop_loss_softmax_margin1"], **CLOSE)
    assert float(rop_loss(logits[:, 0], logits[:, 1], "margin")) == pytest.approx(
        EXPECTED["rop_loss_raw_margin1"], **CLOSE
    )
    assert mlm == pytest.approx(EXPECTED["mlm_loss"], **CLOSE)
    assert rop + mlm == pytest.approx(EXPECTED["total_loss"], **CLOSE)


class Toy:
    """A tokenizer whose tokens are given: [CLS] is 0 and [SEP] is 1."""

    def encode(self, text: str, add_special: bool = False) -> list[int]:
        return [0, 1] if add_special else []


def test_layout() -> None:
    case = understood(INPUTS["layout"], "query_tokens", "doc_tokens", "max_seq_len", "mlm_prob", "max_mlm")
    wanted = understood(EXPECTED["layout"], "tokens", "segment_ids", "whole_word_mask_groups", "num_to_mask")
    tokens = ["[CLS]", "[SEP]", *dict.fromkeys(case["query_tokens"] + case["doc_tokens"])]
    number = {token: place for place, token in enumerate(tokens)}
    framing = Framing(Toy(), case["max_seq_len"])  # type: ignore[arg-type]  # all that framing asks of a tokenizer
    made = framing.pair(*([number[token] for token in case[name]] for name in ("query_tokens", "doc_tokens")))
    assert [tokens[place] for place in made.ids.tolist()] == wanted["tokens"]
    assert made.segments.tolist() == wanted["segment_ids"]
    pieces = np.array([token.startswith("##") for token in tokens])
    groups = whole_words(made.ids.tolist(), int(np.argmax(made.segments > 0)), pieces)
    assert groups == wanted["whole_word_mask_groups"]
    assert masked_words(len(groups), case["mlm_prob"], case["max_mlm"]) == wanted["num_to_mask"]
