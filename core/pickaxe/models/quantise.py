"""Weights in 8 bits: blocks of 32 along the last axis share one half-precision scale, symmetric around zero.

In a safetensors file such a tensor `NAME` is stored as `NAME.q8` (int8, the tensor's shape) and `NAME.scale`
(float16, last axis 32 times shorter); others keep their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pickaxe.errors import InvalidItems
from pickaxe.extras import require

BLOCK = 32


def quantise(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int8 values, float16 scales) of an array whose last axis is a multiple of 32."""
    if array.shape[-1] % BLOCK:
        raise InvalidItems("array", f"last axis is {array.shape[-1]}, not a multiple of {BLOCK}")
    blocks = array.astype(np.float32).reshape(*array.shape[:-1], -1, BLOCK)
    scales = (np.abs(blocks).max(axis=-1) / 127).astype(np.float16)
    # Dividing by the scale as it is stored keeps the rounding error within half a step.
    divisors = np.where(scales > 0, scales, 1).astype(np.float32)[..., None]
    values = np.clip(np.rint(blocks / divisors), -127, 127).astype(np.int8)
    return values.reshape(array.shape), scales


def dequantise(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The float32 array of `quantise`'s result."""
    blocks = values.reshape(*scales.shape, BLOCK).astype(np.float32)
    return (blocks * scales[..., None].astype(np.float32)).reshape(values.shape)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file as float32, quantised ones restored under their plain names."""
    stored: Mapping[str, np.ndarray] = require("safetensors.numpy", extra="cpu").load_file(str(path))
    tensors: dict[str, np.ndarray] = {}
    for name, array in stored.items():
        if name.endswith(".q8"):
            plain = name.removesuffix(".q8")
            tensors[plain] = dequantise(array, stored[plain + ".scale"])
        elif not name.endswith(".scale") or name.removesuffix(".scale") + ".q8" not in stored:
            tensors[name] = array.astype(np.float32)
    return tensors


def write_quantised(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Write matrices in 8 bits and everything else as float16; the reverse of `read_tensors`."""
    stored: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        if array.ndim == 2 and array.shape[-1] % BLOCK == 0:
            stored[name + ".q8"], stored[name + ".scale"] = quantise(array)
        else:
            stored[name] = array.astype(np.float16)
    require("safetensors.numpy", extra="cpu").save_file(stored, str(path))
