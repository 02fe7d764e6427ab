"""The parts of `dsi`: identifiers, the trie and its search, heads, losses, and what is learned from."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Call, Item
from pickaxe.errors import InvalidItems, Unmet
from pickaxe.lm.weights import Architecture
from pickaxe_plugins.retrieval.dsi import _beams, _heads, _losses, _sources, _training
from pickaxe_plugins.retrieval.dsi._clustering import kmeans, semantic
from pickaxe_plugins.retrieval.dsi._identifiers import END, FIRST, Identifiers, Kind, by_cluster, by_row
from pickaxe_plugins.retrieval.dsi._params import Params
from pickaxe_plugins.retrieval.dsi._trie import Trie

SEMANTIC: tuple[Kind, ...] = ("semantic", "semantic2d")


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def identifiers(kind: Kind, count: int, k: int, c: int, seed: int) -> Identifiers:
    names = [f"d{row}" for row in range(count)]
    if kind in ("atomic", "naive"):
        return by_row(kind, names)
    random = np.random.default_rng(seed)
    return by_cluster(kind, names, c, max(k, c, 2), lambda rows, path: random.integers(0, k, len(rows)))


# ------------------------------------------------------------ identifiers


@given(
    st.sampled_from(["atomic", "naive", "semantic", "semantic2d"]),
    st.integers(1, 60), st.integers(2, 5), st.integers(1, 6), st.integers(0, 9),
)  # fmt: skip
def test_identifiers_are_unique_and_decode(kind: Kind, count: int, k: int, c: int, seed: int) -> None:
    made = identifiers(kind, count, k, c, seed)
    said = [made.encode(row) for row in range(count)]
    assert len(set(said)) == count
    assert [made.decode(tokens) for tokens in said] == list(range(count))
    assert max(map(len, said)) == made.longest
    assert all(0 <= token < made.vocabulary for tokens in said for token in tokens)
    trie = Trie.build(said)
    assert [trie.find(tokens) for tokens in said] == list(range(count))
    if kind == "semantic2d":
        base = max(k, c, 2)
        for tokens in said:
            assert tokens[-1] == END
            assert all(FIRST + i * base <= token < FIRST + (i + 1) * base for i, token in enumerate(tokens[:-1]))
    if kind != "atomic":
        with pytest.raises(InvalidItems):
            made.decode(said[0][:-1])


def test_equal_vectors_get_ids_of_their_own() -> None:
    names = [str(row) for row in range(9)]
    made, clusters = semantic("semantic2d", names, np.ones((9, 4), np.float32), 2, 2, 0, Call())
    assert not clusters.groups
    assert made.codes == tuple(tuple(map(int, f"{row:04b}")) for row in range(9))


def test_an_empty_cluster_keeps_the_numbers_of_others() -> None:
    made = by_cluster("semantic", list("abcd"), 2, 4, lambda rows, path: np.array([0, 3, 3, 0]))
    assert made.codes == ((0, 0), (3, 0), (3, 1), (0, 1))


def test_clusters_are_those_of_the_vectors() -> None:
    vectors = np.repeat(10 * np.eye(3), 4, 0) + 0.01 * drawn(0, 12, 3)
    labels = kmeans(vectors, 3, 0, ())
    assert [len(set(labels[start : start + 4])) for start in (0, 4, 8)] == [1, 1, 1]
    assert len(set(labels)) == 3
    made, clusters = semantic("semantic", [str(row) for row in range(12)], vectors.astype(np.float32), 3, 4, 0, Call())
    for row, vector in enumerate(vectors):
        assert clusters.leaf_of(vector) == made.codes[row][:1]
    with pytest.raises(Unmet, match="refit"):
        made.extended(["new"], clusters, vectors[:1].astype(np.float32))


def test_a_lonely_document_is_joined_within_the_vocabulary() -> None:
    vectors = np.array([[0.0, 0], [10, 0], [10, 1], [10.5, 0]], np.float32)
    made, clusters = semantic("semantic2d", list("abcd"), vectors, 2, 3, 0, Call())
    lonely = made.codes[0]
    assert len(lonely) == 1
    grown = made.extended(["e"], clusters, np.array([[0.1, 0]], np.float32))
    assert grown.codes[:4] == made.codes
    assert grown.codes[4] == (*lonely, 0)
    assert max(grown.encode(4)) < made.vocabulary == grown.vocabulary


# ------------------------------------------------------------ trie and beams


def test_a_trie_refuses_what_it_cannot_hold() -> None:
    for sequences in ([], [()], [(1, 2), (1, 2)], [(1,), (1, 2)]):
        with pytest.raises(InvalidItems):
            Trie.build(sequences)
    trie = Trie.build([(3, 4, 1), (3, 1)])
    assert [trie.find(each) for each in ((3, 4, 1), (3, 1), (3, 4), (4,), (3, 4, 1, 1))] == [0, 1, -1, -1, -1]


class Table:
    """Log-probabilities by step and the token before."""

    def __init__(self, table: np.ndarray, queries: int) -> None:
        self._table, self._queries, self._step = table, queries, 0

    def begin(self) -> np.ndarray:
        return np.asarray(self._table[0, : self._queries])

    def step(self, owner: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        self._step += 1
        return np.asarray(self._table[self._step, tokens])


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(2, 4), st.integers(1, 4), st.integers(0, 99))
def test_a_wide_beam_is_exhaustive(count: int, k: int, c: int, seed: int) -> None:
    made = identifiers("semantic2d", count, k, c, seed)
    said = [made.encode(row) for row in range(count)]
    vocabulary = max(made.vocabulary, 3)
    table = _heads.log_softmax(drawn(seed, made.longest, vocabulary, vocabulary))
    trie = Trie.build(said)
    for width in (1, 3, count):
        for query, found in enumerate(_beams.search(trie, Table(table, 2), width, made.longest, True, Call())):
            for row, logprob in zip(found.rows, found.logprobs, strict=True):
                before = (query, *said[row][:-1])
                said_so = enumerate(zip(before, said[row], strict=True))
                exact = sum(table[step, one, token] for step, (one, token) in said_so)
                assert logprob == pytest.approx(exact, abs=1e-9)
            assert len(set(found.rows.tolist())) == len(found.rows)
    assert len(found.rows) == count
    if vocabulary**made.longest < 3000:
        free = _beams.search(trie, Table(table, 2), 3000, made.longest, False, Call())
        assert sorted(free[0].rows.tolist()) == list(range(count))
        assert np.exp(free[0].logprobs).sum() <= 1 + 1e-9


def test_no_identifier_swallows_a_longer_one() -> None:
    made = by_row("naive", [str(row) for row in range(124)])
    trie = Trie.build([made.encode(row) for row in range(124)])
    table = np.zeros((4, made.vocabulary, made.vocabulary))
    [found] = _beams.search(trie, Table(table, 1), 124, made.longest, True, Call())
    assert sorted(found.rows.tolist()) == list(range(124))


# ------------------------------------------------------------ heads and losses


def test_pawa_that_adds_nothing_is_the_plain_head() -> None:
    weights = _heads.initial(9, 8, 5, True, 0)
    hidden, prefixes = drawn(0, 2, 4, 8).astype(np.float32), np.array([[1, 2, 3], [4, 5, 6]])
    adapted = _heads.adaptation(weights, prefixes)
    assert adapted is not None
    assert adapted.shape == (2, 4, 8, 9)
    np.testing.assert_allclose(_heads.logits(hidden, weights["head"], adapted), _heads.logits(hidden, weights["head"]))
    assert _heads.adaptation({"head": weights["head"]}, prefixes) is None


def test_pawa_sees_the_tokens_before_and_none_behind() -> None:
    weights = _heads.initial(9, 8, 5, True, 0) | {"out": drawn(1, 72, _heads.WIDTH).astype(np.float32)}
    one, other = (_heads.adaptation(weights, np.array([[1, 2, last]])) for last in (3, 4))
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one[:, :3], other[:, :3], atol=1e-5)
    assert np.abs(one[:, 3] - other[:, 3]).max() > 1e-2
    trained = np.asarray(_heads.adaptation(weights, jax.numpy.array([[1, 2, 3]]), jax.numpy))
    np.testing.assert_allclose(one, trained, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_consistency_losses(seed: int) -> None:
    one, other = drawn(seed, 3, 2, 5), drawn(seed + 100, 3, 2, 5)
    assert float(_losses.symmetric_kl(one, one)) == pytest.approx(0, abs=1e-6)
    assert float(_losses.symmetric_kl(one, other)) == pytest.approx(float(_losses.symmetric_kl(other, one)), rel=1e-4)
    assert float(_losses.symmetric_kl(one, other)) > 0
    assert float(_losses.contrastive(one, other)) == pytest.approx(float(_losses.contrastive(other, one)), rel=1e-4)
    absent = np.ones((3, 2), bool)
    absent[2] = False
    alone = float(_losses.contrastive(one[:2], other[:2]))
    assert float(_losses.contrastive(one, other, absent)) == pytest.approx(alone, rel=1e-4)


def test_an_objective_without_consistency_is_cross_entropy() -> None:
    made = by_row("naive", list("abcd"))
    form = Architecture(layers=1, width=32, heads=2, kv_heads=1, head_size=16, mlp=32, vocab=300, context=32, tied=True)
    weights = _training.initial(form, made, True, 0)
    texts = _sources.Pairs([np.arange(5, dtype=np.int32), np.arange(3, dtype=np.int32)], np.array([1, 2]))
    given_ = _training.Batches.of(texts, made, 270).batch(np.array([0, 1]), 3)
    key = jax.random.key(0)
    plain, _ = _training.Objective(form, 0.0, 0.0, "kl")(weights, given_, key)
    assert float(plain) == pytest.approx(np.log(made.vocabulary), rel=0.3)
    whole = _training.Objective(form, 0.1, 0.15, "kl")
    value, told = whole(weights, given_, key)
    assert float(value) == pytest.approx(float(told["cross_entropy"]) + 0.15 * float(told["consistency"]), rel=1e-5)
    assert float(told["consistency"]) > 0


# ------------------------------------------------------------ sources


def test_templates_are_of_the_document() -> None:
    item = Item("d", "Bees live in hives. They make honey for the winter.", {"title": "The_Bee"})
    found = _sources.templates(item, 4, 0)
    assert len(found) == 4 == len(set(found))
    assert all(text in (item.text or "") or text.startswith("The Bee ") for text in found)
    assert _sources.templates(item, 4, 0) == found
    assert _sources.templates(Item("e", "  "), 4, 0) == []


def test_own_queries_come_first_and_a_model_can_write_them() -> None:
    items = [Item("a", "Bees live in hives.", {"synthetic": ["where do bees live", " ", "who lives in hives"]}),
             Item("b", "Moles dig."), Item("c", "")]  # fmt: skip
    host, call = pickaxe.Host(), Call()
    found = list(_sources.synthetic(items, Params.model_validate({"m_queries": 1, "synthesis": "given"}), host, call))
    assert found == [["where do bees live"], [], []]
    params = Params.model_validate({"m_queries": 2, "synthesis": "lm", "lm": "draft"})
    written = list(_sources.synthetic(items[1:], params, host, call))
    assert written == list(_sources.synthetic(items[1:], params, host, call))
    assert len(written[0]) <= 2
    assert written[1] == []
