"""Decoders: prompts in, a stream of chunks out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from pickaxe.call import Call
from pickaxe.data import WHOLE_PROMPT, Chunk, Completion, Prompt, completions
from pickaxe.errors import InvalidItems, Violation
from pickaxe.handle.base import MethodHandle
from pickaxe.jsonable import jsonable

PromptLike = Prompt | str


def as_prompts(values: PromptLike | Iterable[PromptLike]) -> tuple[Prompt, ...]:
    """Prompts as they are; a string becomes one with that text."""
    given: Iterable[PromptLike] = [values] if isinstance(values, (str, Prompt)) else values
    prompts: list[Prompt] = []
    found: list[Violation] = []
    for row, value in enumerate(given):
        prompt = Prompt(value) if isinstance(value, str) else value
        if not isinstance(prompt, Prompt):
            found.append(
                Violation(f"prompts[{row}]", f"is a {type(value).__name__}, wanted a pickaxe.Prompt or a string")
            )
            continue
        found += _violations(prompt, row)
        prompts.append(prompt)
    if found:
        raise InvalidItems(found)
    return tuple(prompts)


def _violations(prompt: Prompt, row: int) -> Iterator[Violation]:
    place, sampling = f"prompts[{row}]", prompt.sampling
    if prompt.text is not None and prompt.messages:
        yield Violation(place, "has both text and messages; give one")
    if bool(prompt.allowed) + (prompt.json_schema is not None) + bool(prompt.regex) > 1:
        yield Violation(place, "has more than one of allowed, json_schema and regex; give one")
    if prompt.json_schema is not None and not isinstance(prompt.json_schema, Mapping):
        yield Violation(f"{place}.json_schema", f"is a {type(prompt.json_schema).__name__}, wanted an object")
    if sampling.n < 1:
        yield Violation(f"{place}.sampling.n", f"must be at least 1 (got {sampling.n})")
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        yield Violation(f"{place}.sampling.max_tokens", f"must be at least 1 (got {sampling.max_tokens})")
    if sampling.temperature is not None and not 0 <= sampling.temperature < float("inf"):
        yield Violation(f"{place}.sampling.temperature", f"must be 0 or more (got {sampling.temperature})")
    if sampling.top_p is not None and not 0 < sampling.top_p <= 1:
        yield Violation(f"{place}.sampling.top_p", f"must be in (0, 1] (got {sampling.top_p})")
    if sampling.top_k is not None and sampling.top_k < 0:
        yield Violation(f"{place}.sampling.top_k", f"must be 0 (off) or more (got {sampling.top_k})")
    if any(not stop for stop in sampling.stop):
        yield Violation(f"{place}.sampling.stop", "holds an empty string")


class DecoderHandle(MethodHandle):
    """A decoder: `decode` streams chunks, `complete` waits for whole completions."""

    def decode(
        self,
        prompts: PromptLike | Iterable[PromptLike],
        *,
        timeout: float | None = None,
        seed: int = 0,
        budget: int | None = None,
        call: Call | None = None,
    ) -> Iterator[Chunk]:
        """Chunks as they come; closing the generator ends the work within one step.

        A prompt's own `sampling.seed` wins over `seed`.  Inputs are checked before the first chunk is asked for.
        """
        checked = as_prompts(prompts)
        if found := list(self._unkept(checked)):
            raise InvalidItems(found)
        self._ready_to_answer()
        return self._chunks(checked, call or Call(timeout=timeout, seed=seed, budget=budget))

    def complete(
        self,
        prompts: PromptLike | Iterable[PromptLike],
        *,
        timeout: float | None = None,
        seed: int = 0,
        budget: int | None = None,
        call: Call | None = None,
    ) -> list[Completion]:
        """The same as whole completions, by prompt and choice; records about a whole prompt have choice -1."""
        return completions(self.decode(prompts, timeout=timeout, seed=seed, budget=budget, call=call))

    def _unkept(self, prompts: Sequence[Prompt]) -> Iterator[Violation]:
        """What binds a prompt's output and is not among the things that this method keeps to."""
        kept = self.opened.method.constraints
        for row, prompt in enumerate(prompts):
            given = {"allowed": prompt.allowed, "json_schema": prompt.json_schema is not None, "regex": prompt.regex}
            for name in (name for name, value in given.items() if value and name not in kept):
                yield Violation(f"prompts[{row}].{name}", f"is not kept by {self.name}; repeated-sampling keeps it")

    def _chunks(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        call.check()
        finished: set[tuple[int, int]] = set()
        begun: set[tuple[int, int]] = set()
        with closing(self.opened.pull("decode", prompts=prompts, call=call)) as chunks:
            for chunk in chunks:
                self._check(chunk, len(prompts), begun, finished)
                with self.opened.guard():
                    checked = chunk if chunk.record is None else replace(chunk, record=jsonable(chunk.record))
                yield checked
                call.check()
        silent = set(range(len(prompts))) - {prompt for prompt, _ in finished}
        if silent or begun - finished:
            raise self.opened.nonsense(
                f"no finish reason for prompts {sorted(silent)}, choices {sorted(begun - finished)}"
            )

    def _check(self, chunk: object, n: int, begun: set[tuple[int, int]], finished: set[tuple[int, int]]) -> None:
        if not isinstance(chunk, Chunk) or not 0 <= chunk.prompt < n or chunk.choice < WHOLE_PROMPT:
            raise self.opened.nonsense(f"decode yielded {chunk!r} for {n} prompts")
        if chunk.choice == WHOLE_PROMPT:
            return
        key = chunk.prompt, chunk.choice
        if key in finished:
            raise self.opened.nonsense(f"prompt {chunk.prompt} choice {chunk.choice} goes on after its finish reason")
        begun.add(key)
        if chunk.finish_reason:
            finished.add(key)
