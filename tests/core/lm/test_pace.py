from __future__ import annotations

from collections import Counter

from pickaxe.lm.pace import AGAIN, RECENT, Pace


def run(pace: Pace, seconds: tuple[float, ...], size: int = 1, runs: int = 400) -> Counter[int]:
    """How often each way was taken, when they take so long."""
    taken: Counter[int] = Counter()
    for _ in range(runs):
        way = pace.choose(size)
        taken[way] += 1
        pace.took(size, way, seconds[way])
    return taken


def test_the_faster_way_is_taken_and_the_other_one_tried_now_and_then():
    assert run(Pace(2), (9.0, 6.0))[0] == 2 + 396 // AGAIN
    assert run(Pace(2), (6.0, 9.0))[1] == 2 + 396 // AGAIN
    assert run(Pace(3), (6.0, 9.0, 9.0))[0] > 380


def test_it_notices_when_the_machine_becomes_busy_and_idle_again():
    pace = Pace(2)
    assert run(pace, (9.0, 6.0))[1] > 350
    assert run(pace, (10.0, 15.0), runs=30)[0] > 20
    assert run(pace, (9.0, 6.0))[1] > 250


def test_one_slow_run_changes_nothing():
    pace = Pace(2)
    run(pace, (9.0, 6.0), runs=40)
    pace.took(1, pace.choose(1), 60.0)
    assert pace.choose(1) == 1


def test_a_burst_is_forgotten_after_one_good_run():
    pace = Pace(2)
    run(pace, (9.0, 6.0), runs=40)
    for _ in range(RECENT):
        pace.took(1, 1, 60.0)
    assert pace.choose(1) == 0
    pace.took(1, 1, 6.0)
    assert pace.choose(1) == 1


def test_sizes_learn_apart_and_a_single_way_is_always_taken():
    pace = Pace(2)
    run(pace, (9.0, 6.0), size=1)
    run(pace, (6.0, 9.0), size=64)
    assert pace.choose(1) == 1
    assert pace.choose(100) == 0
    assert run(Pace(1), (5.0,)) == {0: 400}
