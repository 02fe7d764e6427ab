"""Sharing loops out over the cores."""

import threading

import pytest

from pickaxe import threads
from pickaxe.threads import shared_out


@pytest.mark.parametrize(("count", "least", "parts"), [(0, 1, 1), (1, 1, 1), (9, 4, 2), (9, 10, 1), (10, 1, 3)])
def test_parts_cover_everything_once(count: int, least: int, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 3)
    done: list[tuple[int, int]] = []
    shared_out(lambda start, end: done.append((start, end)), count, least)
    assert len(done) == parts
    assert [row for start, end in sorted(done) for row in range(start, end)] == list(range(count))


def test_what_a_part_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 3)
    caller = threading.get_ident()

    def work(start: int, end: int) -> None:
        if threading.get_ident() != caller:
            raise ValueError("of a part")

    with pytest.raises(ValueError, match="of a part"):
        shared_out(work, 9)
