"""The recipe: branches that share a checkpoint to the bit, utilities and their signs on synthetic sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Call, Item
from pickaxe.artifact import writing
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe.lm.weights import open_checkpoint
from pickaxe.report import explained
from pickaxe_plugins.scaling.domain_upsampling import Params
from pickaxe_plugins.scaling.domain_upsampling import _training as training
from pickaxe_plugins.scaling.domain_upsampling._recipe import Recipe

LETTERS = "abcdefghijklmnopqrstuvwx"
TINY = {"layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "vocab": 260, "context": 16}
SMALL = {"net": TINY, "length": 16, "batch": 4, "total_tokens": 16 * 4 * 20, "warmup": 3, "delta": 0.5}
EVEN = {"base_mix": {"web": 0.9, "domain": 0.1}, "group_share": {"web": 0.5, "domain": 0.5}}


def source(seed: int) -> Callable[[int, np.random.Generator], str]:
    """Texts in which the two letters before decide how likely each next one is."""
    chances = np.random.default_rng(seed).dirichlet(np.full(24, 0.15), (24, 24)).cumsum(-1)

    def text(length: int, rng: np.random.Generator) -> str:
        drawn = [0, 1]
        for chance in rng.random(length):
            drawn.append(min(int(np.searchsorted(chances[drawn[-2], drawn[-1]], chance)), 23))
        return "".join(LETTERS[each] for each in drawn)

    return text


@pytest.fixture(scope="module")
def corpus() -> tuple[list[Item], list[Item]]:
    """Documents of a big and a small source, and held-out texts of both."""
    rng, sources = np.random.default_rng(0), {"web": source(1), "domain": source(2)}
    sizes = {"web": 500, "domain": 100}
    documents = [
        Item(f"{name}-{row}", sources[name](400, rng), {"domain": name}) for name in sizes for row in range(sizes[name])
    ]
    held = [
        Item(f"held-{name}-{row}", sources[name](400, rng), {"benchmark": name}) for name in sizes for row in range(8)
    ]
    return documents, held


def fitted(corpus: tuple[list[Item], list[Item]], seed: int = 0, **params: Any) -> Any:
    documents, held = corpus
    few = [item for row, item in enumerate(documents) if row % 20 == 0] if "net" in params else documents
    return pickaxe.scorer("domain-upsampling", **{**EVEN, **params}).fit(few, validation=held, seed=seed)


def measured(handle: Any) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = handle.score([Item("web")]).summary["measured"]
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_the_domain_gains_much_the_web_loses_little(corpus: tuple[list[Item], list[Item]], seed: int) -> None:
    net = {"layers": 1, "width": 64, "heads": 1, "kv_heads": 1, "vocab": 260, "context": 32}
    handle = pickaxe.scorer(
        "domain-upsampling", **EVEN, net=net, length=32, batch=16, total_tokens=450 * 16 * 32, delta=0.2
    ).fit(corpus[0], validation=corpus[1], seed=seed)
    found = measured(handle)
    base, upsampled, left_out = found["base"], found["upsampled"], found["without domain"]
    assert upsampled["domain"] < base["domain"] - 0.1
    assert upsampled["web"] < base["web"] + 0.15
    assert left_out["domain"] > base["domain"]


def test_scores_are_what_was_measured(corpus: tuple[list[Item], list[Item]]) -> None:
    handle = fitted(corpus, **SMALL, seeds=2)
    items = [Item("domain"), Item("a document", "text", {"domain": "web"}), Item("law")]
    found = handle.score(items)
    values = found.summary["measured"]
    for benchmark in ("web", "domain"):
        wanted = values["without domain"][benchmark] - values["upsampled"][benchmark]
        assert found[f"utility:{benchmark}"][0] == pytest.approx(wanted)
    assert np.isnan(found["utility"][2])
    assert [(flag.index, flag.reason) for flag in found.flags if flag.reason == "unknown-domain"] == [
        (2, "unknown-domain")
    ]
    sigma = np.array(handle.artifact.read_json("measured.json")["sigma"])
    utility = np.array([found[f"utility:{name}"][:2] for name in ("domain", "web")])
    np.testing.assert_allclose(found["utility"][:2], (utility / sigma[:, None]).mean(0))
    weighted = handle.opened.host.open(
        "domain-upsampling", "scorer", {"benchmark_weights": {"web": 2.0}}, handle.artifact.path
    )
    np.testing.assert_allclose(weighted.score(items)["utility"][:2], 2 * found["utility:web"][:2])
    answer, figures = explained(found.summary)
    assert "exceed two standard deviations" in answer[2]
    assert figures[0].series[0].x == tuple(utility[0].tolist())  # domains in the order of their names


def test_one_seed_has_no_spread_and_says_so(corpus: tuple[list[Item], list[Item]]) -> None:
    handle = fitted(corpus, **SMALL)
    found = handle.score([Item("web")])
    assert found["utility"][0] == pytest.approx((found["utility:web"][0] + found["utility:domain"][0]) / 2)
    assert "One seed only" in explained(found.summary)[0][2]
    mixes = handle.artifact.read_json("mixes.json")
    assert mixes["without web"] == {"web": 0.0, "domain": 1.0}
    assert open_checkpoint(handle.artifact.path).architecture.width == 32
    with pytest.raises(InvalidParams, match="is no benchmark; known are domain, web"):
        pickaxe.scorer("domain-upsampling", artifact=handle.artifact.path, benchmark_weights={"law": 1.0}).score(
            [Item("web")]
        )


def test_a_retrained_branch_is_the_reused_one(corpus: tuple[list[Item], list[Item]]) -> None:
    assert measured(fitted(corpus, **SMALL)) == measured(fitted(corpus, **SMALL, branch_from="retrain"))


def test_the_base_mix_as_final_mix_is_the_base_run(corpus: tuple[list[Item], list[Item]]) -> None:
    found = measured(fitted(corpus, **SMALL, group_share={}))
    assert found["upsampled"] == found["base"]
    assert found["without domain"] != found["base"]


def test_a_sweep_measures_other_lengths(corpus: tuple[list[Item], list[Item]]) -> None:
    handle = fitted(corpus, **SMALL, sweep=(0.1, 0.9))
    found = handle.score([Item("web")])
    assert {"upsampled at delta 0.1", "upsampled at delta 0.9"} < set(found.summary["measured"])
    figure = explained(found.summary)[1][1]
    assert figure.series[0].x == (0.0, 0.1, 0.5, 0.9)


def test_branches_start_from_the_same_bytes(corpus: tuple[list[Item], list[Item]], tmp_path: Any) -> None:
    documents, held = corpus
    params = Params(**EVEN, **SMALL)  # type: ignore[arg-type]
    with writing(tmp_path / "art", kind="fit", method="m", method_version=1, params={}) as out:
        recipe = Recipe.of(documents[::20], held, params, out, Call())
        streams, base = recipe._streams(0), recipe.domains.base
        at_switch = finish(training.advance(recipe.settings, recipe._fresh(0), streams, base, 10, 4))
        path = tmp_path / "state.safetensors"
        training.keep(at_switch, path)
        first, second = (training.restore(recipe.settings, 2, path) for _ in range(2))
        finish(training.advance(recipe.settings, first, streams, np.array([0.5, 0.5]), 20, 4))
        for state in (first, second):  # also the one from which a branch was trained meanwhile
            assert state.step == 10
            assert same(state.tree, at_switch.tree)
            np.testing.assert_array_equal(state.credits.credits, at_switch.credits.credits)
        straight = finish(training.advance(recipe.settings, recipe._fresh(0), streams, base, 20, 4))
        parted = finish(training.advance(recipe.settings, second, streams, base, 20, 4))
        assert same(straight.tree, parted.tree)
        nothing = finish(training.advance(recipe.settings, straight, streams, np.array([0.5, 0.5]), 20, 4))
        assert same(straight.tree, nothing.tree)


def finish(running: Any) -> training.State:
    while True:
        try:
            next(running)
        except StopIteration as ended:
            state: training.State = ended.value
            return state


def same(one: Any, other: Any) -> bool:
    import jax

    leaves = [jax.tree_util.tree_leaves(each) for each in (one, other)]
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(*leaves, strict=True))


def test_the_rate_falls_once_whatever_the_mix() -> None:
    for name, end in (("cosine", 0.1), ("linear", 0.1), ("invsqrt", 0.5**0.5 / 10**0.5)):
        settings = training.Settings(None, 100, 1.0, 5, name, 0.0, 1.0)  # type: ignore[arg-type]
        rates = np.array([float(training.rate_at(settings, step)) for step in range(101)])
        assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], rel=1e-5)
        assert (np.diff(rates[5:]) <= 1e-7).all()
        assert rates[-1] == pytest.approx(end, rel=0.02)


def test_questions_with_choices(corpus: tuple[list[Item], list[Item]]) -> None:
    documents, held = corpus
    questions = [
        Item(str(row), "ab", {"benchmark": "quiz", "choices": ("cd", "ef" * 20), "answer": row % 2}) for row in range(4)
    ]
    handle = pickaxe.scorer("domain-upsampling", **EVEN, **SMALL).fit(documents[::20], validation=[*held, *questions])
    found = handle.score([Item("web")])
    assert found.summary["measured"]["base"]["quiz"] == 0.5  # of equal questions, half have the other answer


def document(domain: str, **fields: Any) -> Item:
    return Item("d", "text of it", {"domain": domain, **fields})


HELD = [Item("v", "text", {"benchmark": "b"})]
TWO = [document("a"), document("b")]


@pytest.mark.parametrize(
    ("examples", "validation", "kind", "message"),
    [
        (TWO, None, Unmet, "give validation items"),
        (TWO, [], InvalidItems, "validation: is empty"),
        ([document("a")], HELD, InvalidItems, "fewer than two domains"),
        ([Item("d", "text")], HELD, InvalidItems, r"examples\[0\].fields.domain: is missing"),
        ([document("a", group="x"), document("a", group="y")], HELD, InvalidItems, "was in 'x' before"),
        (TWO, [Item("v", "q", {"choices": ("x",), "answer": 0})], InvalidItems, "two texts or more"),
        (TWO, [Item("v", "q", {"choices": ("x", "y"), "answer": 2})], InvalidItems, "wanted 0 to 1"),
        (TWO, [Item("v", "q", {"choices": ("x", ""), "answer": 0})], InvalidItems, "is empty"),
        (TWO, [*HELD, Item("w", "q", {"benchmark": "b", "choices": ("x", "y"), "answer": 0})], InvalidItems, "mixes"),
        (TWO, [Item("v", "", {"benchmark": "b"})], InvalidItems, "no text at all"),
    ],
)
def test_wrong_fits_are_named(examples: list[Item], validation: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        pickaxe.scorer("domain-upsampling", net=TINY, length=16).fit(examples, validation=validation)


def test_wrong_base_mix() -> None:
    with pytest.raises(InvalidParams, match="must name exactly the domains a, b"):
        pickaxe.scorer("domain-upsampling", net=TINY, length=16, base_mix={"a": 1.0}).fit(TWO, validation=HELD)


def test_sequences_longer_than_the_context() -> None:
    with pytest.raises(InvalidParams, match="more than the network's context"):
        pickaxe.scorer("domain-upsampling", net=TINY, length=17)
