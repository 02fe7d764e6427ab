"""Token trees, the models that read them, and where drafts come from, on the shipped small model in fp32."""

from __future__ import annotations

import numpy as np
import pytest

import pickaxe
from pickaxe import Call
from pickaxe.errors import InvalidParams, Unmet
from pickaxe.host import default_host
from pickaxe.lm import LM, Draw, FollowTrie, TokenTrie
from pickaxe_plugins.decoding._speculation.drafts import (
    EitherDraft,
    ModelDraft,
    NgramDraft,
    Shape,
    same_vocabulary,
)
from pickaxe_plugins.decoding._speculation.head import first_tokens
from pickaxe_plugins.decoding._speculation.transport import Distribution
from pickaxe_plugins.decoding._speculation.tree import BatchReader, Tree, TreeReader

CONTEXT = [284, 1260, 314, 982, 260, 6, 77]
LAW = Distribution(np.full(100, 0.01))


@pytest.fixture(scope="module")
def lm() -> LM:
    return default_host().lm("draft", "fp32")


def branching(context: list[int] = CONTEXT) -> Tree:
    """Two first tokens, the second of which goes on in two ways, one of these further."""
    tree = Tree(context, 4)
    first, second = tree.add(0, LAW, [11, 22, 22, 22])
    left, right = tree.add(second, LAW, [33, 44, 44])
    tree.add(right, LAW, [55, 55])
    assert (first, left) == (1, 3)
    return tree


def logits_after(lm: LM, tokens: list[int]) -> np.ndarray:
    logits, _ = lm.forward([tokens])
    assert logits is not None
    return logits[0]


# ---------------------------------------------------------------- trees


def test_tree_merges_equal_drafts_and_knows_its_paths():
    tree = branching()
    assert tree.tokens == [77, 11, 22, 33, 44, 55]
    assert tree.copies == [4, 1, 3, 1, 2, 2]
    assert tree.depths == [0, 1, 1, 2, 2, 3]
    assert tree.path(5) == [0, 2, 4, 5]
    assert tree.after(5) == [22, 44, 55]
    assert tree.after(0) == []
    assert tree.preorder() == [0, 1, 2, 3, 4, 5]
    assert tree.reach[5] == pytest.approx(0.01**3)


@pytest.mark.parametrize("kind", [TreeReader, BatchReader])
def test_a_tree_is_read_as_its_paths_one_by_one(kind, lm):
    tree, start = branching(), TreeReader(lm)
    start.catch_up(CONTEXT)
    order = tree.preorder()
    reader = kind(lm, start.cache)
    for node, logits in zip(order, reader.read(tree, order), strict=True):
        np.testing.assert_allclose(logits, logits_after(lm, CONTEXT + tree.after(node)), atol=1e-4)
    reader.keep(tree, [0, 2, 4])
    following = Tree([*CONTEXT, 22, 44, 66])
    np.testing.assert_allclose(reader.read(following, [0])[0], logits_after(lm, [*CONTEXT, 22, 44, 66]), atol=1e-4)


@pytest.mark.parametrize(("path", "certain"), [([0], []), ([0, 1], [11]), ([0, 2], [22]), ([0, 2, 4, 5], [22, 44, 55])])
def test_a_tree_read_level_by_level_and_what_is_kept_of_it(path, certain, lm):
    tree, reader = branching(), TreeReader(lm)
    for level in ([0], [1, 2], [3, 4]):  # node 5 stays unread, as the last drafts of a draft model do
        for node, logits in zip(level, reader.read(tree, level), strict=True):
            np.testing.assert_allclose(logits, logits_after(lm, CONTEXT + tree.after(node)), atol=1e-4)
    assert reader.calls == 3
    reader.keep(tree, path)
    following = Tree([*CONTEXT, *certain, 66])
    first, second = following.add(0, LAW, [7, 8])
    for node, logits in zip((0, first, second), reader.read(following, [0, first, second]), strict=True):
        np.testing.assert_allclose(logits, logits_after(lm, [*following.context, *following.after(node)]), atol=1e-4)


def test_readers_of_the_same_prompt_do_not_disturb_each_other(lm):
    prompt = TreeReader(lm)
    prompt.catch_up(CONTEXT)
    one, other = prompt.fork(), prompt.fork()
    tree = branching()
    one.read(tree, tree.preorder())
    one.keep(tree, [0, 2, 4])
    chain = Tree(CONTEXT)
    chain.add(0, LAW, [99])
    read = other.read(chain, [0, 1])
    np.testing.assert_allclose(read[1], logits_after(lm, [*CONTEXT, 99]), atol=1e-4)
    longer = Tree([*CONTEXT, 22, 44, 5])
    np.testing.assert_allclose(one.read(longer, [0])[0], logits_after(lm, longer.context), atol=1e-4)


@pytest.mark.parametrize(("leave", "left"), [(0, 0), (1, 1), (3, 3), (5, 6), (10, 6), (100, 6)])
def test_the_end_of_a_prompt_may_be_read_with_the_first_tree(leave, left, lm):
    tree, reader = branching(), TreeReader(lm)
    reader.catch_up(CONTEXT, leave=leave)
    assert reader.behind(CONTEXT) == left
    logits = reader.read(tree, tree.preorder())
    for node, row in zip(tree.preorder(), logits, strict=True):
        np.testing.assert_allclose(row, logits_after(lm, [*CONTEXT, *tree.after(node)]), atol=2e-4)
    reader.keep(tree, [0, 2])
    assert reader.behind([*CONTEXT, 22, 9]) == 0


def test_a_round_without_reading_keeps_everything(lm):
    reader = TreeReader(lm)
    reader.catch_up(CONTEXT)
    tree = Tree(CONTEXT)
    reader.read(tree, [0])
    reader.keep(tree, [0])
    reader.keep(Tree([*CONTEXT, 5]), [0])
    assert reader.cache.width == len(CONTEXT)


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize("draw", [Draw(), Draw(0.7), Draw(1.0, 5), Draw(0.8, 0, 0.9), Draw(0.0)])
def test_shape_gives_what_sampling_draws_from(draw):
    logits = np.random.default_rng(0).standard_normal(200).astype(np.float32) * 3
    law = Shape(draw, 200).distribution(logits)
    ids, probs = draw.distribution(logits)
    np.testing.assert_allclose([law.of(int(token)) for token in ids], probs, rtol=1e-6)
    assert law.probs.sum() == pytest.approx(1)
    assert np.count_nonzero(law.probs) == len(ids)


def test_shape_of_a_few_tokens_follows_sampling_and_processors():
    ids, probs = np.array([3, 5, 9]), np.array([0.5, 0.3, 0.2])
    cold = Shape(Draw(0.5), 10).among(ids, probs, [])
    assert cold is not None
    np.testing.assert_allclose(cold.probs, probs**2 / (probs**2).sum(), rtol=1e-6)
    trie = FollowTrie(TokenTrie([[5, 9], [9]]), [0])
    bound = Shape(Draw(), 10, (trie,))
    law = bound.among(ids, probs, [])
    assert law is not None
    assert law.ids is not None
    assert law.ids.tolist() == [5, 9]
    np.testing.assert_allclose(law.probs, [0.6, 0.4], rtol=1e-6)
    assert bound.among(np.array([3]), np.array([1.0]), [5]) is None


# ---------------------------------------------------------------- drafts


def ask(draft: NgramDraft, context: list[int], shape: Shape | None = None) -> Distribution | None:
    (law,) = draft.laws(Tree(context), [0], shape or Shape(Draw(), 100), [], Call())
    return law


def test_ngrams_interpolate_orders():
    draft = NgramDraft(order=2)
    law = ask(draft, [1, 2, 3, 1, 2, 4, 5, 2, 3, 1, 2])
    assert law is not None
    assert law.ids is not None
    # after 2: 3, 4, 3; after 1 2: 3, 4.  Witten and Bell: half of the mass goes down from two singletons
    assert law.ids.tolist() == [3, 4]
    np.testing.assert_allclose(law.probs, [0.5 * 0.5 + 0.5 * 2 / 3, 0.5 * 0.5 + 0.5 / 3], rtol=1e-6)


def test_ngrams_say_nothing_about_what_they_never_saw():
    assert ask(NgramDraft(), [1, 2, 3]) is None
    assert ask(NgramDraft(least=2), [1, 2, 3, 2]) is None
    assert ask(NgramDraft(least=2), [1, 2, 3, 1, 2]) is not None


def test_ngrams_learn_samples_and_what_becomes_certain():
    draft = NgramDraft(samples=[[7, 8, 9]])
    law = ask(draft.begin([1]), [1, 7])
    assert law is not None
    assert law.of(8) == 1
    prompt = draft.begin([1, 7, 5])
    fork = prompt.fork()
    tree = Tree([1, 7, 5, 7])
    (law,) = fork.laws(tree, [0], Shape(Draw(), 100), [], Call())
    assert law is not None
    assert (law.of(8), law.of(5)) == (0.5, 0.5)
    assert ask(prompt, [1, 7, 5, 6]) is None
    greedy = ask(draft.begin([1]), [1, 7], Shape(Draw(0.0), 100))
    assert greedy is not None
    assert greedy.of(8) == 1


def test_a_model_drafts_what_it_would_say(lm):
    draft = ModelDraft.begin(lm, CONTEXT, Call()).fork()
    tree, shape = branching(), Shape(Draw(), lm.vocab_size)
    for level in ([0], [1, 2]):
        for node, law in zip(level, draft.laws(tree, level, shape, [], Call()), strict=True):
            wanted = shape.distribution(logits_after(lm, CONTEXT + tree.after(node)))
            assert law is not None
            np.testing.assert_allclose(law.probs, wanted.probs, atol=1e-5)
    assert draft.calls == 2


def test_a_model_whose_context_is_full_drafts_nothing(lm):
    draft = ModelDraft.begin(lm, [5] * (lm.context_length + 1), Call())
    tree = Tree([5] * (lm.context_length + 1))
    assert draft.laws(tree, [0], Shape(Draw(), lm.vocab_size), [], Call()) == [None]
    assert draft.calls == 0


def test_a_head_for_the_first_tokens_gives_their_logits(lm):
    head = first_tokens(default_host(), "draft", lm, 500)
    draft = ModelDraft.begin(lm, CONTEXT, Call(), head)
    (law,) = draft.laws(Tree(CONTEXT), [0], Shape(Draw(), lm.vocab_size), [], Call())
    wanted = np.exp(logits_after(lm, CONTEXT)[:500].astype(np.float64))
    assert law is not None
    np.testing.assert_allclose(law.probs, wanted / wanted.sum(), atol=0.01)  # 8 bits
    with pytest.raises(InvalidParams, match="draft_vocab"):
        first_tokens(default_host(), "draft", lm, lm.vocab_size + 1)


def test_a_table_drafts_what_it_knows_and_a_model_the_rest(lm):
    context = [50, 51, 52, 53, 50, 51]
    shape = Shape(Draw(0.0), lm.vocab_size)
    draft = EitherDraft(NgramDraft(4, 2).begin(context), ModelDraft.begin(lm, context, Call()))
    read = draft.calls
    tree = Tree(context)
    (law,) = draft.laws(tree, [0], shape, [], Call())
    assert law is not None
    assert law.token(0.5) == 52
    (deeper,) = draft.laws(tree, tree.add(0, law, [52]), shape, [], Call())
    assert deeper is not None
    assert deeper.token(0.5) == 53
    draft.keep(tree, [0, 1])
    assert draft.calls == read

    context = [*context, 52, 99]
    tree = Tree(context)
    (law,) = draft.laws(tree, [0], shape, [], Call())
    assert law is not None
    assert law.token(0.5) == int(logits_after(lm, context).argmax())
    (deeper,) = draft.laws(tree, tree.add(0, law, [50]), shape, [], Call())
    assert deeper is not None
    assert deeper.token(0.5) == int(logits_after(lm, [*context, 50]).argmax())
    assert draft.calls == read + 2


def test_models_of_different_vocabularies_are_refused(lm):
    class Other:
        name, tokenizer, vocab_size = "other", lm.tokenizer, lm.vocab_size + 1

    same_vocabulary(lm, lm)
    with pytest.raises(Unmet, match="use models of one family"):
        same_vocabulary(lm, Other())


def test_more_layers_than_there_are(lm):
    with pytest.raises(InvalidParams, match="layers"):
        pickaxe.decoder("spectr", model="draft", draft="layers", draft_layers=30).complete("a")
