"""What the tests run as a job in place of the command line: the same flags, the same lines."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pickaxe.artifact import writing


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("method")
    for name in ("examples", "validation", "unlabelled", "documents", "params", "out", "progress", "init-from", "seed"):
        parser.add_argument(f"--{name}")
    given, _ = parser.parse_known_args()
    assert given.progress == "jsonl"
    params = json.loads(given.params)
    lines = Path(given.examples).read_text().splitlines()
    say(stage="read", step=len(lines), total=len(lines), metrics={"validation": float(given.validation is not None)})
    print("a library prints this", flush=True)
    do = params.get("do", "succeed")
    if do == "hang":
        (Path(given.out).parent / "pid").write_text(str(os.getpid()))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    with writing(given.out, kind="fit", method=given.method, method_version=1, params=params) as out:
        if not out.done("count"):
            out.write_json("count.json", len(lines))
            out.finish("count")
            if do == "fail":
                say(error={
                    "reason": "ITEMS_INVALID", "message": "invalid items: examples[0]: is odd", "metadata": {"a": "b"},
                    "violations": [{"field": "examples[0]", "description": "is odd"}],
                })  # fmt: skip
                sys.exit(3)
            if do == "crash":
                print("Traceback: out of memory", file=sys.stderr, flush=True)
                os._exit(9)
        else:
            say(stage="resumed")
        out.notes["seed"] = int(given.seed)
    say(stage="done", step=1, total=1)


main()
