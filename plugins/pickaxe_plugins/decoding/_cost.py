"""What samples cost, in US dollars and in floating-point operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class Prices:
    """Tokens of one problem's prompt and of one sample's output, and dollars per million of each."""

    prompt_tokens: float
    output_tokens: float
    usd_per_m_input: float = 0.0
    usd_per_m_output: float = 0.0

    def billed(self, k: float) -> float:
        """Dollars for k samples when every sample pays for the prompt."""
        return k * (self.prompt_tokens * self.usd_per_m_input + self.output_tokens * self.usd_per_m_output) / 1e6

    def shared(self, k: float) -> float:
        """Dollars for k samples when the prompt is paid once."""
        return (self.prompt_tokens * self.usd_per_m_input + k * self.output_tokens * self.usd_per_m_output) / 1e6

    def samples(self, usd: float) -> float:
        """The largest k that `usd` buys with a shared prompt: fractional, inf when samples are free."""
        left = usd - self.shared(0)
        step = self.shared(1) - self.shared(0)
        return 0.0 if left < 0 else left / step if step > 0 else float("inf")

    def flops(self, k: float, parameters: float) -> float:
        """About 2 x parameters for every token of k outputs and of the prompt, which is read once."""
        return 2 * parameters * (self.prompt_tokens + k * self.output_tokens)


def average(problems: Sequence[Prices]) -> Prices:
    """Prices whose costs are the mean costs of the problems; at least one problem."""
    if all(each is problems[0] for each in problems):
        return problems[0]
    prompt = fmean(each.prompt_tokens for each in problems)
    output = fmean(each.output_tokens for each in problems)
    paid_in = fmean(each.prompt_tokens * each.usd_per_m_input for each in problems)
    paid_out = fmean(each.output_tokens * each.usd_per_m_output for each in problems)
    return Prices(prompt, output, paid_in / prompt if prompt else 0.0, paid_out / output if output else 0.0)
