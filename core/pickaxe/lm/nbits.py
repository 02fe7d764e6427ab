"""Block quantisation of weight matrices in the layout of ONNX Runtime's `MatMulNBits`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 32
_LEAST = 1e-30
"""Scale of a block of zeros."""


@dataclass(frozen=True)
class Quantised:
    """A matrix (N, K) as integers: weight = (packed - zero) * scale, one scale per row and `BLOCK` columns.

    K is a multiple of `BLOCK`.  `packed` is uint8 (N, K / BLOCK, BLOCK * bits / 8), `scales` float32
    (N, K / BLOCK); `zeros` is packed uint8 (N, ceil(K / BLOCK / 2)) with 4 bits, and None, for the middle of
    the range, with 8.
    """

    bits: int
    packed: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None


def quantise8(matrix: np.ndarray) -> Quantised:
    """Round a float32 matrix (out, in) to 8 bits per weight, symmetric around zero."""
    values = _blocks(matrix)
    scales = np.maximum(np.abs(values).max(axis=2), _LEAST) / 127.0
    whole = np.rint(values / scales[..., None]).astype(np.int16) + 128
    return Quantised(8, whole.astype(np.uint8), scales.astype(np.float32), None)


def quantise4(matrix: np.ndarray) -> Quantised:
    """Round a float32 matrix (out, in) to 4 bits per weight with a free offset per block, as GGUF's Q4_1 has it.

    `MatMulNBits` knows whole zero points only.  What they leave of the offsets stands in further columns, one
    per block, to be multiplied with the sums of the input's blocks (`block_sums`).  A matrix that was stored
    as Q4_1 so comes through almost unchanged; rounding it to whole zero points costs as much again as the
    first rounding did.
    """
    values = _blocks(matrix)
    low, high = values.min(axis=2), values.max(axis=2)
    scales, zeros = _steps(low, high)
    whole = np.clip(np.rint((values - low[..., None]) / scales[..., None]), 0, 15)
    rest = _blocks(low + zeros * scales)
    floor, ceiling = np.minimum(rest.min(axis=2), 0), np.maximum(rest.max(axis=2), 0)
    rest_scales, rest_zeros = _steps(floor, ceiling)
    rest_whole = np.clip(np.rint(rest / rest_scales[..., None]) + rest_zeros[..., None], 0, 15)
    every_zero = np.concatenate([zeros, rest_zeros], axis=1)
    return Quantised(
        4,
        _nibbles(np.concatenate([whole, rest_whole], axis=1)),
        np.concatenate([scales, rest_scales], axis=1).astype(np.float32),
        _nibbles(np.pad(every_zero, ((0, 0), (0, every_zero.shape[1] % 2)))),
    )


def block_sums(columns: int) -> np.ndarray:
    """float32 (columns, k): inputs times this are the sums of their blocks, then zeros to fill a block."""
    blocks = columns // BLOCK
    sums = np.zeros((columns, blocks + -blocks % BLOCK), np.float32)
    sums[np.arange(columns), np.arange(columns) // BLOCK] = 1
    return sums


def dequantise(stored: Quantised, columns: int) -> np.ndarray:
    """The float32 matrix (out, `columns`) that `stored` stands for."""
    rows, blocks = stored.scales.shape
    if stored.zeros is None:
        whole = stored.packed.astype(np.float32) - 128
        return (whole * stored.scales[..., None]).reshape(rows, columns)
    whole = _unpack(stored.packed).astype(np.float32) - _unpack(stored.zeros)[:, :blocks, None]
    weights = (whole * stored.scales[..., None]).reshape(rows, -1)
    return weights[:, :columns] + weights[:, columns:] @ block_sums(columns).T


def _blocks(matrix: np.ndarray) -> np.ndarray:
    """(rows, blocks, BLOCK), the last block filled up with zeros."""
    rows, columns = matrix.shape
    padded = np.pad(matrix, ((0, 0), (0, -columns % BLOCK))).astype(np.float32, copy=False)
    return padded.reshape(rows, -1, BLOCK)


def _steps(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Step from one of 16 levels to the next, and the level nearest to zero."""
    scales = np.maximum((high - low) / 15.0, _LEAST)
    return scales, np.clip(np.rint(-low / scales), 0, 15)


def _nibbles(whole: np.ndarray) -> np.ndarray:
    """Pairs of 4-bit numbers along the last axis as bytes, the first in the low half."""
    small = whole.astype(np.uint8)
    return small[..., 0::2] | (small[..., 1::2] << 4)


def _unpack(packed: np.ndarray) -> np.ndarray:
    pairs = np.stack([packed & 15, packed >> 4], axis=-1)
    return pairs.reshape(*packed.shape[:-1], -1)
