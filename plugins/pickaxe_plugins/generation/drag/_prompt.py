"""What prompts of DRAG and IterDRAG are made of: passages, demonstrations, and a text that only grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pickaxe import Item
from pickaxe.tokenizers import Tokenizer

FOLLOW_UP = "Follow up:"
INTERMEDIATE = "Intermediate answer:"
FINAL = "So the final answer is:"
PREFIXES = (FOLLOW_UP, INTERMEDIATE, FINAL)
"""What every response of IterDRAG begins with.  The space after it belongs to the text, as tokenizers want it."""
ANSWER = "Answer:"

INSTRUCTION = "Answer the question with the help of the documents. Give only the answer, in a few words."
STEPS_INSTRUCTION = (
    "Answer the question with the help of the documents. Ask simpler follow-up questions first and answer them one "
    "by one; then give only the final answer, in a few words."
)


@dataclass(frozen=True)
class Passage:
    """A document as prompts show it; equal texts are the same document."""

    id: str
    text: str

    @property
    def line(self) -> str:
        return f"Document: {self.text}\n"


def passage(item: Item, most: int) -> Passage:
    """The first `most` whitespace tokens of the title and text."""
    title = item.get("title")
    parts = [f"{title}:" if isinstance(title, str) and title else "", item.text or ""]
    return Passage(item.id, " ".join(" ".join(parts).split()[:most]))


def one_line(text: str) -> str:
    """The text without line breaks, which separate the parts of a prompt."""
    return " ".join(text.split())


@dataclass(frozen=True)
class Demonstration:
    """A question with its passages (best first), its answer and, for IterDRAG, the steps that led there."""

    id: str
    question: str
    answer: str
    passages: tuple[Passage, ...]
    trace: tuple[tuple[str, str], ...] = ()

    def label(self, steps: bool) -> list[str]:
        """The lines after the documents."""
        said = self.trace if steps else ((ANSWER, self.answer),)
        return [f"Question: {self.question}\n", *(f"{prefix} {text}\n" for prefix, text in said), "\n"]

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "question": self.question,
            "answer": self.answer,
            "documents": [{"id": each.id, "text": each.text} for each in self.passages],
            "trace": [list(each) for each in self.trace],
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any], most: int) -> Demonstration:
        """As stored, with passages cut to `most` whitespace tokens."""
        return cls(
            stored["id"],
            stored["question"],
            stored["answer"],
            tuple(passage(Item(each["id"], each["text"]), most) for each in stored["documents"]),
            tuple((prefix, text) for prefix, text in stored["trace"]),
        )


class Context:
    """The prompt of one question as text and token ids.  It only grows, so what was read need not be read again."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self.text = ""
        self.ids: list[int] = []

    def append(self, *texts: str) -> None:
        for text in texts:
            self.text += text
            self.ids += self._tokens(text)

    def size(self, text: str) -> int:
        """Tokens that the text would add."""
        return len(self._tokens(text))

    def __len__(self) -> int:
        return len(self.ids)


class Tokens:
    """Token ids of the pieces of prompts, which come again and again."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, tuple[int, ...]] = {}

    def __call__(self, text: str) -> tuple[int, ...]:
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = tuple(self._tokenizer.encode(text))
        return found

    def count(self, texts: Sequence[str]) -> int:
        return sum(len(self(text)) for text in texts)


def in_prompt(passages: Sequence[Passage]) -> list[str]:
    """Lines in reverse rank order: the best document stands nearest to the question."""
    return [each.line for each in reversed(passages)]
