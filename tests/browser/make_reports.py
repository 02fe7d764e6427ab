"""Make the pages that the browser opens, and `expected.json`: what the summaries of their runs say."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = ["width", "height", "value", "loop", "array", "string", "tree", "graph", "node", "edge", "return"]
BROKEN = """<!doctype html><html><head><title></title></head><body><p style="color: #ccc">pale</p>
<img src="http://127.0.0.1:9/absent.png"><script>null.absent</script></body></html>"""
"""What the check must find fault with."""

draw = random.Random(7)


def write(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def samples() -> list[str]:
    """Problems of two models, as a table with foreign names and decimal commas."""
    rows = [
        f"{model}-{row};100;{min(100, int(draw.expovariate(1 / mean)))};{model};{draw.randint(50, 90)},5"
        for model, mean in (("small", 12), ("large", 40))
        for row in range(30)
    ]
    return ["problem;n;right;group;output_tokens", *rows]


def judged() -> list[str]:
    """Tasks of three models with a verifier that lets wrong answers through."""
    rows = []
    for model, skill in (("weak", 0.2), ("fair", 0.5), ("strong", 0.8)):
        for row in range(20):
            right = int(50 * draw.betavariate(4 * skill, 4 - 4 * skill))
            passed = min(50, right + draw.randint(0, 12))
            rows.append(f"{model}-{row},50,{passed},{right},{right},{model},task {row}")
    return ["id,n,v,g,u,group,task", *rows]


def corpus() -> list[str]:
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(4, 60))) for _ in range(200)]
    return [json.dumps({"id": f"d{row}", "text": text}) for row, text in enumerate(["", *texts])]


def fit(pickaxe: Path, build: Path, name: str, text: str) -> None:
    """An artifact of zip-fit for one target."""
    targets = write(build / f"{name}-targets.jsonl", [json.dumps({"id": "t", "text": text})])
    command: list[Any] = [
        pickaxe,
        "fit",
        "zip-fit",
        "--examples",
        targets,
        "--out",
        build / name,
        "--overwrite",
        "--quiet",
    ]
    subprocess.run([*command, "--quiet"], check=True, timeout=300)


def labelled() -> list[str]:
    """Texts of few words, good ones mostly of the first of them."""
    rows = []
    for row in range(80):
        good = row % 2
        words = WORDS[:5] if good and draw.random() < 0.8 else WORDS
        rows.append(json.dumps({"id": f"l{row}", "text": " ".join(draw.choices(words, k=30)), "good": good}))
    return rows


def comparison(pickaxe: Path, build: Path) -> dict[str, Any]:
    """The page of `pickaxe compare`, and what its JSON and its sentences say."""
    given = write(build / "labelled.jsonl", labelled())
    compared = build / "compare.json"
    command: list[Any] = [
        pickaxe, "compare", f"words=zip-fit@{build / 'art'}", f"trees=zip-fit@{build / 'other'}", "--on", given,
        "--label", "good", "--draws", "200", "--output", compared, "--report", build / "compare.html", "--overwrite",
        "--quiet",
    ]  # fmt: skip
    shown = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True).stdout
    told = json.loads(compared.read_text(encoding="utf-8"))
    labels = [each["label"] for each in told["methods"]]
    figures = []
    for measure in dict.fromkeys(each["measure"] for each in told["quality"]):
        found = [each for each in told["quality"] if each["measure"] == measure]
        series = {"name": measure, "x": [each["value"] for each in found]}
        series |= {end: [each[end] for each in found] for end in ("low", "high")}
        figures.append({"title": f"{measure} of the methods", "x": {"label": measure},
                        "y": {"label": "method", "categories": labels}, "series": [series]})  # fmt: skip
    tables = ["Cost", "Agreement", "Quality", "Differences", "spearman", "p (Holm)"]
    sentences = shown.strip().split("\n\n")[-1].splitlines()
    return {"columns": [*labels, *tables], "answer": sentences, "figures": figures}


def main(scripts: Path, build: Path) -> None:
    build.mkdir(exist_ok=True)
    pickaxe = scripts / "pickaxe"
    fit(pickaxe, build, "art", "return width height value loop array")
    fit(pickaxe, build, "other", "tree graph node edge")
    runs: dict[str, tuple[str, Path, list[Any]]] = {
        "coverage": (
            "coverage",
            write(build / "samples.csv", samples()),
            ["--decimal", ",", "--id-field", "problem", "--map", "right=c", "--set", "usd_per_m_output=2",
             "--set", "target=0.99", "--set", "predict=[1000]"],
        ),
        "resampling-limits": ("resampling-limits", write(build / "judged.csv", judged()), []),
        "zip-fit": ("zip-fit", write(build / "corpus.jsonl", corpus()), ["--artifact", build / "art"]),
    }  # fmt: skip
    expected = {}
    for name, (method, given, options) in runs.items():
        summary = build / f"{name}.json"
        command = [pickaxe, "score", method, "--input", given, "--output", build / f"{name}.jsonl", "--overwrite",
                   "--summary", summary, "--report", build / f"{name}.html", "--quiet", *options]  # fmt: skip
        subprocess.run(command, check=True, timeout=300)
        told = json.loads(summary.read_text(encoding="utf-8"))
        columns = [column["name"] for column in told["columns"]]
        expected[name] = {"method": method, "columns": columns, "rows": told["rows"], **told["summary"]}
    expected["compare"] = comparison(pickaxe, build)
    write(build / "broken.html", [BROKEN])
    (build / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
