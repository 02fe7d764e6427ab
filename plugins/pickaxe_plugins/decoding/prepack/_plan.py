"""The scorer `prepack-plan`: which prompts would share a row, and what that saves (arXiv 2404.09529)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Call, Column, Example, InputField, Item, Items, Method, Prompt, Scores
from pickaxe.errors import InvalidItems, Violation
from pickaxe.hooks import hookimpl
from pickaxe.lm import prompt_ids
from pickaxe.lm.packing import Packer, Plan, pack

if TYPE_CHECKING:
    from pickaxe.lm import LM

Mode = Literal["default", "official"]


class PlanParams(pickaxe.Params):
    """Parameters of `prepack-plan`."""

    mode: Mode = Field("default", description="Count prompts without their last token, or (official) with it.")
    row_capacity: int | None = Field(None, ge=1, description="Slots of a row; none: what the longest prompt counts.")
    packer: Packer = Field("least_loaded", description="How prompts are put into rows; exact is for 32 at most.")
    model: str = Field("lm", min_length=1, description="Model whose tokenizer counts items that are texts.")


def plan(
    lengths: Sequence[int],
    mode: Mode = "default",
    row_capacity: int | None = None,
    packer: Packer = "least_loaded",
    call: Call | None = None,
) -> Plan:
    """Rows for prompts of so many tokens (at least 1), of which all but the last are packed."""
    slots = [length - 1 for length in lengths]
    return pack(slots, row_capacity, packer, sizes=lengths if mode == "official" else slots, call=call)


class PrepackPlan(Method[PlanParams]):
    """Say how well prompts pack into rows, and where each one would lie.

    The numbers are those of reading all items as one batch: fill of the packed rows, and slots saved against
    padding every prompt to the longest.
    """

    title = "Prepacking: A Simple Method for Fast Prefilling and Increased Throughput in Large Language Models"
    paper = "arXiv:2404.09529"
    version = 1
    Params = PlanParams
    scope = "pool"
    reads = (
        InputField("n_tokens", "int64", "Tokens of the prompt.", False),
        InputField("text", "text", "The prompt, where n_tokens is not given.", False),
    )
    columns = (
        Column("packed_fraction", "Slots used of those computed when packed; the same for all items."),
        Column("row", "Row of the prompt; -1 for a prompt of one token, which needs none.", "int64", direction="none"),
        Column("start", "First slot of the prompt in its row.", "int64", "slots", "none"),
        Column("waste_saved", "1 - slots computed packed / padded; the same for all items."),
    )
    cost = "Sorting; texts are tokenised. The exact packer may search long, for at most 32 prompts."
    reproduced = "Rows, positions and masks of the official code in its own counting, for seven batches."

    @classmethod
    def example(cls) -> Example:
        """A batch of prompts of unlike lengths."""
        lengths = (24, 19, 7, 5, 1, 14)
        return Example(items=tuple(Item(str(row), fields={"n_tokens": n}) for row, n in enumerate(lengths)))

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        lengths = self._lengths(items)
        params = self.params
        made = plan(lengths, params.mode, params.row_capacity, params.packer, call)
        padded = len(lengths) * max(lengths, default=0)
        used = sum(made.loads)
        n = len(items)
        return Scores(
            {
                "packed_fraction": np.full(n, used / made.computed if made.computed else 1, np.float32),
                "row": made.places[:, 0],
                "start": made.places[:, 1],
                "waste_saved": np.full(n, 1 - made.computed / padded if padded else 0, np.float32),
            },
            summary={
                "rows": len(made.rows),
                "width": made.width,
                "slots_used": used,
                "slots_packed": made.computed,
                "slots_padded": padded,
            },
        )

    def _lengths(self, items: Items) -> list[int]:
        wrong, lengths = [], []
        lm: LM | None = None
        for row, item in enumerate(items):
            given = item.fields.get("n_tokens")
            if given is None and item.text is not None:
                lm = lm or self.host.lm(self.params.model)
                given = len(prompt_ids(Prompt(item.text), row, lm))
            if isinstance(given, (int, np.integer)) and given >= 1:
                lengths.append(int(given))
            elif given is None:
                wrong.append(Violation(f"items[{row}]", "has neither n_tokens nor text"))
            else:
                wrong.append(Violation(f"items[{row}].fields.n_tokens", f"is {given!r}; must be 1 or more"))
        if wrong:
            raise InvalidItems(wrong)
        return lengths
