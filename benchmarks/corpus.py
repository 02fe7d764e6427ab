"""A corpus of real texts: `python -m benchmarks.corpus OUT MEGABYTES FOLDER...` writes OUT/part-*.jsonl.

The folders hold documentation, such as /usr/share/doc or what `dpkg -x` unpacks of Debian's *-doc packages.  HTML
loses its tags; a document is one page, cut at paragraphs into pieces of at most 20,000 characters.  When the folders
run out, their documents come again with their paragraphs in another order, so that a corpus of any size is made of
real paragraphs.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pickaxe

KINDS = (".html", ".htm", ".txt", ".rst", ".md", ".gz")
LONGEST = 20_000
SHARD = 100_000_000


SILENT = re.compile(r"<(script|style|head)\b.*?</\1\s*>", re.S | re.I)
BLOCKS = re.compile(r"</?(?:p|div|br|li|tr|h[1-6]|pre|t[dh]|dt|dd|table|section)\b[^>]*>", re.I)
TAGS = re.compile(r"<[^>]*>")


def words_of(page: str) -> str:
    """The text of an HTML page: blocks end paragraphs, scripts and styles say nothing."""
    return html.unescape(TAGS.sub("", BLOCKS.sub("\n", SILENT.sub("", page))))


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix not in KINDS or not path.is_file():
            continue
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw.decode("utf-8", "replace")
        if "html" in path.name[-8:] or text.lstrip()[:1] == "<":
            text = words_of(text)
        lines = [line.strip() for line in text.splitlines()]
        yield str(path.relative_to(folder)), "\n".join(line for line in lines if line)


def pieces(name: str, text: str) -> Iterator[dict[str, str]]:
    piece: list[str] = []
    size, number = 0, 0
    for line in [*text.splitlines(), None]:
        if line is None or size + len(line) > LONGEST:
            if piece:
                yield {"id": f"{name}#{number}", "text": "\n".join(piece)}
            piece, size, number = [], 0, number + 1
        if line is not None:
            piece.append(line[:LONGEST])
            size += len(line) + 1


def shuffled(text: str, name: str, turn: int) -> str:
    lines = text.splitlines()
    order = pickaxe.generator(turn, "corpus", name).permutation(len(lines)) if turn else range(len(lines))
    return "\n".join(lines[row] for row in order)


def main() -> None:
    out, wanted = Path(sys.argv[1]), int(sys.argv[2]) * 1_000_000
    folders = [Path(each) for each in sys.argv[3:]]
    out.mkdir(parents=True, exist_ok=True)
    written, stream = 0, None
    for turn in count():
        for folder in folders:
            for name, text in texts(folder):
                for piece in pieces(f"{turn}:{name}", shuffled(text, name, turn)):
                    if stream is None or stream.tell() > SHARD:
                        stream = (out / f"part-{written // SHARD:03}.jsonl").open("a", encoding="utf-8")
                    written += stream.write(json.dumps(piece, ensure_ascii=False) + "\n")
                if written >= wanted:
                    print(f"{written / 1e6:.0f} MB in {out}, {turn + 1} turns over {len(folders)} folders")
                    return


if __name__ == "__main__":
    main()
