"""What a method keeps for a tenant: whole records, capped, apart."""

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pickaxe.errors import DoesNotFit, Unmet
from pickaxe.host import Host
from pickaxe.state import State

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.text(max_size=5, alphabet="ab\u2028\n")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(JSON, max_size=5))
def test_records_come_back_in_order(tmp_path: Path, records: list[object]) -> None:
    state = State(tmp_path, "m", "t")
    state.clear()
    for record in records:
        state.append("log", record)
    assert state.read("log") == records


def test_tenants_methods_and_logs_are_apart(tmp_path: Path) -> None:
    one, two = State(tmp_path, "m", "one"), State(tmp_path, "m", "two")
    one.append("log", 1)
    one.append("other", 2)
    assert (two.read("log"), State(tmp_path, "n", "one").read("log"), State(tmp_path, "m", "").read("log")) == (
        [],
        [],
        [],
    )
    two.append("log", 3)
    one.clear("log")
    assert (one.read("log"), one.read("other"), two.read("log")) == ([], [2], [3])
    one.clear()
    assert one.read("other") == []
    one.clear("log")


@pytest.mark.parametrize("tenant", ["../..", "/etc", "a/b", "\x00", "é" * 500])
def test_a_tenant_cannot_leave_its_folder(tmp_path: Path, tenant: str) -> None:
    State(tmp_path, "m", tenant).append("log", 1)
    assert all(tmp_path / "m" in path.parents or path == tmp_path / "m" for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("log", ["../x", "a/b", "", ".", "a.b", "-", "x\n"])
def test_log_names_are_plain(tmp_path: Path, log: str) -> None:
    with pytest.raises(ValueError, match="log names"):
        State(tmp_path, "m", "").append(log, 1)


def test_the_cap_holds_over_all_logs(tmp_path: Path) -> None:
    state = State(tmp_path, "m", "", cap=20)
    state.append("a", "12345678")
    with pytest.raises(DoesNotFit, match="clear it"):
        state.append("b", "1234567890")
    assert state.read("b") == []
    state.append("b", "123456")


def test_what_a_crash_left_of_a_record_is_dropped(tmp_path: Path) -> None:
    state = State(tmp_path, "m", "")
    state.append("log", {"n": 1})
    with (state.path / "log.jsonl").open("ab") as stream:
        stream.write(b'{"n": 2, "te')
    assert state.read("log") == [{"n": 1}]
    state.append("log", {"n": 3})
    assert state.read("log") == [{"n": 1}, {"n": 3}]


def test_a_log_that_is_nothing_but_a_torn_record(tmp_path: Path) -> None:
    state = State(tmp_path, "m", "")
    state.append("log", 1)
    (state.path / "log.jsonl").write_bytes(b'"to')
    state.append("log", 2)
    assert state.read("log") == [2]


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for turn in range(10):
            State(tmp_path, "m", "t").append("log", [number, turn])

    workers = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(State(tmp_path, "m", "t").read("log")) == [
        [number, turn] for number in range(4) for turn in range(10)
    ]


def test_a_host_without_a_folder_says_how_to_name_one() -> None:
    with pytest.raises(Unmet, match="--state"):
        Host().state()
