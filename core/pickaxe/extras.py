"""Optional libraries: imported when used, with a sentence on how to install a missing one."""

from __future__ import annotations

import importlib
from types import ModuleType

from pickaxe.errors import RuntimeMissing


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
