"""Which stretches of a list are ranked, in which order, and what a full order takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pickaxe.errors import InvalidParams

RankWindow = Callable[[Sequence[int]], Sequence[int]]
"""Orders the items of one window, best first: items in, the same items out."""


def schedule(n: int, window: int, step: int) -> list[tuple[int, int]]:
    """The windows [start, end) of one pass over n items, from the back to the front.

    The first window is the last `window` items; each next lies `step` further ahead; the pass ends with the
    window that reaches the front.
    """
    check(window, step)
    end, start = n, n - min(window, n)
    windows = []
    while end > 0 and start + step != 0:
        start = max(start, 0)
        windows.append((start, end))
        end, start = end - step, start - step
    return windows


def one_pass(order: Sequence[int], rank_window: RankWindow, window: int, step: int) -> list[int]:
    """The order after one sliding pass: it fixes the first `window - step` places, no more."""
    current = list(order)
    for start, end in schedule(len(current), window, step):
        current[start:end] = rank_window(current[start:end])
    return current


def complete_order(rank_window: RankWindow, n: int, window: int = 20, step: int = 10) -> tuple[list[int], int]:
    """The full order of items 0 … n - 1, and the number of passes it took.

    A pass fixes the first `window - step` items; they are taken off and the rest, in the order the pass left it, is
    passed over again, until one window holds it.  Passes: ceil((n - window) / (window - step)) + 1 for n > window.
    Raises `InvalidParams` unless 1 <= step < window.
    """
    check(window, step)
    if step == window:
        raise InvalidParams("step", f"is {step} like the window: a pass would fix nothing, so lower step")
    rest, done, passes = list(range(n)), [], 0
    while rest:
        passes += 1
        rest = one_pass(rest, rank_window, window, step)
        fixed = len(rest) if len(rest) <= window else window - step
        done += rest[:fixed]
        rest = rest[fixed:]
    return done, passes


def check(window: int, step: int) -> None:
    """Raise `InvalidParams` unless 1 <= step <= window."""
    if not 1 <= step <= window:
        raise InvalidParams("step", f"must be from 1 to the window {window} (got {step})")
