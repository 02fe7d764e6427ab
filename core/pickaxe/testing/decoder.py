"""Checks for decoders.

What a decoder cannot do (several choices, stop strings, a token limit) it refuses with `InvalidItems` that names
the field of `sampling`; ignoring it is the fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pickaxe.data import WHOLE_PROMPT, Chunk, Completion, Prompt, completions
from pickaxe.errors import InvalidItems
from pickaxe.testing.check import check, require
from pickaxe.testing.plain import same
from pickaxe.testing.subject import ODD_TEXTS, Subject


def _decoder(subject: Subject) -> bool:
    return "decoder" in subject.roles


def _with(prompts: Sequence[Prompt], **sampling: Any) -> list[Prompt]:
    return [replace(prompt, sampling=replace(prompt.sampling, **sampling)) for prompt in prompts]


def _choices(found: Sequence[Completion]) -> list[Completion]:
    return [each for each in found if each.choice != WHOLE_PROMPT]


def _complete(subject: Subject, field: str, value: object) -> list[Completion] | None:
    """The example's choices with one field of `sampling` set; None when the method refuses the field by name."""
    try:
        return _choices(subject.handle("decoder").complete(_with(subject.example.prompts, **{field: value})))
    except InvalidItems as error:
        if all(violation.field.endswith(f"sampling.{field}") for violation in error.violations):
            return None
        raise


@check(_decoder, wire=True)
def finish(subject: Subject) -> None:
    """Every choice of every prompt ends with exactly one finish reason and has something in it."""
    chunks: list[Chunk] = list(subject.handle("decoder").decode(subject.example.prompts))
    ends = Counter((chunk.prompt, chunk.choice) for chunk in chunks if chunk.finish_reason)
    seen = {(chunk.prompt, chunk.choice) for chunk in chunks if chunk.choice != WHOLE_PROMPT}
    require({prompt for prompt, _ in seen} == set(range(len(subject.example.prompts))), "a prompt has no choice")
    require(set(ends) == seen and set(ends.values()) == {1}, f"finish reasons by (prompt, choice): {dict(ends)}")
    for each in _choices(completions(chunks)):
        empty = not (each.text or each.token_ids or each.records) and each.finish_reason != "abstain"
        require(not empty, f"prompt {each.prompt} choice {each.choice} is empty")


@check(_decoder, wire=True)
def joined(subject: Subject) -> None:
    """The chunks put together are what `complete` gives."""
    chunks = completions(subject.handle("decoder").decode(subject.example.prompts))
    same(subject.outcome("decoder"), chunks, "joined chunks differ from complete()")


@check(_decoder, wire=True)
def tokens(subject: Subject) -> None:
    """Log-probs go with token ids one to one and are not positive."""
    for each in _choices(subject.outcome("decoder")):
        where = f"prompt {each.prompt} choice {each.choice}"
        n = len(each.logprobs)
        require(n in (0, len(each.token_ids)), f"{where}: {n} log-probs for {len(each.token_ids)} tokens")
        require(all(value <= 1e-4 for value in each.logprobs), f"{where}: a log-prob is positive or NaN")


@check(_decoder, wire=True)
def usage(subject: Subject) -> None:
    """Usage counters are finite, not negative, and count the tokens that came."""
    for each in subject.outcome("decoder"):
        where = f"prompt {each.prompt} choice {each.choice}"
        for name, value in each.usage.items():
            require(0 <= value < float("inf"), f"{where}: usage {name!r} is {value}")
        counted = each.usage.get("completion_tokens")
        if counted is not None and each.token_ids and each.choice != WHOLE_PROMPT:
            require(counted == len(each.token_ids), f"{where}: {counted} tokens counted, {len(each.token_ids)} came")


@check(_decoder, wire=True)
def max_tokens(subject: Subject) -> None:
    """No choice is longer than `max_tokens`."""
    for each in _complete(subject, "max_tokens", 2) or ():
        require(len(each.token_ids) <= 2, f"prompt {each.prompt}: {len(each.token_ids)} tokens with max_tokens=2")


@check(_decoder, wire=True)
def stop(subject: Subject) -> None:
    """The text ends before a stop string, and the finish reason says so."""
    longest = max(_choices(subject.outcome("decoder")), key=lambda each: len(each.text), default=None)
    if longest is None or len(longest.text) < 3:
        return  # a decoder of records, or of texts too short to be cut
    middle = len(longest.text) // 2
    word = longest.text[middle : middle + 2]
    found = _complete(subject, "stop", (word,))
    for each in found or ():
        require(word not in each.text, f"prompt {each.prompt}: the text holds its stop string {word!r}")
        if (each.prompt, each.choice) == (longest.prompt, longest.choice):
            require(each.finish_reason == "stop", f"stopped at {word!r} but the reason is {each.finish_reason!r}")


@check(_decoder, wire=True)
def n_choices(subject: Subject) -> None:
    """`n` choices are asked for and `n` come, numbered from 0."""
    found = _complete(subject, "n", 3)
    if found is None:
        return
    for row in range(len(subject.example.prompts)):
        numbers = [each.choice for each in found if each.prompt == row]
        require(numbers == [0, 1, 2], f"prompt {row}: n=3 gives choices {numbers}")


@check(_decoder, wire=True)
def seed(subject: Subject) -> None:
    """A prompt's own seed decides, whatever the call's seed is."""
    handle, prompts = subject.handle("decoder"), _with(subject.example.prompts, seed=7)
    one, other = handle.complete(prompts, seed=1), handle.complete(prompts, seed=2)
    same(one, other, "sampling.seed is given, yet the call's seed changes the result")


@check(_decoder, wire=True)
def close(subject: Subject) -> None:
    """A stream closed half-way ends, and the handle works as before."""
    handle = subject.handle("decoder")
    running = handle.decode(subject.example.prompts)
    next(iter(running))
    running.close()
    same(subject.outcome("decoder"), handle.complete(subject.example.prompts), "after a closed stream the result")


@check(_decoder, wire=True)
def no_prompts(subject: Subject) -> None:
    """No prompts give no chunks."""
    require(not subject.handle("decoder").complete([]), "chunks came back for no prompts")


@check(
    lambda subject: _decoder(subject) and all(prompt.text is not None for prompt in subject.example.prompts), wire=True
)
def odd_text(subject: Subject) -> None:
    """Odd prompts are answered like any other."""
    prompt = subject.example.prompts[0]
    odd = [replace(prompt, text=text) for text in ODD_TEXTS.values()]
    found = subject.handle("decoder").complete(odd)
    require({each.prompt for each in found} == set(range(len(odd))), "not every prompt is answered")
