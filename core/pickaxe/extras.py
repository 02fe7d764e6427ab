"""Optional libraries: imported when used, with a sentence on how to install a missing one."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from pickaxe.errors import RuntimeMissing

F = TypeVar("F", bound=Callable[..., Any])


def require(module: str, extra: str) -> ModuleType:
    """Import `module`; raises `RuntimeMissing` naming the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise RuntimeMissing(
            f'this needs the library {module!r}: pip install "pickaxe[{extra}]"',
            metadata={"module": module, "extra": extra},
        ) from error


def loop_compiler(extra: str) -> Callable[[F], F]:
    """A decorator for loops over arrays: compiled by numba on first use, kept on disk, run without the lock."""
    made: Callable[[F], F] = require("numba", extra).njit(cache=True, nogil=True, boundscheck=False)
    return made
