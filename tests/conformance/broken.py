"""Where methods with one fault each are entered, under the check that must find it."""

from collections.abc import Callable
from typing import Any, TypeVar

from pickaxe import Method

BROKEN: dict[str, list[type[Method[Any]]]] = {}
ALSO: dict[type[Method[Any]], set[str]] = {}
"""Further checks that the same fault cannot but fail."""

K = TypeVar("K", bound=type[Method[Any]])


def fails(check: str, *also: str) -> Callable[[K], K]:
    def enter(kind: K) -> K:
        BROKEN.setdefault(check, []).append(kind)
        ALSO[kind] = set(also)
        return kind

    return enter
