"""wrap's fit: shards in the order of the mix, their manifest, and small models trained on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Artifact, Item, Progress
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe_plugins.generation.wrap import mixed

REAL = [Item(f"r{row}", " ".join(["noise"] * (3 + row % 5)), {"origin": "real", "url": f"u{row}"}) for row in range(12)]
SYNTHETIC = [
    Item(
        f"s{row}", " ".join(["clean"] * (2 + row % 4)), {"origin": "synthetic", "style": "medium" if row < 8 else "qa"}
    )
    for row in range(16)
]
HELD_OUT = [Item("v0", "clean noise", {"domain": "a"}), Item("v1", "noise " * 40)]
TINY = {
    "counter": "words",
    "train": True,
    "net": {"layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "vocab": 270, "context": 16},
    "recipe": {"epochs": 1, "batch": 4, "warmup": 1, "rate": 1e-2},
}


def fitted(examples: Sequence[Item] = (*REAL, *SYNTHETIC), seed: int = 0, **params: Any) -> Artifact:
    artifact = pickaxe.decoder("wrap", **{"counter": "words", **params}).fit(examples, seed=seed).artifact
    assert artifact is not None
    KEPT.append(artifact)
    return artifact


KEPT: list[Artifact] = []
"""A temporary artifact lives as long as something holds it."""


def rows(artifact: Artifact) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for shard in artifact.read_json("mix.json")["shards"]
        for line in artifact.file(shard["file"]).read_text(encoding="utf-8").splitlines()
    ]


def test_shards_hold_the_mix_in_its_order() -> None:
    artifact = fitted(shard_tokens=20, styles=["medium"])
    one_style = [Item(each.id, each.text, {"origin": "synthetic"}) for each in SYNTHETIC]
    plain = fitted([*REAL, *one_style])
    lengths = [[len((each.text or "").split()) for each in side] for side in (REAL, one_style)]
    expected = [(REAL if side == "real" else one_style)[place].id for side, place in mixed(*lengths)]
    assert [row["id"] for row in rows(plain)] == expected
    manifest, written = artifact.read_json("mix.json"), rows(artifact)
    assert len(manifest["shards"]) > 3
    assert all(shard["tokens"] < 20 + 7 for shard in manifest["shards"])
    assert sum(shard["documents"] for shard in manifest["shards"]) == manifest["documents"] == len(written)
    assert manifest["tokens"] == sum(row["tokens"] for row in written)
    assert manifest["real_tokens"] + manifest["synthetic_tokens"] == manifest["tokens"]
    assert abs(manifest["real_tokens"] - manifest["synthetic_tokens"]) <= 7
    order = artifact.read_array("order.npy")
    named = [(SYNTHETIC if synthetic else REAL)[place].id for synthetic, place in order]
    assert [row["id"] for row in written] == named


def test_rows_are_items_with_their_fields() -> None:
    row = next(row for row in rows(fitted()) if row["id"] == "r1")
    assert row == {"id": "r1", "text": REAL[1].text, "fields": {"origin": "real", "url": "u1"}, "tokens": 4}


def test_the_order_of_fields_makes_no_difference() -> None:
    turned = [Item(each.id, each.text, dict(reversed(each.fields.items()))) for each in (*REAL, *SYNTHETIC)]
    assert fitted(turned).manifest["files"] == fitted().manifest["files"]


def test_styles_are_mixed_evenly_or_by_weight() -> None:
    even = fitted().read_json("mix.json")["styles"]
    assert abs(even["medium"] - even["qa"]) <= 5
    heavy = fitted(styles=[{"name": "medium", "weight": 4}, "qa"], mix_tokens=60).read_json("mix.json")["styles"]
    assert heavy["medium"] > 2 * heavy["qa"]


def test_what_is_not_kept_never_reaches_the_mix() -> None:
    bad = [Item("bad", "never to be seen", {"origin": origin, "keep": False}) for origin in ("real", "synthetic")]
    blank = Item("blank", "", {"origin": "synthetic", "keep": False})
    kept = Item("kept", "to be seen", {"origin": "synthetic", "keep": True})
    artifact = fitted([*bad, blank, *REAL, kept, *SYNTHETIC])
    assert {"bad", "blank"}.isdisjoint(row["id"] for row in rows(artifact))
    assert "kept" in {row["id"] for row in rows(artifact)}
    assert artifact.read_json("mix.json")["left_out"] == {"real": 1, "synthetic": 2}


def test_ratio_epochs_and_the_end() -> None:
    thrice = fitted(ratio=[3, 1]).read_json("mix.json")
    assert thrice["real_tokens"] == pytest.approx(3 * thrice["synthetic_tokens"], abs=8)
    short = fitted(mix_tokens=20).read_json("mix.json")
    assert 20 - 7 < short["tokens"] <= 20
    once, often = (fitted(epochs=epochs).read_json("mix.json")["tokens"] for epochs in (1, 3))
    assert often > 2.5 * once


def test_shuffling_goes_by_the_seed() -> None:
    def ids(**given: Any) -> list[str]:
        return [row["id"] for row in rows(fitted(**given))]

    assert ids(shuffle=True, seed=1) == ids(shuffle=True, seed=1)
    assert ids(shuffle=True, seed=1) != ids(shuffle=True, seed=2) != ids()
    assert ids(seed=1) == ids(seed=2)
    epochs = ids(shuffle=True, epochs=2)
    real = [each for each in epochs if each.startswith("r")]
    assert sorted(real[:12]) == sorted(each.id for each in REAL)
    assert real[12:] != real[: len(real) - 12]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (Item("x", "text"), r"examples\[28\].fields.origin.*None \(item 'x'\)"),
        (Item("x", "text", {"origin": "web"}), "'web' .item 'x'.: it must be real or synthetic"),
        (Item("x", " ", {"origin": "real"}), r"examples\[28\].text.*empty \(item 'x'\).*keep = false"),
    ],
)
def test_examples_that_cannot_be_mixed_are_named(extra: Item, message: str) -> None:
    with pytest.raises(InvalidItems, match=message):
        fitted([*REAL, *SYNTHETIC, extra])


def test_both_sides_are_needed() -> None:
    with pytest.raises(InvalidItems, match="no synthetic document"):
        fitted(REAL)
    with pytest.raises(InvalidParams, match="mix_tokens"):
        fitted(mix_tokens=2)


# ---------------------------------------------------------------- small models


def test_three_models_are_compared_at_equal_tokens(tmp_path: Path) -> None:
    steps: list[Progress] = []
    decoder = pickaxe.decoder("wrap", train_tokens=200, **TINY)
    handle = decoder.fit([*REAL, *SYNTHETIC], validation=HELD_OUT, out=tmp_path / "art", progress=steps.append)
    assert handle.artifact is not None
    report = handle.artifact.read_json("training.json")
    assert report["tokens"] == 200
    assert set(report["perplexity"]) == {"real", "synthetic", "mixed"}
    for found in report["perplexity"].values():
        assert set(found) == {"a", "other", "all"}
        assert min(found["a"], found["other"]) <= found["all"] <= max(found["a"], found["other"])
    trained = {kind: sum(step.stage == kind for step in steps) for kind in report["perplexity"]}
    assert set(trained.values()) == {3}
    lm = pickaxe.Host().lm_at(handle.artifact.path, "fp32")
    ids = [lm.tokenizer.eos_ids[0], *lm.tokenizer.encode("clean noise"), lm.tokenizer.eos_ids[0]]
    (logprobs,) = lm.token_logprobs([ids])
    assert np.exp(-logprobs.mean()) == pytest.approx(report["perplexity"]["mixed"]["a"], rel=1e-3)


def test_training_needs_validation() -> None:
    decoder = pickaxe.decoder("wrap", **TINY)
    with pytest.raises(InvalidItems, match="validation: is missing"):
        decoder.fit([*REAL, *SYNTHETIC])
    with pytest.raises(InvalidItems, match="validation: is empty"):
        decoder.fit([*REAL, *SYNTHETIC], validation=[])
    with pytest.raises(InvalidItems, match=r"validation\[0\].text: is empty \(item 'v'\)"):
        decoder.fit([*REAL, *SYNTHETIC], validation=[Item("v", " ")])
