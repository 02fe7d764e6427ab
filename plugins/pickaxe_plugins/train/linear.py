"""The one place where networks multiply by a matrix, so that it can be adapted or watched."""

from __future__ import annotations

from typing import Any


def linear(weight: Any, x: Any) -> Any:
    """(…, in) -> (…, out) by a weight (out, in), or by whatever stands in its place: a callable of x.

    Stand-ins are `adapters.LowRank`, a matrix with a trained low-rank change, and what `gradients` watches.
    """
    return weight(x) if callable(weight) else x @ weight.T
