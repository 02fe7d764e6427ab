"""Questions with reference spans, as a model writes them: what it is asked, and what its answer says."""

from __future__ import annotations

import ast
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pickaxe import Message
from pickaxe_plugins.evaluation._span_search import sentences
from pickaxe_plugins.evaluation.span_qa._tags import tagged

Locate = Literal["tags", "quotes"]

MOST = 5
"""References of a question."""
SIMILAR = 98
"""Least token-sort similarity, of 100, of a quote with the sentence that it is taken for."""

_TASK = (
    "You write questions that test a search engine. From the text below, write one factual question that the text "
    "answers, and name every part of the text that is needed to answer it, at most 5 parts, as short as possible. "
    "The question must be understood without seeing the text. Answer with JSON only:\n"
)
_SHAPES: Mapping[Locate, str] = {
    "tags": '{"question": "…", "references": [{"content": "…", "start_chunk": 0, "end_chunk": 0}]}\n'
    "The text is cut by tags <start_chunk_i> and <end_chunk_i>; start_chunk and end_chunk are the numbers of the first "
    "and the last piece of a part.",
    "quotes": '{"question": "…", "references": ["…"]}\nReferences are exact quotes of the text.',
}
_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)


class Rejected(Exception):
    """An answer that cannot be used; the message says why."""


@dataclass(frozen=True)
class Written:
    """A question and its references: ranges [start, end) of the window that the model saw."""

    question: str
    references: tuple[tuple[int, int], ...]


def asked(window: str, piece: int, locate: Locate, earlier: Sequence[str]) -> tuple[Message, ...]:
    """What a model is asked about a window of a corpus; `earlier` questions are not to be repeated."""
    shown = tagged(window, piece)[0] if locate == "tags" else window
    avoid = "\n\nDo not repeat these questions:\n" + "\n".join(f"- {each}" for each in earlier) if earlier else ""
    return Message("system", _TASK + _SHAPES[locate]), Message("user", f"Text:\n{shown}{avoid}")


def schema(locate: Locate) -> dict[str, Any]:
    """JSON Schema of the answer."""
    piece = {"type": "integer", "minimum": 0}
    tags = {"content": {"type": "string"}, "start_chunk": piece, "end_chunk": piece}
    reference = (
        {"type": "object", "properties": tags, "required": list(tags), "additionalProperties": False}
        if locate == "tags"
        else {"type": "string"}
    )
    fields = {
        "question": {"type": "string"},
        "references": {"type": "array", "items": reference, "minItems": 1, "maxItems": MOST},
    }
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def read(answer: str, window: str, piece: int, locate: Locate) -> Written:
    """The question of a model's answer, its references as places in the window; raises `Rejected`."""
    value = _value(answer)
    if not isinstance(value, dict) or set(value) != {"question", "references"}:
        raise Rejected("the answer is no object of question and references")
    question, references = value["question"], value["references"]
    if not isinstance(question, str) or not question.strip():
        raise Rejected("the question is empty")
    if not isinstance(references, list) or not 1 <= len(references) <= MOST:
        raise Rejected(f"wanted 1 to {MOST} references")
    if locate == "tags":
        edges = tagged(window, piece)[1]
        found = [_by_tags(each, edges, len(window)) for each in references]
    else:
        found = [located(each, window) for each in references]
    return Written(question.strip(), tuple(found))


def _value(answer: str) -> Any:
    """The JSON value, or Python literal, between the outermost braces."""
    text = _THOUGHTS.sub("", answer)
    text = text[text.find("{") : text.rfind("}") + 1]
    try:
        return json.loads(text)
    except ValueError:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise Rejected("the answer holds no JSON") from None


def _by_tags(reference: Any, edges: Sequence[int], length: int) -> tuple[int, int]:
    if not isinstance(reference, dict) or set(reference) != {"content", "start_chunk", "end_chunk"}:
        raise Rejected("a reference has not content, start_chunk and end_chunk")
    first, last = reference["start_chunk"], reference["end_chunk"]
    if type(first) is not int or type(last) is not int or not 0 <= first <= last < len(edges) - 1:
        raise Rejected(f"a reference names pieces {first!r} to {last!r} of {len(edges) - 1}")
    return edges[first], min(edges[last + 1], length)


def located(quote: Any, text: str) -> tuple[int, int]:
    """Where a quote stands: as it is, with other white space, or as the sentence most like it."""
    if not isinstance(quote, str) or not quote.strip():
        raise Rejected("a reference is no text")
    quote = quote.strip()
    if (start := text.find(quote)) >= 0:
        return start, start + len(quote)
    if match := re.search(r"\s+".join(map(re.escape, quote.split())), text):
        return match.span()
    scored = [(_token_sort(quote, text[each.start : each.end]), each) for each in sentences(1)(text)]
    best, span = max(scored, key=lambda each: each[0], default=(0.0, None))
    if span is None or best < SIMILAR:
        raise Rejected("a quote is not in the text")
    return span.start, span.end


def _token_sort(left: str, right: str) -> float:
    """Similarity 0 to 100 of two texts whose words are put in alphabetical order."""
    a, b = (" ".join(sorted(text.lower().split())) for text in (left, right))
    return 100 * difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()
