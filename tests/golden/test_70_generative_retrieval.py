"""Golden cases of generative retrieval: identifiers, trie beam search, PAWA, atomic scores, losses and metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from golden import golden, understood

from pickaxe import Call
from pickaxe.metrics import mean, mrr, recall
from pickaxe_plugins.retrieval.dsi import _beams, _heads, _losses
from pickaxe_plugins.retrieval.dsi._identifiers import END, Code, by_cluster
from pickaxe_plugins.retrieval.dsi._trie import Trie

FILE = understood(golden("70-generative-retrieval"), "cases", "tolerance", "how")
CASES = understood(
    FILE["cases"], "semantic_ids", "trie_beam", "pawa_head", "atomic", "loss", "contrastive_consistency", "metrics"
)
TOLERANCE = understood(FILE["tolerance"], "rtol", "atol", "orders")
assert TOLERANCE["orders"] == "exact"


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def case_of(name: str, *given: str) -> tuple[dict[str, Any], dict[str, Any]]:
    case = understood(CASES[name], "inputs", "expected", "note")
    return understood(case["inputs"], *given), case["expected"]


def assert_close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE["rtol"], atol=TOLERANCE["atol"])


def test_semantic_identifiers() -> None:
    given, expected = case_of("semantic_ids", "n_docs", "k", "c", "cluster_tree")
    expected = understood(expected, "ids", "tokens_2d")

    def split(rows: np.ndarray, path: Code) -> np.ndarray:
        node = given["cluster_tree"]
        for group in path:
            node = understood(node, "labels", "children")["children"][str(group)]
        assert len(node["labels"]) == len(rows)
        return np.array(node["labels"])

    ids = [f"d{row}" for row in range(given["n_docs"])]
    made = by_cluster("semantic2d", ids, given["c"], max(given["k"], given["c"]), split)
    assert [list(code) for code in made.codes] == expected["ids"]
    assert [list(made.encode(row)) for row in range(len(made))] == expected["tokens_2d"]
    assert [made.decode(tokens) for tokens in expected["tokens_2d"]] == list(range(len(made)))


class Table:
    """The model of the case: logits by step and by the token before."""

    def __init__(self, logits: Any, start: int) -> None:
        self._logprobs, self._start, self._step = _heads.log_softmax(np.array(logits, np.float64)), start, 0

    def begin(self) -> np.ndarray:
        return np.asarray(self._logprobs[0][[self._start]])

    def step(self, owner: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        self._step += 1
        return np.asarray(self._logprobs[self._step][tokens])


def test_trie_beam_search() -> None:
    given, expected = case_of("trie_beam", "doc_tokens", "eos", "start", "beams", "logit_table", "note")
    assert given["eos"] == END
    searches = [(f"beam_{each['beam']}", understood(each, "beam", "n_return")) for each in given["beams"]]
    expected = understood(expected, "exhaustive", *(name for name, _ in searches))
    trie = Trie.build(given["doc_tokens"])
    longest = max(map(len, given["doc_tokens"]))

    def ranked(width: int, count: int) -> list[tuple[int, float]]:
        [found] = _beams.search(trie, Table(given["logit_table"], given["start"]), width, longest, True, Call())
        order = np.lexsort((found.rows, -found.logprobs))[:count]
        return [(int(found.rows[place]), float(found.logprobs[place])) for place in order]

    count = len(given["doc_tokens"])
    for name, width, most in (
        ("exhaustive", count, count),
        *((name, each["beam"], each["n_return"]) for name, each in searches),
    ):
        found = ranked(width, most)
        assert [row for row, _ in found] == [row for row, _ in expected[name]], name
        assert_close([score for _, score in found], [score for _, score in expected[name]])
    logprobs = _heads.log_softmax(np.array(given["logit_table"], np.float64))
    for row, score in expected["exhaustive"]:
        tokens = given["doc_tokens"][row]
        before = [given["start"], *tokens[:-1]]
        said = zip(before, tokens, strict=True)
        assert_close(sum(logprobs[step][one][other] for step, (one, other) in enumerate(said)), score)


def test_pawa_head() -> None:
    given, expected = case_of("pawa_head", "decoder_hidden", "lm_head_weight", "adaptor_output", "scale")
    expected = understood(expected, "logits")
    assert given["scale"] == "d_model ** -0.5"
    hidden, head, adapted = (np.array(given[name]) for name in ("decoder_hidden", "lm_head_weight", "adaptor_output"))
    assert_close(_heads.logits(hidden, head, adapted, hidden.shape[-1] ** -0.5), expected["logits"])
    assert_close(_heads.logits(hidden, head, 0 * adapted), _heads.logits(hidden, head))


def test_atomic() -> None:
    given, expected = case_of("atomic", "first_step_hidden", "doc_token_embeddings")
    expected = understood(expected, "probabilities", "ranking")
    hidden, head = np.array(given["first_step_hidden"]), np.array(given["doc_token_embeddings"])
    logprobs = _heads.log_softmax(_heads.logits(hidden, head))
    assert_close(np.exp(logprobs), expected["probabilities"])
    trie = Trie.build([(row,) for row in range(len(head))])

    class Fixed:
        def begin(self) -> np.ndarray:
            return np.asarray(logprobs)

        def step(self, owner: np.ndarray, tokens: np.ndarray) -> np.ndarray:
            raise AssertionError("an atomic identifier is one token")

    for constrained in (True, False):
        found = _beams.search(trie, Fixed(), len(head), 1, constrained, Call())
        assert [each.rows[np.argsort(-each.logprobs)].tolist() for each in found] == expected["ranking"]


def test_losses() -> None:
    given, expected = case_of("loss", "logits_pass1", "logits_pass2", "labels", "ignore", "alpha")
    expected = understood(expected, "cross_entropy_both_passes", "symmetric_kl", "total")
    assert given["ignore"] == _losses.IGNORED
    one, other, labels = (np.array(given[name]) for name in ("logits_pass1", "logits_pass2", "labels"))
    plain = float(_losses.cross_entropy(np.concatenate([one, other]), np.concatenate([labels, labels])))
    between = float(_losses.symmetric_kl(jax.numpy.asarray(one), jax.numpy.asarray(other)))
    assert_close(plain, expected["cross_entropy_both_passes"])
    assert_close(between, expected["symmetric_kl"])
    assert_close(plain + given["alpha"] * between, expected["total"])


def test_contrastive_consistency() -> None:
    given, expected = case_of("contrastive_consistency", "states_pass1", "states_pass2")
    expected = understood(expected, "loss", "official_code_value")
    one, other = (np.array(given[name]) for name in ("states_pass1", "states_pass2"))
    assert_close(float(_losses.contrastive(one, other)), expected["loss"])
    assert abs(float(_losses.contrastive(one, other)) - expected["official_code_value"]) > 0.1  # two softmaxes there


def test_metrics() -> None:
    given, expected = case_of("metrics", "runs", "relevant")
    expected = understood(expected, "mrr@10", "recall", "hits")
    run = {str(row): [str(each) for each in found] for row, found in enumerate(given["runs"])}
    qrels = {str(row): {str(each): 1 for each in right} for row, right in enumerate(given["relevant"])}
    assert_close(mean(mrr(run, qrels, 10)), expected["mrr@10"])
    for depth, value in expected["recall"].items():
        assert_close(mean(recall(run, qrels, int(depth))), value)
    for depth, value in expected["hits"].items():
        hit = {query: float(share > 0) for query, share in recall(run, qrels, int(depth)).items()}
        assert_close(mean(hit), value)
