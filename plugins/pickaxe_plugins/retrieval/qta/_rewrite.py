"""Asking a language model, or any decoder, to say a query in the words of tools (arXiv:2410.03212)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pickaxe import Call, Item, Prompt, Sampling, generator
from pickaxe.data import Message
from pickaxe.lm import Generation, prompt_ids

if TYPE_CHECKING:
    from pickaxe.handle import DecoderHandle
    from pickaxe.lm import LM

INSTRUCTION = (
    "Rewrite the request so that a search finds every tool that it needs. Name each step and say what its tool does, "
    "in the words of tool descriptions."
)


@dataclass(frozen=True)
class Desk:
    """How rewrites are asked for: with so many of the tools as examples of their style."""

    tools: Sequence[Item]
    few_tools: int
    chat: bool
    max_new_tokens: int

    def prompt(self, query: str, seed: int, sampling: Sampling | None = None) -> Prompt:
        """The examples depend on the seed and the query alone; the field `query` holds it for other decoders."""
        count = min(self.few_tools, len(self.tools))
        drawn = generator(seed, "qta", "tools", query).permutation(len(self.tools))[:count]
        lines = [f"- {one_line(f'{self.tools[row].id}: {self.tools[row].text or str()}')}" for row in drawn]
        shown = ["Some of the tools:", *lines] if lines else []
        text = "\n".join([INSTRUCTION, *shown, f"Request: {one_line(query)}", "Rewrite:"])
        sampling = sampling or Sampling(max_tokens=self.max_new_tokens, temperature=0.0, seed=seed)
        if self.chat:
            return Prompt(messages=(Message("user", text),), sampling=sampling, fields={"query": query})
        return Prompt(text, sampling=sampling, fields={"query": query})


def rewritten(prompts: Sequence[Prompt], writer: LM | DecoderHandle, call: Call) -> list[list[str]]:
    """For each prompt its choices, each on one line; an empty text is one that the writer did not write."""
    found: list[dict[int, str]] = [{} for _ in prompts]
    if hasattr(writer, "complete"):
        for each in writer.complete(prompts, call=call.with_budget(None)) if prompts else ():
            if each.choice >= 0:
                found[each.prompt][each.choice] = each.text
    else:
        asked = [Generation(prompt_ids(prompt, row, writer), prompt.sampling) for row, prompt in enumerate(prompts)]
        with closing(writer.generate_all(asked, call)) as steps:
            for place, step in steps:
                found[place][step.sample] = found[place].get(step.sample, "") + step.text
    return [[one_line(texts[choice]) for choice in sorted(texts)] for texts in found]


def one_line(text: str) -> str:
    """The text without line breaks, which separate the parts of a prompt."""
    return " ".join(text.split())
