"""Outputs that follow a JSON schema or a regular expression, token by token."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe.errors import InvalidParams, Unmet
from pickaxe.extras import require

if TYPE_CHECKING:
    from pickaxe.data import Prompt
    from pickaxe.tokenizers import Tokenizer

_JSON_FORM = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way to write a value: a model that may put in white space can go on with that for ever."""


class Grammar:
    """What an output must be as a whole, compiled for one tokenizer.  Safe to use from several threads.

    Raises `InvalidParams` for a schema or an expression that cannot be used, `Unmet` when no token can begin it.
    """

    def __init__(self, source: str, tokenizer: Tokenizer, field: str) -> None:
        """`source` is what the library makes of the schema or expression; `field` names it in errors."""
        matcher = require("llguidance", extra="grammar").LLMatcher
        self._field = field
        self._start = matcher(_vocabulary(tokenizer), source, log_level=0)
        if self._start.is_error():
            raise InvalidParams(field, f"cannot be followed: {_problem(self._start)}")
        self.follower().allowed(0)

    @classmethod
    def of_json_schema(cls, schema: Mapping[str, Any], tokenizer: Tokenizer) -> Grammar:
        """JSON text of a value that the schema allows, with a blank after commas and colons and no other."""
        matcher = require("llguidance", extra="grammar").LLMatcher
        try:
            text = json.dumps(schema, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise InvalidParams("json_schema", f"is not JSON: {error}") from None
        return cls(matcher.grammar_from_json_schema(text, overrides=_JSON_FORM), tokenizer, "json_schema")

    @classmethod
    def of_regex(cls, pattern: str, tokenizer: Tokenizer) -> Grammar:
        """A text that the expression matches from its beginning to its end; look-around and back references are out."""
        matcher = require("llguidance", extra="grammar").LLMatcher
        return cls(matcher.grammar_from_regex(pattern), tokenizer, "regex")

    @classmethod
    def of_prompt(cls, prompt: Prompt, tokenizer: Tokenizer) -> Grammar | None:
        """What a prompt asks for, if it does."""
        if prompt.json_schema is not None:
            return cls.of_json_schema(prompt.json_schema, tokenizer)
        return cls.of_regex(prompt.regex, tokenizer) if prompt.regex else None

    def follower(self) -> FollowGrammar:
        """The logits processor of one output."""
        return FollowGrammar(self._start.deep_copy(), self._field)


class FollowGrammar:
    """Keeps one output to a grammar; it reads every token once, and takes back those that were taken back."""

    def __init__(self, matcher: Any, field: str) -> None:
        self._matcher, self._field = matcher, field
        self._read: list[int] = []

    def __call__(self, generated: Sequence[int], logits: np.ndarray) -> np.ndarray:
        self._follow(generated)
        kept: np.ndarray = np.where(self.allowed(len(logits)), logits, np.float32(-np.inf))
        return kept

    def finished(self, generated: Sequence[int]) -> bool:
        """Nothing can follow."""
        self._follow(generated)
        stopped: bool = self._matcher.is_stopped()
        return stopped

    def allowed(self, vocab: int) -> np.ndarray:
        """bool (vocab,): which tokens may follow; end tokens where the output is complete.  Raises `Unmet`."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        if self._matcher.is_error() or not bits.any():
            problem = _problem(self._matcher)
            raise Unmet(
                f"{self._field} cannot be followed: no token of this model's goes on with it here ({problem})",
                metadata={"field": self._field, "problem": problem},
            )
        return np.pad(bits[:vocab], (0, max(0, vocab - len(bits)))).astype(bool)

    def _follow(self, generated: Sequence[int]) -> None:
        """Bring the matcher to this output, which mostly is the last one and a token more."""
        shared = len(self._read)
        if self._read != list(generated[:shared]):
            pairs = zip(self._read, generated, strict=False)
            shared = next((place for place, (old, new) in enumerate(pairs) if old != new), min(shared, len(generated)))
            self._matcher.rollback(len(self._read) - shared)
            del self._read[shared:]
        for token in generated[shared:]:
            if not self._matcher.consume_token(token):
                raise InvalidParams(self._field, f"does not go on with token {token}")
            self._read.append(token)


def _problem(matcher: Any) -> str:
    """The library's message on one line, without its state."""
    message: str = matcher.get_error().partition("<state>")[0]
    return " ".join(message.split())[:300] or "nothing may follow"


class _Vocabulary:
    """A tokenizer as the library wants it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = weakref.proxy(tokenizer)  # `_vocabularies` keeps this as long as the tokenizer lives
        self.eos_token_id = tokenizer.eos_ids[0]
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [tokenizer.id_to_bytes(index) for index in range(tokenizer.vocab_size)]
        self.special_token_ids = sorted(tokenizer.special_ids)

    def __call__(self, text: bytes) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text.decode("utf-8", "replace"))
        return ids


_vocabularies: weakref.WeakKeyDictionary[Tokenizer, Any] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _vocabulary(tokenizer: Tokenizer) -> Any:
    """The library's tokenizer, made once for each of ours."""
    library = require("llguidance", extra="grammar")
    with _lock:
        if tokenizer not in _vocabularies:
            if not tokenizer.eos_ids:
                raise Unmet("this model's tokenizer has no end token: a grammar could not end")
            wrapped = library.TokenizerWrapper(_Vocabulary(tokenizer))
            _vocabularies[tokenizer] = library.LLTokenizer(wrapped, eos_token=list(tokenizer.eos_ids))
        return _vocabularies[tokenizer]
