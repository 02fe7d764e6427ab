"""MATES against an own derivation: a table of bigrams as the model, every step in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

from pickaxe_plugins.selection.mates import Schedule, _draw, standardised
from pickaxe_plugins.selection.mates._base import counted
from pickaxe_plugins.selection.mates._probe import Prober, State, Step
from pickaxe_plugins.selection.mates._regress import Head
from pickaxe_plugins.train import bert

FILE = understood(golden("62-mates"), "how", "inputs", "expected", "tolerance")
GIVEN = understood(
    FILE["inputs"],
    *("T", "adam_m", "adam_v", "adam_steps_done", "lr", "betas", "weight_decay", "eps", "clip_norm", "candidates"),
    *("candidate_from_reference_process", "reference", "reference_context_length", "selection", "pooling"),
    "wsd_iterations",
)
WANTED = understood(
    FILE["expected"],
    *("reference_loss_before", "reference_loss_after", "gradient_norm_before_clip", "influence_minus_delta"),
    *("label_mean", "label_std_population", "label_z", "selected_as_in_repository", "selected_proper_gumbel_topk"),
    *("selected_no_noise", "pooled", "head_output", "wsd_lr"),
)
TOLERANCE = understood(FILE["tolerance"], "abs", "selection")
SELECTION = understood(GIVEN["selection"], "prediction", "gumbel_noise", "temperature", "k")
POOLING = understood(GIVEN["pooling"], "hidden", "attention_mask", "head_weight", "head_bias")
CANDIDATES = [counted(np.array(ids, np.int32), 1, 1.0) for ids in GIVEN["candidates"]]


def close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE["abs"])


def table(weights: Any, ids: Any, places: Any) -> Any:
    """The logits of what follows a token are a row of T."""
    import jax.numpy as jnp

    return weights["T"][jnp.take_along_axis(ids, places, 1)]


def prober(**changes: Any) -> Prober:
    state = State(
        *({"T": np.array(GIVEN[name])} for name in ("T", "adam_m", "adam_v")),
        count=GIVEN["adam_steps_done"],
    )
    given = {"rate": GIVEN["lr"], "betas": tuple(GIVEN["betas"]), "eps": GIVEN["eps"]}
    given |= {"decay": GIVEN["weight_decay"], "clip": GIVEN["clip_norm"]}
    reference = [
        counted(np.array(ids, np.int32), context, 1.0)
        for ids, context in zip(GIVEN["reference"], GIVEN["reference_context_length"], strict=True)
    ]
    return Prober(table, state, Step(**(given | changes)), reference, precision="float64", together=7)


def test_losses_norms_and_influences() -> None:
    probing = prober()
    losses, norms = probing.after(CANDIDATES)
    close(probing.before(), WANTED["reference_loss_before"])
    close(losses, WANTED["reference_loss_after"])
    close(norms, WANTED["gradient_norm_before_clip"])
    close(probing.before() - losses, WANTED["influence_minus_delta"])
    clipped = norms > GIVEN["clip_norm"]
    assert clipped.any()
    assert not clipped.all()


def test_labels_and_that_the_references_own_process_is_liked() -> None:
    influence = prober().before() - prober().after(CANDIDATES)[0]
    labels, mean, std = standardised(influence, np.arange(len(influence)))
    close(labels, WANTED["label_z"])
    close(WANTED["reference_loss_before"] - mean, WANTED["label_mean"])
    close(std, WANTED["label_std_population"])
    own = np.array(GIVEN["candidate_from_reference_process"])
    assert labels[~own].mean() - labels[own].mean() > 1


@pytest.mark.parametrize(
    ("temperature", "compat", "wanted"),
    [
        (SELECTION["temperature"], True, "selected_as_in_repository"),
        (SELECTION["temperature"], False, "selected_proper_gumbel_topk"),
        (0.0, False, "selected_no_noise"),
    ],
)
def test_selections(temperature: float, compat: bool, wanted: str) -> None:
    assert TOLERANCE["selection"] == "exact"
    noise = np.array(SELECTION["gumbel_noise"])
    keys = _draw.keys(np.array(SELECTION["prediction"]), noise, temperature, compat)
    assert np.flatnonzero(_draw.chosen(keys, SELECTION["k"])).tolist() == WANTED[wanted]


def test_pooling_and_head() -> None:
    lengths = np.array(POOLING["attention_mask"]).sum(1)
    pooled = np.asarray(bert.pooled(np.array(POOLING["hidden"], np.float32), lengths))
    close(pooled, WANTED["pooled"])
    close(Head(np.array(POOLING["head_weight"]), POOLING["head_bias"])(pooled), WANTED["head_output"])


def test_schedule() -> None:
    schedule = Schedule(rate=1e-3, warmup=16_000, stable=400_000, half_life=400)
    close([schedule.at(iteration) for iteration in GIVEN["wsd_iterations"]], WANTED["wsd_lr"])
