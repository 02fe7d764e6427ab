"""One method, three doors: in process, on the command line and over gRPC give the same numbers and the same errors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pickaxe
from pickaxe import Item, Prompt, Sampling
from pickaxe.errors import PickaxeError
from pickaxe.io.items import item_to_json
from pickaxe_services import Client, LocalServer, Settings, connect

TEXTS = [
    "def area(width, height):\n    return width * height",
    "The harbour was quiet, and the last boat had already left for the islands.",
    "Über den Wolken muss die Freiheit wohl grenzenlos sein.",
    "a",
    "Prices rose by 3.5 % in March, the statistics office said on Friday; economists had expected less.",
]
ITEMS = [Item(f"item-{row}", text) for row, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("server")
    with LocalServer(Settings(root=root, port=0)) as address, connect(address) as connected:
        yield connected


def cli(*arguments: object) -> list[dict[str, Any]]:
    """The JSON lines that a command prints; it must succeed."""
    done = _run(*arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pickaxe_services.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def write(path: Path, items: list[Item]) -> Path:
    path.write_text("".join(json.dumps(item_to_json(item)) + "\n" for item in items), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "params", "examples"),
    [("zip-fit", {"level": 1}, ITEMS[:2]), ("min-k-prob", {"ratio": 0.4}, [])],
)
def test_scores_are_equal_bit_for_bit(
    client: Client, tmp_path: Path, name: str, params: dict[str, Any], examples: list[Item]
) -> None:
    local, remote = pickaxe.scorer(name, **params), client.scorer(name, **params)
    command = ["score", name, "--params", json.dumps(params), "--input", write(tmp_path / "items.jsonl", ITEMS)]
    if examples:
        artifact = tmp_path / "artifact"
        local = local.fit(examples, out=artifact)
        remote = remote.fit(examples)
        command += ["--artifact", artifact]
    expected = local.score(ITEMS)
    answered = remote.score(ITEMS)
    printed = cli(*command)
    through = cli(*command, "--server", client.target)
    for column in expected.columns:
        values = expected[column].tolist()
        assert str(answered[column].tolist()) == str(values)
        assert str([row.get(column) for row in through]) == str([row.get(column) for row in printed])
        assert [row[column] for row in printed if row[column] is not None] == [
            value for value in values if value == value
        ]
    assert answered.flags == expected.flags


def test_hits_are_equal_bit_for_bit(client: Client, tmp_path: Path) -> None:
    queries = [Item("q0", "quiet boat"), Item("q1", "prices in March")]
    local = pickaxe.retriever("chronicles", mode="hybrid").index(ITEMS, out=tmp_path / "index")
    remote = client.retriever("chronicles", mode="hybrid").index(ITEMS)
    expected = local.search(queries, k=3)
    assert remote.search(queries, k=3).results == expected.results
    printed = cli(
        "search", "chronicles", "--artifact", tmp_path / "index", "-k", 3,
        "--queries", write(tmp_path / "queries.jsonl", queries),
    )  # fmt: skip
    assert [[(hit["id"], hit["score"]) for hit in row["hits"]] for row in printed] == [
        [(hit.id, hit.score) for hit in hits] for hits in expected
    ]


def test_orders_are_equal(client: Client, tmp_path: Path) -> None:
    params = {"ranker": "encoder"}
    expected = pickaxe.reranker("fullrank", **params).rerank("Where are the boats?", ITEMS)
    answered = client.reranker("fullrank", **params).rerank("Where are the boats?", ITEMS)
    assert (answered.ranked, answered.scores.tolist()) == (expected.ranked, expected.scores.tolist())
    (printed,) = cli(
        "rerank", "fullrank", "--set", "ranker=encoder", "--query", "Where are the boats?", "--json",
        "--candidates", write(tmp_path / "candidates.jsonl", ITEMS),
    )  # fmt: skip
    assert [entry["id"] for entry in printed["ranking"]] == expected.ids


def test_samples_are_equal(client: Client) -> None:
    prompt = Prompt("The capital of France is", sampling=Sampling(max_tokens=8, temperature=1.0, n=3))
    expected = pickaxe.decoder("repeated-sampling").complete(prompt, seed=5)
    answered = client.decoder("repeated-sampling").complete(prompt, seed=5)
    assert [(each.choice, each.text, each.token_ids, each.logprobs) for each in answered] == [
        (each.choice, each.text, each.token_ids, each.logprobs) for each in expected
    ]
    printed = cli(
        "decode", "repeated-sampling", "--prompt", "The capital of France is", "--max-tokens", 8,
        "--temperature", 1.0, "-n", 3, "--seed", 5, "--json",
    )  # fmt: skip
    assert [(each["choice"], each["text"], each.get("logprobs", [])) for each in printed] == [
        (each.choice, each.text, list(each.logprobs)) for each in expected
    ]


BAD: dict[str, tuple[list[str], str, str]] = {
    "a method that does not exist": (["zip-fitt"], "{}", "METHOD_UNKNOWN"),
    "a method of another role": (["fullrank"], "{}", "ROLE_NOT_FILLED"),
    "parameters, all wrong ones at once": (["zip-fit"], '{"level": 99, "colour": "red"}', "PARAMS_INVALID"),
    "no artifact where one is needed": (["zip-fit"], "{}", "ARTIFACT_MISMATCH"),
    "a model that nobody has": (["min-k-prob"], '{"model": "no-such-model"}', "MODEL_MISSING"),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_are_equal(client: Client, tmp_path: Path, case: str) -> None:
    (name,), params, reason = BAD[case]
    path = write(tmp_path / "items.jsonl", ITEMS)
    with pytest.raises(PickaxeError) as embedded:
        pickaxe.scorer(name, **json.loads(params)).score(ITEMS)
    with pytest.raises(PickaxeError) as remote:
        client.scorer(name, **json.loads(params)).score(ITEMS)
    assert (type(remote.value), remote.value.reason) == (type(embedded.value), reason)
    assert remote.value.violations == embedded.value.violations
    for extra in ([], ["--server", client.target]):
        done = _run("score", name, "--params", params, "--input", path, "--json", *extra)
        told = json.loads(done.stderr.splitlines()[-1])["error"]
        assert done.returncode == embedded.value.exit_code
        assert (told["reason"], len(told["violations"])) == (reason, len(embedded.value.violations))
        assert done.stdout == ""


def test_a_missing_text_names_the_item_at_every_door(client: Client, tmp_path: Path) -> None:
    items = [*ITEMS[:2], Item("empty-handed")]
    local = pickaxe.scorer("zip-fit").fit(ITEMS[:1], out=tmp_path / "artifact")
    remote = client.scorer("zip-fit").fit(ITEMS[:1])
    for handle in (local, remote):
        with pytest.raises(PickaxeError, match=r"items\[2\]\.text.*'empty-handed'") as caught:
            handle.score(items)
        assert caught.value.reason == "ITEMS_INVALID"
    path = write(tmp_path / "items.jsonl", items)
    done = _run("score", "zip-fit", "--artifact", tmp_path / "artifact", "--input", path)
    assert done.returncode == 3
    assert "empty-handed" in done.stderr
