"""The ONNX Runtime library of this environment: which build, which devices, what its operators take."""

from __future__ import annotations

import os
import warnings
from importlib import metadata
from types import ModuleType

import numpy as np

from pickaxe.errors import InvalidParams, RuntimeMissing
from pickaxe.extras import require


def import_onnxruntime() -> ModuleType:
    """The library; raises `RuntimeMissing` without it, and warns of two builds in one place.

    From 1.32 on its wheels report their use to their maker's servers unless told not to before they are loaded.
    Nothing here does such things in passing, so they are told, unless `ORT_DISABLE_TELEMETRY` is set otherwise.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    module = require("onnxruntime", extra="cpu")
    remedy = 'uninstall "onnxruntime" and "onnxruntime-gpu", then install either "pickaxe[cpu]" or "pickaxe[gpu]"'
    if not hasattr(module, "InferenceSession"):
        raise RuntimeMissing(f"the onnxruntime package is incomplete: {remedy}", metadata={"module": "onnxruntime"})
    if all(_installed(name) for name in ("onnxruntime", "onnxruntime-gpu")):
        warnings.warn(
            f"onnxruntime and onnxruntime-gpu are both installed and overwrite each other: {remedy}",
            RuntimeWarning,
            stacklevel=3,
        )
    module.set_default_logger_severity(3)  # else a graph on a GPU warns of each of its nodes that writes in place
    return module


def _installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_device(runtime: ModuleType, device: str) -> int | None:
    """The number of the GPU to use, None for the CPU."""
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and (kind != "cuda" or not number.isdecimal())):
        raise InvalidParams("device", f"is {device!r}; use auto, cpu, cuda or cuda:N")
    if kind == "cpu":
        return None
    problem = _cuda_problem(runtime, int(number or 0))
    if problem is None:
        return int(number or 0)
    if kind == "cuda":
        raise no_cuda(problem)
    return None


def _cuda_problem(runtime: ModuleType, index: int) -> str | None:
    """Why this GPU cannot be used; None when it can.  A listed provider may still lack its libraries."""
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        return "this build of onnxruntime has no CUDA provider"
    if hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()
    try:
        runtime.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", index)
    except RuntimeError as error:
        return str(error)
    return None


def no_cuda(problem: str) -> RuntimeMissing:
    return RuntimeMissing(
        f'no CUDA device: {problem}; use the device cpu, or install "pickaxe[gpu]" without "onnxruntime"',
        metadata={"extra": "gpu"},
    )


def operator_takes(operator: str, argument: str) -> bool:
    """Whether this build's version of an operator has an input of that name."""
    state = require("onnxruntime.capi.onnxruntime_pybind11_state", extra="cpu")
    return any(
        schema.name == operator and any(entry.name == argument for entry in schema.inputs)
        for schema in state.get_all_operator_schema()
    )
