"""What the model learns from: pairs of a text and the document whose identifier it is to say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pickaxe import Call, Item, Sampling, generator
from pickaxe.errors import InvalidItems, Violation
from pickaxe_plugins.retrieval.dsi._params import Params

if TYPE_CHECKING:
    from pickaxe.host import Host
    from pickaxe.lm import LM
    from pickaxe.tokenizers import Tokenizer

SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
WORDS = 3
"""Of the n-grams that go behind a title."""
ASKED = 32
"""Most tokens of a question that a language model writes."""
SHOWN = 2000
"""Characters of a document that it is shown."""


@dataclass(frozen=True)
class Query:
    """A real query, and the rows of its documents."""

    text: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Corpus:
    """Documents, the queries to learn from, and those to choose by."""

    documents: list[Item]
    labeled: list[Query]
    validation: list[Query]


def read(
    examples: Iterable[Item], validation: Iterable[Item] | None, unlabelled: Iterable[Item] | None,
    known: Iterable[str] = (),
) -> Corpus:  # fmt: skip
    """Examples with `relevant` are queries, all others documents, as is everything in `unlabelled`.

    `known` are ids of documents of an earlier fit, which queries may name too: their rows come first.  Raises
    `InvalidItems` without documents, for ids that come twice and for queries of documents that are missing.
    """
    given = list(examples)
    asked = [item for item in given if item.get("relevant") is not None]
    documents = [item for item in given if item.get("relevant") is None] + list(unlabelled or ())
    rows = {name: row for row, name in enumerate(known)}
    seen: set[str] = set()
    for item in documents:
        if item.id in seen:
            raise InvalidItems("documents", f"have the id {item.id!r} twice")
        seen.add(item.id)
        rows.setdefault(item.id, len(rows))
    if not documents:
        raise InvalidItems("documents", "are none: give them as examples without `relevant`, or as unlabelled")
    return Corpus(documents, _queries(asked, rows, "examples"), _queries(validation or (), rows, "validation"))


def _queries(items: Iterable[Item], rows: dict[str, int], label: str) -> list[Query]:
    found, wrong = [], []
    for place, item in enumerate(items):
        names = item.get("relevant")
        known = dict.fromkeys(names if isinstance(names, (list, tuple)) else ())
        missing = [name for name in known if name not in rows]
        if missing:
            wrong.append(Violation(f"{label}[{place}].fields.relevant", f"names missing documents: {missing[:5]}"))
        elif known and (item.text or "").strip():
            found.append(Query(item.text or "", tuple(rows[name] for name in known)))
    if wrong:
        raise InvalidItems(wrong)
    return found


# ------------------------------------------------------------ synthetic queries


def synthetic(documents: list[Item], params: Params, host: Host, call: Call) -> Iterator[list[str]]:
    """Up to `m_queries` for each document: its own where it brings some."""
    lm = host.lm(params.lm) if params.synthesis == "lm" else None
    for item in documents:
        call.check()
        own = item.get("synthetic")
        if isinstance(own, (list, tuple)):
            yield [text for text in own if text.strip()][: params.m_queries]
        elif params.synthesis == "given" or not (item.text or "").strip():
            yield []
        elif lm is None:
            yield templates(item, params.m_queries, call.seed)
        else:
            yield _written(lm, item, params, call)


def templates(item: Item, count: int, seed: int) -> list[str]:
    """Sentences of the document, and its title with n-grams of its words, drawn without repeats."""
    text = item.text or ""
    title, words = str(item.get("title") or "").replace("_", " ").strip(), text.split()
    starts = range(0, max(1, len(words) - WORDS + 1), WORDS)
    grams = [f"{title} {' '.join(words[start : start + WORDS])}".strip() for start in starts if words]
    whole = [found.strip() for found in SENTENCE.findall(text) if len(found.split()) > WORDS]
    found = list(dict.fromkeys(whole + grams))
    order = generator(seed, "templates", item.id).permutation(len(found))[:count]
    return [found[place] for place in sorted(order.tolist())]


def _written(lm: LM, item: Item, params: Params, call: Call) -> list[str]:
    """Questions that a language model samples after the document."""
    from pickaxe.lm.generate import Generation

    prompt = lm.tokenizer.encode(params.prompt.format(text=(item.text or "")[:SHOWN]), add_special=True)
    room = max(1, lm.context_length - ASKED)
    seed = int(generator(call.seed, "questions", item.id).integers(2**31))
    sampling = Sampling(max_tokens=ASKED, temperature=1.0, top_p=0.95, stop=("\n",), seed=seed, n=params.m_queries)
    texts = [""] * params.m_queries
    with closing(lm.generate_all([Generation(prompt[-room:], sampling)], call)) as steps:
        for _, step in steps:
            texts[step.sample] += step.text
    return list(dict.fromkeys(text.strip() for text in texts if text.strip()))


# ------------------------------------------------------------ token rows


@dataclass(frozen=True)
class Pairs:
    """Token ids of what is read, and the row of the document whose identifier is said."""

    texts: list[np.ndarray]
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)


def pairs(
    corpus: Corpus, rows: list[int], asked: list[list[str]], params: Params, tokenizer: Tokenizer, seed: int
) -> Pairs:
    """All pairs of the chosen sources.  `rows` are the documents' own, `asked` their synthetic queries."""
    texts: list[np.ndarray] = []
    targets: list[int] = []

    def take(tokens: list[int], row: int) -> None:
        if tokens:
            texts.append(np.array(tokens[: params.span_len], np.int32))
            targets.append(row)

    if "firstp" in params.sources or "daq" in params.sources:
        encoded = tokenizer.encode_batch([item.text or "" for item in corpus.documents])
        for item, row, tokens in zip(corpus.documents, rows, encoded, strict=True):
            if "firstp" in params.sources:
                take(tokens, row)
            if "daq" in params.sources and tokens:
                random = generator(seed, "daq", item.id)
                for start in random.integers(0, max(1, len(tokens) - params.span_len + 1), params.daq_spans).tolist():
                    take(tokens[start:], row)
    if "d2q" in params.sources:
        for row, queries in zip(rows, asked, strict=True):
            for encoded_query in tokenizer.encode_batch(queries):
                take(encoded_query, row)
    if "labeled" in params.sources:
        for query, tokens in zip(
            corpus.labeled, tokenizer.encode_batch([each.text for each in corpus.labeled]), strict=True
        ):
            for row in query.rows:
                take(tokens, row)
    if not texts:
        raise InvalidItems("examples", f"leave nothing to learn from by {', '.join(params.sources)}")
    return Pairs(texts, np.array(targets))
