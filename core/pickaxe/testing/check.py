"""What a check is, and the list that check functions enter themselves into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pickaxe.testing.subject import Subject


@dataclass(frozen=True)
class Check:
    """One check of one method.  `run()` returns when the method passes and raises when it does not."""

    id: str
    run: Callable[[], None] = field(repr=False)
    doc: str = ""
    """What the check asks for, in a sentence."""


class Failed(AssertionError):
    """A method does not do what a check asks for; the message says what was seen."""


@dataclass(frozen=True)
class Spec:
    """A check function: which methods it is for and whether it also makes sense over the wire."""

    id: str
    function: Callable[[Subject], None]
    applies: Callable[[Subject], bool]
    wire: bool

    @property
    def doc(self) -> str:
        return (self.function.__doc__ or "").strip().split("\n", 1)[0]


SPECS: list[Spec] = []

F = TypeVar("F", bound="Callable[[Subject], None]")


def always(_: Subject) -> bool:
    return True


def check(applies: Callable[[Subject], bool] = always, *, wire: bool = False) -> Callable[[F], F]:
    """Enter a function into the kit under `<module>.<function>`."""

    def enter(function: F) -> F:
        home = function.__module__.rpartition(".")[2]
        SPECS.append(Spec(f"{home}.{function.__name__}", function, applies, wire))
        return function

    return enter


def require(condition: object, message: str) -> None:
    """Fail the check with `message` unless the condition holds."""
    if not condition:
        raise Failed(message)
