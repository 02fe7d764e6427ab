"""Inverse curvature of linear layers by Kronecker factors in their eigenbasis: EK-FAC (arXiv:1806.03884).

A layer's Fisher matrix is taken as A (x) S with A the mean over examples of the sum over tokens of a a^T, and S that of
s s^T.  In the eigenbasis of both, its diagonal is measured: Lambda, the mean of the squares of the rotated gradients.
Layers are independent of each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pickaxe.errors import InvalidItems
from pickaxe_plugins.train.gradients import Signals


@dataclass(frozen=True, slots=True)
class Basis:
    """One layer: eigenvectors (in the columns) and values of A and of S, and Lambda (out, in)."""

    inputs: np.ndarray
    input_values: np.ndarray
    slopes: np.ndarray
    slope_values: np.ndarray
    diagonal: np.ndarray

    def rotate(self, matrices: np.ndarray) -> np.ndarray:
        """(…, out, in) into the basis, in their precision."""
        kind = matrices.dtype
        rotated: np.ndarray = self.slopes.T.astype(kind) @ matrices @ self.inputs.astype(kind)
        return rotated

    def rotate_back(self, matrices: np.ndarray) -> np.ndarray:
        """(…, out, in) out of the basis."""
        kind = matrices.dtype
        rotated: np.ndarray = self.slopes.astype(kind) @ matrices @ self.inputs.T.astype(kind)
        return rotated

    def inverse(self, matrices: np.ndarray, damping: float) -> np.ndarray:
        """H^-1 V with H = the layer's curvature + damping, for V (…, out, in)."""
        return self.rotate_back(self.rotate(matrices) / (self.diagonal + damping).astype(matrices.dtype))


@dataclass(slots=True)
class Covariances:
    """First pass over examples: A and S of each layer, summed in float64."""

    sums: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    count: int = 0

    def add(self, passed: Signals, used: np.ndarray | None = None) -> None:
        """Count a batch; `used` (B, T) says which tokens are no padding (all by default)."""
        for name, signal in passed.items():
            inputs, slopes = (np.asarray(part) for part in signal)
            if used is not None:
                inputs, slopes = inputs[used], slopes[used]
            pair = tuple(_squared(part.reshape(-1, part.shape[-1])) for part in (inputs, slopes))
            before = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (before[0] + pair[0], before[1] + pair[1])
        self.count += len(next(iter(passed.values())).inputs)

    def bases(self) -> dict[str, Basis]:
        """The eigenbases, with plain K-FAC's Lambda, the outer product of the eigenvalues; `Diagonals` measures it."""
        found = {}
        for name, (inputs, slopes) in self.sums.items():
            if not (np.isfinite(inputs).all() and np.isfinite(slopes).all()):
                raise InvalidItems("text", f"the gradients of {name} are not finite: is the model sound?")
            input_values, input_basis = np.linalg.eigh(inputs / self.count)
            slope_values, slope_basis = np.linalg.eigh(slopes / self.count)
            values = np.maximum(input_values, 0), np.maximum(slope_values, 0)
            found[name] = Basis(input_basis, values[0], slope_basis, values[1], np.outer(values[1], values[0]))
        return found


class Diagonals:
    """Second pass: Lambda of each layer, the mean over examples of the squares of (Qs^T G Qa)."""

    def __init__(self, bases: Mapping[str, Basis]) -> None:
        self._bases = bases
        self._sums = {name: np.zeros_like(basis.diagonal) for name, basis in bases.items()}
        self._count = 0

    def add(self, passed: Signals) -> None:
        """Count a batch."""
        for name, signal in passed.items():
            self._sums[name] += np.square(rotated_gradients(self._bases[name], *signal)).sum(0, dtype=np.float64)
        self._count += len(next(iter(passed.values())).inputs)

    def bases(self) -> dict[str, Basis]:
        """The bases with the measured diagonal."""
        return {
            name: Basis(b.inputs, b.input_values, b.slopes, b.slope_values, self._sums[name] / self._count)
            for name, b in self._bases.items()
        }


def rotated_gradients(basis: Basis, inputs: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Qs^T G Qa (B, out, in) of every example, from its tokens, in their precision."""
    kind = np.asarray(inputs).dtype
    slopes, inputs = np.asarray(slopes) @ basis.slopes.astype(kind), np.asarray(inputs) @ basis.inputs.astype(kind)
    return slopes.swapaxes(1, 2) @ inputs


def directions(matrices: Mapping[str, np.ndarray], bases: Mapping[str, Basis], damping: float) -> dict[str, np.ndarray]:
    """H^-1 G of gradients (n, out, in), each over all layers of length 1; of a gradient of 0 it is 0."""
    solved = {name: bases[name].inverse(array, damping) for name, array in matrices.items()}
    lengths = np.sqrt(sum(np.square(array).sum((1, 2), dtype=np.float64) for array in solved.values()))
    shares = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return {name: array * shares[:, None, None] for name, array in solved.items()}


def _squared(rows: np.ndarray) -> np.ndarray:
    return (rows.T @ rows).astype(np.float64)
