"""The training loss: both models' cross-entropy with a z term, and the distance of predicted keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

import pickaxe
from pickaxe.extras import require

IGNORED = -1
"""The target of a position that counts in no term."""


class Loss(pickaxe.Params):
    """Shares of the loss."""

    base: float = Field(
        default=1.0, ge=0, description="Share of the base's cross-entropy on predicted keys and values."
    )
    aux: float = Field(default=1.0, ge=0, description="Share of the auxiliary model's own cross-entropy.")
    kv: float = Field(default=1.0, ge=0, description="Share of the distances, summed over layers.")
    z: float = Field(default=1e-4, ge=0, description="Share of the mean squared log-sum-exp in both cross-entropies.")
    mode: Literal["default", "official"] = Field(
        default="default",
        description="official: ignored positions add ln(vocabulary)^2 to the z term, as in the authors' code.",
    )


def losses(
    base_logits: Any,
    aux_logits: Any,
    targets: Any,
    predicted: Sequence[tuple[Any, Any]],
    true: Sequence[tuple[Any, Any]],
    loss: Loss,
    ignored: int = IGNORED,
) -> dict[str, Any]:
    """Every term and `total_loss`, as JAX scalars.

    Logits (B, T, vocab); targets (B, T), where `ignored` leaves the position out of every term; keys and values
    (B, T, heads, head_size) by layer, keys after the base's key norm and before rotary.  `base_loss` and
    `aux_loss` are without the z terms; `k_loss/i` and `v_loss/i` are means over the elements of layer i.
    """
    jnp = require("jax.numpy", extra="train")
    kept = targets != ignored
    count = kept.sum()
    told: dict[str, Any] = {}
    for name, logits in (("base", base_logits), ("aux", aux_logits)):
        told[f"{name}_loss"], squares = entropy(logits, targets, ignored)
        if loss.mode == "official":
            squares = squares + (kept.size - count) * jnp.log(logits.shape[-1]) ** 2
        told[f"z_loss_{name}"] = loss.z * squares / count
    for place, name in enumerate(("k_loss", "v_loss")):
        gaps = [jnp.abs(guess[place] - truth[place]) for guess, truth in zip(predicted, true, strict=True)]
        means = [jnp.where(kept[..., None, None], gap, 0).sum() / (count * gap[0, 0].size) for gap in gaps]
        told |= {f"{name}/{layer}": mean for layer, mean in enumerate(means)}
        told[f"{name}/total"] = jnp.stack(means).sum()
        told[f"{name}/average"] = told[f"{name}/total"] / len(means)
    told["total_loss"] = (
        loss.base * (told["base_loss"] + told["z_loss_base"])
        + loss.aux * (told["aux_loss"] + told["z_loss_aux"])
        + loss.kv * (told["k_loss/total"] + told["v_loss/total"])
    )
    return told


def entropy(logits: Any, targets: Any, ignored: int = IGNORED) -> tuple[Any, Any]:
    """Mean cross-entropy over the positions that count, and the sum of their squared log-sum-exp."""
    jax = require("jax", extra="train")
    jnp = jax.numpy
    kept = targets != ignored
    total = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, jnp.where(kept, targets, 0)[..., None], -1)[..., 0]
    return jnp.where(kept, total - chosen, 0).sum() / kept.sum(), jnp.where(kept, total**2, 0).sum()
