"""Who answers a dialogue's asks: the engine, which keeps keys and values, or a decoder that reads prompts anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pickaxe import Call, Completion, Prompt, Sampling, generator
from pickaxe.errors import Unmet
from pickaxe.lm import LM, Generation, LogitsProcessor, TokenTrie, WithoutTokens, logsumexp
from pickaxe_plugins.generation.drag._dialogue import Choose, Dialogue, ModelCall, Write, Written

if TYPE_CHECKING:
    from pickaxe.handle import DecoderHandle
    from pickaxe.lm import KV

ModelAsk = Choose | Write


class Writer(Protocol):
    """Answers asks and notes the model calls that it takes."""

    resends: bool

    def answer(self, asks: Sequence[tuple[Dialogue, ModelAsk]], call: Call) -> list[str | Written]: ...


@dataclass
class Engine:
    """The model itself.  An iteration is one call; of its prompt only what is new is read, if `reuse`."""

    lm: LM
    reuse: bool
    resends = False
    _shared: dict[tuple[int, ...], KV] = field(default_factory=dict)
    """Keys and values of the beginning that questions have in common: the last one."""

    def answer(self, asks: Sequence[tuple[Dialogue, ModelAsk]], call: Call) -> list[str | Written]:
        return [self._answer(dialogue, ask, call) for dialogue, ask in asks]

    def _answer(self, dialogue: Dialogue, ask: ModelAsk, call: Call) -> str | Written:
        if dialogue.fresh:
            dialogue.fresh = False
            dialogue.calls.append(ModelCall(len(dialogue.context)))
            if not self.reuse:
                dialogue.kv = None
        past = self._read(dialogue, call)
        if isinstance(ask, Choose):
            return self._choose(dialogue, ask, past, call)
        return self._write(dialogue, ask, past, call)

    def _read(self, dialogue: Dialogue, call: Call) -> KV:
        """Keys and values of all of the context but its last token, which every continuation begins with."""
        ids = dialogue.context.ids
        past, dialogue.kv = dialogue.kv, None
        if past is None and self.reuse and dialogue.shared:
            past = self._beginning(dialogue, call)
        begin = 0 if past is None else past.width
        if begin < len(ids) - 1:
            _, past = self.lm.forward([ids[begin:-1]], past=past, logits_at="none", call=call)
        assert past is not None
        dialogue.prefilled_tokens += len(ids) - begin
        dialogue.kv = past
        return past

    def _beginning(self, dialogue: Dialogue, call: Call) -> KV:
        key = tuple(dialogue.context.ids[: dialogue.shared])
        if key not in self._shared:
            self._shared.clear()
            _, self._shared[key] = self.lm.forward([key], logits_at="none", call=call)
            dialogue.prefilled_tokens += len(key)
        return self._shared[key]

    def _choose(self, dialogue: Dialogue, ask: Choose, past: KV, call: Call) -> str:
        """The option of the highest log-probability, summed over its tokens; the first of equals."""
        last = dialogue.context.ids[-1]
        scores = [self._score([last, *self.lm.tokenizer.encode(option)], past, call) for option in ask.options]
        return ask.options[int(np.argmax(scores))]

    @cached_property
    def _not_blank(self) -> LogitsProcessor:
        """Keeps a line from ending before it began, as small models would have it."""
        tokenizer = self.lm.tokenizer
        blank = [token for token in range(tokenizer.vocab_size) if not tokenizer.id_to_bytes(token).strip()]
        without = WithoutTokens([*blank, *tokenizer.eos_ids])
        return lambda generated, logits: logits if generated else without(generated, logits)

    def _score(self, ids: list[int], past: KV, call: Call) -> float:
        logits, _ = self.lm.forward([ids[:-1]], past=past, logits_at="all", call=call)
        assert logits is not None
        rows = logits[0].astype(np.float64)
        return float((rows[np.arange(len(ids) - 1), ids[1:]] - logsumexp(rows)).sum())

    def _write(self, dialogue: Dialogue, ask: Write, past: KV, call: Call) -> Written:
        allowed = dialogue.question.prompt.allowed if ask.final else ()
        trie = TokenTrie.of_texts([f" {text}" for text in allowed], self.lm.tokenizer) if allowed else None
        request = Generation(
            dialogue.context.ids[-1:],
            _sampling(dialogue, ask, call),
            () if trie else (self._not_blank,),
            trie,
            batch=1,
            past=past,
        )
        steps = list(self.lm.generate(request, call))
        written = Written(
            _said("".join(step.text for step in steps), bool(allowed)),
            tuple(step.token_id for step in steps),
            tuple(min(step.logprob, 0.0) for step in steps),
            steps[-1].finish_reason,
        )
        current = dialogue.calls[-1]
        current.output_tokens += len(steps)
        if ask.prefix:
            current.output_tokens += len(self.lm.tokenizer.encode(ask.prefix))
        current.response += f"{ask.prefix} {written.text}\n" if ask.prefix else written.text
        return written


@dataclass
class ByReference:
    """Any decoder: it gets the whole prompt with every ask, the forced prefix at its end."""

    decoder: DecoderHandle
    lm: LM
    """Whose tokenizer counts where the decoder does not say."""
    resends = True

    def answer(self, asks: Sequence[tuple[Dialogue, ModelAsk]], call: Call) -> list[str | Written]:
        prompts = [self._prompt(dialogue, ask, call) for dialogue, ask in asks]
        found = self.decoder.complete(prompts, call=call)
        answers: list[str | Written] = []
        for row, (dialogue, ask) in enumerate(asks):
            mine = [each for each in found if each.prompt == row]
            completion = next(each for each in mine if each.choice == 0)
            read = next((int(each.usage["prompt_tokens"]) for each in mine if "prompt_tokens" in each.usage), 0)
            made = ModelCall(read or len(self.lm.tokenizer.encode(prompts[row].text or "")))
            dialogue.calls.append(made)
            answers.append(self._answer(dialogue, ask, completion, made))
        return answers

    def _prompt(self, dialogue: Dialogue, ask: ModelAsk, call: Call) -> Prompt:
        text = dialogue.context.text
        if isinstance(ask, Choose):
            return Prompt(text, sampling=Sampling(temperature=0.0, seed=0), allowed=ask.options)
        allowed = dialogue.question.prompt.allowed if ask.final else ()
        return Prompt(text, sampling=_sampling(dialogue, ask, call), allowed=tuple(f" {each}" for each in allowed))

    def _answer(self, dialogue: Dialogue, ask: ModelAsk, found: Completion, made: ModelCall) -> str | Written:
        made.output_tokens = len(found.token_ids) or len(self.lm.tokenizer.encode(found.text))
        if isinstance(ask, Choose):
            chosen = next((option for option in ask.options if found.text.strip().startswith(option)), None)
            if chosen is None:
                raise Unmet(
                    f"decoder {self.decoder.name!r} answered {found.text[:40]!r} where one of {list(ask.options)} was "
                    "allowed: name a decoder that keeps to `allowed`, or set n=1",
                    metadata={"decoder": self.decoder.name},
                )
            made.response = chosen
            return chosen
        text = _said(found.text, bool(dialogue.question.prompt.allowed and ask.final))
        made.response = f"{ask.prefix} {text}" if ask.prefix else text
        return Written(text, found.token_ids, found.logprobs, found.finish_reason)


def _sampling(dialogue: Dialogue, ask: Write, call: Call) -> Sampling:
    """One line; the request's own stop strings end the answer only."""
    given = dialogue.question.sampling
    seed = call.seed if given.seed is None else given.seed
    own = generator(seed, "drag", dialogue.question.text, dialogue.question.choice, ask.step)
    allowed = ask.final and dialogue.question.prompt.allowed
    return Sampling(
        given.max_tokens,
        given.temperature,
        given.top_p,
        given.top_k,
        () if allowed else ("\n", *(given.stop if ask.final else ())),
        int(own.integers(2**63)),
    )


def _said(text: str, allowed: bool) -> str:
    """What was written without the space that separates it from the prefix."""
    return text.removeprefix(" ") if allowed else text.strip()
