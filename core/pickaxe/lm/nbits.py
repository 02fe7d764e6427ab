"""Block quantisation of weight matrices in the layout of ONNX Runtime's `MatMulNBits`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 32


@dataclass(frozen=True)
class Quantised:
    """A matrix (N, K) as integers: weight = (packed - zero) * scale, one scale per row and `BLOCK` columns.

    `packed` is uint8 (N, K / BLOCK, BLOCK * bits / 8), `scales` float32 (N, K / BLOCK), `zeros` packed uint8
    (N, ceil(K / BLOCK * bits / 8)), or None for the middle of the range.
    """

    bits: int
    packed: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None


def quantise(matrix: np.ndarray, bits: int) -> Quantised:
    """Round a float32 matrix (out, in) to 4 bits (asymmetric) or 8 bits (symmetric) per weight."""
    rows, columns = matrix.shape
    blocks = -(-columns // BLOCK)
    padded = np.zeros((rows, blocks * BLOCK), np.float32)
    padded[:, :columns] = matrix
    values = padded.reshape(rows, blocks, BLOCK)
    if bits == 8:
        scales = np.maximum(np.abs(values).max(axis=2), 1e-30) / 127.0
        whole = np.rint(values / scales[..., None]).astype(np.int16) + 128
        return Quantised(8, whole.astype(np.uint8), scales.astype(np.float32), None)
    scales, zeros = _fit(values)
    whole = np.clip(np.rint(values / scales[..., None]) + zeros[..., None], 0, 15).astype(np.uint8)
    return Quantised(4, _nibbles(whole), scales, _nibbles(np.pad(zeros, ((0, 0), (0, blocks % 2)))))


def dequantise(stored: Quantised, columns: int) -> np.ndarray:
    """The float32 matrix (out, `columns`) that `stored` stands for."""
    rows, blocks = stored.scales.shape
    if stored.bits == 8:
        whole = stored.packed.astype(np.float32) - 128
    else:
        whole = _unpack(stored.packed).astype(np.float32)
        assert stored.zeros is not None
        whole -= _unpack(stored.zeros)[:, :blocks, None]
    return (whole * stored.scales[..., None]).reshape(rows, -1)[:, :columns]


def _fit(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of each block (last axis) with the least squared error of a few candidates."""
    low = np.minimum(values.min(axis=2), 0)
    high = np.maximum(values.max(axis=2), 0)
    best = np.full(low.shape, np.inf, np.float32)
    scales = np.ones(low.shape, np.float32)
    zeros = np.zeros(low.shape, np.uint8)
    for shrink in (1.0, 0.96, 0.92, 0.88, 0.84):
        scale = np.maximum((high - low) * shrink / 15.0, 1e-30)
        middle = np.rint(-low * shrink / scale)
        for shift in (-1, 0, 1):
            zero = np.clip(middle + shift, 0, 15)
            whole = np.clip(np.rint(values / scale[..., None]) + zero[..., None], 0, 15)
            error = (((whole - zero[..., None]) * scale[..., None] - values) ** 2).sum(axis=2)
            better = error < best
            best = np.where(better, error, best)
            scales = np.where(better, scale, scales)
            zeros = np.where(better, zero, zeros).astype(np.uint8)
    return scales.astype(np.float32), zeros


def _nibbles(whole: np.ndarray) -> np.ndarray:
    """Pairs of 4-bit numbers along the last axis as bytes, the first in the low half."""
    return (whole[..., 0::2] | (whole[..., 1::2] << 4)).astype(np.uint8)


def _unpack(packed: np.ndarray) -> np.ndarray:
    pairs = np.stack([packed & 15, packed >> 4], axis=-1)
    return pairs.reshape(*packed.shape[:-1], -1)
