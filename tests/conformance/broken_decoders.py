"""Decoders with one fault each."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

from broken import fails
from good import GoodDecoder

from pickaxe import Chunk, Example, hookimpl


class Changed(GoodDecoder):
    """The good decoder with its chunks changed."""

    def change(self, chunk: Chunk) -> Chunk:
        return chunk

    def choice(self, row: int, choice: int, prompt: Any, call: Any) -> Iterator[Chunk]:
        for chunk in super().choice(row, choice, prompt, call):
            yield self.change(chunk)


EVERY_DECODE = ("anyrole.repeatable", "anyrole.threads", "anyrole.input_kept", "anyrole.cancel", "decoder.joined",
                "decoder.tokens", "decoder.usage", "decoder.max_tokens", "decoder.stop", "decoder.n_choices",
                "decoder.seed", "decoder.close", )  # fmt: skip
"""Whatever reads a stream to its end: the handle itself refuses one without an end."""


@fails("decoder.finish", *EVERY_DECODE)
class Endless(Changed):
    """Never says that a choice is finished."""

    def change(self, chunk: Chunk) -> Chunk:
        return replace(chunk, finish_reason="")


@fails("decoder.joined", "decoder.close", "decoder.stop", "anyrole.repeatable", "anyrole.threads")
class ByHandle(Changed):
    """Answers differently each time it is opened."""

    opened = count()

    def __init__(self, params: Any, host: Any, artifact: Any = None) -> None:
        super().__init__(params, host, artifact)
        self.number = next(self.opened)

    def change(self, chunk: Chunk) -> Chunk:
        return replace(chunk, text=f"{chunk.text}{self.number}")


@fails("decoder.tokens")
class LostLogprob(Changed):
    """Forgets the log-prob of some tokens."""

    def change(self, chunk: Chunk) -> Chunk:
        return replace(chunk, logprobs=()) if sum(chunk.token_ids) % 2 else chunk


@fails("decoder.usage")
class Overcounts(Changed):
    """Counts more tokens than it made."""

    def change(self, chunk: Chunk) -> Chunk:
        return replace(chunk, usage={name: value + 1 for name, value in chunk.usage.items()})


@fails("decoder.max_tokens")
class Talkative(GoodDecoder):
    """Ignores how many tokens are asked for."""

    def choice(self, row: int, choice: int, prompt: Any, call: Any) -> Iterator[Chunk]:
        sampling = replace(prompt.sampling, max_tokens=None)
        yield from super().choice(row, choice, replace(prompt, sampling=sampling), call)


@fails("decoder.stop")
class Unstoppable(GoodDecoder):
    """Ignores stop strings."""

    def choice(self, row: int, choice: int, prompt: Any, call: Any) -> Iterator[Chunk]:
        sampling = replace(prompt.sampling, stop=())
        yield from super().choice(row, choice, replace(prompt, sampling=sampling), call)


@fails("decoder.n_choices")
class Single(GoodDecoder):
    """Gives one choice however many are asked for."""

    @hookimpl
    def decode(self, prompts: Any, call: Any) -> Iterator[Chunk]:
        for row, prompt in enumerate(prompts):
            yield from self.choice(row, 0, prompt, call)


@fails("decoder.seed")
class CallSeedOnly(GoodDecoder):
    """Ignores a prompt's own seed."""

    def choice(self, row: int, choice: int, prompt: Any, call: Any) -> Iterator[Chunk]:
        sampling = replace(prompt.sampling, seed=None)
        yield from super().choice(row, choice, replace(prompt, sampling=sampling), call)


@fails("decoder.close")
class OnceClosed(GoodDecoder):
    """Remembers a stream that was closed."""

    closed = False

    @hookimpl
    def decode(self, prompts: Any, call: Any) -> Iterator[Chunk]:
        if self.closed:
            raise RuntimeError("a stream was closed before its end")
        try:
            yield from super().decode(prompts, call)
        except GeneratorExit:
            self.closed = True
            raise


@fails("decoder.no_prompts")
class NeedsPrompts(GoodDecoder):
    """Fails without a prompt."""

    @hookimpl
    def decode(self, prompts: Any, call: Any) -> Iterator[Chunk]:
        assert prompts[0]
        yield from super().decode(prompts, call)


@fails("decoder.odd_text")
class AsciiDecoder(GoodDecoder):
    """Cannot encode most prompts."""

    @classmethod
    def example(cls) -> Example:
        return replace(super().example(), prompts=super().example().prompts[:1])

    @hookimpl
    def decode(self, prompts: Any, call: Any) -> Iterator[Chunk]:
        for prompt in prompts:
            prompt.text.encode("ascii")
        yield from super().decode(prompts, call)
